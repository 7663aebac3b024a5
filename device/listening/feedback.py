"""Does the microphone hear the loudspeaker? Feedback, as it begins: a narrow tone is played, heard again
and grows.

Every 128 ms the strongest line of the last 256 ms is looked at. It is feedback when the same line holds most
of what is heard and most of what is played, and has risen in nearly every step for two thirds of a second; or
when it has stood at the top of the scale for longer than any heart sound lasts. Mains hum does not grow, a
knock is not narrow, a murmur is neither.

    python -I -m device.checks.figures.feedback FILE
        the seconds at which a recording would be called feedback
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from device.rates import WORKING_RATE_HZ

__all__ = ["FeedbackWatch"]

_SIZE = 512
STEP = 256
_LOWEST_HZ = 60.0
_SHARE = 0.7
_SAME_HZ = 8.0
_GROW_STEPS = 5
_GROW_DB = 6.0
_RISE_DB = 0.3
_TOP_STEPS = 12
_TOP_DB = -16.0
_TOP_SHARE = 0.75
"""A tone at the top of the scale is clipped: of a square's power 8/π² = 81 % lie in its lowest line, and the
heart beside it needs some."""
_CALM_STEPS = 16


class _Look(NamedTuple):
    """The strongest line of one step."""

    hz: float
    db: float
    share: float
    played: float
    """Share of what is played that lies in the same line."""


class FeedbackWatch:
    """Looks for a tone that comes back: `found`, in Hz."""

    def __init__(self) -> None:
        self.found: float | None = None
        self.times = 0
        """How often it has begun, or grown on."""
        self._heard = np.zeros(0, np.float32)
        self._played = np.zeros(0, np.float32)
        self._looks: deque[_Look] = deque(maxlen=_TOP_STEPS)
        self._calm = 0
        self._window = np.hanning(_SIZE)
        self._hz = np.fft.rfftfreq(_SIZE, 1.0 / WORKING_RATE_HZ)

    def process(self, heard: np.ndarray, played: np.ndarray) -> bool:
        """Two float32 (n,) at 2 kHz. True when feedback has begun, or goes on growing, within them."""
        self._heard = np.concatenate([self._heard, heard])
        self._played = np.concatenate([self._played, played])
        before = self.times
        while len(self._heard) >= _SIZE:
            self._look(self._heard[:_SIZE], self._played[:_SIZE])
            self._heard, self._played = self._heard[STEP:], self._played[STEP:]
        return self.times > before

    def _look(self, heard: np.ndarray, played: np.ndarray) -> None:
        power = np.abs(np.fft.rfft(heard * self._window)) ** 2
        power[self._hz < _LOWEST_HZ] = 0.0
        at = int(np.argmax(power))
        line = slice(max(at - 2, 0), at + 3)
        whole = float(power.sum())
        other = np.abs(np.fft.rfft(played * self._window)) ** 2
        other[self._hz < _LOWEST_HZ] = 0.0
        share = float(power[line].sum()) / whole if whole > 0 else 0.0
        # of a sine of full scale: 0 dB
        db = 10.0 * float(np.log10(max(float(power[line].sum()) / (0.09375 * _SIZE**2), 1e-20)))
        self._looks.append(
            _Look(float(self._hz[at]), db, share, float(other[line].sum()) / max(float(other.sum()), 1e-30))
        )
        if self._grows() or self._stays():
            self.found, self._calm = float(self._hz[at]), 0
            self.times += 1
            self._looks.clear()
        elif self.found is not None:
            self._calm += 1
            if self._calm >= _CALM_STEPS:
                self.found = None

    def _same(self, steps: int, share: float) -> list[_Look] | None:
        looks = list(self._looks)[-steps:]
        if len(looks) < steps:
            return None
        narrow = all(look.share >= share and look.played >= share for look in looks)
        return looks if narrow and all(abs(look.hz - looks[-1].hz) <= _SAME_HZ for look in looks) else None

    def _grows(self) -> bool:
        looks = self._same(_GROW_STEPS + 1, _SHARE)
        if looks is None:
            return False
        return _has_risen([look.db for look in looks])

    def _stays(self) -> bool:
        looks = self._same(_TOP_STEPS, _TOP_SHARE)
        return looks is not None and all(look.db >= _TOP_DB for look in looks)


def _has_risen(levels_db: Sequence[float]) -> bool:
    """Whether a line of these levels, one a step, comes back by itself: a tone that is switched on rises
    once; what comes back by itself rises again and again.
    """
    rises = np.diff(levels_db)
    return bool(
        rises.sum() >= _GROW_DB
        and np.sum(rises >= _RISE_DB) >= _GROW_STEPS - 1
        and rises.max() < 0.7 * rises.sum()
    )
