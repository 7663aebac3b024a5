"""Ingest against real brokers: receipts for whole, partial and impossible exams; what goes missing is asked
for; both protocols; a broker that goes away."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from device.contract.chunks import Receipt, missing_chunks
from device.contract.codec import encode
from device.contract.control import Answer, Command, Listen, State
from device.contract.exam import Exam, exam_hash
from device.contract.live import LiveWave
from device.contract.topics import Address, Topic, read
from device.delivery.link import Broker, LinkLost
from device.errors import BadInput
from host.ingest.address import broker_at
from host.ingest.embedded_broker import EmbeddedBroker
from host.ingest.ingest import Ingest
from host.store.arrivals import Arrivals
from host.store.database import StoreError
from host.store.presence import Presence
from host.store.store import Store
from tests.brokers import Mosquitto
from tests.device.exams import make_exam
from tests.device.links import rests_of
from tests.host.arrivals import SOUNDS, chunks
from tests.waiting import until

WAIT_S = 30.0


class Device:
    """A device by hand: publishes what it is told, and hears its receipts."""

    def __init__(self, host: str, port: int, exam: Exam) -> None:
        self.address = Address(exam.fleet, exam.device)
        self.exam = exam
        self.payload = encode(exam)
        self.receipts: queue.Queue[Receipt] = queue.Queue()
        ready = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.client.on_connect = lambda c, *_: c.subscribe(self.address.receipt, 1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda _c, _d, message: self.receipts.put(read(Receipt, message.payload))
        self.client.connect(host, port)
        self.client.loop_start()
        assert ready.wait(WAIT_S)

    def send(self, topic: str, payload: bytes, **how: Any) -> None:
        self.client.publish(topic, payload, qos=1, **how).wait_for_publish(WAIT_S)

    def result(self) -> None:
        self.send(self.address.result(self.exam.id), self.payload)

    def sound(self, *leave_out: tuple[str, int]) -> None:
        for topic, data in chunks(self.exam):
            assert topic.site is not None and topic.chunk is not None
            if (topic.site, topic.chunk) not in leave_out:
                self.send(self.address.sound(self.exam.id, topic.site, topic.chunk), data)

    def receipt(self) -> Receipt:
        return self.receipts.get(timeout=WAIT_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def running(store: Store, host: str, port: int, **options: Any) -> Iterator[Ingest]:
    made = Ingest(store, Broker(host, port), **options)
    made.start()
    try:
        assert made.connected.wait(WAIT_S)
        yield made
    finally:
        made.stop()


@contextmanager
def device(host: str, port: int, exam: Exam | None = None) -> Iterator[Device]:
    made = Device(host, port, exam or make_exam(SOUNDS))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    if request.param == "mosquitto":
        made = request.getfixturevalue("mosquitto")
        yield made.host, made.port
    else:
        with EmbeddedBroker() as embedded:
            yield embedded.address, embedded.port


def test_a_whole_exam_gets_its_receipt_on_either_broker(store: Store, broker: tuple[str, int]) -> None:
    notices: queue.Queue = queue.Queue()
    with running(store, *broker, tell=notices.put), device(*broker) as one:
        one.result()
        one.sound()
        assert one.receipt() == Receipt.of_stored(one.exam.id, exam_hash(one.payload))
        one.result()
        assert one.receipt().status == "stored", "a repeat is answered at once"
        path = store.sound_path(one.exam.id, "MV")
        assert path is not None and path.read_bytes() == SOUNDS["MV"]
        assert [r.status for r in store.receipts(one.exam.id)] == ["stored", "stored"]
    told = [notices.get_nowait() for _ in range(notices.qsize())]
    assert told[0] == {"type": "broker", "connected": True}
    stored = [t["complete"] for t in told if t["type"] == "stored"]
    assert stored.count(True) == 1 and stored[-1]


def test_what_went_missing_is_asked_for_after_a_silence(store: Store, broker: tuple[str, int]) -> None:
    lost = [("AV", 2), ("MV", 0)]
    with running(store, *broker, silence_s=0.3), device(*broker) as one:
        one.result()
        one.sound(*lost)
        receipt = one.receipt()
        assert receipt.status == "missing" and receipt.missing is not None
        assert {s: missing_chunks(t, {"AV": 5, "MV": 3}[s]) for s, t in receipt.missing.items()} == {
            "AV": [2],
            "MV": [0],
        }
        one.sound()
        while (receipt := one.receipt()).status != "stored":
            assert receipt.status == "missing"


def test_what_stays_missing_is_asked_for_ever_more_rarely(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is away for a week must not find a week of receipts; and one whose sound comes again is
    soon asked for the rest."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("host.ingest.ingest.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    exam = make_exam(SOUNDS)
    made = Ingest(store, Broker("127.0.0.1"))
    asked: list[float] = []
    made._link = SimpleNamespace(publish=lambda topic, payload: asked.append(clock.now_s))  # type: ignore
    made._take(Topic(exam.fleet, exam.device, "result", exam=exam.id), encode(exam))

    def waits(seconds: int) -> list[float]:
        asked.clear()
        began = clock.now_s
        for second in range(1, seconds + 1):
            clock.now_s = began + second
            made._ask_again()
        return [b - a for a, b in pairwise([began, *asked])]

    assert waits(1300) == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    made._take(*chunks(exam)[0])
    assert waits(100) == [5, 10, 20, 40]
    for topic, data in chunks(exam):
        made._take(topic, data)
    assert waits(1000) == []


def test_a_broker_that_is_away_is_tried_ever_more_rarely(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From half a second to half a minute; a connection that stood begins anew."""
    made = Ingest(store, Broker("127.0.0.1"))

    def lose() -> None:
        raise LinkLost("connection closed")

    monkeypatch.setattr(made, "_serve", lose)
    rests = rests_of(made._link, [False] * 8 + [True] + [False] * 2, monkeypatch)
    made._run()
    assert rests == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5, 1, 2]


