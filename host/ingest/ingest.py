"""From the broker into the store, and back: a receipt for every exam.

    exam/…/result, …/sound/…   →  Store, durable  →  acknowledged  →  receipt: stored, missing or refused
    state, health              →  Store
    live/…, answer             →  listeners in memory, never stored
    command                    ←  `send`

One thread, one connection, MQTT 5 where the broker speaks it, else 3.1.1. A message is acknowledged to the
broker only after it is on disk. Messages may still be missed (the embedded broker forgets what is queued, a
broker may crash): an exam that stays incomplete while nothing comes is asked for with a `missing` receipt,
first after `SILENCE_S`, then ever more rarely, so delivery needs neither the broker's memory nor its word.
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
from host.ingest.address import BrokerAddress
from host.store.database import StoreError
from host.store.store import Arrival, Store

__all__ = ["SILENCE_S", "Ingest", "Notice"]

log = logging.getLogger(__name__)

SILENCE_S = 5.0
"""A partial exam of which nothing came for so long is asked for again."""

_LONGEST_SILENCE_S = 300.0
_KEEPALIVE_S = 30
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_ANSWER_S = 10.0
_ANSWER_TO_5_S = 4.0
"""A broker that knows 3.1.1 only may say nothing at all to MQTT 5 (amqtt does)."""
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
        broker: BrokerAddress,
        *,
        tell: Callable[[Notice], None] = lambda notice: None,
        mqtt5: bool = True,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.store = store
        self.broker = broker
        self.connected = threading.Event()
        self.bad_messages = 0
        self._tell = tell
        self._mqtt5 = self._speaks_5 = mqtt5
        self._silence_s = silence_s
        self._silent: dict[str, _Silence] = {}
        self._commands: queue.SimpleQueue[tuple[Address, Command]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._refusal: str | None = None
        self._away_since: float | None = None
        self._told_away = False
        self._told_disk = False

    def start(self) -> None:
        """Connect, now and whenever the broker comes back. Returns at once."""
        now = time.monotonic()
        for row in self.store.partial():
            topic = Topic(row.fleet, row.device, "result", exam=row.id)
            self._silent[row.id] = _Silence(topic, now, self._silence_s)
        self.store.forget_online()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the thread. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=15.0)

    def send(self, address: Address, command: Command) -> bool:
        """Give a command to a device's broker, soon; False when there is no broker. Any thread may ask.

        Whether the device obeyed is told by a notice of type answer that names the command's id.
        """
        if not self.connected.is_set():
            return False
        self._commands.put((address, command))
        return True

    def _send_commands(self) -> None:
        while True:
            try:
                address, command = self._commands.get_nowait()
            except queue.Empty:
                return
            if time.time() <= command.expires_s:
                self._client.publish(address.command, encode(command), qos=1)

    # ---- connection

    def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._stop.is_set():
            stood = False
            try:
                stood = self._one_connection()
            except StoreError as error:
                self._disk_failed(error)
            except Exception:
                # a silent stop would look like a quiet day: say it, and go on
                log.exception("ingest stumbled; connecting again")
                self.connected.clear()
            if stood:
                wait_s = _FIRST_WAIT_S
            elif self._speaks_5 != self._mqtt5:
                continue  # at once, in the other protocol
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _make_client(self) -> tuple[Any, dict[str, Any]]:
        """A client and what to add to its connect()."""
        import ssl

        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        name = f"stethopi-host-{self.store.id[:16]}"
        how: dict[str, Any] = {}
        if self._speaks_5:
            client = mqtt.Client(
                CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5, manual_ack=True
            )
            session = Properties(PacketTypes.CONNECT)
            session.SessionExpiryInterval = _SESSION_S
            how = {"clean_start": False, "properties": session}
        else:
            client = mqtt.Client(
                CallbackAPIVersion.VERSION2,
                client_id=name,
                protocol=mqtt.MQTTv311,
                clean_session=False,
                manual_ack=True,
            )
        if self.broker.user:
            client.username_pw_set(self.broker.user, self.broker.password)
        if self.broker.tls:
            client.tls_set_context(ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.connect_timeout = 10.0
        return client, how

    def _one_connection(self) -> bool:
        """One connection from beginning to end; whether it ever stood."""
        client, how = self._make_client()
        self._client = client
        self._refusal = None
        try:
            client.connect(self.broker.host, self.broker.port, keepalive=_KEEPALIVE_S, **how)
        except (OSError, ValueError) as error:
            self._gone(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            return False
        deadline = time.monotonic() + (_ANSWER_TO_5_S if self._speaks_5 else _ANSWER_S)
        stood = False
        why = "connection closed"
        try:
            while not self._stop.is_set():
                if client.loop(timeout=0.2) != 0:
                    why = self._refusal or why
                    break
                stood = stood or self.connected.is_set()
                if self._refusal is not None or (not stood and time.monotonic() > deadline):
                    why = self._refusal or "no answer"
                    break
                if stood:
                    self._send_commands()
                    self._ask_again()
            if self._stop.is_set() and stood:
                client.disconnect()
                client.loop(timeout=0.2)
        finally:
            self.connected.clear()
            self._close(client)
        if self._stop.is_set():
            return stood
        if not stood and self._speaks_5:
            # a broker of the older protocol refuses, or hangs up without a word
            log.debug("broker %s: no MQTT 5 (%s), trying 3.1.1", self.broker, why)
            self._speaks_5 = False
            return False
        if not stood:
            self._speaks_5 = self._mqtt5
        self._gone(why)
        return stood

    @staticmethod
    def _close(client: Any) -> None:
        sock = client.socket()
        if sock is not None:
            try:
                sock.close()
            except OSError:
                pass

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
            return
        client.subscribe(host_filters())
        if self._told_away:
            log.info(
                "broker %s came back after %.0f s", self.broker, time.monotonic() - (self._away_since or 0)
            )
        self._away_since, self._told_away = None, False
        self.connected.set()
        self._tell({"type": "broker", "connected": True})

    def _gone(self, why: str) -> None:
        """The broker is away: said once, nothing is known of any device until it is back."""
        if self._away_since is None:
            self._away_since = time.monotonic()
        if not self._told_away:
            self._told_away = True
            said = why + _REMEDY.get(why.lower(), "")
            log.warning("broker %s is away (%s); trying again until it is back", self.broker, said)
            self._tell({"type": "broker", "connected": False})
            self.store.forget_online()

    def _disk_failed(self, error: StoreError) -> None:
        if not self._told_disk:
            log.error("%s; exams wait on their devices", error)
        self._told_disk = True

    # ---- messages

    def _on_message(self, client: Any, _data: Any, message: Any) -> None:
        try:
            topic = parse_topic(message.topic)
            self._take(topic, bytes(message.payload))
        except BadMessage as error:
            self.bad_messages += 1
            log.warning("bad message dropped: %s", error)
        except StoreError as error:
            # not acknowledged, no receipt: the device keeps the exam and sends it again
            self._disk_failed(error)
            return
        except Exception:
            # one message that the program cannot take must not stop those behind it
            self.bad_messages += 1
            log.exception("message on %.200s dropped", message.topic)
        else:
            if topic.kind in ("result", "sound") and self._told_disk:
                self._told_disk = False
                log.info("the store can be written again")
        if message.qos:
            client.ack(message.mid, message.qos)

    def _take(self, topic: Topic, payload: bytes) -> None:
        name = f"{topic.fleet}/{topic.device}"
        if topic.kind == "result":
            self._settle(topic, self.store.put_result(topic, payload))
        elif topic.kind == "sound":
            self._settle(topic, self.store.put_chunk(topic, payload))
        elif topic.kind == "state":
            if payload:  # an empty one clears a retained message
                state = read(State, payload)
                self.store.put_state(topic, state)
                self._tell({"type": "device", "device": name, "online": state.online})
        elif topic.kind == "health":
            read(Health, payload)
            self.store.put_health(topic, payload)
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
        self.store.note_receipt(receipt)
        self._client.publish(topic.address.receipt, encode(receipt), qos=1)

    def _ask_again(self) -> None:
        now = time.monotonic()
        for exam, silent in list(self._silent.items()):
            if now - silent.since < silent.wait_s:
                continue
            arrival = self.store.look_again(exam)
            if arrival.receipt is None or arrival.complete:
                self._silent.pop(exam)
            else:
                silent.since, silent.wait_s = now, min(2 * silent.wait_s, _LONGEST_SILENCE_S)
            if arrival.receipt is not None:
                log.debug("exam %s: %s", exam, arrival.receipt.status)
                self._answer(silent.topic, arrival.receipt)
