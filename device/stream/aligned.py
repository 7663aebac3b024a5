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
        bypass = bypass or len(raw) > MOST_AT_ONCE
        before: tuple[np.ndarray, np.ndarray] | None = None
        if bypass and not self._bypass:
            before = self.flush()
        self._bypass = bypass
        if bypass:
            after = (raw, raw)
        else:
            self._waiting = np.concatenate([self._waiting, raw])
            clean = self._cleaner.process(raw)
            ready, self._waiting = self._waiting[: len(clean)], self._waiting[len(clean) :]
            after = (ready, clean)
        if before is None:
            return after
        return np.concatenate([before[0], after[0]]), np.concatenate([before[1], after[1]])

    def flush(self) -> tuple[np.ndarray, np.ndarray]:
        """The sound has ended: the rest."""
        ready, self._waiting = self._waiting, np.zeros(0, np.float32)
        if self._bypass:
            return ready, ready
        return ready, self._cleaner.flush()
