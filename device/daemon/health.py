"""How the daemon is: in counters for the host, in words for systemd, by what is watched over."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable

from device.contract.control import Health
from device.contract.vocabulary import Moment
from device.daemon.machine import resident_bytes, temperature_c
from device.daemon.parts import Parts
from device.daemon.service import Notifier, Signs, Watchdog
from device.daemon.sound_thread import SHED_WORDS
from device.daemon.source_thread import SourceThread
from device.panel.light import Light

__all__ = ["DiskWatch", "HealthReport", "HealthSender", "ServiceSigns", "SilenceWatch"]

log = logging.getLogger("daemon")

HEALTH_EVERY_S = 10.0
SILENT_AFTER_S = 8.0
"""A source that is alive and gives nothing for so long is told of, and started again: within 10 s."""


class DiskWatch:
    """Tells when no exam can be kept."""

    def __init__(self, parts: Parts, changed: Callable[[], None]) -> None:
        self.trouble: str | None = None
        """Why none can be kept."""
        self._parts = parts
        self._changed = changed

    def look(self) -> None:
        """No room, or a disk that takes nothing: told once, by log, light and health; and once when it is
        over.
        """
        outbox, examiner, before = self._parts.outbox, self._parts.examiner, self.trouble
        assert outbox is not None
        stuck = examiner.stuck if examiner else None
        self.trouble = stuck or outbox.shortage(self._parts.controls.plan.most_bytes)
        if self.trouble and not before:
            log.error("no exam can be kept: %s", self.trouble)
            self._parts.lamp.show(Light.ERROR)
        elif before and not self.trouble:
            log.info("exams can be kept again")
            if examiner is None or not examiner.busy:
                self._parts.lamp.show(Light.READY)
        if self.trouble != before:
            self._changed()


class SilenceWatch:
    """Has a source started again that is alive but silent."""

    def __init__(self, source: SourceThread, tell: Callable[[], None]) -> None:
        """tell: sends the counters at once."""
        self._source = source
        self._tell = tell

    def look(self) -> None:
        silent_s = self._source.silent_s
        if silent_s is None or silent_s <= SILENT_AFTER_S:
            return
        self._source.give_up(f"no sound for {silent_s:.0f} s, though it seems alive; it is started again")
        self._tell()  # before it may be back: who reads nothing else must hear of it too
        self._source.stop()


class HealthReport:
    """What the daemon says of itself."""

    def __init__(self, parts: Parts, disk: DiskWatch) -> None:
        self._parts = parts
        self._disk = disk
        self._started_s = parts.clock.monotonic()

    def message(self) -> Health:
        """The counters, as the host gets them."""
        parts = self._parts
        outbox, examiner, trouble = parts.outbox, parts.examiner, self._disk.trouble
        assert outbox is not None
        now = Moment(**parts.clock.stamp().to_json())
        last_s = parts.source.last_sample_s
        try:
            free: int | None = shutil.disk_usage(outbox.folder).free
        except OSError:
            free = None
        return Health(
            now=now,
            uptime_s=max(now.monotonic_s - self._started_s, 0.0),
            source=parts.source.state,
            sample_age_s=None if last_s is None else max(now.monotonic_s - last_s, 0.0),
            samples=examiner.heard if examiner else 0,
            lost_samples=parts.chain.lost if parts.chain else 0,
            exams=examiner.finished if examiner else 0,
            backlog=outbox.backlog(now),
            partials=outbox.kept_partials(),
            disk_free_bytes=free,
            memory_bytes=resident_bytes(),
            temperature_c=temperature_c(),
            battery=None,
            shed=SHED_WORDS[parts.shedder.now],
            missed={timer.name: timer.missed for timer in parts.timers},
            dropped={**parts.dropped, "windows": examiner.windows_dropped if examiner else 0},
            listening=parts.listening.now,
            trouble=trouble[:300] if trouble else None,
        )

    def words(self) -> str:
        """The same for a person, in a line."""
        parts, trouble = self._parts, self._disk.trouble
        phase = parts.examiner.phase.value if parts.examiner else "starting"
        waiting = parts.outbox.backlog().exams if parts.outbox else 0
        more = f"; no exam can be kept: {trouble}" if trouble else ""
        if parts.feedback.found_hz is not None:
            more += "; feedback: the microphone hears the loudspeaker"
        return f"source {parts.source.state}, exam {phase}, {waiting} waiting in the outbox{more}"


class HealthSender:
    """Sends the host the counters."""

    def __init__(self, parts: Parts, report: HealthReport) -> None:
        self._parts = parts
        self._report = report
        self._soon = threading.Event()
        self._next_s = 0.0

    def hurry(self) -> None:
        """Something has changed that the host should know. Any thread may call."""
        self._soon.set()

    def look(self) -> None:
        """Send them when it is time, or when something has changed."""
        if time.monotonic() >= self._next_s or self._soon.is_set():
            self.send()

    def send(self) -> None:
        """Now; while there is no broker, they go out as soon as there is one."""
        uplink = self._parts.uplink
        if uplink is None or not uplink.online:
            return
        self._next_s = time.monotonic() + HEALTH_EVERY_S
        self._soon.clear()
        uplink.health(self._report.message())


class ServiceSigns:
    """Keeps systemd informed."""

    def __init__(self, parts: Parts, words: Callable[[], str], sound_over: threading.Event) -> None:
        self._parts = parts
        self._words = words
        self._sound_over = sound_over
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier)
        self._said = ""

    def ready(self) -> None:
        """The daemon has begun."""
        self._notifier.say(READY=1)

    def alive(self) -> None:
        """Feed the watchdog, if everything goes on. To be called a few times a second."""
        parts = self._parts
        self._watchdog.look(
            Signs(
                heard=parts.examiner.heard if parts.examiner else 0,
                ended=self._sound_over.is_set(),
                away_since_s=parts.source.gone_since_s,
                tried_s=parts.source.tried_s,
                judge_s=parts.judge.looped_s if parts.judge else None,
                uplink_s=parts.uplink.loop_monotonic_s if parts.uplink else None,
            )
        )

    def status(self) -> None:
        """What goes on, when it is something else than before."""
        words = self._words()
        if words != self._said:
            self._notifier.say(STATUS=words)
        self._said = words

    def stopping(self) -> None:
        """The daemon ends."""
        self._notifier.say(STOPPING=1)

    def close(self) -> None:
        self._notifier.close()
