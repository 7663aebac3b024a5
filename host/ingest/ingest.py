"""From the broker into the store, and back: a receipt for every exam.

    exam/…/result, …/sound/…   →  Store, durable  →  acknowledged  →  receipt: stored, missing or refused
    state, health              →  Store
    live/…, answer             →  listeners in memory, never stored
    command                    ←  `send`

One thread, one link. A message is acknowledged to the broker only after it is on disk. Messages may still be
missed (the embedded broker forgets what is queued, a broker may crash): an exam that stays incomplete while
nothing comes is asked for with a `missing` receipt, first after `SILENCE_S`, then ever more rarely, so
delivery needs neither the broker's memory nor its word.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from device.contract.chunks import Receipt
from device.contract.codec import BadMessage, encode
from device.contract.control import Answer, Command, Health, State
from device.contract.topics import Address, Topic, host_filters, parse_topic, read
from device.delivery.link import Broker, Link, LinkLost
from device.errors import StethopiError
from host.store.arrivals import Arrival, Arrivals
from host.store.database import StoreError
from host.store.presence import Presence
from host.store.store import Store

__all__ = ["SILENCE_S", "Ingest", "Notice"]

log = logging.getLogger(__name__)

SILENCE_S = 5.0
"""A partial exam of which nothing came for so long is asked for again."""

_LONGEST_SILENCE_S = 300.0
_FIRST_REST_S = 0.5
_LONGEST_REST_S = 30.0
_SESSION_S = 7 * 86400
"""How long a broker with memory keeps messages for a host that is away (MQTT 5)."""
_NOT_LET_IN = "; check USER in --broker and what --password-file holds"
_REMEDY = {
    "not authorized": _NOT_LET_IN,
    "bad user name or password": _NOT_LET_IN,
    "connection refused": "; start one there, or serve with --embedded-broker",
}


Notice = dict[str, Any]
"""What listeners are told, ready for JSON: a `type` and, for a device, `device`: "fleet/name"."""


@dataclass
class _Silence:
    """A partial exam that is waited for."""

    topic: Topic
    since: float
    wait_s: float = SILENCE_S


class Ingest:
    """Takes what devices send. `start`, `stop`; `tell` is called in its thread with every `Notice`.

    Notices: {type: "broker", connected}, {type: "stored", exam, complete, device}, {type: "device", …} when a
    state or health came, {type: "live", device, kind, message} for what is only looked at, {type: "answer",
    device, message} for what a device says to a command.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker,
        *,
        tell: Callable[[Notice], None] = lambda notice: None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._store = store
        self._arrivals, self._presence = Arrivals(store), Presence(store)
        self.connected = threading.Event()
        self.bad_messages = 0
        self._tell = tell
        self._silence_s = silence_s
        self._silent: dict[str, _Silence] = {}
        self._commands: queue.SimpleQueue[tuple[Address, Command]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._link = Link(
            broker,
            f"stethopi-host-{store.id[:16]}",
            session_s=_SESSION_S,
            on_message=self._on_message,
            remedies=_REMEDY,
            first_rest_s=_FIRST_REST_S,
            longest_rest_s=_LONGEST_REST_S,
        )
        self._told_disk = False

    def start(self) -> None:
        """Connect, now and whenever the broker comes back. Returns at once."""
        self._arrivals.tidy()
        now = time.monotonic()
        for row in self._store.partial():
            topic = Topic(row.fleet, row.device, "result", exam=row.id)
            self._silent[row.id] = _Silence(topic, now, self._silence_s)
        self._presence.forget_online()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the thread. Safe to call twice."""
        self._link.stop()
        if self._thread is not None:
            self._thread.join(timeout=15.0)

    def send(self, address: Address, command: Command) -> bool:
        """Give a command to a device's broker, soon; False when there is no broker. Any thread may ask.

        Whether the device obeyed is told by a notice of type answer that names the command's id.
        """
        if not self.connected.is_set():
            return False
        self._commands.put((address, command))
        self._link.wake()
        return True

    def _send_commands(self) -> None:
        while True:
            try:
                address, command = self._commands.get_nowait()
            except queue.Empty:
                return
            if time.time() <= command.expires_s:
                self._link.publish(address.command, encode(command))

    # ---- connection

    def _run(self) -> None:
        self._link.keep(self._serve, on_gone=self._gone, on_trouble=self._disk_failed)

    def _serve(self) -> None:
        self._link.subscribe(host_filters())
        self._link.say_back()
        self.connected.set()
        self._tell({"type": "broker", "connected": True})
        try:
            while not self._link.stopping:
                self._link.step(0.2)
                self._send_commands()
                self._ask_again()
        finally:
            self.connected.clear()

    def _gone(self) -> None:
        """The broker is away: nothing is known of any device until it is back."""
        self._tell({"type": "broker", "connected": False})
        try:
            self._presence.forget_online()
        except StoreError as error:
            self._disk_failed(error)

    def _disk_failed(self, error: StethopiError) -> None:
        if not self._told_disk:
            log.error("%s; exams wait on their devices", error)
        self._told_disk = True

    # ---- messages

    def _on_message(self, message: Any) -> bool:
        """Take a message; whether the broker may forget it."""
        try:
            topic = parse_topic(message.topic)
            self._take(topic, bytes(message.payload))
        except BadMessage as error:
            self.bad_messages += 1
            log.warning("bad message dropped: %s", error)
        except StoreError as error:
            # not acknowledged, no receipt: the device keeps the exam and sends it again
            self._disk_failed(error)
            return False
        except LinkLost:
            raise
        except Exception:
            # one message that the program cannot take must not stop those behind it
            self.bad_messages += 1
            log.exception("message on %.200s dropped", message.topic)
        else:
            if topic.kind in ("result", "sound") and self._told_disk:
                self._told_disk = False
                log.info("the store can be written again")
        return True

    def _take(self, topic: Topic, payload: bytes) -> None:
        name = f"{topic.fleet}/{topic.device}"
        if topic.kind == "result":
            self._settle(topic, self._arrivals.put_result(topic, payload))
        elif topic.kind == "sound":
            self._settle(topic, self._arrivals.put_chunk(topic, payload))
        elif topic.kind == "state":
            if payload:  # an empty one clears a retained message
                state = read(State, payload)
                self._presence.put_state(topic, state)
                self._tell({"type": "device", "device": name, "online": state.online})
        elif topic.kind == "health":
            read(Health, payload)
            self._presence.put_health(topic, payload)
            self._tell({"type": "device", "device": name})
        elif topic.kind == "answer":
            answer = read(Answer, payload)
            self._tell({"type": "answer", "device": name, "message": answer})
        elif topic.kind == "live":
            assert topic.payload_type is not None
            live: Any = read(topic.payload_type, payload)
            self._tell({"type": "live", "device": name, "kind": topic.live, "message": live})

    def _settle(self, topic: Topic, arrival: Arrival) -> None:
        """Answer, tell, and keep an eye on what is not whole yet."""
        assert topic.exam is not None
        if arrival.receipt is not None:
            self._answer(topic, arrival.receipt)
        if arrival.complete:
            self._silent.pop(topic.exam, None)
        elif arrival.changed or (topic.exam in self._silent and arrival.receipt is None):
            self._silent[topic.exam] = _Silence(topic, time.monotonic(), self._silence_s)
        if arrival.changed:
            self._tell(
                {
                    "type": "stored",
                    "device": f"{topic.fleet}/{topic.device}",
                    "exam": topic.exam,
                    "complete": arrival.complete,
                }
            )

    def _answer(self, topic: Topic, receipt: Receipt) -> None:
        self._arrivals.note_receipt(receipt)
        self._link.publish(topic.address.receipt, encode(receipt))

    def _ask_again(self) -> None:
        now = time.monotonic()
        for exam, silent in list(self._silent.items()):
            if now - silent.since < silent.wait_s:
                continue
            arrival = self._arrivals.look_again(exam)
            if arrival.receipt is None or arrival.complete:
                self._silent.pop(exam)
            else:
                silent.since, silent.wait_s = now, min(2 * silent.wait_s, _LONGEST_SILENCE_S)
            if arrival.receipt is not None:
                log.debug("exam %s: %s", exam, arrival.receipt.status)
                self._answer(silent.topic, arrival.receipt)
