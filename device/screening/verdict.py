"""What windows say together: a label, a probability, the reasons."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from device.screening import quality

__all__ = ["SHORTEST_JUDGED_S", "Label", "Window", "Findings", "probabilities", "sigmoid", "verdict"]

SHORTEST_JUDGED_S = 2.0
"""Less sound than this is not judged at all, and is no exam."""

_TOO_SHORT = f"under {SHORTEST_JUDGED_S:g} s of sound"


class Label(enum.Enum):
    """What is shown."""

    NORMAL = "normal"
    ABNORMAL = "abnormal"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Window:
    """What was heard in five seconds."""

    start: int
    """First sample at 2 kHz since the start of the sound."""
    probability: float | None
    """Of abnormal, 0 to 1; None for silence, which the network is not asked about."""
    quality: float
    """0 to 1, see device.screening.quality."""
    reasons: tuple[str, ...] = ()
    """What is wrong with the sound, the worst first; empty when it is good."""
    murmur: float | None = None
    """Probability that a murmur is heard."""


@dataclass(frozen=True)
class Findings:
    """The verdict on a recording or an exam. Unknown is None, never 0."""

    label: Label
    probability: float | None
    quality: float | None
    reasons: list[str] = field(default_factory=list)
    """Why unsure, or what was wrong with the sound."""
    windows: list[Window] = field(default_factory=list)
    murmur: float | None = None


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def probabilities(logits: np.ndarray, meta: Mapping[str, Any]) -> tuple[float, float]:
    """(abnormal, murmur) from the two logits, by the bundle's `combine`, `bias` and temperatures."""
    murmur, abnormal = float(logits[0]), float(logits[1])
    combine = meta["combine"]
    score = combine["murmur"] * murmur + combine["abnormal"] * abnormal + meta["bias"]
    heard = (murmur + meta["murmur_bias"]) / meta["murmur_temperature"]
    return sigmoid(score / meta["temperature"]), sigmoid(heard)


def _logit(p: float) -> float:
    p = min(max(p, 1e-7), 1.0 - 1e-7)
    return math.log(p / (1.0 - p))


def verdict(windows: Sequence[Window], meta: Mapping[str, Any]) -> Findings:
    """What windows of one heart, of one or more sites, say together. `meta` is the classifier's in the
    bundle.
    """
    windows = list(windows)
    if not windows:
        return Findings(Label.UNSURE, None, None, [_TOO_SHORT])
    judged = [w for w in windows if w.probability is not None]
    good = [w for w in judged if w.quality >= quality.GOOD]
    # a 5-s recording has one window and may be judged by it; a longer one shows more of the heart
    enough = len(good) >= max(1, min(3, len(windows) // 3))
    mean_quality = float(np.mean([w.quality for w in windows]))
    troubles = Counter(reason for w in windows for reason in w.reasons)
    reasons = [reason for reason, count in troubles.most_common() if 2 * count > len(windows)]
    heard = good if enough else judged
    probability = murmur = None
    if heard:
        probability = sigmoid(
            float(np.mean([_logit(w.probability) for w in heard if w.probability is not None]))
        )
        murmurs = [_logit(w.murmur) for w in heard if w.murmur is not None]
        murmur = sigmoid(float(np.mean(murmurs))) if murmurs else None
    if not enough or probability is None:
        label = Label.UNSURE
        if not reasons:
            reasons = [reason for reason, _ in troubles.most_common(2)]
        reasons = reasons or ["too few good windows"]
    else:
        low, high = meta["undecided"]
        if low <= probability <= high:
            label = Label.UNSURE
            reasons = ["probability close to the threshold", *reasons]
        else:
            label = Label.ABNORMAL if probability >= meta["threshold"] else Label.NORMAL
    return Findings(label, probability, mean_quality, reasons, windows, murmur)
