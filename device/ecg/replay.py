"""An ECG from a file or from a synthetic heart, in real time or as fast as it goes."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from device.arrays import Flags, Samples
from device.ecg.base import EcgBlock
from device.settings.specs import SyntheticLead
from device.sources.replay import Pacer

if TYPE_CHECKING:
    from device.ecg.files import Ecg


__all__ = ["EcgReplay", "SyntheticEcg"]


_BLOCK_S = 0.025


class _Played(ABC):
    """What recording and synthetic lead share: samples by index, in time or as fast as they are read."""

    played = True

    def __init__(self, rate_hz: int, pace: str, monotonic: Callable[[], float]) -> None:
        self.rate_hz = rate_hz
        self._pacer = Pacer(rate_hz, pace, monotonic)
        self._index = 0
        self._zero_s: float | None = None
        self._stopped = threading.Event()

    def begin_at(self, monotonic_s: float) -> None:
        """Sample 0 belongs to this instant."""
        self._zero_s = monotonic_s

    def start(self) -> None:
        self._pacer.begin(self._index)
        if self._zero_s is not None:
            self._pacer.begin_at(self._zero_s)
        self._stopped.clear()

    def read(self) -> EcgBlock | None:
        size = max(round(_BLOCK_S * self.rate_hz), 1)
        end = min(self._index + size, self._end())
        if end <= self._index or not self._pacer.wait(end - 1, self._stopped):
            return None
        start, self._index = self._index, end
        x, off = self._samples(start, end)
        return EcgBlock(x, start, self._pacer.monotonic(), off=off)

    def stop(self) -> None:
        self._stopped.set()

    @abstractmethod
    def _end(self) -> int:
        """Samples that there are."""

    @abstractmethod
    def _samples(self, start: int, end: int) -> tuple[Samples, Flags | None]:
        """Those from `start` to `end`, as in EcgBlock: what was measured, and where an electrode was off."""


class EcgReplay(_Played):
    """The first lead of a recording. What is not known in the file is not a number here."""

    def __init__(
        self, ecg: Ecg, *, pace: str = "real", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(ecg.rate_hz, pace, monotonic)
        lead = next(lead for lead in ecg.leads if lead.voltage)
        named = f", lead {lead.name}" if len(ecg.leads) > 1 else ""
        self.name = f"{ecg.path.name if ecg.path else 'recording'}{named}"
        self.notes = list(ecg.notes)
        self.rails_mv = lead.rails_mv
        self._x = np.array(lead.samples, np.float32)
        for gap in lead.gaps:
            self._x[gap.start : gap.end] = np.nan

    def _end(self) -> int:
        return len(self._x)

    def _samples(self, start: int, end: int) -> tuple[Samples, Flags | None]:
        return self._x[start:end], None


_R_BEFORE_S1_S = 0.04
"""From the R peak to the onset of S1, about: the mitral valve closes when the pressure has risen."""


# (mV at an R peak of 1, seconds from the R peak, width in s) of P, Q, R, S, T
_WAVES = (
    (0.12, -0.16, 0.022),
    (-0.12, -0.022, 0.008),
    (1.0, 0.0, 0.011),
    (-0.22, 0.026, 0.010),
    (0.28, 0.24, 0.045),
)


class SyntheticEcg(_Played):
    """A lead that beats with the synthetic heart of the same rate and seed."""

    rails_mv: tuple[float, float] | None = (-5.0, 5.0)

    def __init__(
        self, settings: SyntheticLead, *, pace: str = "real", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        from device.settings.specs import HeartSettings
        from device.sources.synthetic import Heart

        super().__init__(settings.rate_hz, pace, monotonic)
        self.settings = settings
        self.name = f"synthetic lead, {settings.rate:g}/min"
        self._heart = Heart(HeartSettings(rate=settings.rate, seed=settings.seed, level=0.0))

    def r_peaks_s(self, start_s: float, end_s: float) -> list[float]:
        """The truth."""
        beats = self._heart.beats(max(start_s, 0.0), end_s + 1.0)
        return [b.s1 - _R_BEFORE_S1_S for b in beats if start_s <= b.s1 - _R_BEFORE_S1_S < end_s]

    def _end(self) -> int:
        return round(min(self.settings.seconds * self.rate_hz, 2.0**52))

    def _samples(self, start: int, end: int) -> tuple[Samples, Flags | None]:
        chosen = self.settings
        t = np.arange(start, end) / self.rate_hz
        y = np.zeros(len(t))
        for at in self.r_peaks_s(max(t[0] - 1.0, 0.0), t[-1] + 1.0):
            for height, after, width in _WAVES:
                y += chosen.level_mv * height * np.exp(-(((t - at - after) / width) ** 2) / 2)
        y += chosen.wander_mv * np.sin(2 * np.pi * 0.25 * t)
        noise = np.random.default_rng([chosen.seed, start]).standard_normal(len(t))
        y += chosen.noise_mv * noise
        off = (t >= chosen.off_after_s) & (t < chosen.off_after_s + chosen.off_for_s)
        return np.where(off, 5.0, y).astype(np.float32), off
