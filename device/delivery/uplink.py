"""The device's end of the wire: one thread that keeps the broker, delivers the outbox, says what is live.

MQTT 5 where the broker speaks it, else 3.1.1. The retained `state` says online; the last will says offline.
An exam goes out as device.contract tells: result first, then the chunks with at most a few of them
unacknowledged, and it is delivered when *ingest* has sent a receipt that names its hash, never before. No
receipt: the result is announced again, later and later; a receipt with a bitmap: just the missing chunks.
What is live is thrown away while nobody listens.

The log says "went away" once and "came back" once, with the seconds between them.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from device.clock import Clock, SystemClock
from device.contract.chunks import Receipt, missing_chunks
from device.contract.codec import BadMessage, encode
from device.contract.control import Answer, Command, Health, State
from device.contract.topics import Address, read
from device.contract.vocabulary import chunk_span
from device.delivery.link import Broker, broker_answers, reason_of, show_papers, spoken
from device.errors import StethopiError
from device.storage.outbox import Outbox, Parcel

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo

__all__ = ["Pace", "Uplink"]

log = logging.getLogger("mqtt")


_REMEDY = dict.fromkeys(
    ("bad user name or password", "not authorized"), "; check [mqtt] username and password_file"
)

_MOST_LIVE = 64
_MOST_INBOX = 1000
_MOST_AWAITING = 16
_REMEMBERED_COMMANDS = 100
_NOTE_AFTER_S = 1.0


@dataclass(frozen=True)
class Pace:
    """How patient the uplink is. The defaults are for the field; tests hurry."""

    reconnect_first_s: float = 1.0
    reconnect_most_s: float = 60.0
    announce_first_s: float = 2.0
    announce_most_s: float = 300.0
    window: int = 8
    """Messages sent to the broker that it has not acknowledged yet, at most."""


@dataclass
class _Job:
    """An exam on its way."""

    parcel: Parcel
    due_s: float
    rounds: int = 0
    queue: deque[tuple[str, int]] = field(default_factory=deque)
    """Chunks to send, (site, number)."""
    announce: bool = True
    pushing: bool = False
    pushed_s: float | None = None
    """Since when the broker has had every chunk; None before that, and once the outbox knows of it."""
    settled: bool = False


class _Lost(Exception):
    """The connection went away in the middle of something."""


class Uplink:
    """Delivers the exams of `outbox` through `broker` in a thread of its own, from `start` to `stop`.

    state: what the retained state message says while online.
    on_command: obeys a command and answers; called in the uplink's thread, so it must not wait.
    """

    def __init__(
        self,
        address: Address,
        outbox: Outbox,
        broker: Broker,
        *,
        state: State,
        on_command: Callable[[Command], Answer] | None = None,
        clock: Clock | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.address = address
        self.broker = broker
        self.live_dropped = 0
        self.delivered = 0
        self.loop_monotonic_s = time.monotonic()
        """When the thread last went round; a watchdog may look at it."""
        self._outbox = outbox
        self._state = state
        self._on_command = on_command or _knows_nothing
        self._clock = clock or SystemClock()
        self._pace = pace or Pace()
        self._bell = threading.Condition()
        self._inbox: deque[tuple[str, Any]] = deque(maxlen=_MOST_INBOX)
        self._live: deque[tuple[str, Any]] = deque()
        self._sent_live: deque[MQTTMessageInfo] = deque()
        self._client: Client | None = None
        self._online = False
        self._lost_why: str | None = None
        self._disk_away = False
        self._gone_since: float | None = None
        self._connected_before = False
        self._version: int | None = None
        self._client_id = f"stethopi-{address.fleet}-{address.device}"
        self._stopping = False
        self._jobs: dict[str, _Job] = {}
        self._outstanding: deque[MQTTMessageInfo] = deque()
        self._answers: dict[str, Answer] = {}
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    # ---- for the other threads

    @property
    def online(self) -> bool:
        return self._online

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say goodbye to the broker and end the thread. Safe twice. Exams wait in the outbox."""
        with self._bell:
            self._stopping = True
            self._bell.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """A new exam is in the outbox."""
        with self._bell:
            self._bell.notify_all()

    def live(self, name: str, message: Any) -> None:
        """Publish on `live/{name}`, QoS 0; forgotten when the broker is away or slow. Never waits."""
        self._say(self.address.live(name), message)

    def health(self, message: Health) -> None:
        """Publish on `health`, QoS 0, as `live`."""
        self._say(self.address.health, message)

    def _say(self, topic: str, message: Any) -> None:
        with self._bell:
            if not self._online:
                self.live_dropped += 1
                return
            if len(self._live) >= _MOST_LIVE:
                self._live.popleft()
                self.live_dropped += 1
            self._live.append((topic, message))
            self._bell.notify_all()

    # ---- the connection

    def _run(self) -> None:
        wait_s = self._pace.reconnect_first_s
        while not self._stopping:
            self.loop_monotonic_s = time.monotonic()
            try:
                self._connect()
                wait_s = self._pace.reconnect_first_s
                self._serve()
                self._goodbye()
            except _Lost as lost:
                self._say_gone(str(lost))
            except StethopiError as error:
                # the disk takes nothing any more: said once, and tried again seldom
                if not self._disk_away:
                    log.error("%s", error)
                self._disk_away = True
                wait_s = self._pace.reconnect_most_s
            except Exception:
                if self._stopping:
                    return
                # whatever it was: exams are safe in the outbox, and the next connection starts afresh
                log.exception("uplink: unexpected; the connection is made anew")
            finally:
                self._drop_client()
            if self._stopping:
                return
            self._rest(wait_s * random.uniform(0.9, 1.1))
            wait_s = min(2 * wait_s, self._pace.reconnect_most_s)

    def _rest(self, seconds: float) -> None:
        """Wait, and go on showing that the thread lives."""
        until_s = time.monotonic() + seconds
        while not self._stopping and (left_s := until_s - time.monotonic()) > 0:
            self.loop_monotonic_s = time.monotonic()
            with self._bell:
                self._bell.wait_for(lambda: self._stopping, min(left_s, 5.0))

    def _make_client(self) -> Client:
        from paho.mqtt import client as paho

        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=paho.MQTTProtocolVersion.MQTTv5
            if self._version == 5
            else paho.MQTTProtocolVersion.MQTTv311,
            clean_session=None if self._version == 5 else True,
            reconnect_on_failure=False,
        )
        client.on_connect = lambda c, _u, _flags, reason, _p: self._note(c, "connack", reason)
        client.on_disconnect = lambda c, _u, _flags, reason, _p: self._note(c, "lost", reason)
        client.on_message = lambda c, _u, message: self._note(c, "message", message)
        client.on_publish = lambda c, _u, _mid, _reason, _p: self.wake()
        try:
            show_papers(client, self.broker)
        except (OSError, ValueError) as error:
            raise _Lost(f"TLS cannot be set up: {error}; check the files named in [mqtt]") from error
        offline = replace(self._state, online=False, why="connection lost")
        client.will_set(self.address.state, encode(offline), qos=1, retain=True)
        return client

    def _note(self, client: Client, what: str, value: Any) -> None:
        """From paho's thread: keep it for ours."""
        with self._bell:
            if client is not self._client:
                return
            if what == "lost":
                self._lost_why = str(value).lower()
            self._inbox.append((what, value))
            self._bell.notify_all()

    def _connect(self) -> None:
        """Connect and be let in; raises _Lost when that fails."""
        if self._version is None:
            self._version, why = broker_answers(self.broker, client_id=self._client_id)
            if self._version is None:
                raise _Lost(why + _REMEDY.get(why, ""))
        client = self._make_client()
        with self._bell:
            self._client = client
            self._lost_why = None
            self._inbox.clear()
        try:
            if self._version == 5:
                client.connect(self.broker.host, self.broker.port, self.broker.keepalive_s, clean_start=True)
            else:
                client.connect(self.broker.host, self.broker.port, self.broker.keepalive_s)
        except (OSError, ValueError) as error:
            raise _Lost(reason_of(error)) from error
        client.loop_start()
        reason = self._connack()
        if reason is None or reason.is_failure:
            self._version = None  # it may be another broker by now: ask again what it speaks
            why = str(reason).lower() if reason else "no answer to the connection"
            raise _Lost(why + _REMEDY.get(why, ""))
        client.subscribe([(self.address.receipt, 1), (self.address.command, 1)])
        client.publish(self.address.state, encode(self._state), qos=1, retain=True)
        self._say_back()

    def _connack(self) -> Any:
        """The broker's answer, or None."""
        deadline = time.monotonic() + 10.0
        with self._bell:
            while time.monotonic() < deadline and not self._stopping:
                for what, value in self._inbox:
                    if what == "connack":
                        return value
                if self._lost_why is not None:
                    return None
                self._bell.wait(0.2)
        return None

    def _drop_client(self) -> None:
        with self._bell:
            client, self._client = self._client, None
            self._online = False
            self._live.clear()
        self._sent_live.clear()
        self._outstanding.clear()
        if client is not None:
            with contextlib.suppress(Exception):
                client.disconnect()
                client.loop_stop()

    def _goodbye(self) -> None:
        """A clean end: the retained state says that we stopped."""
        assert self._client is not None
        self._drain(commands=False)
        self._note_pushed(0.0)
        stopped = replace(self._state, online=False, why="stopped")
        self._outstanding.append(
            self._client.publish(self.address.state, encode(stopped), qos=1, retain=True)
        )
        with contextlib.suppress(_Lost):
            self._settle(0, timeout_s=2.0)

    def _say_gone(self, why: str) -> None:
        if self._gone_since is None:
            self._gone_since = time.monotonic()
            went = "went away" if self._connected_before else "cannot be reached"
            log.warning("broker %s %s (%s); exams wait in the outbox", self.broker, went, why)
        else:
            log.debug("broker %s still away (%s)", self.broker, why)

    def _say_back(self) -> None:
        waiting = self._outbox.backlog().exams
        more = f"; {waiting} exam{'s' * (waiting != 1)} to send" if waiting else ""
        if self._gone_since is None:
            log.info("broker %s connected (MQTT %s)%s", self.broker, spoken(self._version), more)
        else:
            away = time.monotonic() - self._gone_since
            log.info("broker %s came back after %.0f s%s", self.broker, away, more)
        self._gone_since = None
        self._connected_before = True
        with self._bell:
            self._online = True

    # ---- while connected

    def _serve(self) -> None:
        for job in self._jobs.values():
            # its receipt may have come while nobody listened
            job.due_s, job.announce, job.pushing = 0.0, True, False
        while not self._stopping:
            self.loop_monotonic_s = time.monotonic()
            self._drain()
            self._note_pushed()
            next_job = self._next_job()
            if next_job is None:
                self._wait()
                continue
            try:
                self._send(next_job)
            except OSError as error:
                self._jobs.pop(next_job.parcel.id, None)
                self._outbox.torn(next_job.parcel.id, f"its sound cannot be read ({error})")

    def _note_pushed(self, after_s: float = _NOTE_AFTER_S) -> None:
        """Let the outbox know which exams need only be announced. Most get their receipt at once, and need
        no such note, which spares the card a write.
        """
        late = time.monotonic() - after_s
        jobs = [job for job in self._jobs.values() if job.pushed_s is not None and job.pushed_s <= late]
        if jobs:
            self._outbox.pushed(*(job.parcel.id for job in jobs))
        for job in jobs:
            job.pushed_s = None

    def _wait(self) -> None:
        due = min((job.due_s for job in self._jobs.values()), default=time.monotonic() + 1.0)
        with self._bell:
            if not self._inbox and not self._live and self._lost_why is None and not self._stopping:
                self._bell.wait(min(max(due - time.monotonic(), 0.0), 1.0))

    def _next_job(self) -> _Job | None:
        now = time.monotonic()
        due = [job for job in self._jobs.values() if job.due_s <= now]
        if due:
            return min(due, key=lambda job: job.due_s)
        if len(self._jobs) < _MOST_AWAITING and (parcel := self._outbox.claim()) is not None:
            job = self._jobs[parcel.id] = _Job(parcel, now)
            if not parcel.pushed:
                job.queue.extend((s.site, n) for s in parcel.sounds for n in range(s.chunks))
            return job
        return None

    def _send(self, job: _Job) -> None:
        """One round: announce, unless the host has just spoken of it, then the chunks in its queue."""
        parcel = job.parcel
        sounds = {sound.site: sound for sound in parcel.sounds}
        job.pushing = True
        if job.announce:
            self._publish(self.address.result(parcel.id), parcel.result)
        while job.queue and not job.settled and not self._stopping:
            site, n = job.queue.popleft()
            sound = sounds[site]
            first, past = chunk_span(n, sound.size, sound.chunk_size)
            with sound.path.open("rb") as file:
                file.seek(first)
                chunk = file.read(past - first)
            if len(chunk) != past - first:
                raise OSError(f"{sound.path.name} is too short")
            self._publish(self.address.sound(parcel.id, site, n), chunk)
        self._settle(0)
        job.pushing = False
        if not parcel.pushed and not job.rounds:
            job.pushed_s = time.monotonic()
        if not job.settled and not self._stopping:
            job.announce = True
            job.rounds += 1
            job.due_s = time.monotonic() + self._patience(job.rounds)

    def _patience(self, rounds: int) -> float:
        wait_s = self._pace.announce_first_s * 2.0 ** min(rounds - 1, 30)
        return min(wait_s, self._pace.announce_most_s) * random.uniform(0.9, 1.1)

    def _publish(self, topic: str, payload: bytes) -> None:
        """QoS 1, with back-pressure: waits until the window has room."""
        self._settle(self._pace.window - 1)
        assert self._client is not None
        self._outstanding.append(self._client.publish(topic, payload, qos=1))

    def _settle(self, most: int, timeout_s: float | None = None) -> None:
        """Wait until at most `most` messages lack the broker's acknowledgement; serve the inbox meanwhile."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._drain(commands=timeout_s is None)
            self._outstanding = deque(info for info in self._outstanding if not info.is_published())
            if len(self._outstanding) <= most or (deadline is not None and time.monotonic() > deadline):
                return
            if self._stopping and deadline is None:
                deadline = time.monotonic() + 1.0
            self.loop_monotonic_s = time.monotonic()
            with self._bell:
                if not self._inbox and not self._live and self._lost_why is None:
                    self._bell.wait(0.1)

    def _drain(self, commands: bool = True) -> None:
        """Handle what came, publish what is live. Raises _Lost when the connection is gone."""
        with self._bell:
            came, live = list(self._inbox), list(self._live)
            self._inbox.clear()
            self._live.clear()
            lost = self._lost_why
        for what, value in came:
            if what == "message":
                self._receive(value, commands)
        if lost is not None:
            raise _Lost(lost)
        assert self._client is not None
        while self._sent_live and self._sent_live[0].is_published():
            self._sent_live.popleft()
        for topic, message in live:
            if len(self._sent_live) >= _MOST_LIVE:
                self.live_dropped += 1
            else:
                try:
                    payload = encode(message)
                except BadMessage as error:
                    log.error("a message for %s breaks its own limits and is dropped: %s", topic, error)
                    continue
                self._sent_live.append(self._client.publish(topic, payload, qos=0))

    def _receive(self, message: MQTTMessage, commands: bool) -> None:
        try:
            if message.topic == self.address.receipt:
                self._on_receipt(read(Receipt, bytes(message.payload)))
            elif message.topic == self.address.command and commands:
                self._obey(read(Command, bytes(message.payload)), message.retain)
        except BadMessage as error:
            log.debug("dropped a message on %s: %s", message.topic, error)

    # ---- receipts and commands

    def _on_receipt(self, receipt: Receipt) -> None:
        job = self._jobs.get(receipt.exam)
        if receipt.status == "missing":
            if job is not None and job.parcel.sha256 == receipt.sha256:
                self._resend(job, receipt)
            return
        if receipt.status == "stored":
            ours = self._outbox.delivered(receipt.exam, receipt.sha256)
            if ours and job is not None:
                self.delivered += 1
                log.info("exam %s delivered", receipt.exam)
        else:
            ours = self._outbox.refused(receipt.exam, receipt.sha256, receipt.why or "")
            if ours and job is not None:
                log.error("exam %s refused by the host: %s; it stays here", receipt.exam, receipt.why)
        if ours and self._disk_away:
            self._disk_away = False
            log.info("the outbox can be written again")
        if ours and job is not None:
            job.settled = True
            del self._jobs[receipt.exam]
        elif not ours and job is not None:
            log.warning("a receipt for exam %s names another hash; not taken as delivered", receipt.exam)

    def _resend(self, job: _Job, receipt: Receipt) -> None:
        chunks = {sound.site: sound.chunks for sound in job.parcel.sounds}
        missing = [
            (site, n)
            for site, text in (receipt.missing or {}).items()
            if site in chunks
            for n in missing_chunks(text, chunks[site])
        ]
        if job.pushing:
            # the host spoke while chunks were still under way: what it has already need not be sent
            keep = set(missing)
            job.queue = deque(chunk for chunk in job.queue if chunk in keep)
            return
        job.queue = deque(missing)
        job.announce = not missing
        # a host that keeps missing the same chunks must not make us send them without a pause
        job.due_s = time.monotonic() + (self._patience(job.rounds) if job.rounds > 3 else 0.0)

    def _obey(self, command: Command, retained: bool) -> None:
        answer = self._answers.get(command.id)
        if answer is None:
            answer = self._judge(command, retained)
            self._answers[command.id] = answer
            if len(self._answers) > _REMEMBERED_COMMANDS:
                del self._answers[next(iter(self._answers))]
        assert self._client is not None
        self._client.publish(self.address.answer, encode(answer), qos=1)

    def _judge(self, command: Command, retained: bool) -> Answer:
        def no(says: str) -> Answer:
            return Answer(command.id, command.name, False, says)

        if retained:
            return no("a retained command is not obeyed; send it without retain")
        # a clock that nobody keeps may be years ahead, and would refuse every command
        if self._clock.trust() == "synchronised" and self._clock.wall() > command.expires_s:
            return no("expired")
        try:
            return self._on_command(command)
        except StethopiError as error:
            return no(str(error)[:300])


def _knows_nothing(command: Command) -> Answer:
    return Answer(command.id, command.name, False, "unknown command")
