"""One MQTT link, the device's as the host's: version 5 where the broker speaks it, else 3.1.1.

A link belongs to the thread that runs `Link.keep`: it connects, serves, rests ever longer after each failure,
and everything that is published or heard goes through that thread. The log says "went away" once and "came
back" once, with the seconds between them.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.errors import StethopiError

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo


__all__ = ["Broker", "Link", "LinkLost", "backoff", "broker_answers"]

log = logging.getLogger("mqtt")

_UNSUPPORTED_PROTOCOL = (132, 1)
"""CONNACK codes of a broker that does not speak MQTT 5, as a version 5 and as an older one says it."""
_CONNECT_S = 5.0
_ANSWER_S = 10.0
_CLOSED = "connection closed"
_SILENT = "no answer to the connection"


@dataclass(frozen=True)
class Broker:
    """A broker's address, with what it takes to be let in."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: Path | None = None
    """Certificates to trust; None: those of the system."""
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class LinkLost(Exception):
    """The broker cannot be reached or went away; str() of it is the reason in plain words."""


class _PerhapsOlder(LinkLost):
    """Not let in, perhaps for speaking too new a version of MQTT."""


def backoff(first_s: float, most_s: float, tries: int) -> float:
    """Seconds to wait after so many tries in vain, 1 or more: twice as long each time up to `most_s`, and a
    tenth more or less, so that a fleet does not come back with one voice.
    """
    return min(first_s * 2.0 ** min(tries - 1, 30), most_s) * random.uniform(0.9, 1.1)


