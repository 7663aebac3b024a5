"""Is this sound good enough to judge a heart by, and if not, why.

Cheap measures on a window, each with the reason that it stands for. The limits were read off PhysioNet 2016
and CirCor (19 of 20 windows of good recordings lie on the good side of each) and off recordings of nothing
but noise.

    python -m device.quality FILE     every second: score and reasons
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from device import features, rhythm
from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ

__all__ = ["GOOD", "Quality", "assess"]

GOOD = 0.25
"""Score from which a window counts for the verdict."""

SILENCE_PEAK = 1e-4
"""Peak, of full scale, below which there is nothing: three steps of a 16-bit recording."""

QUIET_PEAK = 2e-3
"""Peak below which 16 bits no longer carry a murmur beside the beats."""

_GAP_SHARE = 0.02
_CLIPPED_SHARE = 0.005
_CLIPPED_RUN = 3
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


def assess(x: np.ndarray, gaps: Iterable[Any] = (), power: np.ndarray | None = None) -> Quality:
    """Quality of a piece of sound at 2 kHz, float32 (n,), one second or more; windows have 10,000 samples.

    gaps: (start, end) pairs, or objects with these fields, in samples from the start of `x`; parts beyond
    it are ignored. power: its band powers (m, 32) when they are there already. The heart beat is looked for
    in three seconds or more only.
    """
    x = np.asarray(x, np.float32)
    if len(x) < features.FRAME:
        return Quality(0.0, ("too short",))
    peak = float(np.abs(x - x.mean(dtype=np.float64)).max())
    if not peak > SILENCE_PEAK:
        return Quality(0.0, ("silence",))
    if power is None:
        power = features.frames_of(x)

    judged: list[tuple[float, str]] = [(_ramp(peak, 0.5 * QUIET_PEAK, 1.5 * QUIET_PEAK), "too quiet")]
    missing = _missing(gaps, len(x)) / len(x)
    judged.append((1.0 - _ramp(missing, _GAP_SHARE, 0.25), "gaps"))
    clipped = clipped_samples(x) / len(x)
    judged.append((1.0 - _ramp(clipped, _CLIPPED_SHARE, 0.05), "clipped"))

    total = power.sum(axis=1, dtype=np.float64)
    if (total < 1e-9 * total.max()).mean() > 0.1:
        judged.append((0.3, "dropouts"))
    burst_db = _db(total.max() / max(float(np.percentile(total, 90)), 1e-30))
    judged.append((1.0 - _ramp(burst_db, 16.0, 26.0), "rubbing or knocks"))
    high = float(power[:, _HIGH_BAND:].sum(dtype=np.float64))
    low = float(power[:, :_HIGH_BAND].sum(dtype=np.float64))
    judged.append((1.0 - _ramp(_db(high / max(low, 1e-30)), -3.0, 6.0), "voices or noise above 400 Hz"))
    if len(x) >= rhythm.SHORTEST_S * WORKING_RATE_HZ:
        heart = power[:, :_LOW_BANDS].sum(axis=1, dtype=np.float64)
        swing_db = _db(float(np.percentile(heart, 95)) / max(float(np.percentile(heart, 20)), 1e-30))
        judged.append((_ramp(swing_db, 5.0, 12.0), "too noisy"))
        _, sure = rhythm.beat(power)
        judged.append((_ramp(sure, 0.15, 0.45), "no heart beat found"))

    score = float(np.prod([value for value, _ in judged]))
    reasons = [reason for value, reason in sorted(judged, key=lambda pair: pair[0]) if value < 0.5]
    return Quality(score, tuple(reasons))


def _db(ratio: float) -> float:
    return 10.0 * float(np.log10(max(ratio, 1e-12)))


def main(argv: list[str] | None = None) -> int:
    import sys

    from device.errors import StethopiError
    from device.screen import read_working_rate

    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m device.quality FILE", file=sys.stderr)
        return 2
    try:
        x, gaps = read_working_rate(arguments[0])
    except StethopiError as error:
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code
    for start in range(0, max(1, len(x) - WINDOW + 1), WINDOW_EVERY):
        piece = x[start : start + WINDOW]
        quality = assess(piece, [(a - start, b - start) for a, b in gaps])
        reasons = ", ".join(quality.reasons) or "good"
        print(f"{start / WORKING_RATE_HZ:6.1f} s  {quality.score:.2f}  {reasons}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