def test_a_partial_exam_is_asked_for_after_a_restart(store: Store, mosquitto: Mosquitto) -> None:
    with device(mosquitto.host, mosquitto.port) as one:
        Arrivals(store).put_result(Topic("village", "stetho-1", "result", exam=one.exam.id), one.payload)
        with running(store, mosquitto.host, mosquitto.port, silence_s=0.1):
            assert one.receipt().status == "missing"


def test_an_impossible_result_is_refused(store: Store, mosquitto: Mosquitto) -> None:
    at = (mosquitto.host, mosquitto.port)
    with running(store, *at) as ingest, device(*at) as one:
        one.send(one.address.result(one.exam.id), b"{}")
        receipt = one.receipt()
        assert (receipt.status, receipt.sha256) == ("refused", exam_hash(b"{}"))
        # neither a strange topic nor a strange payload ends the thread
        one.send("stethopi/1/village/stetho-1/state", b"\x00")
        one.send("stethopi/1/village/..x/state", b"{}")
        one.send(f"stethopi/1/village/stetho-1/exam/{one.exam.id}/sound/AV/x", b"")
        one.result()
        one.sound()
        assert one.receipt().status == "stored"
        assert ingest.bad_messages == 3


def test_states_health_and_live_messages_are_passed_on(store: Store, broker: tuple[str, int]) -> None:
    notices: queue.Queue = queue.Queue()

    def heard(kind: str) -> dict:
        while (notice := notices.get(timeout=WAIT_S))["type"] != kind:
            pass
        return notice

    with device(*broker) as one:
        state = State(True, "0.1.0", "7", "running", "boot")
        one.send(one.address.state, encode(state), retain=True)
        with running(store, *broker, tell=notices.put):
            assert heard("device") == {"type": "device", "device": "village/stetho-1", "online": True}
            assert store.devices()[0].bundle == "7"
            wave = LiveWave(4000, 8, (1, -2), (3, 4))
            one.client.publish(one.address.live("wave"), encode(wave))
            assert heard("live") == {
                "type": "live",
                "device": "village/stetho-1",
                "kind": "wave",
                "message": wave,
            }
            one.send(one.address.state, encode(replace(state, online=False, why="connection lost")))
            assert heard("device")["online"] is False
            assert store.devices()[0].online is False


def test_a_broker_that_goes_away_is_told_once_and_found_again(
    store: Store,
    mosquitto: Mosquitto,
    caplog: pytest.LogCaptureFixture,
) -> None:
    at = (mosquitto.host, mosquitto.port)
    notices: queue.Queue = queue.Queue()
    with caplog.at_level(logging.INFO, "mqtt"), running(store, *at, tell=notices.put) as ingest:
        Presence(store).put_state(Topic("f", "d", "state"), State(True, "1", None, "running", "b"))
        assert notices.get(timeout=WAIT_S)["connected"] is True
        mosquitto.kill()
        assert notices.get(timeout=WAIT_S) == {"type": "broker", "connected": False}
        threading.Event().wait(1.5)  # some tries in vain
        assert store.devices()[0].online is None
        mosquitto.start()
        assert notices.get(timeout=WAIT_S) == {"type": "broker", "connected": True}
        assert ingest.connected.is_set()
        with device(*at) as one:
            one.result()
            one.sound()
            assert one.receipt().status == "stored"
    said = [record.getMessage() for record in caplog.records]
    assert sum("went away" in line for line in said) == 1
    assert sum("came back after" in line for line in said) == 1


