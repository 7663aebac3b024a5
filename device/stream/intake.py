"""From a source's blocks to the ring."""

from __future__ import annotations

import numpy as np

from device.dsp.resample import Decimator, Resampler, to_working
from device.sources.base import Block
from device.spans import CLIPPED_AT, clipped_spans
from device.stream.ring import Ring

__all__ = ["LONGEST_FILLED_S", "Intake"]


LONGEST_FILLED_S = 10.0
"""What was lost is handed on as zeros up to this length; of a longer hole only the ends are."""


class Intake:
    """From a source's blocks to the ring's rate, whole hops, into the ring. What was lost becomes marked
    zeros: in the ring always, in what is given on up to `LONGEST_FILLED_S` of them."""

    def __init__(self, rate_hz: int, ring: Ring, stage: Decimator | Resampler | None = None) -> None:
        self.decimator = stage or Decimator(rate_hz)
        self.lost = 0
        """Samples of the source that never came, in all."""
        self.skipped = 0
        """Working-rate samples of long holes that were not given on, in all."""
        self._rate_hz = rate_hz
        self._ring = ring
        self._next = 0
        self._stuck = False

    def accept(self, block: Block) -> np.ndarray:
        """Take a block; give what reached the ring, float32 (m,), m a multiple of 16."""
        missing = block.index - self._next  # covers block.lost, and any jump that the source did not tell of
        if missing < 0:
            raise ValueError(f"block at {block.index} after {self._next}: a source must not go back")
        pieces = self._fill(missing)
        x = np.asarray(block.samples, dtype=np.float32)
        self._mark_clipped(np.abs(x) >= CLIPPED_AT if block.full is None else block.full, block.index)
        pieces.append(self.decimator.process(x))
        self._next = block.index + len(x)
        self._ring.append(pieces[-1], block.monotonic_s)
        return np.concatenate(pieces)

    def finish(self, lost: int = 0) -> np.ndarray:
        """The rest, float32 (m,), when the source has ended, `lost` samples after its last block; closes the
        ring."""
        pieces = [*self._fill(lost), self.decimator.flush()]
        self._ring.append(pieces[-1])
        self._ring.close()
        return np.concatenate(pieces)

    def _fill(self, n: int) -> list[np.ndarray]:
        """Zeros for n samples that were lost, into the ring; and what of them is given on."""
        if not n:
            return []
        self.lost += n
        self._ring.mark_gap(*to_working(self._next, self._next + n, self._rate_hz, self._ring.rate_hz))
        self._next += n
        self._stuck = False
        # a microphone that was away for a night must not ask for a night's memory, nor for its computation:
        # between a second at the start and one at the end nothing can come of it
        left_out_s = n // self._rate_hz - 2 if n > LONGEST_FILLED_S * self._rate_hz else 0
        pieces = []
        if left_out_s:
            pieces.append(self._nothing(self._rate_hz))
            self.decimator.skip(left_out_s)
            self._ring.skip(left_out_s * self._ring.rate_hz)
            self.skipped += left_out_s * self._ring.rate_hz
            n -= (1 + left_out_s) * self._rate_hz
        pieces.append(self._nothing(n))
        return pieces

    def _nothing(self, n: int) -> np.ndarray:
        ready = self.decimator.process(np.zeros(n, np.float32))
        self._ring.append(ready)
        return ready

    def _mark_clipped(self, full: np.ndarray, index: int) -> None:
        if not self._stuck and not full.any():
            return
        if not len(full):
            return
        # a run may begin with the last sample of the block before
        for start, end in clipped_spans(np.concatenate([[self._stuck], full])):
            at = to_working(index + start - 1, index + end - 1, self._rate_hz, self._ring.rate_hz)
            self._ring.mark_clipped(*at)
        self._stuck = bool(full[-1])
