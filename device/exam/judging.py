"""The judge's line: a second of sound, its spectrum once, and from that windows, quality and heart rate.

The ring is the queue between sound thread and judge thread: a judge that falls far behind leaves windows out
and counts them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from device.contract.exam import Exam
from device.contract.live import LiveQuality
from device.contract.vocabulary import CHUNK_SIZE, ecg_name
from device.errors import StethopiError
from device.exam.handover import Handover
from device.exam.identity import Contact, LiveSink, WindowJudge
from device.exam.plan import Phase, Plan
from device.exam.recording import Recording
from device.exam.result import site_of
from device.exam.session import SiteRecord
from device.exam.underway import Running, Underway
from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ
from device.screening.features import GRID, ScreeningFrames
from device.screening.quality import CONTACT_S
from device.screening.rhythm import heart_rate, heart_rate_in
from device.screening.screen import WINDOW_BUDGET_S
from device.screening.verdict import SHORTEST_JUDGED_S
from device.spans import Gap
from device.stream.ring import Ring
from device.timing import StageTimer

__all__ = ["MOST_LAG_S", "Judging"]

log = logging.getLogger("exam")

MOST_LAG_S = 10.0
"""Further behind, the judge leaves windows out."""

_CONTACT = round(CONTACT_S * WORKING_RATE_HZ)
_CONTACT_FRAMES = GRID.frames(_CONTACT)
_SHORTEST = SHORTEST_JUDGED_S * WORKING_RATE_HZ


class _Piece(NamedTuple):
    """What the judge hears next, by absolute index."""

    start: int
    end: int
    base: int
    take: int
    second: bool
    """It completes a second: how the exam goes is told."""


class Judging:
    """The judge thread's work on exams."""

    def __init__(
        self,
        now: Underway,
        ring: Ring,
        judge: WindowJudge,
        contact: Contact,
        recording: Recording,
        handover: Handover,
        *,
        live: LiveSink,
        fast: bool,
        start: Callable[[Plan, int], object],
        result: Callable[[Running], Exam],
    ) -> None:
        """start: begins an exam by itself. result: what an exam whose sites are settled comes to."""
        self.times = StageTimer("classify", WINDOW_BUDGET_S)
        self.windows_dropped = 0
        self._now = now
        self._ring = ring
        self._judge = judge
        self._contact = contact
        self._recording = recording
        self._handover = handover
        self._live = live
        self._fast = fast
        self._start = start
        self._result = result

    def judge(self, timeout_s: float = 0.2) -> None:
        """Do the next piece of work, or wait for it for a while. To be called again and again."""
        if self._handover.waiting:
            self._handover.try_to_put()
        now = self._now
        with now.changed:
            running, phase, piece = now.running, None, None
            if running is not None:
                phase = running.state.phase
                piece = self._next_piece(running, phase)
            begun = running is None and self._begin_by_itself()
            if running is not None and phase is Phase.BETWEEN and running.at_once:
                self._go_on(running)
            elif not begun and piece is None and phase in (None, Phase.RECORDING, Phase.BETWEEN):
                now.changed.wait(timeout_s)
        if running is None:
            return
        if piece is not None:
            self._hear(running, piece)
        elif phase is Phase.SETTLING:
            self._settle(running)
        elif phase is Phase.DONE:
            self._finish(running)

    # ---- one site after the other, under the lock

    def _go_on(self, running: Running) -> None:
        """The next site begins where the one before ended, if there is sound for it."""
        over = self._now.source_over
        index = running.site.start + (running.site.samples or 0)
        if over and self._ring.end - index < _SHORTEST:
            running.state.stop(index, over)
            return
        try:
            self._recording.begin_site(running, index)
        except StethopiError as error:
            self._recording.fail(running, error)
            return
        if over:
            running.state.sound_over(running.fed, over)

    def _begin_by_itself(self) -> bool:
        now, ring = self._now, self._ring
        auto = now.autostart
        if auto.plan is None or not auto.left or now.closing or now.away:
            return False
        at = ring.end if auto.next_at is None else max(auto.next_at, ring.oldest)
        if now.begun:
            # the source was away: the next exam begins when it is back
            for gap in ring.gaps(at, ring.end)[:1]:
                if gap.start == at and gap.end - at > _SHORTEST:
                    at = gap.end
        if now.source_over and ring.end - at < WINDOW:
            return False
        try:
            self._start(auto.plan, at)
        except StethopiError as error:
            if str(error) != auto.refusal:
                log.error("no exam can begin: %s", error)
            auto.refusal = str(error)
            return False
        auto.refusal = ""
        auto.left -= 1
        if now.running is not None:
            now.running.automatic = now.begun > 1
            if now.source_over:
                now.running.state.sound_over(now.running.fed, now.source_over)
        return True

    # ---- one second after the other

    def _next_piece(self, running: Running, phase: Phase) -> _Piece | None:
        """A second; less where the site ends. None while it is not there, or when all was heard."""
        if phase not in (Phase.RECORDING, Phase.SETTLING):
            return None
        end = min(running.fed, running.site.start + running.site.limit)
        if not self._fast and end - running.judged > MOST_LAG_S * WORKING_RATE_HZ:
            self._skip(running, end)
        if end <= running.judged or (phase is Phase.RECORDING and end < running.due):
            return None
        if running.fresh:
            self._judge.flush()  # whatever it heard before is another site's
            running.fresh = False
        return _Piece(running.judged, min(end, running.due), running.base, running.take, end >= running.due)

    def _skip(self, running: Running, end: int) -> None:
        """Too late: leave windows out and go on with the newest whole one."""
        start = running.site.start
        newest = -(-(end - WINDOW - start) // WINDOW_EVERY)
        log.warning(
            "the classifier is %.0f s late; windows are left out", (end - running.judged) / WORKING_RATE_HZ
        )
        running.hear_from(start + newest * WINDOW_EVERY)

    def _hear(self, running: Running, piece: _Piece) -> None:
        """Spectrum, windows, and once a second quality and heart rate of the newest three."""
        ring, judge, now = self._ring, self._judge, self._now
        start, end = piece.start, piece.end
        try:
            x, gaps = ring.read(start, end - start), ring.gaps(start, end)
            # on the frames' grid, for the stream's own frames: a second ends where its last frame does
            newest = max(piece.base, end - _CONTACT, ring.oldest)
            last, last_gaps = ring.read(newest, end - newest), ring.gaps(newest, end)
        except LookupError:
            # a hole came that pushed this out of the ring before the classifier had heard it
            judge.flush()
            with now.changed:
                if running.take == piece.take:
                    running.hear_from(min(running.fed, running.site.start + running.site.limit))
            return
        for gap in gaps:
            judge.mark_gap(gap.start - piece.base, gap.end - piece.base)
        for n, gap in enumerate(last_gaps):
            last_gaps[n] = Gap(gap.start - newest, gap.end - newest)
        began = time.perf_counter()
        windows = judge.process(x)
        took_s = time.perf_counter() - began
        quality = progress = None
        if piece.second:
            power = judge.spectrum.power[-_CONTACT_FRAMES:]
            found = self._contact(judge.sound[-len(last) :], last_gaps, power)
            square = float(np.mean(np.square(last, dtype=np.float64)))
            quality = LiveQuality(
                index=newest,
                quality=found.score,
                reasons=found.reasons,
                level_db=10.0 * float(np.log10(square)) if square > 1e-20 else None,
                heart_rate_bpm=heart_rate_in(power),
                exam=running.id,
            )
        with now.changed:
            self.times.add(took_s / max((end - start) / WINDOW_EVERY, 1.0))
            if running.take != piece.take:  # the site has begun again meanwhile
                return
            running.judged = end
            now.changed.notify_all()
            if now.running is not running:
                return
            for window in running.state.judged(running.id, windows, piece.base):
                self._live("window", window)
            if piece.second:
                running.due, running.told = end + WINDOW_EVERY, end
                if running.state.phase is Phase.RECORDING:
                    progress = running.state.told(running.id, "recording", running.fed)
        if progress is not None:
            self._live("exam", progress)
        if quality is not None:
            self._live("quality", quality)

    # ---- the end of a site, the end of an exam

    def _settle(self, running: Running) -> None:
        """The classifier has heard the whole site: fix its end, write its file."""
        try:
            self._end_site(running)
        finally:
            with self._now.changed:
                running.writing = False
                self._now.changed.notify_all()

    def _end_site(self, running: Running) -> None:
        now, spectrum, base = self._now, self._judge.spectrum, running.base
        with self.times:
            windows = self._judge.flush()
        with now.changed:
            if now.running is not running or running.state.phase is not Phase.SETTLING:
                return
            for window in running.state.judged(running.id, windows, base):
                self._live("window", window)
            site = running.state.settle()
            running.writing = True
            recorder, running.recorder = running.recorder, None
            lead, running.lead = running.lead, None
        assert recorder is not None and site.samples is not None
        if site not in running.state.sites:
            recorder.discard()
            if lead is not None:
                lead.discard()
            return
        if site.samples >= WINDOW:
            expected = (site.samples - WINDOW) // WINDOW_EVERY + 1
            self.windows_dropped += expected - len(site.windows)
        try:
            recording = recorder.finish(site.samples)
        except StethopiError as error:
            with now.changed:
                running.recorder, running.lead = recorder, lead
                self._recording.fail(running, error)
            return
        ecg, ecg_path = (lead.finish(site.samples, CHUNK_SIZE) if lead is not None else None) or (None, None)
        made = site_of(
            site,
            started=running.site_started,
            heart_rate_bpm=self._heart_rate(site, spectrum, base),
            recording=recording,
            ecg=ecg,
        )
        files = {site.name: recording.path}
        if ecg_path is not None:
            files[ecg_name(site.name)] = ecg_path
        with now.changed:
            if now.running is not running:  # cancelled while the file was written
                for path in files.values():
                    path.unlink(missing_ok=True)
                return
            running.sites.append(made)
            running.files |= files
            message = running.state.told(running.id, "site done", running.fed)
        self._live("exam", message)
        log.info(
            "exam %s: %s ended after %.1f s (%s), %d of %d windows good",
            *(running.id, site.name, made.seconds, made.ended, made.good_windows, len(made.windows)),
        )

    def _heart_rate(self, site: SiteRecord, spectrum: ScreeningFrames, base: int) -> float | None:
        samples = site.samples or 0
        if base == site.start:
            return heart_rate_in(spectrum.power[: GRID.frames(samples)])
        # windows were left out, and with them frames
        try:
            return heart_rate(self._ring.read(site.start, samples))
        except LookupError:
            return None

    def _finish(self, running: Running) -> None:
        """All sites are settled: the verdict, the result, the outbox."""
        now, sites = self._now, running.state.sites
        samples = sum(site.samples for site in running.sites)
        now.autostart.next_at = sites[-1].start + (sites[-1].samples or 0) if sites else None
        if not samples or (running.automatic and samples < _SHORTEST):
            with now.changed:
                if now.running is running:
                    self._recording.discard(running)
            self._live("exam", running.state.told(running.id, "cancelled", running.fed))
            log.warning("exam %s: nothing to speak of was recorded; it is no exam", running.id)
            return
        exam = self._result(running)
        with now.changed:
            if now.running is not running:
                return
            self._handover.add(exam, running.files)
            now.running = None
        self._handover.try_to_put()
        with now.changed:
            now.changed.notify_all()
