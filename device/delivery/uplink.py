"""The device's end of the wire: one thread that keeps the link, delivers the outbox, says what is live.

The retained `state` says online; the last will says offline.
An exam goes out as device.contract tells: result first, then the chunks with at most a few of them
unacknowledged, and it is delivered when *ingest* has sent a receipt that names its hash, never before. No
receipt: the result is announced again, later and later; a receipt with a bitmap: just the missing chunks.
What is live is thrown away while nobody listens.
"""

from __future__ import annotations

import contextlib
import logging
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
from device.delivery.link import Broker, Link, LinkLost, backoff
from device.errors import StethopiError
from device.storage.outbox import Outbox, Parcel

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

__all__ = ["Pace", "Uplink"]

log = logging.getLogger("mqtt")


_REMEDY = dict.fromkeys(
    ("bad user name or password", "not authorized"), "; check [mqtt] username and password_file"
)

_MOST_LIVE = 64
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
        self.live_dropped = 0
        self.delivered = 0
        self.online = False
        self._outbox = outbox
        self._state = state
        self._on_command = on_command or _knows_nothing
        self._clock = clock or SystemClock()
        self._pace = pace or Pace()
        offline = replace(state, online=False, why="connection lost")
        self._link = Link(
            broker,
            f"stethopi-{address.fleet}-{address.device}",
            will=(address.state, encode(offline)),
            on_message=self._receive,
            meanwhile="exams wait in the outbox",
            remedies=_REMEDY,
            first_rest_s=self._pace.reconnect_first_s,
            longest_rest_s=self._pace.reconnect_most_s,
        )
        self._live_lock = threading.Lock()
        self._live: deque[tuple[str, Any]] = deque()
        self._disk_away = False
        self._jobs: dict[str, _Job] = {}
        self._answers: dict[str, Answer] = {}
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    # ---- for the other threads

    @property
    def loop_monotonic_s(self) -> float:
        """When the thread last went round; a watchdog may look at it."""
        return self._link.turned_s

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say goodbye to the broker and end the thread. Safe twice. Exams wait in the outbox."""
        self._link.stop()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """A new exam is in the outbox."""
        self._link.wake()

    def live(self, name: str, message: Any) -> None:
        """Publish on `live/{name}`, QoS 0; forgotten when the broker is away or slow. Never waits."""
        self._say(self.address.live(name), message)

    def health(self, message: Health) -> None:
        """Publish on `health`, QoS 0, as `live`."""
        self._say(self.address.health, message)

    def _say(self, topic: str, message: Any) -> None:
        with self._live_lock:
            if not self.online:
                self.live_dropped += 1
                return
            if len(self._live) >= _MOST_LIVE:
                self._live.popleft()
                self.live_dropped += 1
            self._live.append((topic, message))
        self._link.wake()

    # ---- the connection

    def _run(self) -> None:
        self._link.keep(self._serve, on_trouble=self._disk_failed)

    def _disk_failed(self, error: StethopiError) -> None:
        """The disk takes nothing any more: said once, and tried again seldom."""
        if not self._disk_away:
            log.error("%s", error)
        self._disk_away = True

    def _serve(self) -> None:
        self._link.subscribe([(self.address.receipt, 1), (self.address.command, 1)])
        self._link.publish(self.address.state, encode(self._state), retain=True)
        waiting = self._outbox.backlog().exams
        self._link.say_back(f"; {waiting} exam{'s' * (waiting != 1)} to send" if waiting else "")
        self.online = True
        try:
            self._deliver()
            self._goodbye()
        finally:
            with self._live_lock:
                self.online = False
                self._live.clear()

    def _goodbye(self) -> None:
        """A clean end: the retained state says that we stopped."""
        self._note_pushed(0.0)
        stopped = replace(self._state, online=False, why="stopped")
        with contextlib.suppress(LinkLost):
            self._link.publish(self.address.state, encode(stopped), retain=True)
            self._settle(0, timeout_s=2.0)

    # ---- while connected

    def _deliver(self) -> None:
        for job in self._jobs.values():
            # its receipt may have come while nobody listened
            job.due_s, job.announce, job.pushing = 0.0, True, False
        while not self._link.stopping:
            self._turn(0.0)
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
        self._turn(min(max(due - time.monotonic(), 0.0), 1.0))

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
        while job.queue and not job.settled and not self._link.stopping:
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
        if not job.settled and not self._link.stopping:
            job.announce = True
            job.rounds += 1
            job.due_s = time.monotonic() + self._patience(job.rounds)

    def _patience(self, rounds: int) -> float:
        return backoff(self._pace.announce_first_s, self._pace.announce_most_s, rounds)

    def _publish(self, topic: str, payload: bytes) -> None:
        """QoS 1, with back-pressure: waits until the window has room."""
        self._settle(self._pace.window - 1)
        self._link.publish(topic, payload)

    def _settle(self, most: int, timeout_s: float | None = None) -> None:
        """Wait until at most `most` messages lack the broker's acknowledgement."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        wait_s = 0.0
        while True:
            self._turn(wait_s)
            if self._link.unacknowledged <= most or (deadline is not None and time.monotonic() > deadline):
                return
            if self._link.stopping and deadline is None:
                deadline = time.monotonic() + 1.0
            wait_s = 0.1

    def _turn(self, wait_s: float) -> None:
        """Publish what is live, then hear what came within `wait_s` seconds."""
        with self._live_lock:
            live = list(self._live)
            self._live.clear()
        for topic, message in live:
            if self._link.unsent >= _MOST_LIVE:
                self.live_dropped += 1
                continue
            try:
                payload = encode(message)
            except BadMessage as error:
                log.error("a message for %s breaks its own limits and is dropped: %s", topic, error)
                continue
            self._link.publish(topic, payload, qos=0)
        self._link.step(wait_s)

    def _receive(self, message: MQTTMessage) -> bool:
        try:
            if message.topic == self.address.receipt:
                self._on_receipt(read(Receipt, bytes(message.payload)))
            elif message.topic == self.address.command and not self._link.stopping:
                self._obey(read(Command, bytes(message.payload)), message.retain)
        except BadMessage as error:
            log.debug("dropped a message on %s: %s", message.topic, error)
        return True

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
        self._link.publish(self.address.answer, encode(answer))

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
