"""The offset of a sound, taken out while it streams: what a converter adds to every sample is no sound.

An offset steps at the first sample, and all that follows hears that step: the denoiser's level is too high
for seconds, and a spectrum leaks into the heart's bands. So a running mean is subtracted once the offset is
significant, and until then not one bit is touched: a sound without an offset passes as it is.

    mean, power   of hops of 16 samples; all count alike in the first second, later with 1 s as time constant
    significant   |mean| > limit * rms about it; the limit falls from 6 (what one hop may say) to 0.3, as the
                  mean of more sound tells more; once significant, always, unless the first second
                  ends with next to none: the offset goes with the recording
    subtracted    at once where the first hop tells; later within 0.1 s, without a step

Everything is on the absolute grid of hops, so that any chopping gives the same bits.
"""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np

from device.arrays import Samples
from device.rates import HOP, HOP_S

__all__ = ["OffsetFilter", "OffsetStage", "without_offset"]

_TIME_CONSTANT_S = 1.0
_FORGET = 1.0 - exp(-HOP_S / _TIME_CONSTANT_S)
_SURE, _USUAL, _SURER_S = 6.0, 0.3, 0.2
"""Mean over rms from which an offset is significant: told by one hop; after a second or more; and what falls
from one to the other with the time. Of 169 recordings without an offset 6 with slow waves seem to have one;
3 % of full scale are found within 0.3 s where they matter."""
_FADE_HOPS = round(0.1 / HOP_S)
_SECOND = round(1.0 / HOP_S)
_DOUBTED = 0.1
"""Mean over rms below which, after a second, there is no offset after all."""
_LEAST = 1e-4
"""Share of full scale below which no offset matters: three steps of 16 bit."""


class OffsetFilter:
    """One hop at a time: `step` gives what is to be subtracted from it, float32 (16,), or None for nothing.

    Samples that are not finite, and zeros of which a hop holds two or more (sound that was lost), say nothing
    of the offset, and nothing is subtracted from the latter.
    """

    __slots__ = ("_before", "_faded", "_hops", "_mean", "_power", "_sure")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As before the first sample."""
        self._hops = 0
        self._mean = self._power = 0.0
        self._faded = 0
        """Hops of the fade that are done; 0: nothing is taken out."""
        self._sure = False
        self._before = 0.0

    @property
    def active(self) -> bool:
        """An offset is being taken out."""
        return self._faded > 0

    def snapshot(self) -> tuple[Any, ...]:
        """All that the next hop depends on, copied."""
        return self._hops, self._mean, self._power, self._faded, self._sure, self._before

    def restore(self, kept: tuple[Any, ...]) -> None:
        """Go on from a snapshot."""
        self._hops, self._mean, self._power, self._faded, self._sure, self._before = kept

    def step(self, hop: Samples) -> Samples | None:
        """hop: float32 (n,), n = 16, less only at the end of a sound."""
        heard: Samples = hop
        # a sum tells of both: zeros are rare in sound, and not finite spreads
        nothing = hop == 0.0
        lost = np.count_nonzero(nothing) > 1
        if lost:
            heard = hop[~nothing]
        total = float(np.sum(heard, dtype=np.float64))
        if total - total != 0.0:
            heard = heard[np.isfinite(heard)]
            total = float(np.sum(heard, dtype=np.float64))
        count = len(heard)
        if count:
            self._count(total / count, float(np.dot(heard, heard)) / count)
        if not self._faded:
            return None
        after = self._mean * min(self._faded / _FADE_HOPS, 1.0)
        taken = np.linspace(self._before, after, len(hop) + 1, dtype=np.float32)[1:]
        self._before = after
        self._faded = min(self._faded + 1, _FADE_HOPS) if self._sure else self._faded - 1
        if lost:
            taken[nothing] = 0.0
        return taken

    def _count(self, mean: float, power: float) -> None:
        self._hops += 1
        share = max(1.0 / self._hops, _FORGET)
        self._mean += share * (mean - self._mean)
        self._power += share * (power - self._power)
        if self._hops == _SECOND and self._mean**2 < _DOUBTED**2 * self._power:
            self._sure = False  # what the first hops took for an offset was a slow wave
        if self._sure or abs(self._mean) < _LEAST:
            return
        limit = min(max(_SURER_S / (self._hops * HOP_S), _USUAL), _SURE)
        if self._mean**2 > limit**2 * max(self._power - self._mean**2, 0.0):
            self._sure = True
            self._faded = max(self._faded, 1)
            if self._hops == 1:
                self._faded, self._before = _FADE_HOPS, self._mean


class OffsetStage:
    """`OffsetFilter` for any amount of sound: whole hops come out; `flush` gives the rest."""

    def __init__(self) -> None:
        self._filter = OffsetFilter()
        self._pending = np.zeros(0, np.float32)

    def process(self, x: Samples) -> Samples:
        """float32 (n,) → float32 (m,), m a multiple of 16."""
        x = np.concatenate([self._pending, np.asarray(x, np.float32)])
        whole = len(x) // HOP * HOP
        self._pending = x[whole:].copy()
        return self._without(x[:whole])

    def flush(self) -> Samples:
        """What is left, float32 (m,), m below 16; then a new sound may begin."""
        rest = self._without(self._pending)
        self._filter.reset()
        self._pending = np.zeros(0, np.float32)
        return rest

    def _without(self, x: Samples) -> Samples:
        out = x
        for at in range(0, len(x), HOP):
            taken = self._filter.step(x[at : at + HOP])
            if taken is not None:
                if out is x:
                    out = x.copy()
                out[at : at + HOP] -= taken
        return out


def without_offset(x: Samples) -> Samples:
    """A whole piece of a second or more, float32 (n,), less its mean where that is significant."""
    mean = x.mean(dtype=np.float64) if len(x) else 0.0
    if abs(mean) < _LEAST or abs(mean) <= _USUAL * float(np.std(x, dtype=np.float64)):
        return x
    return (x - np.float32(mean)).astype(np.float32)
