"""Figures about sound: signal over noise in a band, with and without the best volume, and a murmur's
excess.

All take sound at 2 kHz and a clean reference that is aligned to the sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from device.rates import WORKING_RATE_HZ
from training.metrics.resampling import resampled

__all__ = [
    "BAND_HZ",
    "band",
    "beat_shifts_ms",
    "bootstrap_values",
    "correlation",
    "improvement",
    "kept_db",
    "murmur_excess_db",
    "paired_bootstrap",
    "snr_db",
]

BAND_HZ = (25.0, 400.0)
"""What "in band" means everywhere."""

Spans = Sequence[tuple[float, float, str]]


def band(x: np.ndarray, low_hz: float = BAND_HZ[0], high_hz: float = BAND_HZ[1]) -> np.ndarray:
    """Zero-phase band-pass over the last axis by the spectrum, with edges a tenth of an octave wide.

    The ends are padded with half a second of mirrored sound, so that they do not leak into each other.
    """
    n = x.shape[-1]
    pad = min(n - 1, WORKING_RATE_HZ // 2)
    padded = np.concatenate([x[..., pad:0:-1], x, x[..., -2 : -2 - pad : -1]], -1).astype(np.float64)
    size = 1 << (padded.shape[-1] - 1).bit_length()
    octave = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / WORKING_RATE_HZ), 1e-3))
    up = np.clip((octave - np.log2(low_hz)) / 0.1 + 0.5, 0, 1)
    down = np.clip((np.log2(high_hz) - octave) / 0.1 + 0.5, 0, 1)
    return np.fft.irfft(np.fft.rfft(padded, size) * (up * down), size)[..., pad : pad + n]


def snr_db(clean: np.ndarray, sound: np.ndarray, *, best_volume: bool = False) -> float:
    """10 log10 of the clean sound's energy over that of the difference; with the sound's one best gain if
    asked.

    Capped at ±100 dB. Unknown (nan) when the reference is silent.
    """
    s = clean.astype(np.float64)
    y = sound.astype(np.float64)
    energy = float(s @ s)
    if energy <= 0:
        return float("nan")
    if best_volume:
        y = y * (float(y @ s) / max(float(y @ y), 1e-300))
    error = float((s - y) @ (s - y))
    return float(np.clip(10 * np.log10(energy / max(error, 1e-300)), -100, 100))


def improvement(clean: np.ndarray, noisy: np.ndarray, out: np.ndarray) -> tuple[float, float]:
    """SNR out minus SNR in, dB: plain, and beyond volume (both sounds first at their best gain)."""
    return (
        snr_db(clean, out) - snr_db(clean, noisy),
        snr_db(clean, out, best_volume=True) - snr_db(clean, noisy, best_volume=True),
    )


def murmur_excess_db(x: np.ndarray, spans: Spans, low_hz: float = 100.0, high_hz: float = 400.0) -> float:
    """How much more energy systole holds than diastole between 100 and 400 Hz, dB; nan with fewer than 3 of
    each.

    Of each systole and diastole the middle part is used (20 to 85 %), of all of them the median power.
    """
    power = band(x, low_hz, high_hz) ** 2
    found: dict[str, list[float]] = {"systole": [], "diastole": []}
    for start, end, state in spans:
        if state in found:
            length = end - start
            i = round((start + 0.2 * length) * WORKING_RATE_HZ)
            j = round((start + 0.85 * length) * WORKING_RATE_HZ)
            if i >= 0 and j <= len(power) and j - i >= 40:
                found[state].append(float(power[i:j].mean()))
    if min(len(v) for v in found.values()) < 3:
        return float("nan")
    systole, diastole = (max(float(np.median(found[k])), 1e-20) for k in ("systole", "diastole"))
    return 10 * float(np.log10(systole / diastole))


def kept_db(part: np.ndarray, rest: np.ndarray, out: np.ndarray) -> float:
    """How much of a known part of the sound is left in the output, dB: 0 all of it, -20 a tenth.

    The share of `part` in the least-squares fit of `out` by `part` and `rest` (both as they went in). nan
    when the part is silent; at least -60.
    """
    a = np.stack([part, rest]).astype(np.float64)
    if not float(a[0] @ a[0]) > 0:
        return float("nan")
    share = np.linalg.lstsq(a.T, out.astype(np.float64), rcond=None)[0][0]
    return float(20 * np.log10(np.clip(share, 1e-3, 1e3)))


def correlation(clean: np.ndarray, sound: np.ndarray) -> float:
    """Pearson's r of two sounds; nan when one of them is constant."""
    a, b = clean - np.mean(clean), sound - np.mean(sound)
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b / size) if size > 0 else float("nan")


