"""What an examination comes to, as the wire tells it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from device.contract.exam import Delay, EcgTrack, Exam, Finding, Site, SoundFile, StageLatency, WindowRow
from device.contract.live import LiveExam
from device.contract.vocabulary import CHUNK_SIZE, Moment, chunk_count
from device.exam.identity import Identity
from device.exam.session import MOST_REASONS, MOST_ROWS, SiteRecord
from device.exam.underway import Running
from device.rates import WORKING_RATE_HZ
from device.screening.verdict import Findings, Window
from device.storage.recorder import RecordingFile
from device.timing import StageTimer

__all__ = [
    "delay_of",
    "exam_of",
    "finding_of",
    "finished_of",
    "heart_rate_of",
    "latency_of",
    "site_of",
    "window_row",
]


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
    recording: RecordingFile,
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
        clipped=tuple((int(a), int(b)) for a, b in recording.clipped),
        gaps=tuple((int(a), int(b)) for a, b in recording.gaps),
        windows=tuple(window_row(window) for window in record.windows[:MOST_ROWS]),
        sound=SoundFile(
            recording.path.name,
            recording.size,
            recording.sha256,
            CHUNK_SIZE,
            chunk_count(recording.size, CHUNK_SIZE),
        ),
        ecg=ecg,
    )


def exam_of(
    running: Running,
    identity: Identity,
    *,
    finished: Moment,
    latency: tuple[StageLatency, ...],
    dropped: dict[str, int],
    ecg_source: str | None,
) -> Exam:
    """An exam whose sites are settled, as it goes into the outbox."""
    state = running.state
    return Exam(
        id=running.id,
        fleet=identity.fleet,
        device=identity.device,
        software=identity.software,
        bundle=identity.bundle,
        subject=running.subject,
        source=identity.source,
        source_rate_hz=identity.source_rate_hz,
        started=running.started,
        finished=finished,
        ended=state.ended,
        verdict=finding_of(state.findings()),
        heart_rate_bpm=heart_rate_of(running.sites),
        sites=tuple(running.sites),
        delay=identity.delay,
        latency=latency,
        dropped=dropped,
        ecg_source=ecg_source,
    )


def finished_of(exam: Exam) -> LiveExam:
    """An exam that is in the outbox, as it is told live."""
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