def test_no_broker_and_a_wrong_password_are_told_with_the_remedy(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "broker"
    place.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    broker = Mosquitto(place, anonymous=False)

    def told(why: str, *user: str) -> None:
        ingest = Ingest(store, Broker(broker.host, broker.port, *user))
        ingest.start()
        try:
            until(lambda: f"cannot be reached ({why}); trying again" in caplog.text)
        finally:
            ingest.stop()

    told("connection refused; start one there, or serve with --embedded-broker")
    with broker:
        told("not authorized; check USER in --broker and what --password-file holds", "doctor", "wrong")


def test_a_disk_that_fails_gives_no_receipt_and_is_told_once(
    store: Store,
    mosquitto: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    at = (mosquitto.host, mosquitto.port)
    full = threading.Event()
    full.set()
    tried = threading.Semaphore(0)
    honest = Arrivals.put_result

    def put_result(arrivals: Arrivals, topic: Topic, payload: bytes) -> Any:
        tried.release()
        if full.is_set():
            raise StoreError("store: cannot write (disk full)")
        return honest(arrivals, topic, payload)

    monkeypatch.setattr(Arrivals, "put_result", put_result)
    with running(store, *at), device(*at) as one:
        one.result()
        one.result()
        assert tried.acquire(timeout=WAIT_S) and tried.acquire(timeout=WAIT_S)
        full.clear()
        one.result()
        one.sound()
        assert one.receipt().status == "stored"
        assert one.receipts.empty()
    assert sum("disk full" in record.getMessage() for record in caplog.records) == 1


def test_a_message_that_nobody_foresaw_stops_nothing(
    store: Store,
    mosquitto: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    at = (mosquitto.host, mosquitto.port)

    def put_state(*_: Any) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr(Presence, "put_state", put_state)
    with running(store, *at) as ingest, device(*at) as one:
        one.send(one.address.state, encode(State(True, "0.1.0", None, "running", "b")))
        one.result()
        one.sound()
        assert one.receipt().status == "stored"
        assert ingest.bad_messages == 1
    assert "dropped" in caplog.text and "unforeseen" in caplog.text


def test_addresses_of_brokers(tmp_path: Path) -> None:
    assert broker_at("mqtt://10.0.0.7:1884") == Broker("10.0.0.7", 1884)
    assert broker_at("pi-host") == Broker("pi-host", 1883)
    assert broker_at("mqtts://b.example") == Broker("b.example", 8883, tls=True)
    secret = tmp_path / "password"
    secret.write_text("open sesame\n")
    with_user = broker_at("mqtt://doc%40town@b:1", secret)
    assert with_user == Broker("b", 1, "doc@town", "open sesame")
    for wrong, says in [
        ("http://b", "not an address of a broker"),
        ("mqtt://", "not an address of a broker"),
        ("mqtt://b:port", "write mqtt://HOST:PORT"),
        ("mqtt://b:99999", "write mqtt://HOST:PORT"),
        ("mqtt://u:p@b", "a password does not belong in the address"),
    ]:
        with pytest.raises(BadInput, match=says):
            broker_at(wrong)
    with pytest.raises(BadInput, match="needs a user"):
        broker_at("mqtt://b", secret)
    with pytest.raises(BadInput, match="cannot read the password"):
        broker_at("mqtt://u@b", tmp_path / "none")


def test_commands_reach_the_device_and_its_answer_is_told(
    broker: tuple[str, int],
    store: Store,
) -> None:
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    with running(store, *broker, tell=told.put) as ingest, device(*broker) as stetho:
        heard: queue.Queue[Command] = queue.Queue()
        subscribed = threading.Event()
        stetho.client.on_message = lambda _c, _d, message: heard.put(read(Command, message.payload))
        stetho.client.on_subscribe = lambda *_: subscribed.set()
        stetho.client.subscribe(stetho.address.command, 1)
        assert subscribed.wait(WAIT_S)
        late = Command("too-late", "listen", 1.0, listen=Listen())
        wish = Command("c-1", "listen", 4e9, listen=Listen(preset="bell"))
        assert ingest.send(stetho.address, late) and ingest.send(stetho.address, wish)
        assert heard.get(timeout=WAIT_S) == wish, "what nobody waits for any more is not sent"
        answer = Answer("c-1", "listen", True, "clean, bell")
        stetho.send(stetho.address.answer, encode(answer))
        while (notice := told.get(timeout=WAIT_S))["type"] != "answer":
            pass
        assert notice["message"] == answer and notice["device"] == f"{stetho.exam.fleet}/{stetho.exam.device}"
    assert not ingest.send(stetho.address, wish), "no broker: said at once"
