"""One examination: its sites, when each has heard enough, what all windows say together. Pure logic.

    idle ──begin──▶ recording ──enough, max_s, stop …──▶ settling ──settle──▶ between ──begin──▶ recording …
                                                                       └────▶ done          cancel ▶
                                                                       cancelled

Time is the absolute sample index at the working rate. Where a site ends is decided by the sound alone, not
by how late its windows were judged: at the end of the window that made the good ones enough (but not before
`min_s`), at `max_s`, or where the sound was stopped. So the same sound gives the same exam on any machine.

Quality decides when a site has been heard well enough; the verdict is device.screen's over the windows of
all sites.
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from device import messages, quality
from device.errors import BadInput
from device.messages import SITES
from device.rates import WINDOW, WORKING_RATE_HZ
from device.screen import SHORTEST_S, Findings, Window, verdict
from device.timing import StageTimer

__all__ = [
    "Examination",
    "Phase",
    "Plan",
    "SiteRecord",
    "delay_of",
    "finding_of",
    "heart_rate_of",
    "latency_of",
    "site_of",
    "window_row",
]

_SCRAP = round(SHORTEST_S * WORKING_RATE_HZ)
"""A last site of fewer samples is none, when there are others."""
_OVER = ("sound ended", "source gone")
_MOST_ROWS = 2000
_MOST_REASONS = 20


class Phase(enum.Enum):
    """Where an exam stands."""

    IDLE = "idle"
    RECORDING = "recording"
    SETTLING = "settling"
    """The site's sound is over; its last windows are still being judged."""
    BETWEEN = "between"
    """Waiting for the next site to begin."""
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Plan:
    """What an exam is to hear. BadInput for a plan that cannot be."""

    sites: tuple[str, ...] = ("AV", "PV", "TV", "MV")
    min_s: float = 10.0
    max_s: float = 60.0
    good_windows: int = 8
    """Windows that must pass quality before a site has been heard well enough."""

    def __post_init__(self) -> None:
        if not self.sites or len(self.sites) > 16:
            raise BadInput(f"exam: {len(self.sites)} sites; give 1 to 16 of {', '.join(SITES)}")
        for site in self.sites:
            if site not in SITES:
                raise BadInput(f"exam: site {site}: none of {', '.join(SITES)}")
        if not 0 < self.min_s <= self.max_s:
            raise BadInput(f"exam: min_s {self.min_s:g} and max_s {self.max_s:g}: must rise, from above 0")

    @property
    def min_samples(self) -> int:
        return round(self.min_s * WORKING_RATE_HZ)

    @property
    def max_samples(self) -> int:
        return round(self.max_s * WORKING_RATE_HZ)

    @property
    def most_bytes(self) -> int:
        """What its recordings may need on disk: FLAC of 24 bit takes less than 3 bytes a sample, and one site
        lies there twice while its file is written.
        """
        return 3 * (len(self.sites) + 1) * self.max_samples

    def name(self, position: int) -> str:
        """Name of a site in the exam: its code, with `-2` and so on when it comes again."""
        code = self.sites[position]
        times = self.sites[: position + 1].count(code)
        return code if times == 1 else f"{code}-{times}"


@dataclass
class SiteRecord:
    """One site while it is heard, and after."""

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
    """The state machine of one exam. Not thread safe; knows no clock, no file, no thread.

    meta: the classifier's in the bundle, for the verdict.
    """

    def __init__(self, plan: Plan, meta: Mapping[str, Any]) -> None:
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


# ---- as the wire has it


def _few(reasons: Iterable[str]) -> tuple[str, ...]:
    return tuple(reason[:80] for reason in list(reasons)[:_MOST_REASONS])


def window_row(window: Window) -> messages.WindowRow:
    """A window as it goes into the exam."""
    return messages.WindowRow(
        window.start, window.probability, window.quality, _few(window.reasons), window.murmur
    )


def finding_of(findings: Findings) -> messages.Finding:
    """The verdict as it goes into the exam."""
    return messages.Finding(
        findings.label.value, findings.probability, findings.quality, _few(findings.reasons), findings.murmur
    )


def site_of(
    record: SiteRecord,
    *,
    started: messages.Moment,
    heart_rate_bpm: float | None,
    file: str,
    size: int,
    sha256: str,
    clipped: Sequence[Sequence[int]],
    gaps: Sequence[Sequence[int]],
    chunk_size: int = messages.CHUNK_SIZE,
    ecg: messages.EcgTrack | None = None,
) -> messages.Site:
    """A settled site with its recording, as it goes into the exam."""
    assert record.samples is not None and record.ended is not None
    return messages.Site(
        site=record.name,
        started=started,
        start_index=record.start,
        rate_hz=WORKING_RATE_HZ,
        samples=record.samples,
        seconds=record.samples / WORKING_RATE_HZ,
        ended=record.ended,
        good_windows=record.good_windows,
        heart_rate_bpm=heart_rate_bpm,
        clipped=tuple((int(a), int(b)) for a, b in clipped),
        gaps=tuple((int(a), int(b)) for a, b in gaps),
        windows=tuple(window_row(window) for window in record.windows[:_MOST_ROWS]),
        sound=messages.SoundFile(file, size, sha256, chunk_size, messages.chunk_count(size, chunk_size)),
        ecg=ecg,
    )


def heart_rate_of(sites: Iterable[messages.Site]) -> float | None:
    """The middle one of the sites' heart rates; None when no site has one."""
    rates = [site.heart_rate_bpm for site in sites if site.heart_rate_bpm is not None]
    return statistics.median(rates) if rates else None


def latency_of(timers: Iterable[StageTimer]) -> tuple[messages.StageLatency, ...]:
    """Stage times as they go into the exam, in ms."""

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else round(1e3 * seconds, 4)

    return tuple(
        messages.StageLatency(
            stage=timer.name,
            budget_ms=1e3 * timer.budget_s,
            count=timer.count,
            p50_ms=ms(timer.p50),
            p99_ms=ms(timer.p99),
            missed=timer.missed,
        )
        for timer in timers
    )


def delay_of(decimator_s: float, hop_s: float, look_ahead_s: float) -> messages.Delay:
    """The parts of the way from the decimator's input to the denoiser's output, in ms."""
    decimator, hop, look_ahead = (round(1e3 * part, 3) for part in (decimator_s, hop_s, look_ahead_s))
    return messages.Delay(decimator, hop, look_ahead, round(decimator + hop + look_ahead, 3))
