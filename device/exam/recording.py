"""From the ring onto the disk: a site's sound, with the ECG beside it."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from pathlib import Path

from device.clock import Clock
from device.contract.vocabulary import Moment, ecg_name
from device.ecg.track import Track
from device.errors import StethopiError
from device.exam.identity import LiveSink
from device.exam.plan import Phase
from device.exam.underway import Running, Underway
from device.rates import HOP, HOP_S, WORKING_RATE_HZ
from device.storage.recorder import Recorder
from device.stream.ring import Ring
from device.timing import StageTimer

__all__ = ["Recording"]

log = logging.getLogger("exam")

_FAST_LAG_S = 5.0
"""So far a source that is read as fast as it goes may run ahead of the judge."""


class Recording:
    """The sound thread's work on exams."""

    def __init__(
        self, now: Underway, ring: Ring, folder: Path, clock: Clock, live: LiveSink, fast: bool
    ) -> None:
        """folder: where recordings lie. fast: the source waits for the judge."""
        self.times = StageTimer("record", HOP_S / 4)
        self.lead: Track | None = None
        self._now = now
        self._ring = ring
        self._folder = folder
        self._clock = clock
        self._live = live
        self._fast = fast

    def feed(self) -> None:
        """Sound has come into the ring: record it. Waits only for a judge that a fast source left behind."""
        now = self._now
        with now.changed:
            now.away = False
            if now.running is not None:
                self.catch_up(now.running)
            if self._fast:
                now.changed.wait_for(self._judge_is_near)

    def _judge_is_near(self) -> bool:
        now, at = self._now, None
        if now.closing:
            return True
        if now.running is None:
            if now.autostart.plan is not None and now.autostart.left:
                at = now.autostart.next_at
        elif now.running.state.phase is not Phase.BETWEEN or now.running.at_once:
            at = now.running.judged
        return at is None or self._ring.end - at < _FAST_LAG_S * WORKING_RATE_HZ

    # ---- under the lock, by any thread

    def begin_site(self, running: Running, index: int) -> None:
        """The next site begins with sample `index`. StethopiError when the disk does not take it."""
        recorder = self._recorder(running, running.state.plan.name(len(running.state.sites)))
        running.site = running.state.begin(index)
        self._record(running, recorder)

    def repeat_site(self, running: Running) -> None:
        """Throw the site that is heard away, between sites the one before, and hear it again from now on."""
        name, index = running.site.name, self._ring.end
        _discard_recorders(running)
        running.take += 1
        running.sites = [site for site in running.sites if site.site != name]
        for key in (name, ecg_name(name)):
            if (path := running.files.pop(key, None)) is not None:
                with contextlib.suppress(OSError):
                    path.unlink()
        running.site = running.state.repeat(index)
        log.info("exam %s: %s is heard again", running.id, name)
        self._record(running, self._recorder(running, name))

    def _recorder(self, running: Running, site: str) -> Recorder:
        return Recorder(self._folder, f"{running.id}-{site}")

    def _record(self, running: Running, recorder: Recorder) -> None:
        """The site that has just begun."""
        site = running.site
        running.recorder = recorder
        if self.lead is not None:
            running.lead = self.lead.record(self._folder, f"{running.id}-{site.name}-ecg", site.start)
        running.fed = running.told = site.start
        running.hear_from(site.start)
        running.site_started = self.moment(site.start)
        self._live("exam", running.state.told(running.id, "recording", running.fed))
        log.info("exam %s: recording %s", running.id, site.name)
        # it may begin in the past, where the site before turned out to have ended
        self.catch_up(running)

    def catch_up(self, running: Running) -> None:
        """Record what the ring has of the site by now."""
        recorder, state, ring, site = running.recorder, running.state, self._ring, running.site
        if recorder is None or state.phase is not Phase.RECORDING:
            return
        if running.fed < ring.oldest:
            # more was lost at once than the ring holds
            state.stop(running.fed, "source gone")
            self._now.changed.notify_all()
            return
        end = min(ring.end, site.start + site.limit)
        if end > running.fed:
            began = time.perf_counter()
            try:
                piece = ring.take(running.fed, end)
                recorder.append(piece.sound)
            except StethopiError as error:
                self.fail(running, error)
                return
            # what was not heard, or stuck at full scale, in samples of this site
            for gap in piece.gaps:
                recorder.mark_gap(gap.start - site.start, gap.end - site.start)
            for span in piece.clipped:
                recorder.mark_clipped(span.start - site.start, span.end - site.start)
            hops = (end - running.fed) / HOP
            running.fed = end
            self.times.add((time.perf_counter() - began) / max(hops, 1.0))
        if state.heard(running.fed) or running.fed >= running.due:
            self._now.changed.notify_all()

    def fail(self, running: Running, error: StethopiError) -> None:
        """The disk does not take the recording: what is there stays as a partial one."""
        log.error("exam %s cannot be recorded: %s", running.id, error)
        self.abandon(running)
        self._live("exam", running.state.told(running.id, "partial", running.fed))

    def abandon(self, running: Running) -> None:
        """The exam is no more; its recordings stay as partial ones."""
        for recorder in (running.recorder, running.lead):
            if recorder is not None:
                recorder.close()
        self._now.running = None
        self._now.changed.notify_all()

    def discard(self, running: Running) -> None:
        """The exam is no more; nothing of it stays."""
        running.state.cancel()
        _discard_recorders(running)
        for path in running.files.values():
            with contextlib.suppress(OSError):
                path.unlink()
        self._now.running = None
        self._now.changed.notify_all()

    def moment(self, index: int) -> Moment:
        """When sample `index` was heard."""
        stamp = self._clock.stamp()
        heard = self._ring.monotonic_of(index)
        ago = stamp.monotonic_s - heard if heard is not None and not self._fast else 0.0
        moment = Moment(**stamp.to_json())
        return replace(moment, monotonic_s=max(moment.monotonic_s - ago, 0.0), wall_s=moment.wall_s - ago)


def _discard_recorders(running: Running) -> None:
    for recorder in (running.recorder, running.lead):
        if recorder is not None:
            recorder.discard()
    running.recorder = running.lead = None
