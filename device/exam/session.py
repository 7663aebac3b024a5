"""One examination: its sites, when each has heard enough, what all windows say together. Pure logic.

    idle ──begin──▶ recording ──enough, max_s, stop …──▶ settling ──settle──▶ between ──begin──▶ recording …
                                                                       └────▶ done          cancel ▶
                                                                       cancelled

Time is the absolute sample index at the working rate. Where a site ends is decided by the sound alone, not
by how late its windows were judged: at the end of the window that made the good ones enough (but not before
`min_s`), at `max_s`, or where the sound was stopped. So the same sound gives the same exam on any machine.

Quality decides when a site has been heard well enough; the verdict is device.screening.screen's over the
windows of all sites.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from device.contract.live import LiveExam, LiveWindow
from device.exam.plan import Phase, Plan
from device.rates import WINDOW, WORKING_RATE_HZ
from device.screening import quality
from device.screening.verdict import SHORTEST_JUDGED_S, Findings, Window, verdict

__all__ = ["Examination", "SiteRecord"]

_SCRAP = round(SHORTEST_JUDGED_S * WORKING_RATE_HZ)
"""A last site of fewer samples is none, when there are others."""
_OVER = ("sound ended", "source gone")
MOST_ROWS = 2000
MOST_REASONS = 20


@dataclass
class SiteRecord:
    """One site, from its first sample on."""

    name: str
    start: int
    """Absolute index of its first sample."""
    limit: int
    """Samples after which it ends in any case."""
    limit_why: str = "longest"
    windows: list[Window] = field(default_factory=list)
    """Starts are counted from the site's first sample."""
    samples: int | None = None
    """Its length; None until it is settled."""
    ended: str | None = None

    @property
    def good_windows(self) -> int:
        return sum(window.quality >= quality.GOOD for window in self.windows)


