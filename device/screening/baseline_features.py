"""What the networks beside the released one hear: a mel spectrogram of 5 s, or the waveform of 2.5 s.

Two ways of looking at a recording, as the classifiers do that are compared with ours. Both let 25 to 400 Hz
through first, by a causal Butterworth band-pass of order 5, and both cut the recording on a fixed grid:

    MEL        (128, 99)   128 mel bands of 100-ms frames every 50 ms, dB; windows of 5 s, half overlapped
    SEGMENTS   (1, 2500)   the waveform at 1 kHz; segments of 2.5 s, one after the other

`whole` computes what all windows of a recording share, once (training keeps that on disk); `window` cuts one
out and makes it what the network sees. `windows` does both: the way of a single recording.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import numpy as np

from device.arrays import AnyArray, Reals, Samples
from device.dsp import mel
from device.dsp.iir import Cascade, band_pass_sections
from device.dsp.mel import MelGrid
from device.rates import WINDOW, WORKING_RATE_HZ

__all__ = ["BAND_HZ", "FRONT_ENDS", "FrontEnd", "Mel", "Segments", "band_pass"]

BAND_HZ = (25.0, 400.0)
_ORDER = 5


@functools.lru_cache(maxsize=1)
def _sections() -> Reals:
    return band_pass_sections(_ORDER, *BAND_HZ, WORKING_RATE_HZ)


def band_pass(x: Samples) -> Samples:
    """25 to 400 Hz of a whole sound at 2 kHz, causal: float32 (n,) → float32 (n,)."""
    return Cascade(_sections()).process(x)


class FrontEnd(ABC):
    """How a network hears a recording. Lengths are in samples at 2 kHz."""

    name: str
    length: int
    """Of a window."""
    every: int
    """From one window to the next."""
    shape: tuple[int, int]
    """Of a window as the network sees it: (height, width), one channel."""
    _steps: int
    """Rows of `whole` from one window to the next."""
    _rows: int
    """Rows of `whole` in a window."""

    @abstractmethod
    def whole(self, x: Samples) -> Samples:
        """What all windows of a sound share, float16 (m, …). Sound shorter than a window is repeated."""

    @abstractmethod
    def window(self, whole: Samples, index: int) -> Samples:
        """What the network sees of one window: float32 `shape`."""

    def count(self, whole: Samples) -> int:
        """Windows on the grid."""
        return max(0, (len(whole) - self._rows) // self._steps + 1)

    def windows(self, x: Samples) -> Samples:
        """All windows of a sound at 2 kHz, float32 (windows, height, width)."""
        whole = self.whole(x)
        return np.stack([self.window(whole, k) for k in range(self.count(whole))])

    def _cut(self, whole: Samples, index: int) -> Samples:
        start = index * self._steps
        return np.asarray(whole[start : start + self._rows], np.float32)

    def _filled(self, x: Samples) -> Samples:
        x = np.asarray(x, np.float32)
        return np.resize(x, self.length) if len(x) < self.length else x


class Mel(FrontEnd):
    """128 mel bands from 25 to 400 Hz in dB; each window from its loudest point down, mean 0 and spread 1."""

    name = "mel"
    grid = MelGrid(frame=200, hop=100, fft=1024, bands=128, lowest_hz=BAND_HZ[0], highest_hz=BAND_HZ[1])
    length = WINDOW
    every = WINDOW // 2
    shape = (128, 99)
    _steps = every // grid.hop
    _rows = 99
    range_db = 80.0
    """What lies further below a window's loudest point is not told apart."""

    def whole(self, x: Samples) -> Samples:
        """Band powers in dB, float16 (frames, 128)."""
        power = mel.frames_of(band_pass(self._filled(x)), self.grid)
        half: AnyArray = (10.0 * np.log10(power + np.float32(1e-12))).astype(np.float16)
        return half

    def window(self, whole: Samples, index: int) -> Samples:
        """Window `index` of a whole front end, as the network hears it."""
        level = self._cut(whole, index).T
        level = np.maximum(level, level.max() - np.float32(self.range_db))
        level = level - level.mean()
        return np.ascontiguousarray(level / (level.std() + np.float32(1e-3)), np.float32)


class Segments(FrontEnd):
    """The waveform at 1 kHz; each segment of mean 0 and spread 1, cut off at ±8."""

    name = "segments"
    length = 5000
    every = 5000
    shape = (1, 2500)
    _steps = 2500
    _rows = 2500
    limit = 8.0

    @functools.cached_property
    def _half(self) -> Samples:
        """Low-pass before every other sample is taken: 400 Hz passed, 600 Hz 60 dB down (Kaiser 1974)."""
        t = np.arange(-20, 21)
        taps = np.sinc(0.5 * t) * np.kaiser(41, 5.65)
        return np.asarray(taps / taps.sum())

    def whole(self, x: Samples) -> Samples:
        """The waveform at 1 kHz with the recording's own spread taken as 1, float16 (n,)."""
        half = np.convolve(band_pass(self._filled(x)), self._half, "same")[::2]
        coarse: AnyArray = (half / (half.std() + 1e-9)).astype(np.float16)
        return coarse

    def window(self, whole: Samples, index: int) -> Samples:
        """Window `index` of a whole front end, as the network hears it."""
        wave = self._cut(whole, index)[None]
        wave = wave - wave.mean()
        wave = wave / (wave.std() + np.float32(1e-3))
        return np.ascontiguousarray(np.clip(wave, -self.limit, self.limit), np.float32)


FRONT_ENDS: dict[str, FrontEnd] = {f.name: f for f in (Mel(), Segments())}
