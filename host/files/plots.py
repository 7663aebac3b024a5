"""Pictures of recordings, as PNG: before and after denoising, and what the screening saw."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from device.durable import whole_file
from device.errors import BadInput
from device.rates import WINDOW, WORKING_RATE_HZ
from device.screening.verdict import Findings
from host.files.states import HeartState

__all__ = ["before_after", "ecg_before_after", "screening"]

_INK, _CLEAN, _ALERT = "#40536b", "#0b7a75", "#c4472f"
_SOUNDS = {"S1": "#d08a1d", "S2": "#5157a0"}
_TOP_HZ = 800
_MOST_NAMED = 60


def _spectrogram(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level in dB, shape (frequencies, times), with the frequencies in Hz and the times in s.

    64-ms Hann windows every 8 ms: S1 and S2 stay apart, harmonics of a murmur stay visible.
    """
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    if len(x) < 128:
        x = np.pad(x, (0, 128 - len(x)))
    transform = ShortTimeFFT(hann(128, sym=False), hop=16, fs=WORKING_RATE_HZ, mfft=256)
    power = transform.spectrogram(x.astype(np.float64))
    keep = transform.f <= _TOP_HZ
    return 10 * np.log10(power[keep] + 1e-16), transform.f[keep], transform.t(len(x))


def _save(figure: Figure, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise BadInput(f"{path}: pictures are written as PNG; give a name that ends in .png")
    with whole_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        FigureCanvasAgg(figure).print_png(str(temporary))


def _title(figure: Figure, text: str) -> None:
    """A title that holds a file's name: no formula, whatever signs are in it."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    figure.suptitle("".join(c if c.isprintable() else " " for c in text), fontsize=11, parse_math=False)


def _wave(axes: Any, x: np.ndarray, label: str, colour: str, limit: float) -> None:
    axes.plot(np.arange(len(x)) / WORKING_RATE_HZ, x, color=colour, linewidth=0.6)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel(label)
    axes.margins(x=0)
    axes.grid(alpha=0.25)


def _heart_sounds(axes: Sequence[Any], states: Sequence[HeartState], seconds: float) -> None:
    """Mark S1 and S2 in waveforms; name each above the first one while they are few."""
    for name, colour in _SOUNDS.items():
        spans = [
            (state.start_s, min(state.end_s, seconds) - state.start_s)
            for state in states
            if state.state == name and state.start_s < seconds
        ]
        for one in axes:
            low, high = one.get_ylim()
            one.broken_barh(spans, (low, high - low), color=colour, alpha=0.25, linewidth=0, label=name)
        for start_s, long_s in spans if len(states) <= 4 * _MOST_NAMED else []:
            axes[0].annotate(
                name,
                (start_s + long_s / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 1),
                textcoords="offset points",
                ha="center",
                fontsize=6.5,
                color=colour,
            )
    if len(states) > 4 * _MOST_NAMED:  # else each has its name, and a legend would cover beats
        axes[-1].legend(loc="upper right", fontsize=7, ncols=2, framealpha=0.8)


def before_after(
    path: Path, raw: np.ndarray, clean: np.ndarray, title: str, states: Sequence[HeartState] = ()
) -> None:
    """Waveforms and spectrograms of a sound before and after denoising, on the same scales.

    raw, clean: float32 (n,) at the working rate. states: where S1 and S2 lie, as far as it is known. Writes
    the PNG `path`.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, height_ratios=[1, 1, 1.4, 1.4])
    limit = 1.05 * max(float(np.abs(raw).max(initial=0.0)), 1e-4)
    _wave(axes[0], raw, "before", _INK, limit)
    _wave(axes[1], clean, "after", _CLEAN, limit)
    if any(state.state in _SOUNDS for state in states):
        _heart_sounds(axes[:2], states, len(raw) / WORKING_RATE_HZ)
    before, hz, seconds = _spectrogram(raw)
    after, _, _ = _spectrogram(clean)
    top = float(before.max())
    images = []
    for one, level, label in ((axes[2], before, "before"), (axes[3], after, "after")):
        images.append(
            one.pcolormesh(seconds, hz, level, vmin=top - 70, vmax=top, cmap="magma", shading="nearest")
        )
        one.set_ylabel(f"{label}, Hz")
    axes[3].set_xlabel("seconds")
    axes[3].set_xlim(0, max(len(raw), 1) / WORKING_RATE_HZ)
    figure.colorbar(images[-1], ax=list(axes[2:]), label="dB", pad=0.01)
    _title(figure, title)
    _save(figure, path)