class Examination:
    """The state machine of one exam, which knows no clock, no file, no thread."""

    def __init__(self, plan: Plan, meta: Mapping[str, Any]) -> None:
        """meta: the classifier's in the bundle, for the verdict."""
        self.plan = plan
        self.phase = Phase.IDLE
        self.sites: list[SiteRecord] = []
        self.ended = "complete"
        self._meta = meta
        self._last = False
        self._heard = 0

    @property
    def current(self) -> SiteRecord:
        """The site that is being heard or settled, or that was the last one."""
        return self.sites[-1]

    @property
    def position(self) -> int:
        """Number of the current site, from 0."""
        return max(len(self.sites) - 1, 0)

    def begin(self, index: int) -> SiteRecord:
        """The next site, the first one included, begins with sample `index`."""
        self._must_be(Phase.IDLE, Phase.BETWEEN)
        site = SiteRecord(self.plan.name(len(self.sites)), index, self.plan.max_samples)
        self.sites.append(site)
        self._heard = index
        self.phase = Phase.RECORDING
        return site

    def heard(self, end: int) -> bool:
        """Sound is there up to sample `end`. True when the site needs no more of it."""
        self._must_be(Phase.RECORDING, Phase.SETTLING)
        self._heard = end
        return self._has_enough()

    def window(self, window: Window) -> bool:
        """A window of the current site was judged. True when the site needs no more sound."""
        self._must_be(Phase.RECORDING, Phase.SETTLING)
        self.current.windows.append(window)
        return self._has_enough()

    def judged(self, exam: str, windows: Iterable[Window], base: int) -> list[LiveWindow]:
        """Windows of a stream that began with sample `base` were judged, until the site has settled: each as
        it is told live.
        """
        told = []
        for window in windows if self.phase in (Phase.RECORDING, Phase.SETTLING) else ():
            placed = replace(window, start=window.start + base - self.current.start)
            self.window(placed)
            told.append(
                LiveWindow(
                    exam=exam,
                    site=self.current.name,
                    start=placed.start,
                    probability=placed.probability,
                    quality=placed.quality,
                    reasons=placed.reasons[:MOST_REASONS],
                    good=placed.quality >= quality.GOOD,
                    murmur=placed.murmur,
                )
            )
        return told

    def told(self, exam: str, state: str, end: int) -> LiveExam:
        """How far it is with sound up to sample `end`, as it is told live."""
        site = self.sites[-1] if self.sites else None
        return LiveExam(
            exam=exam,
            state=state,
            site=site.name if site else None,
            position=self.position,
            sites=len(self.plan.sites),
            seconds=max(end - site.start, 0) / WORKING_RATE_HZ if site else 0.0,
            good_windows=site.good_windows if site else 0,
            needed_windows=self.plan.good_windows,
        )

    def _has_enough(self) -> bool:
        site = self.current
        enough_at = self._enough_at(site)
        needed = site.limit if enough_at is None else min(site.limit, enough_at)
        if self._heard - site.start >= needed:
            self.phase = Phase.SETTLING
        return self.phase is Phase.SETTLING

    def stop(self, end: int, why: str = "stopped") -> None:
        """The site ends at sample `end` at the latest, and the exam with it; between sites it is done at
        once. why: stopped, sound ended or source gone.
        """
        self._must_be(Phase.RECORDING, Phase.SETTLING, Phase.BETWEEN)
        self._last = True
        self.ended = why
        if self.phase is Phase.BETWEEN:
            self.phase = Phase.DONE
        else:
            self._limit(end, why)

    def sound_over(self, end: int, why: str) -> None:
        """No sound comes after sample `end`. Unlike `stop`: when the site turns out to have heard enough
        before, the next one may still have what is left.
        """
        self._must_be(Phase.RECORDING, Phase.SETTLING)
        self._limit(end, why)

    def end_site(self, end: int) -> None:
        """The user has heard enough here: the site ends at sample `end` at the latest."""
        self._must_be(Phase.RECORDING, Phase.SETTLING)
        self._limit(end, "stopped")

    def _limit(self, end: int, why: str) -> None:
        site = self.current
        length = max(end - site.start, 0)
        if length < site.limit:
            site.limit, site.limit_why = length, why
        self.phase = Phase.SETTLING

    def repeat(self, index: int) -> SiteRecord:
        """The current site, or between sites the one before, is thrown away and begins again with sample
        `index`."""
        self._must_be(Phase.RECORDING, Phase.SETTLING, Phase.BETWEEN)
        self.sites.pop()
        self.phase = Phase.BETWEEN
        return self.begin(index)

    def cancel(self) -> None:
        """Nothing of it is wanted."""
        self.phase = Phase.CANCELLED

    def settle(self) -> SiteRecord:
        """All windows of the site were judged: fix its end. The exam is done when it was the last one."""
        self._must_be(Phase.SETTLING)
        site = self.current
        enough_at = self._enough_at(site)
        if enough_at is not None and enough_at <= site.limit:
            site.samples, site.ended = enough_at, "enough good windows"
        else:
            site.samples, site.ended = site.limit, site.limit_why
        # windows that hear beyond the end do not count; a single one may be of sound shorter than itself
        whole = max(site.samples, WINDOW)
        site.windows = sorted((w for w in site.windows if w.start + WINDOW <= whole), key=lambda w: w.start)
        complete = len(self.sites) == len(self.plan.sites)
        over = site.ended in _OVER
        if over:
            self.ended = site.ended
        elif complete and site.ended in ("enough good windows", "longest"):
            self.ended = "complete"  # it was stopped when nothing was left to hear
        self.phase = Phase.DONE if complete or over or self._last else Phase.BETWEEN
        if not site.samples or (self.phase is Phase.DONE and len(self.sites) > 1 and site.samples < _SCRAP):
            # the sound ended, or was stopped, just when this site had begun
            self.sites.pop()
        return site

    def _enough_at(self, site: SiteRecord) -> int | None:
        """Samples after which the good windows were enough; None while they are not."""
        good = sorted(w.start for w in site.windows if w.quality >= quality.GOOD)
        if len(good) < self.plan.good_windows:
            return None
        return max(good[self.plan.good_windows - 1] + WINDOW, self.plan.min_samples)

    def findings(self) -> Findings:
        """What the windows of all sites say together."""
        return verdict([window for site in self.sites for window in site.windows], self._meta)

    def _must_be(self, *phases: Phase) -> None:
        if self.phase not in phases:
            allowed = " or ".join(phase.value for phase in phases)
            raise ValueError(f"exam is {self.phase.value}, must be {allowed}")
