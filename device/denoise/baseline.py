"""Whole sounds through a network that takes windows of a fixed length at a rate of its own.

Not for the Pi's ear: such a network hears what comes after, so it works on files only. It is how the
networks that ours is measured against run, here (`stethopi denoise --model unet-classic`) and in the
benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from device.arrays import Samples
from device.dsp.resample import resample
from device.errors import BadInput
from device.inference.bundle import MODELS
from device.inference.interpreter import Interpreter, dequantise, quantise
from device.rates import WORKING_RATE_HZ

__all__ = [
    "CLASSIC_RATE_HZ",
    "CLASSIC_WINDOW",
    "WindowedFile",
    "classic_file",
    "denoise_windowed",
    "in_windows",
    "match_length",
]

CLASSIC_RATE_HZ = 22_050
CLASSIC_WINDOW = 110_250
"""Samples of the classic U-Net's window: 5 s."""

Run = Callable[[Samples], Samples]
"""Windows (k, window) of peak 1 → the same shape, cleaned."""


def match_length(x: Samples, length: int) -> Samples:
    """x (..., n) with `length` samples: cut at the end, or zeros added there."""
    missing = length - x.shape[-1]
    if missing <= 0:
        return x[..., :length]
    return np.concatenate([x, np.zeros((*x.shape[:-1], missing), dtype=x.dtype)], -1)


def in_windows(run: Run, x: Samples, window: int, overlap: int) -> Samples:
    """x (n,), any n, in windows that overlap and are faded into each other: float32 (n,), aligned.

    Each window goes in with a peak of 1 and comes back at its own level; a silent one stays silent. A sound
    shorter than a window is filled up with zeros, and cut again. The last window ends with the sound.
    """
    n = len(x)
    if n == 0:
        return np.zeros(0, dtype=np.float32)
    whole = match_length(np.asarray(x, dtype=np.float32), max(n, window))
    last = len(whole) - window
    starts = [*range(0, last, window - overlap), last]
    pieces = np.stack([whole[s : s + window] for s in starts])
    peaks = np.max(np.abs(pieces), axis=1, keepdims=True)
    cleaned = np.where(peaks > 0, run(pieces / np.maximum(peaks, 1e-30)) * peaks, 0.0)
    fade = np.minimum(1.0, (np.arange(window) + 0.5) / max(overlap, 1))
    fade = np.minimum(fade, fade[::-1])
    total, weight = np.zeros(len(whole)), np.zeros(len(whole))
    for start, piece in zip(starts, cleaned, strict=True):
        total[start : start + window] += fade * piece
        weight[start : start + window] += fade
    return (total / weight)[:n].astype(np.float32)


def denoise_windowed(run: Run, x: Samples, rate_hz: int, window: int, overlap: int) -> Samples:
    """Working-rate sound (n,) through such a network at `rate_hz` and back: float32 (n,), aligned."""
    there = resample(x, WORKING_RATE_HZ, rate_hz)
    return resample(in_windows(run, there, window, overlap), rate_hz, WORKING_RATE_HZ, len(x))


def classic_file(model: str) -> Path:
    """The TFLite file that `unet-classic` (it ships) or `unet-classic:FILE` names, else BadInput."""
    name, _, path = model.partition(":")
    if name != "unet-classic":
        raise BadInput(f"--model {name}: no such network; there is unet-classic, or leave it out for ours")
    return Path(path) if path else MODELS / "baselines" / "unet-classic.tflite"


class WindowedFile:
    """The classic U-Net from its TFLite file, int8 or float: working-rate sound (n,) → the same, cleaned.

    BadInput when the file is missing or does not take such windows.
    """

    def __init__(self, path: Path, *, window: int = CLASSIC_WINDOW, rate_hz: int = CLASSIC_RATE_HZ) -> None:
        if not path.is_file():
            raise BadInput(
                f"{path}: no such file; give one written by `stethopi export denoiser --model unet-classic`"
            )
        self._interpreter = Interpreter(path)
        self.window, self.rate_hz = window, rate_hz
        inputs, outputs = self._interpreter.inputs, self._interpreter.outputs
        if len(inputs) != 1 or len(outputs) != 1 or int(np.prod(inputs[0].shape)) != window:
            shapes = ", ".join(str(t.shape) for t in inputs)
            raise BadInput(f"{path}: takes {shapes}, not windows of {window} samples; give a classic U-Net")

    def _run(self, pieces: Samples) -> Samples:
        source, target = self._interpreter.inputs[0], self._interpreter.outputs[0]
        found = np.empty_like(pieces)
        for k, piece in enumerate(pieces):
            x = piece.reshape(source.shape).astype(np.float32)
            self._interpreter.set(0, quantise(x, source.scale, source.zero_point) if source.scale else x)
            self._interpreter.invoke()
            y = self._interpreter.get(0)
            y = dequantise(y, target.scale, target.zero_point) if target.scale else y
            found[k] = match_length(y.reshape(-1), self.window)
        return found

    def __call__(self, x: Samples) -> Samples:
        """float32 (n,) at 2 kHz → the same, cleaned and aligned."""
        return denoise_windowed(self._run, x, self.rate_hz, self.window, self.window // 10)
