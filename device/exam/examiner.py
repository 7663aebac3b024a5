"""Runs exams on the ring: records what is heard, has it judged, writes the result, puts it in the outbox.

    sound thread   feed()      from the ring to the recorder; never waits for a verdict (recording.py)
    judge thread   judge()     from the ring to the classifier; ends sites and exams (judging.py)
    any thread     start(), stop(), next_site(), cancel()

The logic is device.exam.session's, what they share stands in device.exam.underway. A source that is read as
fast as it goes waits for the judge, so that a file gives the same exam everywhere.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from device.clock import Clock
from device.contract.exam import Exam
from device.contract.vocabulary import SITES, Moment
from device.ecg.track import Track
from device.errors import BadInput, StethopiError
from device.exam.handover import Handover
from device.exam.identity import Contact, Identity, LiveSink, WindowJudge
from device.exam.judging import MOST_LAG_S, Judging
from device.exam.plan import Phase, Plan
from device.exam.recording import Recording
from device.exam.result import exam_of, latency_of
from device.exam.session import Examination
from device.exam.underway import Running, Underway
from device.screening import quality
from device.storage.outbox import Outbox
from device.stream.ring import Ring
from device.timing import StageTimer

__all__ = ["Examiner", "plan_for", "ring_seconds"]

log = logging.getLogger("exam")

_WRITE_S = 5.0
"""So long may a site's file take to be written, before the site can be repeated."""


def ring_seconds(max_s: float) -> float:
    """How much sound the ring must hold for exams with sites of at most `max_s`."""
    return max_s + 4 * MOST_LAG_S


