"""Where S1, systole, S2 and diastole lie: the rhythm network's input, and the decoders of its answer."""

from __future__ import annotations

import numpy as np

from device.rates import WORKING_RATE_HZ
from device.screening import features

__all__ = ["BANDS", "EARLY", "LATE", "STATES", "Levelled"]

STATES = ("S1", "systole", "S2", "diastole")
"""In the order in which they follow each other; after the last comes the first."""

FRAMES_PER_S = WORKING_RATE_HZ // features.FRAME_HOP

BANDS = 20
"""The lowest mel bands, up to 450 Hz."""

EARLY = 10
"""The network's early answer is for the frame so many back: 200 ms."""

LATE = 50
"""Its late answer, for whole recordings: 1 s."""

_MEAN_FRAMES = 2 * FRAMES_PER_S
"""Time constant of the running mean that is taken out of each band."""

_FLOOR = np.float32(1e-6)
"""Power added before the logarithm, as a share of the running mean power over all bands."""

_RANGE = np.float32(6.0)
"""Swing about a band's mean that is kept, in natural units of power (26 dB)."""


class Levelled:
    """The network's input, streaming: the logarithm of each band less the band's own causal running mean.

    The mean is that of all frames so far, and after 2 s exponential. So neither the level nor the colour of
    the microphone is left, and nothing is known before it is heard.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._power: np.ndarray | None = None
        self._mean: np.ndarray | None = None

    def process(self, power: np.ndarray) -> np.ndarray:
        """Band powers (m, …, 32), any m → float32 (m, …, 20), about ±2. Frame by frame, so that any chopping
        gives equal bits."""
        found = np.empty((*power.shape[:-1], BANDS), np.float32)
        for k, frame in enumerate(power):
            self._heard += 1
            share = np.float32(max(1.0 / self._heard, 1.0 / _MEAN_FRAMES))
            loud = frame.mean(-1, dtype=np.float32, keepdims=True)
            self._power = loud if self._power is None else self._power + share * (loud - self._power)
            log = np.log(frame[..., :BANDS] + (_FLOOR * self._power + np.float32(1e-30)))
            self._mean = log if self._mean is None else self._mean + share * (log - self._mean)
            found[k] = np.clip(log - self._mean, -_RANGE, _RANGE) * np.float32(1.0 / 3.0)
        return found
