"""The uplink against real brokers: delivered means a receipt with the right hash, whatever goes away."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device.clock import ClockTrust, FakeClock
from device.contract.chunks import Receipt
from device.contract.control import Answer, Command, State
from device.contract.exam import Exam, exam_hash
from device.contract.live import LiveQuality, LiveWave
from device.contract.topics import Address, read
from device.delivery.link import Broker, Link, LinkLost
from device.delivery.uplink import Pace, Uplink
from device.storage.outbox import Outbox
from tests.brokers import Mosquitto, free_port
from tests.device.exams import make_exam
from tests.device.hosts import Ingest
from tests.device.links import rests_of
from tests.waiting import until

ADDRESS = Address("village", "stetho-1")
STATE = State(True, "0.1.0", "1", "running", "0" * 32)
HURRIED = Pace(reconnect_first_s=0.05, reconnect_most_s=0.2, announce_first_s=0.2, announce_most_s=0.5)
PATIENT = Pace(reconnect_first_s=0.05, reconnect_most_s=0.2, announce_first_s=600.0, announce_most_s=600.0)
SOUNDS = {"AV": bytes(range(256)) * 20, "MV": b"mitral" * 400}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "outbox")
    yield box
    box.close()


def put(box: Outbox, sounds: dict[str, bytes] | None = None) -> Exam:
    sounds = SOUNDS if sounds is None else sounds
    exam = make_exam(sounds)
    files = {}
    for site, content in sounds.items():
        files[site] = box.sounds / f"{exam.id}-{site}.flac"
        files[site].write_bytes(content)
    box.put(exam, files)
    return exam


@contextmanager
def uplink_to(broker: Any, box: Outbox, pace: Pace = HURRIED, **options: Any) -> Iterator[Uplink]:
    link = Uplink(ADDRESS, box, Broker("127.0.0.1", broker.port), state=STATE, pace=pace, **options)
    link.start()
    try:
        yield link
    finally:
        link.stop()


def test_an_exam_arrives_whole_result_first_and_every_message_fits_its_schema(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    exam = put(outbox)
    with Ingest(mosquitto.host, mosquitto.port) as host:
        with uplink_to(mosquitto, outbox, PATIENT) as link:
            until(lambda: outbox.state(exam.id) == "delivered")
            assert link.delivered == 1
        until(lambda: host.last("state") and not host.last("state").online)
        assert host.wrong == []
        assert host.stored[exam.id] == SOUNDS
        kinds = [topic.kind for topic in host.heard if topic.exam == exam.id]
        assert kinds == ["result"] + ["sound"] * 8
        assert read(Exam, host.results[exam.id]) == exam


def test_exams_put_later_and_in_numbers_all_arrive_once(mosquitto: Mosquitto, outbox: Outbox) -> None:
    with Ingest(mosquitto.host, mosquitto.port) as host, uplink_to(mosquitto, outbox, PATIENT) as link:
        until(lambda: link.online)
        exams = []
        for n in range(25):
            exams.append(put(outbox, {"AV": bytes([n]) * 2500}))
            link.wake()
        until(lambda: all(outbox.state(exam.id) == "delivered" for exam in exams))
        assert set(host.stored) == {exam.id for exam in exams}
        assert (host.count("result"), host.count("sound")) == (25, 75)


def test_without_a_receipt_the_result_is_announced_again_but_not_the_sound(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    exam = put(outbox)
    with Ingest(mosquitto.host, mosquitto.port, answer="silent") as host, uplink_to(mosquitto, outbox):
        until(lambda: host.count("result") >= 3)
        assert host.count("sound") == 8
        assert outbox.state(exam.id) == "waiting"
        host.answer = "store"
        until(lambda: outbox.state(exam.id) == "delivered")
        assert host.count("sound") == 8


def test_only_the_missing_chunks_are_sent_again(mosquitto: Mosquitto, outbox: Outbox) -> None:
    exam = put(outbox)
    lost = {("AV", 1), ("AV", 4), ("MV", 2)}
    with Ingest(mosquitto.host, mosquitto.port, loses=set(lost)) as host, uplink_to(mosquitto, outbox):
        until(lambda: outbox.state(exam.id) == "delivered")
        sent = [(topic.site, topic.chunk) for topic in host.heard if topic.kind == "sound"]
        assert sorted(sent[8:]) == sorted(lost)
        assert host.stored[exam.id] == SOUNDS


class Instant:
    """A link whose broker acknowledges at once."""

    stopping = False
    unacknowledged = 0

    def publish(self, topic: str, payload: bytes) -> None:
        pass

    def step(self, timeout_s: float) -> None:
        pass


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The uplink's clock, standing until `now_s` is set; and its waits are without their chance."""
    clock = SimpleNamespace(now_s=1000.0)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr("device.delivery.uplink.time", clock)
    monkeypatch.setattr(
        "device.delivery.link.random", SimpleNamespace(uniform=lambda low, high: (low + high) / 2)
    )
    return clock