def _envelope(x: np.ndarray) -> np.ndarray:
    window = np.hanning(2 * round(0.02 * WORKING_RATE_HZ) + 1)
    return np.convolve(np.abs(band(x)), window / window.sum(), "same")


def beat_shifts_ms(
    clean: np.ndarray, out: np.ndarray, spans: Spans, *, most_ms: float = 30.0
) -> dict[str, list[float]]:
    """By how much S1 and S2 lie later in `out` than in `clean`, ms: one value a beat that lies inside.

    The lag of the highest correlation of the two envelopes (25 to 400 Hz, smoothed over 20 ms) around the
    marked beat, within ± `most_ms`, between samples by a parabola.
    """
    most = round(most_ms / 1000 * WORKING_RATE_HZ)
    edge = round(0.04 * WORKING_RATE_HZ)
    a, b = _envelope(clean), _envelope(out)
    found: dict[str, list[float]] = {"S1": [], "S2": []}
    for start, end, state in spans:
        if state not in found:
            continue
        i, j = round(start * WORKING_RATE_HZ) - edge, round(end * WORKING_RATE_HZ) + edge
        if i - most < 0 or j + most > len(a) or j - i < 2 * edge:
            continue
        want = a[i:j] - a[i:j].mean()
        places = np.lib.stride_tricks.sliding_window_view(b[i - most : j + most], j - i)
        places = places - places.mean(1, keepdims=True)
        size = np.sqrt((places**2).sum(1) * (want @ want))
        if not size.min() > 0:
            continue
        r = places @ want / size
        k = int(np.argmax(r))
        lag = float(k - most)
        if 0 < k < len(r) - 1:
            bend = r[k - 1] - 2 * r[k] + r[k + 1]
            if bend < 0:
                lag += 0.5 * float((r[k - 1] - r[k + 1]) / bend)
        found[state].append(1000 * lag / WORKING_RATE_HZ)
    return found


def paired_bootstrap(
    figure: Callable[[np.ndarray, np.ndarray], float],
    one: np.ndarray,
    other: np.ndarray,
    groups: Sequence[str],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """`figure(values, rows)` of two judgements of the same recordings, and of their difference (one minus
    other), each with its 95 % interval over resampled subjects; the same subjects are drawn for both.

    Rounds in which the figure is not defined are left out.
    """
    drawn = []
    for rows in itertools.islice(resampled(groups, seed), rounds):
        pair = figure(one, rows), figure(other, rows)
        if np.isfinite(pair).all():
            drawn.append((*pair, pair[0] - pair[1]))
    everything = np.arange(len(groups))
    whole = figure(one, everything), figure(other, everything)
    found: dict[str, dict[str, float | None]] = {}
    for k, (name, value) in enumerate(
        zip(("one", "other", "difference"), (*whole, whole[0] - whole[1]), strict=True)
    ):
        low, high = np.percentile([d[k] for d in drawn], [2.5, 97.5]) if drawn else (None, None)
        found[name] = {"value": float(value), "low": _known(low), "high": _known(high)}
    return found


def _known(x: float | None) -> float | None:
    return None if x is None else float(x)


def bootstrap_values(
    values: Sequence[float],
    groups: Sequence[str],
    figure: Callable[[np.ndarray], float] = lambda v: float(np.mean(v)),
    *,
    rounds: int = 400,
    seed: int = 0,
) -> dict[str, float | int]:
    """A figure with its 95 % interval, by drawing subjects (groups) with replacement. nan values are left
    out."""
    v = np.asarray(values, dtype=np.float64)
    g = np.asarray(groups)
    keep = np.isfinite(v)
    v, g = v[keep], g[keep]
    if not len(v):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0, "subjects": 0}
    drawn = [figure(v[rows]) for rows in itertools.islice(resampled(g, seed), rounds)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "value": figure(v),
        "low": float(low),
        "high": float(high),
        "n": len(v),
        "subjects": len(np.unique(g)),
    }
