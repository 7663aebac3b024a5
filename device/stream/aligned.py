"""Raw and clean sound side by side, aligned sample by sample, through the denoiser or past it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from device.rates import WORKING_RATE_HZ
from device.timing import StageTimer

__all__ = ["Cleaner", "AlignedStream"]

MOST_AT_ONCE = 2 * WORKING_RATE_HZ
"""More samples than these in one piece are a hole, not worth being denoised or shown."""


class Cleaner(Protocol):
    """What is asked of the denoiser: device.denoise.stream.Denoiser."""

    hop_s: float
    look_ahead_s: float
    strength: float
    """0: raw, delayed to match; 1: fully denoised. Set at any time, by any thread."""
    step_times: StageTimer

    def process(self, x: np.ndarray) -> np.ndarray: ...

    def flush(self) -> np.ndarray: ...


class AlignedStream:
    """Gives every raw sample its clean twin. While `bypass` is on, the twin of a sample is itself.

    After a bypass, and after a hole too long to be worth computing, the denoiser begins afresh.
    """

    def __init__(self, cleaner: Cleaner) -> None:
        self._cleaner = cleaner
        self._waiting = np.zeros(0, np.float32)
        self._bypass = False

    @property
    def bypass(self) -> bool:
        return self._bypass

    def process(self, raw: np.ndarray, bypass: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """float32 (n,) → two of (m,): the raw samples whose clean ones are ready, and these."""
        if bypass or len(raw) > MOST_AT_ONCE:
            return self.past(raw)
        return self.pair(raw, self._cleaner.process(raw))

    def pair(self, raw: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, where the cleaner has been given `raw` already, and has given `clean`."""
        self._bypass = False
        self._waiting = np.concatenate([self._waiting, raw])
        ready, self._waiting = self._waiting[: len(clean)], self._waiting[len(clean) :]
        return ready, clean

    def past(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same past the cleaner, after what it still held."""
        if self._bypass:
            return raw, raw
        before, before_clean = self.flush()
        self._bypass = True
        return np.concatenate([before, raw]), np.concatenate([before_clean, raw])

    def flush(self) -> tuple[np.ndarray, np.ndarray]:
        """The sound has ended: the rest."""
        ready, self._waiting = self._waiting, np.zeros(0, np.float32)
        if self._bypass:
            return ready, ready
        return ready, self._cleaner.flush()