class Link:
    """The connection to one broker, made again whenever it is lost.

    will: (topic, payload) that the broker publishes, retained, when the link breaks without a goodbye.
    session_s: how long a broker with memory keeps messages for a client that is away; 0 for a clean session.
    on_message: takes a message, in the thread of `keep`; whether the broker may forget it.
    meanwhile: what is done without the broker, for the log.
    remedies: what to add to a reason in the log, by reason.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str = "",
        *,
        will: tuple[str, bytes] | None = None,
        session_s: int = 0,
        on_message: Callable[[MQTTMessage], bool] = lambda message: True,
        meanwhile: str = "trying again until it is back",
        remedies: Mapping[str, str] | None = None,
        first_rest_s: float = 1.0,
        longest_rest_s: float = 60.0,
    ) -> None:
        self.broker = broker
        self.turned_s = time.monotonic()
        """When the thread of `keep` last went round; a watchdog may look at it."""
        self._client_id = client_id
        self._will = will
        self._session_s = session_s
        self._on_message = on_message
        self._meanwhile = meanwhile
        self._remedies = remedies or {}
        self._first_rest_s, self._longest_rest_s = first_rest_s, longest_rest_s
        self._version: int | None = None
        self._client: Client | None = None
        self._connack: Any = None
        self._lost_why: str | None = None
        self._came: deque[MQTTMessage] = deque()
        self._unacknowledged: list[MQTTMessageInfo] = []
        self._unsent: list[MQTTMessageInfo] = []
        self._gone_since: float | None = None
        self._connected_before = False
        self._stop = threading.Event()
        self._bell: socket.socket | None = None
        self._bell_heard: socket.socket | None = None

    # ---- for any thread

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Let `keep` end soon."""
        self._stop.set()
        self.wake()

    def wake(self) -> None:
        """Let a `step` that waits return at once."""
        bell = self._bell
        if bell is not None:
            with contextlib.suppress(OSError):  # it rings already, or the link has just ended
                bell.send(b"\0")

    # ---- the life of the connection

    def keep(
        self,
        serve: Callable[[], None],
        *,
        on_gone: Callable[[], None] = lambda: None,
        on_trouble: Callable[[StethopiError], None],
    ) -> None:
        """Connect, `serve` until it returns or raises LinkLost, rest, and again, until `stop`.

        on_gone: called once each time the broker is found to be away. on_trouble: gets what `serve` cannot
        mend, such as a full disk; the next try comes after the longest rest.
        """
        tries = 0
        heard, bell = socket.socketpair()
        with heard, bell:
            heard.setblocking(False)
            bell.setblocking(False)
            self._bell_heard, self._bell = heard, bell
            while not self.stopping:
                try:
                    self._connect()
                    tries = 0
                    serve()
                except LinkLost as lost:
                    if not self.stopping and self._say_gone(str(lost)):
                        on_gone()
                except StethopiError as error:
                    tries = 30
                    on_trouble(error)
                except Exception:
                    # a silent end would look like a quiet day: say it, and begin afresh
                    log.exception("unexpected; the connection to %s is made anew", self.broker)
                finally:
                    self.close()
                tries += 1
                if not self.stopping:
                    self._rest(backoff(self._first_rest_s, self._longest_rest_s, tries))
            self._bell = self._bell_heard = None

    def _rest(self, seconds: float) -> None:
        """Wait, and go on showing that the thread lives."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0 and not self._stop.wait(min(left_s, 5.0)):
            self.turned_s = time.monotonic()

    def _connect(self) -> None:
        self.turned_s = time.monotonic()
        if self._version is None:
            # under another name, so that what the broker keeps for this one is not thrown away
            self._version, why = broker_answers(self.broker, client_id=f"{self._client_id}-asks")
            if self._version is None:
                raise LinkLost(why)
        try:
            self.open(self._version)
        except LinkLost:
            if self._connack is not None or self._lost_why is not None:
                self._version = None  # it may be another broker by now: ask again what it speaks
            raise

    def open(self, version: int, timeout_s: float = _ANSWER_S) -> None:
        """Connect once, in this version of MQTT. Raises LinkLost."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        how: dict[str, Any] = {}
        if version == 5:
            how["clean_start"] = not self._session_s
            if self._session_s:
                how["properties"] = Properties(PacketTypes.CONNECT)
                how["properties"].SessionExpiryInterval = self._session_s
        self._connack = self._lost_why = None
        self._client = client = self._make_client(version)
        client.connect_timeout = min(timeout_s, _CONNECT_S)
        try:
            client.connect(self.broker.host, self.broker.port, self.broker.keepalive_s, **how)
        except (OSError, ValueError) as error:
            raise LinkLost(_reason_of(error)) from error
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(LinkLost):  # a refusal says why before the broker hangs up
            while self._connack is None and not self.stopping and (left := deadline - time.monotonic()) > 0:
                self._pump(min(left, 1.0))
        if self._connack is None:
            self._lost_why = _SILENT
            raise _PerhapsOlder(_SILENT)
        if self._connack.is_failure:
            why = str(self._connack).lower()
            raise _PerhapsOlder(why) if self._connack.value in _UNSUPPORTED_PROTOCOL else LinkLost(why)

    def _make_client(self, version: int) -> Client:
        from paho.mqtt import client as mqtt

        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=mqtt.MQTTProtocolVersion.MQTTv5 if version == 5 else mqtt.MQTTProtocolVersion.MQTTv311,
            clean_session=None if version == 5 else not self._session_s,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.on_connect = self._on_connack
        client.on_disconnect = self._on_disconnect
        client.on_message = lambda _client, _data, message: self._came.append(message)
        broker = self.broker
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            try:
                client.tls_set(
                    ca_certs=str(broker.ca_file) if broker.ca_file else None,
                    certfile=str(broker.cert_file) if broker.cert_file else None,
                    keyfile=str(broker.key_file) if broker.key_file else None,
                )
            except (OSError, ValueError) as error:
                raise LinkLost(
                    f"TLS cannot be set up: {_reason_of(error)}; check the files named in [mqtt]"
                ) from error
        if self._will is not None:
            client.will_set(*self._will, qos=1, retain=True)
        return client

    def _on_connack(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._connack = reason

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        why = str(reason).lower()
        self._lost_why = _CLOSED if why == "unspecified error" else why

    def close(self) -> None:
        """Say goodbye, so that the last will is not published, and hang up. Safe twice."""
        client, self._client = self._client, None
        self._came.clear()
        self._unacknowledged.clear()
        self._unsent.clear()
        if client is None:
            return
        with contextlib.suppress(Exception):
            client.disconnect()
            # paho hangs up by itself once its goodbye is out
            if (connection := client.socket()) is not None:
                connection.close()

    def _say_gone(self, why: str) -> bool:
        """Whether it was not known yet."""
        said = why + self._remedies.get(why, "")
        if self._gone_since is not None:
            log.debug("broker %s still away (%s)", self.broker, said)
            return False
        self._gone_since = time.monotonic()
        went = "went away" if self._connected_before else "cannot be reached"
        log.warning("broker %s %s (%s); %s", self.broker, went, said, self._meanwhile)
        return True

    def say_back(self, more: str = "") -> None:
        """Tell the log that the broker is there; more: what follows from that."""
        if self._gone_since is None:
            spoken = "5" if self._version == 5 else "3.1.1"
            log.info("broker %s connected (MQTT %s)%s", self.broker, spoken, more)
        else:
            away = time.monotonic() - self._gone_since
            log.info("broker %s came back after %.0f s%s", self.broker, away, more)
        self._gone_since = None
        self._connected_before = True

    # ---- while connected, in the thread of `keep`

    @property
    def unacknowledged(self) -> int:
        """Messages of QoS 1 that the broker has not acknowledged yet."""
        self._unacknowledged = [info for info in self._unacknowledged if not info.is_published()]
        return len(self._unacknowledged)

    @property
    def unsent(self) -> int:
        """Messages of QoS 0 that the network has not taken yet."""
        self._unsent = [info for info in self._unsent if not info.is_published()]
        return len(self._unsent)

    def subscribe(self, filters: Iterable[tuple[str, int]]) -> None:
        """(topic filter, QoS) each."""
        assert self._client is not None
        self._client.subscribe(list(filters))

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hand a message to the network; see `unacknowledged`. Never waits. Raises LinkLost."""
        assert self._client is not None
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != 0:
            raise LinkLost(self._lost_why or _CLOSED)
        (self._unacknowledged if qos else self._unsent).append(info)

    def step(self, timeout_s: float) -> None:
        """Wait so long at most for the network or for `wake`, and hand over what came. Raises LinkLost."""
        lost = None
        try:
            self._pump(0.0 if self._came else timeout_s)
        except LinkLost as error:
            lost = error
        while self._came:
            message = self._came.popleft()
            if self._on_message(message) and self._client is not None:
                self._client.ack(message.mid, message.qos)
        if lost is not None:
            raise lost

    def _pump(self, timeout_s: float) -> None:
        """Read and write what the network is ready for."""
        self.turned_s = time.monotonic()
        client = self._client
        assert client is not None
        connection: Any = client.socket()
        if connection is None:
            raise LinkLost(self._lost_why or _CLOSED)
        # what TLS has decrypted already makes no socket readable
        pending = bool(getattr(connection, "pending", int)())
        reading = [connection] if self._bell_heard is None else [connection, self._bell_heard]
        writing = [connection] if client.want_write() else []
        ready, free, _ = select.select(reading, writing, [], 0.0 if pending else timeout_s)
        if self._bell_heard in ready:
            with contextlib.suppress(BlockingIOError):
                while self._bell_heard is not None and self._bell_heard.recv(1024):
                    pass
        if pending or connection in ready:
            client.loop_read()
        if connection in free:
            client.loop_write()
        client.loop_misc()
        if client.socket() is None:
            raise LinkLost(self._lost_why or _CLOSED)


def _reason_of(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.lower().rstrip(".")


def broker_answers(broker: Broker, timeout_s: float = 5.0, client_id: str = "") -> tuple[int | None, str]:
    """Connect once and leave: (MQTT version that the broker speaks, "") or (None, why it does not let us in).

    Without a last will or a session: amqtt 0.12 says that it does not speak MQTT 5 only to a client that has
    neither, and says nothing at all to others.
    """
    why = _SILENT
    for version in (5, 3):
        link = Link(broker, client_id)
        try:
            link.open(version, timeout_s)
            return version, ""
        except _PerhapsOlder as lost:
            why = str(lost)
        except LinkLost as lost:
            return None, str(lost)
        finally:
            link.close()
    return None, why
