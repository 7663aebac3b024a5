"""The exam that is under way, as its threads see it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from device.contract.exam import Site
from device.contract.vocabulary import Moment
from device.ecg.track import TrackRecorder
from device.exam.plan import Plan
from device.exam.session import Examination, SiteRecord
from device.rates import WINDOW_EVERY
from device.screening.features import OVERHANG
from device.storage.recorder import Recorder
from device.timing import StageTimer

__all__ = ["Autostart", "Running", "Underway"]


@dataclass
class Running:
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
    site: SiteRecord = field(init=False)
    """The one that is heard or settled, or that was the last one."""
    site_started: Moment = field(init=False)
    recorder: Recorder | None = None
    lead: TrackRecorder | None = None
    """Of the ECG beside the site."""
    fed: int = 0
    """Absolute index up to which the recorder has the sound."""
    judged: int = 0
    """Absolute index up to which the judge has heard it."""
    base: int = 0
    """Absolute index at which the judge's stream began."""
    due: int = 0
    """Absolute index up to which the judge hears next: always whole seconds of frames after `base`."""
    fresh: bool = True
    """The judge has heard nothing of this stream yet."""
    told: int = 0
    """Absolute index up to which live messages have spoken."""
    automatic: bool = False
    """Nobody asked for it: it began because the one before had ended."""
    sites: list[Site] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    take: int = 0
    """How often a site was begun again."""
    writing: bool = False
    """A site's file is being written."""

    def hear_from(self, index: int) -> None:
        """The judge's stream begins anew with sample `index`. Its seconds end where the last frame does, so
        that a window is judged with the very piece of sound that completes it.
        """
        self.base = self.judged = index
        self.due = index + WINDOW_EVERY + OVERHANG
        self.fresh = True


@dataclass
class Autostart:
    """Exams that begin where the one before ended."""

    plan: Plan | None = None
    left: int = 0
    """So many more; below 0: for ever."""
    next_at: int | None = 0
    """Where the next one begins: at the start of the sound, then where the one before ended."""
    refusal: str = ""
    """Why none could begin, as it was last told."""


@dataclass
class Underway:
    """What the threads of exams share, behind one lock."""

    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    """The lock; whoever waits for something in here is woken by it."""
    running: Running | None = None
    autostart: Autostart = field(default_factory=Autostart)
    begun: int = 0
    """Exams since the start."""
    source_over: str | None = None
    """Why no more sound will come."""
    away: bool = False
    """The source has been gone for too long."""
    closing: bool = False
