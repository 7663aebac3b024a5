"""Is this sound good enough to judge a heart by, and if not, why.

Two ways to the same answer. Plain measures need nothing: silence, too quiet, clipped, gaps, dropouts; the
limits were read off PhysioNet 2016 and CirCor (19 of 20 windows of good recordings lie on the good side of
each). What a sound is spoilt *by* (voices, rubbing, breath, noise around, hum, hiss) and whether the verdict
can be trusted is learned (`Judge`, `stethopi train quality`): a small net on what the band powers do. Its
weights lie in the bundle beside the classifier whose trust it was taught; in a bundle without them the plain
measures stand alone.

    python -I -m device.checks.figures.quality FILE     every second: score and reasons
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ
from device.screening import features, rhythm

__all__ = [
    "CAUSES",
    "CONTACT_S",
    "GOOD",
    "QualityJudge",
    "Quality",
    "Trouble",
    "assess",
    "measures",
    "troubles",
]

GOOD = 0.25
"""Score from which a window counts for the verdict."""

CONTACT_S = 3.0
"""So much of the newest sound says how the contact is, each second."""

SILENCE_PEAK = 1e-4
"""Peak, of full scale, below which there is nothing: three steps of a 16-bit recording."""

QUIET_PEAK = 2e-3
"""Peak below which 16 bits no longer carry a murmur beside the beats."""

_GAP_SHARES = (0.02, 0.25)
_CLIPPED_SHARES = (0.005, 0.05)
"""Share of the samples from which it tells, and from which nothing is left of the score."""

_CLIPPED_RUN = 3
CAUSES = ("voices", "rubbing or knocks", "breath", "noise around", "mains hum", "hiss")
"""What the learned judge tells apart, in the order of its outputs after the first."""

_PREFIX = "quality."
"""Of the judge's arrays among the classifier's in a bundle."""

_GROUPS = ((0, 5), (5, 10), (10, 20), (20, 32))
"""Mel bands of about 20–120, 120–250, 250–420 and 420–800 Hz, whose envelopes are followed."""

_BEAT_LAGS = (15, 100)
"""Frames after which a heart repeats itself: 0.3 to 2 s."""

_LOW_BANDS = 14
"""Mel bands below 330 Hz, where the heart is."""
_HIGH_BAND = 20
"""The first mel band above 400 Hz."""


@dataclass(frozen=True)
class Quality:
    """`score` 0 (useless) to 1 (good), and short plain words for what is wrong, the worst first."""

    score: float
    reasons: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.score >= GOOD


def _ramp(value: float, bad: float, good: float) -> float:
    """0 at `bad` and beyond, 1 at `good` and beyond, straight between."""
    return float(np.clip((value - bad) / (good - bad), 0.0, 1.0))


def _missing(gaps: Iterable[Any], length: int) -> int:
    total = 0
    for gap in gaps:
        start, end = (gap.start, gap.end) if hasattr(gap, "start") else gap
        total += max(0, min(int(end), length) - max(int(start), 0))
    return total


def clipped_samples(x: np.ndarray) -> int:
    """Samples in runs of three or more at one and the same extreme."""
    peak = float(np.abs(x).max()) if len(x) else 0.0
    if peak == 0.0:
        return 0
    total = 0
    for flat in (x >= 0.999 * peak, x <= -0.999 * peak):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(np.int8)))
        runs = edges[1::2] - edges[::2]
        total += int(runs[runs >= _CLIPPED_RUN].sum())
    return total


def measures(x: np.ndarray, power: np.ndarray) -> np.ndarray:
    """What the judge hears of a piece of 1 s or more: float32 (89,).

    x: sound at 2 kHz, (n,). power: its band powers (m, 32). In order: each band's mean level and its swing
    (dB under the whole, 2 × 32), envelope steps of four groups of bands (12), how far they go together (3),
    how clearly they repeat within 0.3 to 2 s (4, and whether the piece was long enough for that), level,
    peak, crest factor, tail and flat tops of the wave (5).
    """
    p = power.astype(np.float64)
    whole = p.sum(axis=1).mean() + 1e-20
    bands = 10.0 * np.log10(p / whole + 1e-7)
    envelopes = np.stack([10.0 * np.log10(p[:, a:b].sum(axis=1) / whole + 1e-7) for a, b in _GROUPS], axis=1)
    quantiles = np.percentile(envelopes, [5, 50, 95, 99.5], axis=0)
    swings = np.diff(quantiles, axis=0).ravel()
    centred = envelopes - envelopes.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0)) + 1e-9
    together = (centred[:, :1] * centred[:, 1:]).sum(axis=0) / (norms[0] * norms[1:])
    long_enough = len(p) > 1.4 * _BEAT_LAGS[1]
    repeats = np.zeros(len(_GROUPS))
    if long_enough:
        n = len(p)
        spectrum = np.fft.rfft(centred, 2 * n, axis=0)
        correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, axis=0)[: _BEAT_LAGS[1]]
        shares = correlation * (n / (n - np.arange(_BEAT_LAGS[1])))[:, None] / (norms**2)
        repeats = shares[_BEAT_LAGS[0] :].max(axis=0)
    wave = x - x.mean(dtype=np.float64)
    square = float(np.mean(np.square(wave, dtype=np.float64))) + 1e-20
    peak = float(np.abs(wave).max()) + 1e-10
    tail = float(np.mean(np.square(np.square(wave, dtype=np.float64)))) / square**2
    flat = clipped_samples(x) / len(x)
    plain = [_db(square), 2 * _db(peak), 2 * _db(peak) - _db(square), _db(tail), min(flat, 0.05) * 1e3]
    return np.concatenate(
        [bands.mean(axis=0), bands.std(axis=0), swings, together, 10 * repeats, [float(long_enough)], plain]
    ).astype(np.float32)


class QualityJudge:
    """The learned part: measures → chance that the verdict can be trusted, and of each cause.

    Two layers, float32, about 5,000 weights. `of` gives None for a bundle's arrays without them.
    """

    NAMES = ("mean", "scale", "w1", "b1", "w2", "b2", "lift")

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._mean, self._scale, self._w1, self._b1, self._w2, self._b2, lift = (
            arrays[n] for n in self.NAMES
        )
        self._lift = float(lift[0])
        """Added for pieces shorter than a window: less is known of them, and a light that cries wolf is not
        looked at."""

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> QualityJudge | None:
        found = {name: arrays[_PREFIX + name] for name in cls.NAMES if _PREFIX + name in arrays}
        return cls(found) if len(found) == len(cls.NAMES) else None

    @staticmethod
    def named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays as a bundle keeps them; `of` reads them again."""
        return {_PREFIX + name: array for name, array in arrays.items()}

    def __call__(self, x: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Chances, float32 (7,): trusted, then each of CAUSES."""
        z = np.clip((measures(x, power) - self._mean) * self._scale, -5.0, 5.0)
        hidden = np.maximum(z @ self._w1 + self._b1, 0.0)
        logits = hidden @ self._w2 + self._b2
        if len(x) < WINDOW:
            logits[0] += self._lift
        return 1.0 / (1.0 + np.exp(-logits))


def assess(
    x: np.ndarray,
    gaps: Iterable[Any] = (),
    power: np.ndarray | None = None,
    judge: QualityJudge | None = None,
) -> Quality:
    """Quality of a piece of sound at 2 kHz, float32 (n,), one second or more; windows have 10,000 samples.

    gaps: (start, end) pairs, or objects with these fields, in samples from the start of `x`; parts beyond
    it are ignored. power: its band powers (m, 32) when they are there already. judge: the bundle's; without
    one the plain measures decide, and look for the heart beat in three seconds or more only.
    """
    x = np.asarray(x, np.float32)
    if len(x) < features.FRAME:
        return Quality(0.0, ("too short",))
    peak = float(np.abs(x - x.mean(dtype=np.float64)).max())
    if not peak > SILENCE_PEAK:
        return Quality(0.0, ("silence",))
    if power is None:
        power = features.screening_frames_of(x)

    judged: list[tuple[float, str]] = [(_ramp(peak, 0.5 * QUIET_PEAK, 1.5 * QUIET_PEAK), "too quiet")]
    missing = _missing(gaps, len(x)) / len(x)
    judged.append((1.0 - _ramp(missing, *_GAP_SHARES), "gaps"))
    clipped = clipped_samples(x) / len(x)
    judged.append((1.0 - _ramp(clipped, *_CLIPPED_SHARES), "clipped"))

    total = power.sum(axis=1, dtype=np.float64)
    if (total < 1e-9 * total.max()).mean() > 0.1:
        judged.append((0.3, "dropouts"))
    if judge is not None:
        trusted, *causes = (float(c) for c in judge(x, power))
        score = trusted * float(np.prod([value for value, _ in judged]))
        judged += [(1.0 - chance, cause) for cause, chance in zip(CAUSES, causes, strict=True)]
        reasons = [reason for value, reason in sorted(judged, key=lambda pair: pair[0]) if value < 0.5]
        if score < GOOD and not reasons:
            reasons = ["too noisy"]
        return Quality(score, tuple(reasons))
    burst_db = _db(total.max() / max(float(np.percentile(total, 90)), 1e-30))
    judged.append((1.0 - _ramp(burst_db, 16.0, 26.0), "rubbing or knocks"))
    high = float(power[:, _HIGH_BAND:].sum(dtype=np.float64))
    low = float(power[:, :_HIGH_BAND].sum(dtype=np.float64))
    judged.append((1.0 - _ramp(_db(high / max(low, 1e-30)), -3.0, 6.0), "voices or noise above 400 Hz"))
    if len(x) >= rhythm.TWO_BEATS_S * WORKING_RATE_HZ:
        heart = power[:, :_LOW_BANDS].sum(axis=1, dtype=np.float64)
        swing_db = _db(float(np.percentile(heart, 95)) / max(float(np.percentile(heart, 20)), 1e-30))
        judged.append((_ramp(swing_db, 5.0, 12.0), "too noisy"))
        _, sure = rhythm.beat(power)
        judged.append((_ramp(sure, 0.15, 0.45), "no heart beat found"))

    score = float(np.prod([value for value, _ in judged]))
    reasons = [reason for value, reason in sorted(judged, key=lambda pair: pair[0]) if value < 0.5]
    return Quality(score, tuple(reasons))


@dataclass(frozen=True)
class Trouble:
    """What was wrong, and when: `str` says "rubbing or knocks at 3–7 s"."""

    reason: str
    start_s: int
    end_s: int

    def __str__(self) -> str:
        return f"{self.reason} at {self.start_s}–{self.end_s} s"


def troubles(windows: Iterable[tuple[int, Iterable[str]]]) -> list[Trouble]:
    """Where in a recording each reason lies, by time. windows: (first sample at 2 kHz, reasons) of 5 s each.

    A second is blamed when every window that holds it has the reason: a knock spoils all five windows about
    it, but only the knock's own second lies in nothing but spoilt windows.
    """
    found = {start // WINDOW_EVERY: set(reasons) for start, reasons in windows}
    length = WINDOW // WINDOW_EVERY
    seconds = sorted({k + i for k in found for i in range(length)})
    spans: list[Trouble] = []
    for reason in sorted(set().union(*found.values())) if found else ():
        blamed = [
            second
            for second in seconds
            if all(reason in found[k] for k in range(second - length + 1, second + 1) if k in found)
        ]
        for second in blamed:
            last = spans[-1] if spans else None
            if last and last.reason == reason and last.end_s == second:
                spans[-1] = Trouble(reason, last.start_s, second + 1)
            else:
                spans.append(Trouble(reason, second, second + 1))
    return sorted(spans, key=lambda span: (span.start_s, span.reason))


def _db(ratio: float) -> float:
    return 10.0 * float(np.log10(max(ratio, 1e-12)))
