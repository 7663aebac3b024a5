"""Runs exams on the ring: records what is heard, has it judged, writes the result, puts it in the outbox.

    sound thread   feed()      from the ring to the recorder; never waits for a verdict
    judge thread   judge()     from the ring to the classifier; ends sites and exams, writes FLAC, puts
    any thread     start(), stop(), next_site(), cancel()

The logic is device.exam.session's; here are its file, its threads and its live messages. The ring is the
queue between the two threads: a judge that falls far behind leaves windows out and counts them. A source that
is read as fast as it goes waits for the judge instead, so that a file gives the same exam everywhere.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from device.clock import Clock
from device.contract.exam import Exam, Site
from device.contract.live import LiveExam, LiveQuality, LiveWindow
from device.contract.vocabulary import CHUNK_SIZE, SITES, Moment, ecg_name
from device.ecg.track import Track, TrackRecorder
from device.errors import BadInput, StethopiError
from device.exam.identity import Identity, LiveSink, WindowJudge
from device.exam.plan import Phase, Plan
from device.exam.result import finding_of, heart_rate_of, latency_of, site_of, window_row
from device.exam.session import Examination, SiteRecord
from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ
from device.screening import quality
from device.screening.rhythm import heart_rate
from device.screening.screen import SHORTEST_S
from device.screening.verdict import Window
from device.storage.outbox import Outbox
from device.storage.recorder import Recorder
from device.stream.ring import Ring
from device.timing import StageTimer

__all__ = ["Examiner", "plan_for", "ring_seconds"]

log = logging.getLogger("exam")

_MOST_LAG_S = 10.0
"""Further behind, the judge leaves windows out."""

_FAST_LAG_S = 5.0
"""So far a source that is read as fast as it goes may run ahead of the judge."""

_PIECE = WORKING_RATE_HZ
_RETRY_PUT_S = 5.0
_WRITE_S = 5.0

_QUALITY_S = 3.0


@dataclass
class _Running:
    """The exam that is under way."""

    id: str
    state: Examination
    subject: str | None
    at_once: bool
    """Go from site to site without being asked."""
    started: Moment
    timers: list[StageTimer]
    """As they stood at the beginning."""
    dropped: dict[str, int]
    recorder: Recorder | None = None
    lead: TrackRecorder | None = None
    """Of the ECG beside the site."""
    fed: int = 0
    """Absolute index up to which the recorder has the sound."""
    judged: int = 0
    """Absolute index up to which the judge has heard it."""
    base: int = 0
    """Absolute index at which the judge's stream began."""
    fresh: bool = True
    """The judge has heard nothing of this stream yet."""
    told: int = 0
    """Absolute index up to which live messages have spoken."""
    automatic: bool = False
    """Nobody asked for it: it began because the one before had ended."""
    sites: list[Site] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    site_started: Moment | None = None
    take: int = 0
    """How often a site was begun again."""
    writing: bool = False
    """A site's file is being written."""


def ring_seconds(max_s: float) -> float:
    """How much sound the ring must hold for exams with sites of at most `max_s`."""
    return max_s + 4 * _MOST_LAG_S