def screening(path: Path, raw: np.ndarray, found: Findings, title: str) -> None:
    """Waveform, spectrogram and probability of each window of a screened recording. Writes the PNG `path`.

    raw: float32 (n,) at the working rate.
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.4, 1])
    limit = 1.05 * max(float(np.abs(raw).max(initial=0.0)), 1e-4)
    _wave(axes[0], raw, "sound", _INK, limit)
    level, hz, seconds = _spectrogram(raw)
    axes[1].pcolormesh(
        seconds, hz, level, vmin=level.max() - 70, vmax=level.max(), cmap="magma", shading="nearest"
    )
    axes[1].set_ylabel("Hz")
    judged = [w for w in found.windows if w.probability is not None]
    centres = [(w.start + min(WINDOW, len(raw)) / 2) / WORKING_RATE_HZ for w in judged]
    values = [w.probability for w in judged]
    axes[2].plot(centres, values, color=_INK, linewidth=0.8, alpha=0.6)
    axes[2].scatter(centres, values, s=[12 + 48 * w.quality for w in judged], color=_ALERT, zorder=3)
    axes[2].set_title("each dot: the 5 s around it; the larger, the better the sound", fontsize=8, loc="left")
    axes[2].set_ylim(-0.02, 1.02)
    axes[2].set_ylabel("p(abnormal)\nof a window")
    axes[2].set_xlabel("seconds")
    axes[2].set_xlim(0, max(len(raw), 1) / WORKING_RATE_HZ)
    axes[2].grid(alpha=0.25)
    probability = "unknown" if found.probability is None else f"{found.probability:.2f}"
    reasons = f"  ({', '.join(found.reasons)})" if found.reasons else ""
    _title(figure, f"{title}: {found.label.value}, p(abnormal) {probability}{reasons}")
    axes[0].set_title("It screens; it does not diagnose. Not a medical device.", fontsize=8, loc="right")
    _save(figure, path)


def ecg_before_after(
    path: Path,
    raw: np.ndarray,
    clean: np.ndarray,
    rate_hz: int,
    peaks: np.ndarray,
    gaps: Sequence[tuple[int, int]],
    title: str,
) -> None:
    """One ECG lead before and after denoising: all of it, ten seconds from the middle with R peaks, and the
    spectra. Writes the PNG `path`.

    raw, clean: float32 (n,) in mV at rate_hz. peaks: samples of the R peaks. gaps: shaded, [start, end).
    """
    from scipy.signal import welch

    figure = Figure(figsize=(11, 8), layout="constrained")
    whole, near, spectrum = figure.subplots(3, 1, height_ratios=[1, 1.6, 1.2])
    t = np.arange(len(raw)) / rate_hz
    middle = max(min(len(raw) // 2, len(raw) - 5 * rate_hz), 5 * rate_hz)
    inside = slice(max(middle - 5 * rate_hz, 0), middle + 5 * rate_hz)
    for axes, part in ((whole, slice(None)), (near, inside)):
        axes.plot(t[part], raw[part], color=_INK, linewidth=0.6, alpha=0.55, label="before")
        axes.plot(t[part], clean[part], color=_CLEAN, linewidth=0.9, label="after")
        axes.set_ylabel("mV")
        axes.margins(x=0)
        axes.grid(alpha=0.25)
        low, high = axes.get_ylim()
        spans = [(start / rate_hz, (end - start) / rate_hz) for start, end in gaps]
        axes.broken_barh(spans, (low, high - low), color=_ALERT, alpha=0.2, linewidth=0)
        axes.set_ylim(low, high)
    shown = peaks[(peaks >= inside.start) & (peaks < inside.stop)]
    near.plot(t[shown], clean[shown], "v", color=_ALERT, markersize=5, linestyle="none", label="R")
    near.set_xlim(t[inside][0], t[inside][-1] if len(t[inside]) else 1.0)
    near.legend(loc="upper right", fontsize=7, ncols=3, framealpha=0.8)
    for x, colour in ((raw, _INK), (clean, _CLEAN)):
        hz, power = welch(x.astype(np.float64), rate_hz, nperseg=min(len(x), 4 * rate_hz))
        spectrum.plot(hz, 10 * np.log10(power + 1e-12), color=colour, linewidth=0.9)
    spectrum.set_xlabel("Hz")
    spectrum.set_ylabel("dB, mV²/Hz")
    spectrum.set_xlim(0, min(rate_hz / 2, 120))
    spectrum.grid(alpha=0.25)
    whole.set_xlabel("seconds")
    near.set_xlabel("seconds")
    whole.set_title("Not a diagnostic device.", fontsize=8, loc="right")
    _title(figure, title)
    _save(figure, path)
