"""Exams made up for tests: valid in every field, with sound files of any bytes."""

from __future__ import annotations

import hashlib
import uuid

from device.contract.exam import Delay, Exam, Finding, Site, SoundFile, StageLatency, WindowRow
from device.contract.vocabulary import Moment, chunk_count

__all__ = ["make_exam", "moment"]


def moment(at_s: float = 1000.0) -> Moment:
    return Moment("0" * 32, at_s, 1.7e9 + at_s, "set")


def make_exam(
    sounds: dict[str, bytes] | None = None,
    *,
    exam_id: str | None = None,
    chunk_size: int = 1024,
    device: str = "stetho-1",
    windows: int = 2,
) -> Exam:
    """An exam whose sites are the keys of `sounds`; the values are the bytes of their files."""
    sounds = {"AV": b"sound" * 500} if sounds is None else sounds
    sites = tuple(
        Site(
            site=site,
            started=moment(1000.0 + n),
            start_index=20000 * n,
            rate_hz=2000,
            samples=20000,
            seconds=10.0,
            ended="enough good windows",
            good_windows=windows,
            heart_rate_bpm=70.0,
            clipped=((3, 9),),
            gaps=(),
            windows=tuple(WindowRow(2000 * w, 0.25, 0.9, ()) for w in range(windows)),
            sound=SoundFile(
                file=f"{site}.flac",
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                chunk_size=chunk_size,
                chunks=chunk_count(len(content), chunk_size),
            ),
        )
        for n, (site, content) in enumerate(sounds.items())
    )
    return Exam(
        id=exam_id or str(uuid.uuid4()),
        fleet="village",
        device=device,
        software="0.1.0",
        bundle="1",
        subject="P-017",
        source="synthetic",
        source_rate_hz=2000,
        started=moment(),
        finished=moment(1060.0),
        ended="complete",
        verdict=Finding("normal", 0.25, 0.9, ()),
        heart_rate_bpm=70.0,
        sites=sites,
        delay=Delay(12.0, 8.0, 16.0, 36.0),
        latency=(
            StageLatency("denoise", 2.0, 10, 0.5, 0.9, 0),
            StageLatency("classify", 250.0, 0, None, None, 0),
        ),
        dropped={"windows": 0},
    )