def test_a_host_that_says_nothing_is_asked_ever_more_rarely(outbox: Outbox, still: SimpleNamespace) -> None:
    """A village's uplink is paid by the byte: from 2 s twice as long each time, and 5 min at most."""
    put(outbox)
    link = Uplink(ADDRESS, outbox, Broker("127.0.0.1"), state=STATE)
    link._link = Instant()  # type: ignore[assignment]
    waits: list[float] = []
    for _ in range(10):
        job = link._next_job()
        assert job is not None
        link._send(job)
        assert link._next_job() is None
        waits.append(job.due_s - still.now_s)
        still.now_s = job.due_s
    assert waits == pytest.approx([2, 4, 8, 16, 32, 64, 128, 256, 300, 300])


def test_no_two_devices_ask_in_step(outbox: Outbox) -> None:
    """A tenth more or less: a fleet whose host comes back must not come at once with one voice."""
    link = Uplink(ADDRESS, outbox, Broker("127.0.0.1"), state=STATE)
    waits = {link._patience(1) for _ in range(200)}
    assert len(waits) > 100 and 1.8 <= min(waits) < 1.9 and 2.1 < max(waits) <= 2.2


def test_chunks_that_a_host_keeps_missing_are_sent_with_a_pause_that_grows(
    outbox: Outbox, still: SimpleNamespace
) -> None:
    """The first few times at once, for that is how what was lost comes quickly."""
    exam = put(outbox)
    link = Uplink(ADDRESS, outbox, Broker("127.0.0.1"), state=STATE)
    link._link = Instant()  # type: ignore[assignment]
    pauses = []
    for _ in range(7):
        job = link._next_job()
        assert job is not None
        link._send(job)
        link._on_receipt(Receipt.of_missing(exam.id, job.parcel.sha256, {"AV": ([1], 5)}))
        assert list(job.queue) == [("AV", 1)]
        pauses.append(job.due_s - still.now_s)
        still.now_s = job.due_s
    assert pauses == pytest.approx([0, 0, 0, 16, 32, 64, 128])


