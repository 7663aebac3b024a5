"""From rows of the store to what the pages read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from device.contract import codec, topics
from device.contract.codec import to_json
from device.contract.control import Health
from device.contract.exam import EcgTrack, Exam
from device.contract.vocabulary import ecg_name
from device.rates import WINDOW
from device.screening import quality
from host.playback.sounds import PLAY_RATE_HZ
from host.store.clocks import WORDS, Instant
from host.store.store import Found
from host.store.tables import DeviceRow, ReceiptRow

__all__ = ["about_ecg", "brief", "device", "full", "iso", "pieces"]


def iso(seconds: float | None) -> str | None:
    """UTC in ISO 8601; None for unknown, or for what no calendar holds."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


def pieces(found: Found, site: str) -> dict[str, Any]:
    """How much of a site is here, its ECG included."""
    files = [sound for sound in found.sounds if sound.site in (site, ecg_name(site))]
    return {
        "have": sum(found.have[sound.site] for sound in files),
        "chunks": sum(sound.chunks for sound in files),
        "complete": all(sound.complete_s is not None for sound in files),
    }


def about_ecg(track: EcgTrack | None) -> dict[str, Any] | None:
    if track is None:
        return None
    return {
        "seconds": track.samples / track.true_rate_hz,
        "gap_seconds": sum(b - a for a, b in track.gaps) / track.true_rate_hz,
        "reasons": track.reasons,
        "size": track.sound.size,
        "sha256": track.sound.sha256,
    }


def brief(found: Found, limits: dict[str, Any]) -> dict[str, Any]:
    """An exam as a list shows it; limits: `threshold` and `undecided` of its bundle, where that is known."""
    exam = found.exam
    return {
        "id": exam.id,
        "fleet": exam.fleet,
        "device": exam.device,
        "status": "complete" if found.complete else "partial",
        "received": iso(exam.received_s),
        "cursor": f"{exam.received_s!r}_{exam.id}",
        "started": iso(found.started.seconds),
        "clock_trust": exam.clock_trust,
        "clock_basis": found.started.basis,
        "label": exam.label,
        "probability": exam.probability,
        "quality": exam.quality,
        "bundle": exam.bundle,
        "threshold": limits.get("threshold"),
        "undecided": limits.get("undecided"),
        "sites": [
            {"site": site.site, "seconds": site.seconds, **pieces(found, site.site)} for site in found.sites
        ],
    }


def full(found: Found, exam: Exam, finished: Instant, receipts: Sequence[ReceiptRow]) -> dict[str, Any]:
    """What the page of an exam shows beside that."""
    return {
        "completed": iso(found.exam.complete_s),
        "finished": iso(finished.seconds),
        "clock_words": WORDS[found.started.basis],
        "software": exam.software,
        "subject": exam.subject,
        "source": exam.source,
        "source_rate_hz": exam.source_rate_hz,
        "ecg_source": exam.ecg_source,
        "ended": exam.ended,
        "reasons": exam.verdict.reasons,
        "murmur": exam.verdict.murmur,
        "heart_rate_bpm": exam.heart_rate_bpm,
        "sha256": found.exam.sha256,
        "window": WINDOW,
        "play_rate_hz": PLAY_RATE_HZ,
        "delay": to_json(exam.delay),
        "latency": to_json(exam.latency),
        "dropped": dict(exam.dropped),
        "receipts": [{"sent": iso(row.sent_s), "status": row.status, "why": row.why} for row in receipts],
        "sites": [
            {
                "site": site.site,
                "seconds": site.seconds,
                "samples": site.samples,
                "ended": site.ended,
                "heart_rate_bpm": site.heart_rate_bpm,
                "good_windows": site.good_windows,
                "clipped": site.clipped,
                "gaps": site.gaps,
                "troubles": [
                    str(trouble) for trouble in quality.troubles((w.start, w.reasons) for w in site.windows)
                ],
                "windows": [
                    {
                        "start": window.start,
                        "probability": window.probability,
                        "quality": window.quality,
                        "good": window.probability is not None and window.quality >= quality.GOOD,
                        "reasons": window.reasons,
                    }
                    for window in site.windows
                ],
                **pieces(found, site.site),
                "size": site.sound.size,
                "sha256": site.sound.sha256,
                "ecg": about_ecg(site.ecg),
            }
            for site in exam.sites
        ],
    }


def device(row: DeviceRow) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": f"{row.fleet}/{row.device}",
        "fleet": row.fleet,
        "device": row.device,
        "online": row.online,
        "why": row.why,
        "version": row.software,
        "bundle": row.bundle,
        "source": row.source,
        "last_seen": iso(row.seen_s),
    }
    health = _health(row)
    if health is not None:
        made |= {
            "health_at": iso(row.health_s),
            "sound": health.source,
            "sample_age_s": health.sample_age_s,
            "lost_samples": health.lost_samples,
            "backlog": health.backlog.exams,
            "refused": health.backlog.refused,
            "partials": health.partials,
            "temperature_c": health.temperature_c,
            "battery": health.battery,
            "trouble": health.trouble,
            "disk_free_mb": health.disk_free_bytes / 1e6 if health.disk_free_bytes is not None else None,
            "shed": health.shed,
            "listening": to_json(health.listening),
        }
    return made


def _health(row: DeviceRow) -> Health | None:
    """Its last counters; None where there are none, or where another version wrote them."""
    try:
        return None if row.health is None else topics.read(Health, row.health.encode())
    except codec.BadMessage:
        return None