class Examiner:
    """One exam at a time, on one ring.

    timers: the stages whose times go into the exam, in the order of the path; the first two are used here.
    dropped: what the daemon has left out so far, by name.
    fast: the source waits for the judge.
    """

    def __init__(
        self,
        identity: Identity,
        ring: Ring,
        judge: WindowJudge,
        meta: Any,
        outbox: Outbox,
        clock: Clock,
        *,
        timers: Sequence[StageTimer] = (),
        dropped: Callable[[], dict[str, int]] = dict,
        live: LiveSink = lambda name, message: None,
        put: Callable[[Exam], None] = lambda exam: None,
        contact: Callable[..., quality.Quality] = quality.assess,
        fast: bool = False,
    ) -> None:
        self.identity = identity
        self.recording_times = StageTimer("record", 0.002)
        self.judging_times = StageTimer("classify", 0.25 * WINDOW_EVERY / WORKING_RATE_HZ)
        self.windows_dropped = 0
        self.finished = 0
        """Exams that are in the outbox since the start."""
        self.last: Exam | None = None
        self.lead: Track | None = None
        """The ECG that is recorded beside the sound."""
        self.autostart: Plan | None = None
        """Begin the next exam by itself, where the one before ended."""
        self.autostart_left = 0
        """So many more exams; below 0: for ever."""
        self._ring = ring
        self._judge = judge
        self._meta = meta
        self._outbox = outbox
        self._clock = clock
        self._timers = [*timers, self.recording_times, self.judging_times]
        self._dropped = dropped
        self._live = live
        self._put = put
        self._contact = contact
        self._fast = fast
        self._bell = threading.Condition(threading.RLock())
        self._running: _Running | None = None
        self._unput: list[tuple[Exam, dict[str, Path]]] = []
        self._retry_s = 0.0
        self._stuck: str | None = None
        self._next_at: int | None = 0
        """Where the next exam begins by itself: at the start of the sound, then where the one before ended.
        """
        self._begun = 0
        self._refusal = ""
        self._source_over: str | None = None
        self._away = False
        self._closing = False

    # ---- any thread

    @property
    def busy(self) -> bool:
        """An exam is under way, or one could not be written yet."""
        with self._bell:
            return self._running is not None or bool(self._unput)

    @property
    def stuck(self) -> str | None:
        """Why an exam that is over could not be put in the outbox yet; it is tried again and again."""
        with self._bell:
            return self._stuck if self._unput else None

    @property
    def exam_id(self) -> str | None:
        """Of the exam that is under way."""
        with self._bell:
            return self._running.id if self._running else None

    @property
    def phase(self) -> Phase:
        with self._bell:
            return self._running.state.phase if self._running else Phase.IDLE

    @property
    def heard(self) -> int:
        """Working-rate samples since the sound began."""
        return self._ring.end

    def start(
        self, plan: Plan, *, subject: str | None = None, at: int | None = None, at_once: bool = False
    ) -> str:
        """Begin an exam with the sound that comes now (or with sample `at`); its id.

        StethopiError when one is under way, when the sound has ended, or when there is no room for it.
        """
        with self._bell:
            if self._running is not None:
                raise StethopiError("an exam is under way; stop it first")
            if self._closing or (self._source_over is not None and at is None):
                raise StethopiError("the sound has ended; start the program again")
            self._outbox.admit(plan.most_bytes)
            index = self._ring.end if at is None else at
            running = _Running(
                id=str(uuid.uuid4()),
                state=Examination(plan, self._meta),
                subject=subject,
                at_once=at_once,
                started=self._moment(index),
                timers=[timer.copy() for timer in self._timers],
                dropped=self._all_dropped(),
            )
            self._running = running
            try:
                self._begin_site(running, index)
            except StethopiError:
                self._running = None
                raise
            if self._running is not running:
                raise StethopiError("the exam cannot be recorded; free space on the disk")
            self._begun += 1
            self._bell.notify_all()
            return running.id

    def stop(self) -> bool:
        """End the exam as it stands. False when none is under way."""
        return self._end("stopped")

    def next_site(self) -> bool:
        """Between sites: begin the next one. In a site: end it and, when it is settled, go on. False when
        there is nothing to go on with.
        """
        with self._bell:
            running = self._running
            if running is None:
                return False
            state = running.state
            if state.phase is Phase.BETWEEN:
                self._begin_site(running, self._ring.end)
            elif state.phase is Phase.RECORDING:
                self._feed(running)
                state.end_site(running.fed)
            else:
                return False
            self._bell.notify_all()
            return True

    def repeat_site(self) -> bool:
        """Throw the site that is being heard away, between sites the one before, and hear it again from now
        on. False when there is none.
        """
        with self._bell:
            running = self._running
            if running is not None:
                self._bell.wait_for(lambda: not running.writing, _WRITE_S)
            phases = (Phase.RECORDING, Phase.SETTLING, Phase.BETWEEN)
            if running is None or self._running is not running or running.state.phase not in phases:
                return False
            name = running.state.current.name
            self._drop_site(running, name)
            running.state.repeat(self._ring.end)
            log.info("exam %s: %s is heard again", running.id, name)
            self._record(running, self._ring.end)
            self._bell.notify_all()
            return True

    def _drop_site(self, running: _Running, name: str) -> None:
        for recorder in (running.recorder, running.lead):
            if recorder is not None:
                recorder.discard()
        running.recorder = running.lead = None
        running.take += 1
        running.sites = [site for site in running.sites if site.site != name]
        for key in (name, ecg_name(name)):
            if (path := running.files.pop(key, None)) is not None:
                with contextlib.suppress(OSError):
                    path.unlink()

    def cancel(self) -> bool:
        """Throw the exam away. False when none is under way."""
        with self._bell:
            running = self._running
            if running is None:
                return False
            self._discard(running)
            self._tell(running, "cancelled")
            log.info("exam %s cancelled", running.id)
            return True

    def source_ended(self) -> None:
        """No more sound will come: the exam ends with what there is, and no other begins."""
        self._over("sound ended")

    def source_gone(self) -> None:
        """The source has been away for too long: the exam ends with what there is. None begins by itself
        before it is back.
        """
        with self._bell:
            self._away = True
            if self._running is not None:
                self._running.at_once = False
            self._end("source gone")

    def close(self) -> None:
        """End the exam as it stands, begin no other. `judge` still has to be called until `busy` is False."""
        with self._bell:
            self._closing = True
            self._end("stopped")

    def abandon(self) -> None:
        """Leave what could not be brought to its end: recordings stay as partial ones, told at the next
        start.
        """
        with self._bell:
            if self._running is not None and self._running.recorder is not None:
                self._running.recorder.close()
            if self._running is not None and self._running.lead is not None:
                self._running.lead.close()
            self._running = None
            self._bell.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no exam is under way; False when it took too long."""
        with self._bell:
            return self._bell.wait_for(lambda: self._running is None and not self._unput, timeout_s)

    def _over(self, why: str) -> None:
        with self._bell:
            self._source_over = why
            self._end(why)

    def _end(self, why: str) -> bool:
        with self._bell:
            running = self._running
            if running is None:
                return False
            state = running.state
            if state.phase is Phase.RECORDING:
                self._feed(running)
            if why != "stopped" and running.at_once:
                # where its sites end is for the sound to say; see _go_on for what is left after them
                if state.phase in (Phase.RECORDING, Phase.SETTLING):
                    state.sound_over(running.fed, why)
            elif state.phase in (Phase.RECORDING, Phase.SETTLING, Phase.BETWEEN):
                state.stop(running.fed, why)
            self._bell.notify_all()
            return True

    # ---- the sound thread

    def feed(self) -> None:
        """Sound has come into the ring: record it. Waits only for a judge that a fast source left behind."""
        with self._bell:
            self._away = False
            running = self._running
            if running is not None:
                self._feed(running)
            if self._fast:
                self._bell.wait_for(self._judge_is_near)

    def _judge_is_near(self) -> bool:
        running = self._running
        if self._closing:
            return True
        if running is None:
            soon = self.autostart is not None and self.autostart_left and self._next_at is not None
            at = self._next_at if soon else None
        elif running.state.phase is Phase.BETWEEN and not running.at_once:
            at = None
        else:
            at = running.judged
        return at is None or self._ring.end - at < _FAST_LAG_S * WORKING_RATE_HZ

    def _feed(self, running: _Running) -> None:
        recorder, state = running.recorder, running.state
        if recorder is None or state.phase is not Phase.RECORDING:
            return
        site = state.sites[-1]
        start = site.start
        if running.fed < self._ring.oldest:
            # more was lost at once than the ring holds
            state.stop(running.fed, "source gone")
            self._bell.notify_all()
            return
        end = min(self._ring.end, start + site.limit)
        if end > running.fed:
            began = time.perf_counter()
            try:
                piece = self._ring.take(running.fed, end)
                recorder.append(piece.sound)
            except StethopiError as error:
                self._fail(running, error)
                return
            # what was not heard, or stuck at full scale, in samples of this site
            for gap in piece.gaps:
                recorder.mark_gap(gap.start - start, gap.end - start)
            for span in piece.clipped:
                recorder.mark_clipped(span.start - start, span.end - start)
            hops = (end - running.fed) / 16
            running.fed = end
            self.recording_times.add((time.perf_counter() - began) / max(hops, 1.0))
        if state.heard(running.fed):
            self._bell.notify_all()

    def _fail(self, running: _Running, error: StethopiError) -> None:
        """The disk does not take the recording: what is there stays as a partial one."""
        log.error("exam %s cannot be recorded: %s", running.id, error)
        if running.recorder is not None:
            running.recorder.close()
        if running.lead is not None:
            running.lead.close()
        self._running = None
        self._tell(running, "partial")
        self._bell.notify_all()

    # ---- the judge thread

    def judge(self, timeout_s: float = 0.2) -> None:
        """Do the next piece of work, or wait for it for a while. To be called again and again."""
        self._try_to_put()
        with self._bell:
            running = self._running
            if running is None:
                if not self._begin_by_itself():
                    self._bell.wait(timeout_s)
                return
            phase = running.state.phase
            if phase is Phase.BETWEEN:
                if running.at_once:
                    self._go_on(running)
                else:
                    self._bell.wait(timeout_s)
                return
        if phase is Phase.DONE:
            self._finish(running)
        elif not self._judge_piece(running):
            if phase is Phase.SETTLING:
                self._settle(running)
            else:
                self._ring.wait(running.judged + _PIECE // 4, timeout_s)

    def _go_on(self, running: _Running) -> None:
        """The next site begins where the one before ended, if there is sound for it."""
        last = running.state.current
        index = last.start + (last.samples or 0)
        if self._source_over and self._ring.end - index < SHORTEST_S * WORKING_RATE_HZ:
            running.state.stop(index, self._source_over)
            return
        try:
            self._begin_site(running, index)
        except StethopiError as error:
            self._fail(running, error)
            return
        if self._source_over:
            running.state.sound_over(running.fed, self._source_over)

    def _begin_by_itself(self) -> bool:
        if self.autostart is None or not self.autostart_left or self._closing or self._away:
            return False
        at = self._ring.end if self._next_at is None else max(self._next_at, self._ring.oldest)
        if self._begun:
            # the source was away: the next exam begins when it is back
            for gap in self._ring.gaps(at, self._ring.end)[:1]:
                if gap.start == at and gap.end - at > SHORTEST_S * WORKING_RATE_HZ:
                    at = gap.end
        if self._source_over and self._ring.end - at < WINDOW:
            return False
        try:
            self.start(self.autostart, at=at, at_once=True)
        except StethopiError as error:
            if str(error) != self._refusal:
                log.error("no exam can begin: %s", error)
            self._refusal = str(error)
            return False
        self._refusal = ""
        self.autostart_left -= 1
        if self._running is not None:
            self._running.automatic = self._begun > 1
            if self._source_over:
                self._running.state.sound_over(self._running.fed, self._source_over)
        return True

    def _begin_site(self, running: _Running, index: int) -> None:
        name = running.state.plan.name(len(running.state.sites))
        recorder = Recorder(self._outbox.sounds, f"{running.id}-{name}")
        running.state.begin(index)
        self._record(running, index, recorder)

    def _record(self, running: _Running, index: int, recorder: Recorder | None = None) -> None:
        """The site that has just begun, from sample `index` on."""
        name = running.state.current.name
        running.recorder = recorder or Recorder(self._outbox.sounds, f"{running.id}-{name}")
        if self.lead is not None:
            running.lead = self.lead.record(self._outbox.sounds, f"{running.id}-{name}-ecg", index)
        running.fed = running.judged = running.base = running.told = index
        running.fresh = True
        running.site_started = self._moment(index)
        self._tell(running, "recording")
        log.info("exam %s: recording %s", running.id, name)
        # it may begin in the past, where the site before turned out to have ended
        self._feed(running)

    def _judge_piece(self, running: _Running) -> bool:
        """Let the classifier hear up to a second more. False when it has heard all there is of the site."""
        with self._bell:
            state, site = running.state, running.state.current
            end = min(running.fed, site.start + site.limit)
            behind = end - running.judged
            if behind <= 0 or (state.phase is Phase.RECORDING and behind < _PIECE // 4):
                return False
            if not self._fast and behind > _MOST_LAG_S * WORKING_RATE_HZ:
                self._skip(running, end)
            if running.fresh:
                self._judge.flush()  # whatever it heard before is another site's
                running.fresh = False
            start, count, take = running.judged, min(end - running.judged, _PIECE), running.take
            try:
                x = self._ring.read(start, count)
            except LookupError:
                # a hole came that pushed this out of the ring before the classifier had heard it
                self._judge.flush()
                running.base = running.judged = end
                return True
            for gap in self._ring.gaps(start, start + count):
                self._judge.mark_gap(gap.start - running.base, gap.end - running.base)
        with _timed(self.judging_times, count / WINDOW_EVERY):
            windows = self._judge.process(x)
        with self._bell:
            if running.take != take:  # the site has begun again meanwhile
                return True
            running.judged = start + count
            self._take(running, windows)
            self._bell.notify_all()
        self._tell_progress(running, x)
        return True

    def _take(self, running: _Running, windows: list[Window]) -> None:
        if self._running is not running or running.state.phase not in (Phase.RECORDING, Phase.SETTLING):
            return
        site = running.state.current
        for window in windows:
            placed = replace(window, start=window.start + running.base - site.start)
            running.state.window(placed)
            row = window_row(placed)
            self._live(
                "window",
                LiveWindow(
                    exam=running.id,
                    site=site.name,
                    start=row.start,
                    probability=row.probability,
                    quality=row.quality,
                    reasons=row.reasons,
                    good=placed.quality >= quality.GOOD,
                    murmur=row.murmur,
                ),
            )

    def _skip(self, running: _Running, end: int) -> None:
        """Too late: leave windows out and go on with the newest whole one."""
        site = running.state.current
        newest = -(-(end - WINDOW - site.start) // WINDOW_EVERY)
        log.warning(
            "the classifier is %.0f s late; windows are left out", (end - running.judged) / WORKING_RATE_HZ
        )
        running.base = running.judged = site.start + newest * WINDOW_EVERY
        running.fresh = True

    def _settle(self, running: _Running) -> None:
        """The classifier has heard the whole site: fix its end, write its file."""
        try:
            self._end_site(running)
        finally:
            with self._bell:
                running.writing = False
                self._bell.notify_all()

    def _end_site(self, running: _Running) -> None:
        with _timed(self.judging_times, 1.0):
            windows = self._judge.flush()
        with self._bell:
            if self._running is not running or running.state.phase is not Phase.SETTLING:
                return
            self._take(running, windows)
            site = running.state.settle()
            running.writing = True
            recorder, running.recorder = running.recorder, None
            lead, running.lead = running.lead, None
            started = running.site_started
        assert recorder is not None and started is not None and site.samples is not None
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
            with self._bell:
                running.recorder, running.lead = recorder, lead
                self._fail(running, error)
            return
        ecg = lead.finish(site.samples, CHUNK_SIZE) if lead is not None else None
        made = site_of(
            site,
            started=started,
            heart_rate_bpm=self._heart_rate(site),
            file=recording.path.name,
            size=recording.size,
            sha256=recording.sha256,
            clipped=recording.clipped,
            gaps=recording.gaps,
            ecg=ecg[0] if ecg is not None else None,
        )
        with self._bell:
            if self._running is not running:  # cancelled while the file was written
                recording.path.unlink(missing_ok=True)
                if ecg is not None:
                    ecg[1].unlink(missing_ok=True)
                return
            running.sites.append(made)
            running.files[site.name] = recording.path
            if ecg is not None:
                running.files[ecg_name(site.name)] = ecg[1]
        self._tell(running, "site done")
        log.info(
            "exam %s: %s ended after %.1f s (%s), %d of %d windows good",
            *(running.id, site.name, made.seconds, made.ended, made.good_windows, len(made.windows)),
        )
        with self._bell:
            self._bell.notify_all()

    def _finish(self, running: _Running) -> None:
        """All sites are settled: the verdict, the result, the outbox."""
        state = running.state
        samples = sum(site.samples for site in running.sites)
        self._next_at = state.sites[-1].start + (state.sites[-1].samples or 0) if state.sites else None
        if not samples or (running.automatic and samples < SHORTEST_S * WORKING_RATE_HZ):
            with self._bell:
                if self._running is running:
                    self._discard(running)
            self._tell(running, "cancelled")
            log.warning("exam %s: nothing to speak of was recorded; it is no exam", running.id)
            return
        now = self._all_dropped()
        identity = self.identity
        exam = Exam(
            id=running.id,
            fleet=identity.fleet,
            device=identity.device,
            software=identity.software,
            bundle=identity.bundle,
            subject=running.subject,
            source=identity.source,
            source_rate_hz=identity.source_rate_hz,
            started=running.started,
            finished=Moment(**self._clock.stamp().to_json()),
            ended=state.ended,
            verdict=finding_of(state.findings()),
            heart_rate_bpm=heart_rate_of(running.sites),
            sites=tuple(running.sites),
            delay=identity.delay,
            latency=latency_of(
                timer.since(then) for timer, then in zip(self._timers, running.timers, strict=True)
            ),
            dropped={name: count - running.dropped.get(name, 0) for name, count in now.items()},
            ecg_source=self.lead.name[:200] if self.lead is not None else None,
        )
        with self._bell:
            if self._running is not running:
                return
            self._unput.append((exam, running.files))
            self._retry_s = 0.0
            self._running = None
        self._try_to_put()
        with self._bell:
            self._bell.notify_all()

    def _try_to_put(self) -> None:
        with self._bell:
            if not self._unput or time.monotonic() < self._retry_s:
                return
            exam, files = self._unput[0]
        try:
            self._outbox.put(exam, files)
        except StethopiError as error:
            if not self._retry_s:
                log.error("%s; trying again every %.0f s", error, _RETRY_PUT_S)
            self._retry_s = time.monotonic() + _RETRY_PUT_S
            self._stuck = str(error)
            return
        finding = exam.verdict
        log.info(
            "exam %s is in the outbox: %s, probability %s",
            *(exam.id, finding.label, _said(finding.probability)),
        )
        with self._bell:
            self._unput.pop(0)
            self._retry_s = 0.0
            self.finished += 1
            self.last = exam
            self._bell.notify_all()
        self._put(exam)
        self._live("exam", _finished(exam))

    # ---- small things

    def _discard(self, running: _Running) -> None:
        running.state.cancel()
        if running.recorder is not None:
            running.recorder.discard()
        if running.lead is not None:
            running.lead.discard()
        for path in running.files.values():
            with contextlib.suppress(OSError):
                path.unlink()
        self._running = None
        self._bell.notify_all()

    def _heart_rate(self, site: SiteRecord) -> float | None:
        try:
            return heart_rate(self._ring.read(site.start, site.samples or 0))
        except LookupError:
            return None

    def _all_dropped(self) -> dict[str, int]:
        return {"windows": self.windows_dropped, **self._dropped()}

    def _moment(self, index: int) -> Moment:
        """When sample `index` was heard."""
        stamp = self._clock.stamp()
        heard = self._ring.monotonic_of(index)
        ago = stamp.monotonic_s - heard if heard is not None and not self._fast else 0.0
        moment = Moment(**stamp.to_json())
        return replace(moment, monotonic_s=max(moment.monotonic_s - ago, 0.0), wall_s=moment.wall_s - ago)

    def _tell(self, running: _Running, state: str) -> None:
        exam, plan = running.state, running.state.plan
        site: SiteRecord | None = exam.sites[-1] if exam.sites else None
        self._live(
            "exam",
            LiveExam(
                exam=running.id,
                state=state,
                site=site.name if site else None,
                position=exam.position,
                sites=len(plan.sites),
                seconds=max(running.fed - site.start, 0) / WORKING_RATE_HZ if site else 0.0,
                good_windows=site.good_windows if site else 0,
                needed_windows=plan.good_windows,
            ),
        )

    def _tell_progress(self, running: _Running, x: np.ndarray) -> None:
        """Every second: how far the site is, and what the contact is like."""
        if running.judged - running.told < WORKING_RATE_HZ or self._running is not running:
            return
        running.told = running.judged
        if running.state.phase is Phase.RECORDING:
            self._tell(running, "recording")
        start = max(running.judged - round(_QUALITY_S * WORKING_RATE_HZ), running.state.current.start)
        try:
            x = self._ring.read(start, running.judged - start)
        except LookupError:
            return
        gaps = [(g.start - start, g.end - start) for g in self._ring.gaps(start, running.judged)]
        found = self._contact(x, gaps)
        power = float(np.mean(np.square(x, dtype=np.float64)))
        self._live(
            "quality",
            LiveQuality(
                index=start,
                quality=found.score,
                reasons=tuple(found.reasons),
                level_db=10.0 * float(np.log10(power)) if power > 1e-20 else None,
                heart_rate_bpm=heart_rate(x),
                exam=running.id,
            ),
        )


@contextlib.contextmanager
def _timed(timer: StageTimer, windows: float) -> Any:
    """Time a piece of work as so much a window."""
    began = time.perf_counter()
    yield
    timer.add((time.perf_counter() - began) / max(windows, 1.0))


def _said(probability: float | None) -> str:
    return "unknown" if probability is None else f"{probability:.2f}"


def _finished(exam: Exam) -> LiveExam:
    last = exam.sites[-1]
    return LiveExam(
        exam=exam.id,
        state="finished",
        site=last.site,
        position=len(exam.sites) - 1,
        sites=len(exam.sites),
        seconds=last.seconds,
        good_windows=last.good_windows,
        needed_windows=0,
        verdict=exam.verdict,
    )


def plan_for(text: str | None, plan: Plan) -> Plan:
    """The plan with other sites, `AV` or `AV,MV`; BadInput for sites that there are not."""
    if not text:
        return plan
    sites = tuple(part.strip() for part in text.split(",") if part.strip())
    if not sites:
        raise BadInput(f"sites {text!r}: name one or more of {', '.join(SITES)}")
    return replace(plan, sites=sites)
