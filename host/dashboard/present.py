"""From rows of the store to what the pages read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from device.contract import codec, topics
from device.contract.codec import to_json
from device.contract.control import Health
from device.contract.exam import EcgTrack
from device.contract.vocabulary import ecg_name
from host.store.store import Found
from host.store.tables import DeviceRow


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
