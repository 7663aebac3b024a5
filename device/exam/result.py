"""What an examination comes to: windows, findings, sites, rate and latency as the wire tells them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from device.contract.exam import Delay, EcgTrack, Finding, Site, SoundFile, StageLatency, WindowRow
from device.contract.vocabulary import CHUNK_SIZE, Moment, chunk_count
from device.exam.session import MOST_REASONS, MOST_ROWS, SiteRecord
from device.rates import WORKING_RATE_HZ
from device.screening.verdict import Findings, Window
from device.timing import StageTimer

__all__ = ["window_row", "finding_of", "site_of", "heart_rate_of", "latency_of", "delay_of"]


def _few(reasons: Iterable[str]) -> tuple[str, ...]:
    return tuple(reason[:80] for reason in list(reasons)[:MOST_REASONS])


def window_row(window: Window) -> WindowRow:
    """A window as it goes into the exam."""
    return WindowRow(window.start, window.probability, window.quality, _few(window.reasons), window.murmur)


def finding_of(findings: Findings) -> Finding:
    """The verdict as it goes into the exam."""
    return Finding(
        findings.label.value, findings.probability, findings.quality, _few(findings.reasons), findings.murmur
    )


def site_of(
    record: SiteRecord,
    *,
    started: Moment,
    heart_rate_bpm: float | None,
    file: str,
    size: int,
    sha256: str,
    clipped: Sequence[Sequence[int]],
    gaps: Sequence[Sequence[int]],
    chunk_size: int = CHUNK_SIZE,
    ecg: EcgTrack | None = None,
) -> Site:
    """A settled site with its recording, as it goes into the exam."""
    assert record.samples is not None and record.ended is not None
    return Site(
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
        windows=tuple(window_row(window) for window in record.windows[:MOST_ROWS]),
        sound=SoundFile(file, size, sha256, chunk_size, chunk_count(size, chunk_size)),
        ecg=ecg,
    )


def heart_rate_of(sites: Iterable[Site]) -> float | None:
    """The middle one of the sites' heart rates; None when no site has one."""
    rates = [site.heart_rate_bpm for site in sites if site.heart_rate_bpm is not None]
    return statistics.median(rates) if rates else None


def latency_of(timers: Iterable[StageTimer]) -> tuple[StageLatency, ...]:
    """Stage times as they go into the exam, in ms."""

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else round(1e3 * seconds, 4)

    return tuple(
        StageLatency(
            stage=timer.name,
            budget_ms=1e3 * timer.budget_s,
            count=timer.count,
            p50_ms=ms(timer.p50),
            p99_ms=ms(timer.p99),
            missed=timer.missed,
        )
        for timer in timers
    )


def delay_of(decimator_s: float, hop_s: float, look_ahead_s: float) -> Delay:
    """The parts of the way from the decimator's input to the denoiser's output, in ms."""
    decimator, hop, look_ahead = (round(1e3 * part, 3) for part in (decimator_s, hop_s, look_ahead_s))
    return Delay(decimator, hop, look_ahead, round(decimator + hop + look_ahead, 3))
