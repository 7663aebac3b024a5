"""The exam as it is delivered: findings, sites, windows, latency."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from device.contract.codec import Many, OneOf, Real, Text, Whole
from device.contract.vocabulary import (
    FILE,
    LABELS,
    LEAD_WORDS,
    MOST_CHUNKS,
    MOST_SITES,
    MOST_SOUND,
    SCHEMA,
    SUBJECT,
    Count,
    ExamId,
    Id,
    Moment,
    Ms,
    Murmur,
    Probability,
    Rate,
    Reasons,
    Schema,
    Seconds,
    Sha256,
    Share,
    SiteName,
    Spans,
    Version,
    chunk_count,
    ecg_name,
)

__all__ = [
    "SoundFile",
    "WindowRow",
    "Finding",
    "EcgTrack",
    "Site",
    "files_of",
    "StageLatency",
    "Delay",
    "Exam",
    "exam_hash",
]


@dataclass(frozen=True)
class SoundFile:
    """The recording of one site: FLAC, 24 bit, at the working rate. Its bytes travel as chunks."""

    file: Annotated[str, Text(100, FILE), "plain file name"]
    size: Annotated[int, Whole(1, MOST_SOUND), "bytes"]
    sha256: Sha256
    chunk_size: Annotated[int, Whole(1024, 1024 * 1024), "bytes in every chunk but the last"]
    chunks: Annotated[int, Whole(1, MOST_CHUNKS)]

    def problem(self) -> str | None:
        """What fields say against each other; None when they agree."""
        if self.chunks != chunk_count(self.size, self.chunk_size):
            return f"{self.chunks} chunks of {self.chunk_size} bytes are not {self.size} bytes"
        return None


@dataclass(frozen=True)
class WindowRow:
    """One classified window of 5 s."""

    start: Annotated[int, Whole(0, 2**53), "first sample, counted from the start of the site's recording"]
    probability: Probability | None
    quality: Share
    reasons: Reasons
    murmur: Murmur | None = None


@dataclass(frozen=True)
class Finding:
    """The verdict. Unknown is null, never 0. It screens; it does not diagnose."""

    label: Annotated[str, OneOf(*LABELS)]
    probability: Probability | None
    quality: Share | None
    reasons: Reasons
    murmur: Murmur | None = None


_Marks = Annotated[
    tuple[Annotated[str, OneOf(*LEAD_WORDS)], ...], Many(7), "why there are gaps, the most frequent first"
]


@dataclass(frozen=True)
class EcgTrack:
    """The ECG beside one site's sound: FLAC of 24 bit, one lead, not denoised; ±1 is ±5 mV.

    Sample n belongs to second `start_s + n / true_rate_hz` of the site's sound. Both clocks were measured;
    no sample was moved. Gaps hold zeros: there the lead was off, or nothing came.
    """

    rate_hz: Annotated[int, Whole(50, 2000), "by name"]
    true_rate_hz: Annotated[float, Real(25.0, 4000.0), "samples in a second of the sound's clock"]
    start_s: Annotated[float, Real(-60.0, 60.0), "of its first sample, from the first of the site's sound"]
    spread_ms: Annotated[float, Real(0.0, 1e6), "of both clocks around their lines, nine of ten"] | None
    samples: Count
    clipped: Spans
    gaps: Spans
    reasons: _Marks
    sound: SoundFile

    def problem(self) -> str | None:
        """What fields say against each other; None when they agree."""
        return _spans_inside(self)


@dataclass(frozen=True)
class Site:
    """One auscultation site of an exam."""

    site: SiteName
    started: Moment
    start_index: Annotated[int, Whole(0, 2**53), "its first sample, counted since the source started"]
    rate_hz: Annotated[int, Whole(1000, 192000)]
    samples: Count
    seconds: Seconds
    ended: Annotated[str, OneOf("enough good windows", "longest", "stopped", "sound ended", "source gone")]
    good_windows: Count
    heart_rate_bpm: Rate | None
    clipped: Spans
    gaps: Spans
    windows: Annotated[tuple[WindowRow, ...], Many(2000)]
    sound: SoundFile
    ecg: Annotated[EcgTrack, "heard beside it; null where no lead was heard"] | None = None

    def problem(self) -> str | None:
        """What fields say against each other; None when they agree."""
        return _spans_inside(self)


def _spans_inside(track: Site | EcgTrack) -> str | None:
    for name in ("clipped", "gaps"):
        if any(not 0 <= a < b <= track.samples for a, b in getattr(track, name)):
            return f"{name}: a span lies outside the recording"
    return None


def files_of(exam: Exam) -> dict[str, SoundFile]:
    """Every file of an exam in the order of delivery: site → sound, `site.ecg` → its ECG."""
    found = {}
    for site in exam.sites:
        found[site.site] = site.sound
        if site.ecg is not None:
            found[ecg_name(site.site)] = site.ecg.sound
    return found


@dataclass(frozen=True)
class StageLatency:
    """Time of one stage's steps during the exam; null where it took no step."""

    stage: Annotated[str, Text(40)]
    budget_ms: Ms
    count: Count
    p50_ms: Ms | None
    p99_ms: Ms | None
    missed: Annotated[int, Whole(0, 2**53), "steps over the budget"]


@dataclass(frozen=True)
class Delay:
    """From a sample entering the decimator to its clean twin leaving the denoiser, in ms: all parts
    counted.
    """

    decimator_ms: Ms
    hop_ms: Ms
    look_ahead_ms: Ms
    total_ms: Ms


@dataclass(frozen=True)
class Exam:
    """The result of one examination. A screening aid, no diagnosis; pseudonymous at most."""

    id: ExamId
    fleet: Id
    device: Id
    software: Version
    bundle: Annotated[str, Text(64), "version of the model bundle; the clean sound is recomputed with it"]
    subject: Annotated[str, Text(32, SUBJECT), "pseudonymous code, never a name"] | None
    source: Annotated[str, Text(200), "where the sound came from"]
    source_rate_hz: Annotated[int, Whole(1000, 400000)]
    started: Moment
    finished: Moment
    ended: Annotated[str, OneOf("complete", "stopped", "sound ended", "source gone")]
    verdict: Finding
    heart_rate_bpm: Rate | None
    sites: Annotated[tuple[Site, ...], Many(MOST_SITES, fewest=1)]
    delay: Delay
    latency: Annotated[tuple[StageLatency, ...], Many(40)]
    dropped: Annotated[dict[str, Count], Many(40, keys=r"[a-z_ ]{1,40}"), "what queues or shedding left out"]
    ecg_source: Annotated[str, Text(200), "the lead that was to be heard; null for none"] | None = None
    schema: Schema = SCHEMA

    def problem(self) -> str | None:
        """What fields say against each other; None when they agree."""
        names = [site.site for site in self.sites]
        files = [file.file for file in files_of(self).values()]
        if len(set(names)) != len(names) or len({*files}) != len(files):
            return "sites: a site or a file is named twice"
        return None


def exam_hash(result: bytes) -> str:
    """What a receipt names: hex sha256 of the bytes of the `result` payload."""
    return hashlib.sha256(result).hexdigest()
