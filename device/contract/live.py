"""What is said while an exam runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from device.contract.codec import Many, OneOf, Real, Whole
from device.contract.exam import Finding
from device.contract.vocabulary import (
    LEAD_WORDS,
    MOST_SITES,
    SCHEMA,
    Count,
    ExamId,
    Index,
    Murmur,
    Probability,
    Rate,
    Reasons,
    Schema,
    Share,
    SiteName,
)

__all__ = ["LiveWave", "LiveEcg", "LiveQuality", "LiveWindow", "LiveExam"]


_Display = Annotated[tuple[Annotated[int, Whole(-32768, 32767)], ...], Many(1000), "full scale is 32767"]


@dataclass(frozen=True)
class LiveWave:
    """About 100 ms of the waveform, for the eye only: of each group of samples the one with the largest
    magnitude. `raw` and `clean` speak of the same instants; `clean` is empty while denoising is shed.
    """

    index: Annotated[int, Whole(0, 2**53), "first entry: 2-kHz sample since the source started"]
    every: Annotated[int, Whole(1, 2000), "working-rate samples from one entry to the next"]
    raw: _Display
    clean: _Display
    exam: ExamId | None = None
    kind: Annotated[str, OneOf("wave")] = "wave"
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class LiveEcg:
    """About 100 ms of the ECG; 32767 is 5 mV. `raw` and `clean` speak of the same instants; `clean` is empty
    where nothing cleans it. No sample at all: only `lead` is told.
    """

    index: Annotated[int, Whole(0, 2**53), "first entry: sample since the lead started"]
    rate_hz: Annotated[int, Whole(50, 2000), "samples a second"]
    at: (
        Annotated[float, Real(-1e12, 1e15), "2-kHz sample of the sound that the first entry belongs to"]
        | None
    )
    raw: _Display
    clean: _Display
    gaps: Annotated[
        tuple[tuple[Index, Index], ...], Many(200), "[first, past the last] entry of what is no ECG"
    ]
    clean_gaps: Annotated[
        tuple[tuple[Index, Index], ...], Many(200), "the same of `clean`, until its denoiser has settled"
    ]
    lead: Annotated[str, OneOf(*LEAD_WORDS)]
    exam: ExamId | None = None
    kind: Annotated[str, OneOf("ecg")] = "ecg"
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class LiveQuality:
    """Contact feedback on about the last second or more."""

    index: Index
    quality: Share | None
    reasons: Reasons
    level_db: Annotated[float, Real(-200.0, 20.0), "root mean square against full scale"] | None
    heart_rate_bpm: Rate | None = None
    exam: ExamId | None = None
    kind: Annotated[str, OneOf("quality")] = "quality"
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class LiveWindow:
    """One classified window, as it comes."""

    exam: ExamId
    site: SiteName
    start: Annotated[int, Whole(0, 2**53), "first sample, counted from the start of the site's recording"]
    probability: Probability | None
    quality: Share
    reasons: Reasons
    good: Annotated[bool, "counts for the verdict"]
    murmur: Murmur | None = None
    kind: Annotated[str, OneOf("window")] = "window"
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class LiveExam:
    """Where the exam stands. `finished` means: safely in the outbox."""

    exam: ExamId
    state: Annotated[str, OneOf("recording", "site done", "finished", "cancelled", "partial")]
    site: SiteName | None
    position: Annotated[int, Whole(0, MOST_SITES), "number of this site, from 0"]
    sites: Annotated[int, Whole(1, MOST_SITES)]
    seconds: Annotated[float, Real(0.0, 1e12), "of this site so far"]
    good_windows: Count
    needed_windows: Count
    verdict: Finding | None = None
    kind: Annotated[str, OneOf("exam")] = "exam"
    schema: Schema = SCHEMA


LIVE: dict[str, type] = {
    "wave": LiveWave,
    "ecg": LiveEcg,
    "quality": LiveQuality,
    "window": LiveWindow,
    "exam": LiveExam,
}
