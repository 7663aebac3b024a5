"""How well S1 and S2 are found, by the field's protocol (Schmidt et al. 2010; Springer et al. 2016).

A found sound is right when the middle of a marked sound of its kind lies within the tolerance; each mark is
matched once. What nobody marked does not count: neither a sound found in a stretch of noise or without marks,
nor one at a mark that is cut by such a stretch or by the recording's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from device.screening.segmentation import (
    STATES,
    Levelled,
    SegmentStream,
    adapted,
    edge_s,
    segment,
    whole_sounds,
)
from models.rhythm import RhythmNet

__all__ = [
    "TOLERANCES_S",
    "Marks",
    "counts",
    "f1",
    "marked_rate",
    "marks_of",
    "middles",
    "offline_states",
    "probabilities",
    "streamed_states",
]

TOLERANCES_S = (0.1, 0.06)

_SOUNDS = ("S1", "S2")


@dataclass(frozen=True)
class Marks:
    """The marks of a recording, seconds from its start."""

    sounds: dict[str, np.ndarray]
    """S1 and S2 → the middles that must be found."""
    passed_over: tuple[tuple[float, float], ...]
    """Where a found sound does not count."""


def marks_of(spans: Sequence[tuple[float, float, str]], seconds: float) -> Marks:
    """From (start, end, state), rising in time. Before the first and after the last nothing is marked."""
    sounds: dict[str, list[float]] = {kind: [] for kind in _SOUNDS}
    over = []
    for k, (start, end, state) in enumerate(spans):
        beside = [spans[j][2] in STATES for j in (k - 1, k + 1) if 0 <= j < len(spans)]
        if state not in STATES:
            over.append((start, end))
        elif state in _SOUNDS:
            if len(beside) == 2 and all(beside):
                sounds[state].append((start + end) / 2)
            else:
                over.append((start, end))
    over.append((-1.0, spans[0][0] if spans else seconds))
    over.append((spans[-1][1] if spans else 0.0, seconds + 1.0))
    return Marks({kind: np.array(middles) for kind, middles in sounds.items()}, tuple(over))


def counts(found: dict[str, np.ndarray], marks: Marks, tolerance_s: float) -> np.ndarray:
    """Rightly found, wrongly found and missed sounds, int64 (3,). `found`: S1 and S2 → middles, rising."""
    right = wrong = missed = 0
    for kind in _SOUNDS:
        known, heard = marks.sounds[kind], found[kind]
        i = j = 0
        while i < len(known) or j < len(heard):
            if j == len(heard) or (i < len(known) and known[i] < heard[j] - tolerance_s):
                missed += 1
                i += 1
            elif i == len(known) or heard[j] < known[i] - tolerance_s:
                wrong += not any(a - tolerance_s <= heard[j] <= b + tolerance_s for a, b in marks.passed_over)
                j += 1
            else:
                right += 1
                i += 1
                j += 1
    return np.array([right, wrong, missed])


def f1(counted: np.ndarray) -> float:
    """F1 of summed counts (3,); nan where nothing is marked or found."""
    right, wrong, missed = (float(c) for c in counted)
    total = 2 * right + wrong + missed
    return 2 * right / total if total else float("nan")


def marked_rate(spans: Sequence[tuple[float, float, str]]) -> float | None:
    """Beats a minute by the median distance of neighbouring marked S1; None for fewer than three of them."""
    starts = np.array([start for start, _, state in spans if state == "S1"])
    gaps = np.diff(starts)
    # over a stretch without marks one S1 is no neighbour of the next
    gaps = gaps[(gaps > 60.0 / 240.0) & (gaps < 2.2)]
    return 60.0 / float(np.median(gaps)) if len(gaps) >= 3 else None


def probabilities(net: RhythmNet, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The network's early and late answer to band powers (m, 32): float64 (m, 4) each."""
    bands = np.ascontiguousarray(Levelled().process(power).T)[None]
    with torch.no_grad():
        early, late = net.whole(torch.from_numpy(bands))
    return tuple(torch.softmax(a[0].double(), 0).T.numpy() for a in (early, late))  # type: ignore[return-value]


def streamed_states(early: np.ndarray) -> np.ndarray:
    """As the device decodes while it hears."""
    stream = SegmentStream()
    return np.concatenate([stream.process(early), stream.flush()])


def offline_states(late: np.ndarray) -> np.ndarray:
    """As a whole recording is decoded: once with everybody's durations, then with this heart's own."""
    return segment(late, adapted(segment(late)))


def middles(codes: np.ndarray) -> dict[str, np.ndarray]:
    """S1 and S2 → the middles of those that are not cut by the recording's ends, in s."""
    return {
        kind: np.array([edge_s((a + b) / 2) for a, b in whole_sounds(codes, STATES.index(kind))])
        for kind in _SOUNDS
    }
