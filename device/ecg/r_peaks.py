"""Where the beats are in an ECG: R peaks by two moving averages.

Source: M. Elgendi, "Fast QRS detection with an optimized knowledge-based method", PLoS ONE 8(9), 2013:
squares of the 8-to-20-Hz band, averaged over a QRS complex (97 ms) and over a beat (611 ms); where the
first stands above the second for at least a QRS complex's width is one. Changed: what may not be believed
is left out, so is what is far lower than the beats around it, and the peak is put where the signal between 5
and 25 Hz is farthest from zero.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from device.arrays import Floats, Indices, Reals

__all__ = ["heart_rate_bpm", "r_peaks"]

_QRS_S, _BEAT_S = 0.097, 0.611
_ABOVE = 0.08
"""By so much of the signal's mean power the short average must lie higher."""
_REFRACTORY_S = 0.2
_LOWEST = 0.35
"""Of the height of the beats within 6 s."""


def _band(x: Floats, rate_hz: float, low_hz: float, high_hz: float) -> Reals:
    """Linear-phase FIR band-pass of 0.6 s, aligned with its input."""
    half = round(0.3 * rate_hz)
    t = np.arange(-half, half + 1) / rate_hz
    taps = (2 * high_hz * np.sinc(2 * high_hz * t) - 2 * low_hz * np.sinc(2 * low_hz * t)) / rate_hz
    taps *= np.hamming(len(t))
    padded = np.pad(x, half, mode="edge") if len(x) else np.zeros(2 * half)
    return np.convolve(padded, taps, mode="valid")


def _average(x: Reals, width: int) -> Reals:
    width = max(width | 1, 1)
    padded = np.pad(x, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")


def r_peaks(x: Floats, rate_hz: float, gaps: Iterable[tuple[int, int]] = ()) -> Indices:
    """Samples of the R peaks, int64 (m,), rising. x: float (n,), any unit; gaps [start, end) are left out."""
    n = len(x)
    if n < rate_hz:
        return np.zeros(0, np.int64)
    x = np.asarray(x, np.float64)
    known = np.ones(n, bool)
    guard = round(0.1 * rate_hz)
    for start, end in gaps:
        known[max(start - guard, 0) : end + guard] = False
        # a bridge instead of a cliff: its edges would be the largest beats of all
        left, right = x[max(start - 1, 0)], x[min(end, n - 1)]
        x = x.copy() if x.base is None else np.array(x)
        x[start:end] = np.linspace(left, right, max(min(end, n) - start, 0))
    if not known.any():
        return np.zeros(0, np.int64)
    power = np.where(known, _band(x, rate_hz, 8.0, 20.0) ** 2, 0.0)
    mean = float(power[known].mean())
    if mean <= 0:
        return np.zeros(0, np.int64)
    # one thump of the cable must not hide the beats of a minute
    power = np.minimum(power, 60 * float(np.percentile(power[known], 75)) + 8 * mean)
    qrs = _average(power, round(_QRS_S * rate_hz))
    beat = _average(power, round(_BEAT_S * rate_hz))
    above = qrs > beat + _ABOVE * float(power[known].mean())
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]])))
    shown = np.abs(_band(x, rate_hz, 5.0, 25.0))
    peaks: list[int] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - start < 0.5 * _QRS_S * rate_hz:
            continue
        at = start + int(np.argmax(shown[start:end]))
        if not known[at]:
            continue
        if peaks and at - peaks[-1] < _REFRACTORY_S * rate_hz:
            if shown[at] > shown[peaks[-1]]:
                peaks[-1] = at
            continue
        peaks.append(at)
    return _high_enough(np.array(peaks, np.int64), shown, rate_hz)


def _high_enough(peaks: Indices, shown: Reals, rate_hz: float) -> Indices:
    """Without those that are far lower than the beats around them: noise in a slow heart's pauses."""
    if len(peaks) < 3:
        return peaks
    heights = shown[peaks]
    first = np.searchsorted(peaks, peaks - round(6 * rate_hz))
    past = np.searchsorted(peaks, peaks + round(6 * rate_hz), side="right")
    usual = np.array([np.percentile(heights[a:b], 75) for a, b in zip(first, past, strict=True)])
    return peaks[heights > _LOWEST * usual]


def heart_rate_bpm(peaks: Indices, rate_hz: float) -> float | None:
    """From the middle one of the distances; None for fewer than three beats."""
    if len(peaks) < 3:
        return None
    rate = 60.0 * rate_hz / float(np.median(np.diff(peaks)))
    return rate if 10.0 <= rate <= 400.0 else None