class Examiner:
    """One exam at a time, on one ring."""

    feed: Callable[[], None]
    """The sound thread's: sound has come into the ring."""
    judge: Callable[..., None]
    """The judge thread's: do the next piece of work, or wait for it for up to `timeout_s` (0.2)."""

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
        contact: Contact = quality.assess,
        fast: bool = False,
    ) -> None:
        """timers: the stages before this one whose times go into the exam, in the order of the path.
        dropped: what the daemon has left out so far, by name. fast: the source waits for the judge.
        """
        self.identity = identity
        self._ring = ring
        self._meta = meta
        self._outbox = outbox
        self._clock = clock
        self._dropped = dropped
        self._live = live
        self._now = Underway()
        self._recording = Recording(self._now, ring, outbox.sounds, clock, live, fast)
        self._handover = Handover(self._now, outbox, live, put)
        self._judging = Judging(
            *(self._now, ring, judge, contact, self._recording, self._handover),
            live=live,
            fast=fast,
            start=lambda plan, at: self.start(plan, at=at, at_once=True),
            result=self._result,
        )
        self._timers = [*timers, self.recording_times, self.judging_times]
        self.feed = self._recording.feed
        self.judge = self._judging.judge

    # ---- how it stands

    @property
    def recording_times(self) -> StageTimer:
        return self._recording.times

    @property
    def judging_times(self) -> StageTimer:
        return self._judging.times

    @property
    def windows_dropped(self) -> int:
        """That the judge left out, since the start."""
        return self._judging.windows_dropped

    @property
    def finished(self) -> int:
        """Exams that are in the outbox since the start."""
        return self._handover.finished

    @property
    def last(self) -> Exam | None:
        """The last one of these."""
        return self._handover.last

    @property
    def lead(self) -> Track | None:
        """The ECG that is recorded beside the sound."""
        return self._recording.lead

    @lead.setter
    def lead(self, track: Track | None) -> None:
        self._recording.lead = track

    @property
    def autostart(self) -> Plan | None:
        """Begin the next exam by itself, where the one before ended."""
        return self._now.autostart.plan

    @autostart.setter
    def autostart(self, plan: Plan | None) -> None:
        self._now.autostart.plan = plan

    @property
    def autostart_left(self) -> int:
        """So many more exams; below 0: for ever."""
        return self._now.autostart.left

    @autostart_left.setter
    def autostart_left(self, exams: int) -> None:
        self._now.autostart.left = exams

    @property
    def busy(self) -> bool:
        """An exam is under way, or one could not be written yet."""
        with self._now.changed:
            return self._running is not None or bool(self._handover.waiting)

    @property
    def stuck(self) -> str | None:
        """Why an exam that is over could not be put in the outbox yet; it is tried again and again."""
        return self._handover.stuck

    @property
    def exam_id(self) -> str | None:
        """Of the exam that is under way."""
        with self._now.changed:
            return self._running.id if self._running else None

    @property
    def phase(self) -> Phase:
        with self._now.changed:
            return self._running.state.phase if self._running else Phase.IDLE

    @property
    def heard(self) -> int:
        """Working-rate samples since the sound began."""
        return self._ring.end

    @property
    def _running(self) -> Running | None:
        return self._now.running

    # ---- what a person asks for

    def start(
        self, plan: Plan, *, subject: str | None = None, at: int | None = None, at_once: bool = False
    ) -> str:
        """Begin an exam with the sound that comes now (or with sample `at`); its id.

        StethopiError when one is under way, when the sound has ended, or when there is no room for it.
        """
        now = self._now
        with now.changed:
            if now.running is not None:
                raise StethopiError("an exam is under way; stop it first")
            if now.closing or (now.source_over is not None and at is None):
                raise StethopiError("the sound has ended; start the program again")
            self._outbox.admit(plan.most_bytes)
            index = self._ring.end if at is None else at
            running = Running(
                id=str(uuid.uuid4()),
                state=Examination(plan, self._meta),
                subject=subject,
                at_once=at_once,
                started=self._recording.moment(index),
                timers=[timer.copy() for timer in self._timers],
                dropped=self._all_dropped(),
            )
            now.running = running
            try:
                self._recording.begin_site(running, index)
            except StethopiError:
                now.running = None
                raise
            if self._running is not running:
                raise StethopiError("the exam cannot be recorded; free space on the disk")
            now.begun += 1
            now.changed.notify_all()
            return running.id

    def _result(self, running: Running) -> Exam:
        """What an exam whose sites are settled comes to, since `start`."""
        timers = zip(self._timers, running.timers, strict=True)
        return exam_of(
            running,
            self.identity,
            finished=Moment(**self._clock.stamp().to_json()),
            latency=latency_of(timer.since(then) for timer, then in timers),
            dropped={
                name: count - running.dropped.get(name, 0) for name, count in self._all_dropped().items()
            },
            ecg_source=self.lead.name[:200] if self.lead is not None else None,
        )

    def _all_dropped(self) -> dict[str, int]:
        return {"windows": self.windows_dropped, **self._dropped()}

    def stop(self) -> bool:
        """End the exam as it stands. False when none is under way."""
        return self._end("stopped")

    def next_site(self) -> bool:
        """Between sites: begin the next one. In a site: end it and, when it is settled, go on. False when
        there is nothing to go on with.
        """
        with self._now.changed:
            running = self._running
            if running is None:
                return False
            if running.state.phase is Phase.BETWEEN:
                self._recording.begin_site(running, self._ring.end)
            elif running.state.phase is Phase.RECORDING:
                self._recording.catch_up(running)
                running.state.end_site(running.fed)
            else:
                return False
            self._now.changed.notify_all()
            return True

    def repeat_site(self) -> bool:
        """Throw the site that is being heard away, between sites the one before, and hear it again from now
        on. False when there is none.
        """
        with self._now.changed:
            running = self._running
            if running is not None:
                self._now.changed.wait_for(lambda: not running.writing, _WRITE_S)
            phases = (Phase.RECORDING, Phase.SETTLING, Phase.BETWEEN)
            if running is None or self._running is not running or running.state.phase not in phases:
                return False
            self._recording.repeat_site(running)
            self._now.changed.notify_all()
            return True

    def cancel(self) -> bool:
        """Throw the exam away. False when none is under way."""
        with self._now.changed:
            running = self._running
            if running is None:
                return False
            self._recording.discard(running)
            self._live("exam", running.state.told(running.id, "cancelled", running.fed))
            log.info("exam %s cancelled", running.id)
            return True

    # ---- what becomes of the source and of the program

    def source_ended(self) -> None:
        """No more sound will come: the exam ends with what there is, and no other begins."""
        with self._now.changed:
            self._now.source_over = "sound ended"
            self._end("sound ended")

    def source_gone(self) -> None:
        """The source has been away for too long: the exam ends with what there is. None begins by itself
        before it is back.
        """
        with self._now.changed:
            self._now.away = True
            if self._running is not None:
                self._running.at_once = False
            self._end("source gone")

    def close(self) -> None:
        """End the exam as it stands, begin no other. `judge` still has to be called until `busy` is False."""
        with self._now.changed:
            self._now.closing = True
            self._end("stopped")

    def abandon(self) -> None:
        """Leave what could not be brought to its end: recordings stay as partial ones, told at the next
        start.
        """
        with self._now.changed:
            if self._running is not None:
                self._recording.abandon(self._running)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no exam is under way; False when it took too long."""
        with self._now.changed:
            return self._now.changed.wait_for(lambda: not self.busy, timeout_s)

    def _end(self, why: str) -> bool:
        with self._now.changed:
            running = self._running
            if running is None:
                return False
            state = running.state
            if state.phase is Phase.RECORDING:
                self._recording.catch_up(running)
            if why != "stopped" and running.at_once:
                # where its sites end is for the sound to say; see Judging for what is left after them
                if state.phase in (Phase.RECORDING, Phase.SETTLING):
                    state.sound_over(running.fed, why)
            elif state.phase in (Phase.RECORDING, Phase.SETTLING, Phase.BETWEEN):
                state.stop(running.fed, why)
            self._now.changed.notify_all()
            return True


def plan_for(text: str | None, plan: Plan) -> Plan:
    """The plan with other sites, `AV` or `AV,MV`; BadInput for sites that there are not."""
    if not text:
        return plan
    sites = tuple(part.strip() for part in text.split(",") if part.strip())
    if not sites:
        raise BadInput(f"sites {text!r}: name one or more of {', '.join(SITES)}")
    return replace(plan, sites=sites)
