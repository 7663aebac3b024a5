"""The link by itself, against real brokers and rude ones."""

from __future__ import annotations

import logging
import queue
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device.delivery.link import Broker, Link, backoff, broker_answers
from device.errors import StethopiError
from tests.brokers import Mosquitto, free_port
from tests.waiting import until


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that Mosquitto can read as its own user."""
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def kept(link: Link, serve: Callable[[], None], **hooks: Any) -> Iterator[None]:
    """A thread that keeps the link."""
    thread = threading.Thread(target=link.keep, args=(serve,), kwargs={"on_trouble": print, **hooks})
    thread.start()
    try:
        yield
    finally:
        link.stop()
        thread.join(30)
        assert not thread.is_alive()


def hearing(link: Link, topic: str) -> Callable[[], None]:
    """A `serve` that subscribes, and passes on what comes until the end."""

    def serve() -> None:
        link.subscribe([(topic, 1)])
        link.publish("a/there", b"there")
        link.say_back()
        while not link.stopping:
            link.step(5.0)

    return serve


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[Any]:
    """A TCP server on a free port that treats each connection with `handle`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    handle(connection)

        threading.Thread(target=serve, daemon=True).start()

        class Place:
            port = server.getsockname()[1]

        yield Place
        server.shutdown(socket.SHUT_RDWR)


def test_a_broker_that_hangs_up_on_mqtt_5_is_tried_in_3_1_1() -> None:
    versions = []

    def hang_up(connection: socket.socket) -> None:
        packet = connection.recv(100)
        versions.append(packet[packet.index(b"MQTT") + 4])

    with serving(hang_up) as place:
        link = Link(Broker("127.0.0.1", place.port), "one", first_rest_s=0.05)
        with kept(link, lambda: None):
            until(lambda: len(versions) >= 3)
    assert versions[:3] == [5, 4, 5]


def test_doctor_is_told_what_the_broker_speaks_or_why_not(mosquitto: Mosquitto) -> None:
    assert broker_answers(Broker(mosquitto.host, mosquitto.port)) == (5, "")
    assert broker_answers(Broker("127.0.0.1", free_port())) == (None, "connection refused")


def test_who_may_not_come_in_is_told_so(readable: Path) -> None:
    with Mosquitto(readable, anonymous=False) as broker:
        assert broker_answers(Broker(broker.host, broker.port)) == (None, "not authorized")


def test_the_embedded_broker_speaks_3_1_1_whatever_the_client_wants() -> None:
    from host.ingest.embedded_broker import EmbeddedBroker

    heard: queue.Queue[bytes] = queue.Queue()

    def take(message: Any) -> bool:
        heard.put(message.payload)
        return True

    with EmbeddedBroker() as embedded:
        broker = Broker("127.0.0.1", embedded.port)
        assert broker_answers(broker) == (3, "")
        link = Link(broker, "one", will=("a/will", b"x"), session_s=60, on_message=take)
        with kept(link, hearing(link, "a/there")):
            assert heard.get(timeout=30) == b"there"


def test_what_was_not_acknowledged_is_heard_again_by_who_keeps_a_session(mosquitto: Mosquitto) -> None:
    """Neither a new program nor its question for the version may throw away what the broker keeps."""
    broker = Broker(mosquitto.host, mosquitto.port)

    def heard_by_a_new_program(ends_with: bytes, forget: bool) -> list[bytes]:
        heard: list[bytes] = []

        def take(message: Any) -> bool:
            heard.append(message.payload)
            return forget or message.payload != b"result"

        link = Link(broker, "with-memory", session_s=600, on_message=take)
        with kept(link, hearing(link, "a/#")):
            if not forget:
                until(lambda: b"there" in heard)
                link_of_another = Link(broker, "another")
                link_of_another.open(5)
                link_of_another.publish("a/b", b"result")
                while link_of_another.unacknowledged:
                    link_of_another.step(5.0)
                link_of_another.close()
            until(lambda: ends_with in heard)
        return heard

    assert b"result" in heard_by_a_new_program(b"result", forget=False)
    assert heard_by_a_new_program(b"there", forget=True) == [b"result", b"there"]
    assert heard_by_a_new_program(b"there", forget=True) == [b"there"]


def test_a_link_over_tls_trusts_the_certificate_that_it_is_given(
    readable: Path,
) -> None:
    certificate, key = readable / "certificate.pem", readable / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=here"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    key.chmod(0o644)
    heard: list[bytes] = []

    def take(message: Any) -> bool:
        heard.append(message.payload)
        return True

    with Mosquitto(readable, extra=f"certfile {certificate}\nkeyfile {key}") as server:
        strange = broker_answers(Broker(server.host, server.port, tls=True))
        assert strange[0] is None and "certificate verify failed" in strange[1]
        broker = Broker(server.host, server.port, tls=True, ca_file=certificate)
        assert broker_answers(broker) == (5, "")
        link = Link(broker, "one", on_message=take)

        def serve() -> None:
            link.subscribe([("a/#", 1)])
            for n in range(20):  # one record of TLS holds several of them: none may wait for the next
                link.publish("a/b", bytes([n]) * 3000)
            while not link.stopping:
                link.step(5.0)

        with kept(link, serve):
            until(lambda: len(heard) == 20)
    assert heard == [bytes([n]) * 3000 for n in range(20)]
    nowhere = broker_answers(Broker("127.0.0.1", 1, tls=True, ca_file=readable / "none.pem"))
    assert nowhere == (
        None,
        "TLS cannot be set up: no such file or directory; check the files named in [mqtt]",
    )


def test_a_broker_that_goes_is_told_once_and_what_failed_meanwhile_is_no_end(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mqtt")
    troubles: list[StethopiError] = []
    gone = threading.Semaphore(0)
    come = threading.Semaphore(0)
    faults = iter([KeyError("unforeseen"), StethopiError("disk full")])
    link = Link(Broker(mosquitto.host, mosquitto.port), "one", first_rest_s=0.05, longest_rest_s=0.1)

    def serve() -> None:
        link.say_back()
        if (fault := next(faults, None)) is not None:
            raise fault
        come.release()
        while not link.stopping:
            link.step(5.0)

    with kept(link, serve, on_gone=gone.release, on_trouble=troubles.append):
        assert come.acquire(timeout=30)
        mosquitto.kill()
        assert gone.acquire(timeout=30)
        until(lambda: caplog.text.count("still away (connection refused)") >= 2)
        mosquitto.start()
        assert come.acquire(timeout=30)
    assert [str(trouble) for trouble in troubles] == ["disk full"]
    assert "KeyError: 'unforeseen'" in caplog.text
    assert caplog.text.count("went away (connection closed); trying again until it is back") == 1
    assert caplog.text.count("came back after") == 1 and not gone.acquire(blocking=False)


def test_no_two_links_come_in_step() -> None:
    """A tenth more or less: a fleet whose broker comes back must not come at once with one voice."""
    waits = {backoff(2.0, 300.0, 1) for _ in range(200)}
    assert len(waits) > 100 and 1.8 <= min(waits) < 1.9 and 2.1 < max(waits) <= 2.2