def test_a_broker_that_is_away_is_tried_ever_more_rarely(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a second to a minute; who was let in meanwhile begins anew."""
    link = Uplink(ADDRESS, outbox, Broker("127.0.0.1"), state=STATE)

    def lose() -> None:
        raise LinkLost("connection closed")

    monkeypatch.setattr(link, "_serve", lose)
    rests = rests_of(link._link, [False] * 8 + [True] + [False] * 2, monkeypatch)
    link._run()
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 1, 2, 4]


def test_a_receipt_with_another_hash_delivers_nothing(mosquitto: Mosquitto, outbox: Outbox) -> None:
    exam = put(outbox)
    with Ingest(mosquitto.host, mosquitto.port, answer="wrong hash") as host, uplink_to(mosquitto, outbox):
        until(lambda: host.count("result") >= 2)
        assert outbox.state(exam.id) == "waiting"
        host.answer = "store"
        until(lambda: outbox.state(exam.id) == "delivered")


def test_a_refusal_is_final_and_told(
    mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    refused, good = put(outbox), None
    with (
        Ingest(mosquitto.host, mosquitto.port, answer="refuse") as host,
        uplink_to(mosquitto, outbox) as link,
    ):
        until(lambda: outbox.state(refused.id) == "refused")
        host.answer = "store"
        good = put(outbox)
        link.wake()
        until(lambda: outbox.state(good.id) == "delivered")
        assert host.count("result") == 2
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        f"exam {refused.id} refused by the host: the store is read-only; it stays here"
    ]


def test_after_a_restart_an_exam_that_was_pushed_is_only_announced(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    exam = put(outbox)
    with Ingest(mosquitto.host, mosquitto.port, answer="silent") as host:
        with uplink_to(mosquitto, outbox, PATIENT):
            until(lambda: host.count("sound") == 8)
            until(lambda: outbox._db.execute("SELECT pushed FROM exams").fetchone() == (1,))
        outbox.release(exam.id)
        host.answer = "store"
        with uplink_to(mosquitto, outbox, PATIENT):
            until(lambda: outbox.state(exam.id) == "delivered")
        assert (host.count("result"), host.count("sound")) == (2, 8)


def test_the_broker_goes_away_once_and_comes_back_once(
    mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with uplink_to(mosquitto, outbox) as link:
        until(lambda: link.online)
        mosquitto.kill()
        until(lambda: not link.online)
        exam = put(outbox)
        link.wake()
        mosquitto.start()
        with Ingest(mosquitto.host, mosquitto.port):
            until(lambda: outbox.state(exam.id) == "delivered")
    said = [r.getMessage() for r in caplog.records if r.name == "mqtt"]
    assert len([line for line in said if "went away" in line and "exams wait in the outbox" in line]) == 1
    back = [line for line in said if "came back after" in line]
    assert len(back) == 1 and back[0].endswith("s; 1 exam to send")


def test_the_broker_killed_in_the_middle_of_an_exam_costs_nothing(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    exam = put(outbox, {"AV": bytes(range(256)) * 4000})
    with uplink_to(mosquitto, outbox) as link:
        with Ingest(mosquitto.host, mosquitto.port) as host:
            until(lambda: host.count("sound") > 5)
            mosquitto.kill()
        until(lambda: not link.online)
        mosquitto.start()
        with Ingest(mosquitto.host, mosquitto.port) as host:
            until(lambda: outbox.state(exam.id) == "delivered")
            assert host.stored[exam.id] == {"AV": bytes(range(256)) * 4000}


def test_no_broker_at_the_start_is_said_once(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    class Nobody:
        port = free_port()

    caplog.set_level(logging.DEBUG, logger="mqtt")
    with uplink_to(Nobody, outbox):
        until(lambda: sum("still away" in r.getMessage() for r in caplog.records) >= 2)
    warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warned) == 1
    assert "cannot be reached (connection refused); exams wait in the outbox" in warned[0]


def test_a_disk_that_takes_no_receipt_is_told_once_and_loses_nothing(
    mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mqtt")
    exam = put(outbox)
    outbox._db.execute("PRAGMA query_only = ON")  # every write fails, as on a full disk
    with Ingest(mosquitto.host, mosquitto.port) as host, uplink_to(mosquitto, outbox):
        until(lambda: host.count("result") >= 3)
        outbox._db.execute("PRAGMA query_only = OFF")
        until(lambda: outbox.state(exam.id) == "delivered")
    (told,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "cannot be noted as" in told.getMessage() and "free space" in told.getMessage()
    assert told.exc_info is None
    assert "the outbox can be written again" in caplog.messages


def test_at_most_a_few_messages_are_under_way(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = put(outbox, {"AV": bytes(range(256)) * 1000})
    infos: list[Any] = []
    most = 0
    make = Link._make_client

    def counted(self: Link, version: int) -> Any:
        client = make(self, version)
        publish = client.publish

        def counting(*args: Any, **options: Any) -> Any:
            nonlocal most
            infos.append(publish(*args, **options))
            most = max(most, sum(not info.is_published() for info in infos[-50:]))
            return infos[-1]

        monkeypatch.setattr(client, "publish", counting)
        return client

    monkeypatch.setattr(Link, "_make_client", counted)
    with Ingest(mosquitto.host, mosquitto.port), uplink_to(mosquitto, outbox, Pace(window=3)):
        until(lambda: outbox.state(exam.id) == "delivered")
    # one more for the retained state
    assert len(infos) > 250 and most <= 4


# ---- state and live


def test_the_retained_state_says_online_stopped_and_lost(mosquitto: Mosquitto, outbox: Outbox) -> None:
    with Ingest(mosquitto.host, mosquitto.port) as host:
        with uplink_to(mosquitto, outbox) as link:
            assert until(lambda: host.last("state")).online
            # cut as a power cut would, without a goodbye: the broker says the last will
            client = link._link._client
            assert client is not None
            client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            until(lambda: [s for s in states(host) if s.why == "connection lost"])
            until(lambda: host.last("state").online)
        until(lambda: host.last("state").why == "stopped")
    with Ingest(mosquitto.host, mosquitto.port) as late:
        assert not until(lambda: late.last("state")).online


def states(host: Ingest) -> list[State]:
    return [read(State, payload) for topic, payload in list(host.payloads) if topic.kind == "state"]


def test_live_is_heard_while_online_and_thrown_away_while_not(mosquitto: Mosquitto, outbox: Outbox) -> None:
    link = Uplink(ADDRESS, outbox, Broker(mosquitto.host, mosquitto.port), state=STATE, pace=HURRIED)
    wave = LiveWave(0, 8, (1, 2), (3, 4))
    link.live("wave", wave)
    assert link.live_dropped == 1
    with Ingest(mosquitto.host, mosquitto.port) as host:
        link.start()
        until(lambda: link.online)
        link.live("wave", wave)
        link.live("wave", LiveWave(0, 8, (99999,), ()))
        link.live("quality", LiveQuality(0, 0.5, (), -30.0))
        until(lambda: host.count("live") == 2)
        assert host.wrong == []
        assert host.last("live") == LiveQuality(0, 0.5, (), -30.0)
        link.stop()


# ---- commands


def test_commands_are_answered_once_each(mosquitto: Mosquitto, outbox: Outbox) -> None:
    obeyed = []

    def obey(command: Command) -> Answer:
        obeyed.append(command)
        return Answer(command.id, command.name, True, "done")

    clock = FakeClock()
    clock.trusted = ClockTrust.SYNCHRONISED
    with (
        Ingest(mosquitto.host, mosquitto.port) as host,
        uplink_to(mosquitto, outbox, on_command=obey, clock=clock),
    ):
        until(host.online)
        later, before = clock.wall() + 60, clock.wall() - 60
        start = Command("c-1", "start", later, {"site": "AV"})
        host.command(ADDRESS, start)
        host.command(ADDRESS, start)
        host.command(ADDRESS, Command("c-2", "start", before))
        host.command(ADDRESS, Command("c-3", "start", later), retain=True)
        until(lambda: host.count("answer") == 4)
        clock.trusted = ClockTrust.NONE
        host.command(ADDRESS, Command("c-4", "start", before))
        until(lambda: host.count("answer") == 5)
        clock.trusted = ClockTrust.SET
        clock.jump(10 * 3.2e7)
        host.command(ADDRESS, Command("c-5", "start", later))
        until(lambda: host.count("answer") == 6)
        answers = [read(Answer, p) for topic, p in host.payloads if topic.kind == "answer"]
    by_id = {answer.command: (answer.ok, answer.says) for answer in answers}
    assert by_id["c-1"] == (True, "done")
    assert by_id["c-2"] == (False, "expired")
    # a device that has no clock cannot judge, but hears no old commands either: its session is always clean
    assert by_id["c-4"] == (True, "done")
    assert by_id["c-5"] == (True, "done"), "a clock ten years ahead must not refuse every command"
    assert [command.id for command in obeyed].count("c-1") == 1


def test_a_retained_command_waits_for_nobody(mosquitto: Mosquitto, outbox: Outbox) -> None:
    obeyed: list[Command] = []
    clock = FakeClock()
    with Ingest(mosquitto.host, mosquitto.port) as host:
        host.command(ADDRESS, Command("old", "start", clock.wall() + 60), retain=True)

        def obey(command: Command) -> Answer:
            obeyed.append(command)
            return Answer(command.id, command.name, True, "done")

        with uplink_to(mosquitto, outbox, on_command=obey, clock=clock):
            answer = until(lambda: host.last("answer"))
    assert not answer.ok and "retain" in answer.says
    assert obeyed == []


def test_who_knows_no_command_says_so(mosquitto: Mosquitto, outbox: Outbox) -> None:
    with Ingest(mosquitto.host, mosquitto.port) as host, uplink_to(mosquitto, outbox):
        until(host.online)
        host.command(ADDRESS, Command("c-9", "dance", 4e9))
        answer = until(lambda: host.last("answer"))
        assert (answer.ok, answer.says) == (False, "unknown command")


def test_rubbish_from_the_network_is_dropped(mosquitto: Mosquitto, outbox: Outbox) -> None:
    exam = put(outbox)
    with (
        Ingest(mosquitto.host, mosquitto.port, answer="silent") as host,
        uplink_to(mosquitto, outbox) as link,
    ):
        until(lambda: host.count("result"))
        digest = exam_hash(host.results[exam.id])
        hostile = [
            b"",
            b"{}",
            b"\xff",
            b"[" * 10000,
            b"null",
            json.dumps({"schema": 1, "exam": exam.id, "status": "stored", "sha256": digest[:-1]}).encode(),
            json.dumps({"schema": 1, "exam": "../x", "status": "stored", "sha256": digest}).encode(),
            json.dumps(
                {
                    "schema": 1,
                    "exam": exam.id,
                    "status": "missing",
                    "sha256": digest,
                    "missing": {"AV": "////"},
                }
            ).encode(),
        ]
        for payload in hostile:
            host.client.publish(ADDRESS.receipt, payload, qos=1)
            host.client.publish(ADDRESS.command, payload, qos=1)
        announced = host.count("result")
        until(lambda: host.count("result") > announced)
        assert link.online
        assert outbox.state(exam.id) == "waiting"
        host.answer = "store"
        until(lambda: outbox.state(exam.id) == "delivered")


# ---- other brokers


def test_the_embedded_broker_is_spoken_to_in_3_1_1(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    from host.ingest.embedded_broker import EmbeddedBroker

    caplog.set_level(logging.INFO, logger="mqtt")
    exam = put(outbox)
    with EmbeddedBroker() as broker, Ingest("127.0.0.1", broker.port) as host:
        with uplink_to(broker, outbox, PATIENT):
            until(lambda: outbox.state(exam.id) == "delivered")
            assert until(lambda: host.last("state")).online
        assert host.stored[exam.id] == SOUNDS
        assert host.wrong == []
    assert any("connected (MQTT 3.1.1)" in r.getMessage() for r in caplog.records)


def test_a_password_that_does_not_fit_is_told_with_the_remedy(
    tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "broker"
    place.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    broker = Mosquitto(place, anonymous=False)
    with broker, uplink_to(broker, outbox):
        until(lambda: "check [mqtt] username and password_file" in caplog.text)
