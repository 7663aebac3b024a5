"""Exams as they arrive at a store: topics, chunks, small recordings."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import soundfile

from device.contract.codec import encode
from device.contract.exam import Exam
from device.contract.topics import Topic
from device.contract.vocabulary import chunk_span
from host.store.arrivals import Arrivals
from host.store.store import Store
from tests.device.exams import make_exam

__all__ = ["SOUNDS", "beats", "chunks", "flac", "put", "topic"]

SOUNDS = {"AV": bytes(range(256)) * 20, "MV": b"heart" * 500}


def topic(exam: Exam, site: str | None = None, n: int | None = None) -> Topic:
    kind = "result" if site is None else "sound"
    return Topic(exam.fleet, exam.device, kind, exam=exam.id, site=site, chunk=n)


def chunks(exam: Exam, sounds: dict[str, bytes] = SOUNDS) -> list[tuple[Topic, bytes]]:
    found = []
    for site in exam.sites:
        for n in range(site.sound.chunks):
            first, past = chunk_span(n, site.sound.size, site.sound.chunk_size)
            found.append((topic(exam, site.site, n), sounds[site.site][first:past]))
    return found


def flac(x: np.ndarray, rate_hz: int = 2000) -> bytes:
    held = io.BytesIO()
    soundfile.write(held, x, rate_hz, subtype="PCM_24", format="FLAC")
    return held.getvalue()


def beats(seconds: float = 6.0, seed: int = 1) -> np.ndarray:
    """Thumps at 60 Hz, 70 a minute, in noise."""
    t = np.arange(int(seconds * 2000)) / 2000
    noise = np.random.default_rng(seed).standard_normal(len(t)) * 0.005
    thumps = np.exp(-(((t % 0.857) - 0.1) ** 2) / 0.0008) * np.sin(2 * np.pi * 60 * t)
    return (0.2 * thumps + noise).astype(np.float32)


def put(store: Store, sounds: dict[str, bytes], *, leave_out: int = 0, **changes: Any) -> Exam:
    exam = replace(make_exam(sounds), **changes)
    Arrivals(store).put_result(topic(exam), encode(exam))
    pieces = chunks(exam, sounds)
    for where, data in pieces[: len(pieces) - leave_out]:
        Arrivals(store).put_chunk(where, data)
    return exam
