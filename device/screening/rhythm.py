"""Heart rate from sound alone: how long until the envelope repeats itself.

The envelope is the amplitude in the lowest eight mel bands (20 to 220 Hz, where S1 and S2 are), fifty times
a second; its autocorrelation has a peak at one beat. How often that is right stands in
docs/results/classify.json (`heart_rate`), measured against marked beats.

    python -I -m device.checks.figures.rhythm FILE     the rate, over the whole recording
"""

from __future__ import annotations

import numpy as np

from device.dsp.offset import without_offset
from device.rates import WORKING_RATE_HZ
from device.screening import features

__all__ = ["HIGHEST_BPM", "LOWEST_BPM", "TWO_BEATS_S", "beat", "envelope", "heart_rate", "heart_rate_in"]

LOWEST_BPM, HIGHEST_BPM = 30.0, 200.0

SURE = 0.4
"""Height of the autocorrelation's peak, of 1, from which the rate is believed."""

TWO_BEATS_S = 3.0
"""Less sound than this may not hold two whole beats."""

_HEART_BANDS = 8
_FRAMES_PER_S = WORKING_RATE_HZ / features.FRAME_HOP
_HALF_BEAT = 0.8
"""A peak at less than 3/4 of the best lag is taken instead when it has this share of its height: the best one
may be of two beats.
"""


def envelope(power: np.ndarray) -> np.ndarray:
    """Amplitude of the heart sounds, float64 (m,), 50 a second, from band powers (m, 32). Bursts are held
    down.
    """
    raw = np.sqrt(power[:, :_HEART_BANDS].sum(axis=1, dtype=np.float64))
    taper = np.hanning(7)[1:-1]
    smooth = np.convolve(raw, taper / taper.sum(), "same")
    return np.minimum(smooth, np.percentile(smooth, 97))


def beat(power: np.ndarray) -> tuple[float | None, float]:
    """(beats a minute, how sure) from band powers (m, 32).

    How sure is the height of the autocorrelation's peak: 1 for exact repetition, about 0.25 for noise. The
    rate is None when no peak lies between 30 and 200 beats a minute.
    """
    n = len(power)
    # as many whole frames as so much sound has: its last one needs room too
    if n < (TWO_BEATS_S * WORKING_RATE_HZ - features.FRAME) / features.FRAME_HOP:
        return None, 0.0
    e = envelope(power)
    e = e - e.mean()
    spectrum = np.fft.rfft(e, 2 * n)
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:n]
    if not correlation[0] > 1e-30:
        return None, 0.0
    a = correlation / correlation[0] * n / (n - np.arange(n))
    first = int(60.0 / HIGHEST_BPM * _FRAMES_PER_S)
    # two thirds of the sound at most: beyond, hardly anything is compared with itself
    last = min(int(60.0 / LOWEST_BPM * _FRAMES_PER_S), 2 * n // 3, n - 2)
    peaks = [i for i in range(first, last + 1) if a[i] >= a[i - 1] and a[i] > a[i + 1]]
    if not peaks:
        return None, 0.0
    best = max(peaks, key=lambda i: a[i])
    height = float(a[best])
    for i in peaks:
        if i < 0.75 * best and a[i] > _HALF_BEAT * height:
            best = i
            break
    curve = a[best - 1] - 2 * a[best] + a[best + 1]
    lag = best + (0.5 * (a[best - 1] - a[best + 1]) / curve if curve else 0.0)
    return 60.0 * _FRAMES_PER_S / float(lag), min(1.0, max(0.0, height))


def heart_rate_in(power: np.ndarray) -> float | None:
    """Beats a minute from band powers (m, 32); None where it cannot be told."""
    rate, sure = beat(power)
    return rate if sure >= SURE else None


def heart_rate(x: np.ndarray) -> float | None:
    """Beats a minute of sound at 2 kHz, shape (n,); None where it cannot be told."""
    return heart_rate_in(features.screening_frames_of(without_offset(np.asarray(x, np.float32))))
