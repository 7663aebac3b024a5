"""Band powers on a mel scale, the one front end in NumPy of every network that looks at a spectrum.

A `MelGrid` says which frames and which bands; `MelFrames` gives them of a stream, `frames_of` of a whole
sound, with the same bits. device.screening.features builds the released network's input on it,
device.screening.baseline_features those of the networks that are compared with it; training calls both.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from device.arrays import Reals, Samples
from device.rates import WORKING_RATE_HZ

__all__ = ["MelFrames", "MelGrid", "frames_of"]


def _mel(hz: float) -> float:
    """Mel of a frequency; O'Shaughnessy 1987, as in HTK."""
    return 2595.0 * float(np.log10(1.0 + np.asarray(hz) / 700.0))


@dataclass(frozen=True)
class MelGrid:
    """Frame k covers the samples from `hop` · k to `hop` · k + `frame` since the start, at 2 kHz."""

    frame: int
    hop: int
    fft: int
    """Length of the transform; the frame is filled up with zeros."""
    bands: int
    lowest_hz: float
    highest_hz: float
    unit: int = 10
    """Frames computed at once. Always the same number, so that any chopping of the sound gives equal bits."""

    def frames(self, samples: int) -> int:
        """Whole frames in so many samples."""
        return max(0, (samples - self.frame) // self.hop + 1)

    @functools.cached_property
    def filters(self) -> Reals:
        """Triangular filters, float64 (fft // 2 + 1, bands), each of unit sum, evenly spaced in mel."""
        edges_mel = np.linspace(_mel(self.lowest_hz), _mel(self.highest_hz), self.bands + 2)
        edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
        frequencies = np.fft.rfftfreq(self.fft, 1.0 / WORKING_RATE_HZ)[:, None]
        low, middle, high = edges[:-2], edges[1:-1], edges[2:]
        rise = (frequencies - low) / (middle - low)
        fall = (high - frequencies) / (high - middle)
        filters = np.maximum(0.0, np.minimum(rise, fall))
        return np.asarray(filters / filters.sum(axis=0))

    @functools.cached_property
    def _taper(self) -> Reals:
        return np.hanning(self.frame + 2)[1:-1]

    @property
    def unit_samples(self) -> int:
        """Samples of the frames that are computed at once."""
        return (self.unit - 1) * self.hop + self.frame

    def power(self, samples: Samples) -> Samples:
        """Band powers of one unit: float32 (unit_samples,) → float32 (unit, bands)."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.frame)[:: self.hop] * self._taper
        spectrum = np.fft.rfft(frames, self.fft)
        return ((spectrum.real**2 + spectrum.imag**2) @ self.filters).astype(np.float32)


class MelFrames:
    """The band powers of one stream of sound, each computed once and held until the stream is let go.

    A second of it is 6 KB on the released network's grid.
    """

    def __init__(self, grid: MelGrid) -> None:
        self.grid = grid
        self.power = np.zeros((0, grid.bands), np.float32)
        """All frames so far, float32 (m, bands); frame k is row k."""
        self._held = self.power
        self._waiting = np.zeros(0, np.float32)

    def process(self, x: Samples) -> Samples:
        """Take samples at 2 kHz, shape (n,), any n; give the frames that became ready, float32 (m, bands)."""
        grid = self.grid
        self._waiting = np.concatenate([self._waiting, np.asarray(x, np.float32)])
        unit, step = grid.unit_samples, grid.unit * grid.hop
        starts = range(0, len(self._waiting) - unit + 1, step)
        ready = self._room(grid.unit * len(starts))
        for row, start in zip(range(0, len(ready), grid.unit), starts, strict=True):
            ready[row : row + grid.unit] = grid.power(self._waiting[start : start + unit])
        self._waiting = self._waiting[step * len(starts) :]
        return ready

    def flush(self) -> Samples:
        """The whole frames that remain when the sound has ended, float32 (m, bands). No cut one."""
        ready = self._room(self.grid.frames(len(self._waiting)))
        padded = np.zeros(self.grid.unit_samples, np.float32)
        padded[: len(self._waiting)] = self._waiting[: self.grid.unit_samples]
        self._waiting = np.zeros(0, np.float32)
        ready[:] = self.grid.power(padded)[: len(ready)]
        return ready

    def _room(self, frames: int) -> Samples:
        """The rows that so many more frames go into."""
        m = len(self.power)
        if m + frames > len(self._held):
            # by halves, so that a long stream is not copied with every second
            self._held = np.zeros((m + max(frames, m // 2), self.grid.bands), np.float32)
            self._held[:m] = self.power
        self.power = self._held[: m + frames]
        return self.power[m:]


def frames_of(x: Samples, grid: MelGrid) -> Samples:
    """Band powers of a whole recording, float32 (m, bands); the same bits as `MelFrames` gives."""
    stream = MelFrames(grid)
    stream.process(x)
    stream.flush()
    return stream.power
