"""Log-mel features of heart sound, the classifier's input. Training uses this code too.

The power in each of 32 mel bands is computed once for each frame of 60 ms, every 20 ms on an absolute grid,
and shared by all the windows that hold the frame. A window is then 248 frames, 5 s. What the network sees
of it is the logarithm with each band's own mean taken out: neither the level nor the colour of the
microphone is left, only how each band swells and fades with the heart. Beside that a network may have asked
(`View`, in the bundle) for the lower bands only, and for a floor under each band: how far one can look into
the silence between the beats is a matter of the microphone, too.

    python -I -m device.checks.figures.features FILE     figures on a recording
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from device.dsp import mel
from device.dsp.mel import MelGrid
from device.rates import WINDOW, WINDOW_EVERY

__all__ = [
    "BANDS",
    "FRAME",
    "FRAMES",
    "FRAMES_EVERY",
    "FRAME_HOP",
    "GRID",
    "HIGHEST_HZ",
    "LOWEST_HZ",
    "WHOLE",
    "ScreeningFrames",
    "OVERHANG",
    "View",
    "at_least_a_window",
    "screening_frames_of",
    "mel_filters",
    "network_input",
]

FRAME = 120
"""Samples in a frame: 60 ms."""

FRAME_HOP = 40
"""Samples from one frame to the next: 20 ms."""

FRAMES = (WINDOW - FRAME) // FRAME_HOP + 1
"""Whole frames in a window: 248."""

FRAMES_EVERY = WINDOW_EVERY // FRAME_HOP
"""Frames from one window to the next: 50."""

OVERHANG = FRAME - FRAME_HOP
"""Samples by which the last frame of any stretch of whole hops reaches beyond it: 40 ms."""

BANDS = 32
LOWEST_HZ, HIGHEST_HZ = 20.0, 800.0

GRID = MelGrid(FRAME, FRAME_HOP, 256, BANDS, LOWEST_HZ, HIGHEST_HZ)

_FLOOR = 1e-8
"""Power added before the logarithm, as a share of the window's mean power over all bands."""

_RANGE = 6.0
"""Swing about a band's mean that is kept, in natural units of power (26 dB)."""


_LOUD = int(0.95 * FRAMES)


@dataclass(frozen=True)
class View:
    """What of the band powers a network sees; the bundle says it of its classifier."""

    bands: int = BANDS
    """So many, from the lowest up: 20 reach to 450 Hz."""
    range_db: float = 0.0
    """A floor so far below each band's own loud frames (one in twenty is louder) is added; 0: none."""

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> View:
        """From the classifier's object in the bundle."""
        return cls(int(meta.get("bands", BANDS)), float(meta.get("range_db", 0.0)))


WHOLE = View()
"""Everything, without a floor."""


def mel_filters() -> np.ndarray:
    """Triangular filters, float64 (129, 32), each of unit sum, evenly spaced in mel from 20 to 800 Hz."""
    return GRID.filters


class ScreeningFrames(mel.MelFrames):
    """The one spectrum of a stream, whose frame k covers the samples 40 k to 40 k + 120 since the start."""

    def __init__(self) -> None:
        super().__init__(GRID)


def screening_frames_of(x: np.ndarray) -> np.ndarray:
    """Band powers of a whole recording, float32 (m, 32); the same bits as `MelFrames` gives."""
    return mel.frames_of(x, GRID)


def at_least_a_window(x: np.ndarray) -> np.ndarray:
    """A recording shorter than 5 s, repeated until it fills a window; a longer one as it is."""
    return np.resize(x, WINDOW) if 0 < len(x) < WINDOW else x


def network_input(power: np.ndarray, view: View = WHOLE) -> np.ndarray:
    """What the network sees of one window: band powers (248, 32) → float32 (bands, 248), about ±2.

    The level is gone (the floor follows the window's own power), and so is any fixed filter on the way from
    the chest (each band's mean of the logarithm is taken out).
    """
    power = power[:, : view.bands]
    floor = np.float32(_FLOOR) * power.mean(dtype=np.float64).astype(np.float32) + np.float32(1e-30)
    if view.range_db:
        floor = floor + np.partition(power, _LOUD, axis=0)[_LOUD] * np.float32(
            10.0 ** (-view.range_db / 10.0)
        )
    log = np.log(power + floor)
    log -= log.mean(axis=0, keepdims=True)
    return np.ascontiguousarray(np.clip(log, -_RANGE, _RANGE).T) * np.float32(1.0 / 3.0)
