"""What is for the ear and the eye of the moment: raw and clean side by side, the waveform, and what to
shed.

    Twin      raw → (raw, clean), aligned sample by sample, through the denoiser or past it
    Display   (raw, clean) → live/wave messages of 100 ms at 250 values a second
    Shedder   how late are we → what is left out: waveform, classification, denoising; never the recording
"""

from __future__ import annotations

import enum
from typing import Protocol

import numpy as np

from device.messages import LiveWave
from device.rates import WORKING_RATE_HZ
from device.timing import StageTimer

__all__ = ["Cleaner", "Display", "Shed", "Shedder", "Twin"]

_EVERY = 8
_WAVE = WORKING_RATE_HZ // 10
_MOST_AT_ONCE = 2 * WORKING_RATE_HZ


class Cleaner(Protocol):
    """What is asked of the denoiser: device.denoise.Denoiser."""

    hop_s: float
    look_ahead_s: float
    strength: float
    """0: raw, delayed to match; 1: fully denoised. Set at any time, by any thread."""
    step_times: StageTimer

    def process(self, x: np.ndarray) -> np.ndarray: ...

    def flush(self) -> np.ndarray: ...


class Twin:
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
        bypass = bypass or len(raw) > _MOST_AT_ONCE
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


def _peaks(x: np.ndarray) -> tuple[int, ...]:
    """Of each eight samples the one with the largest magnitude, as int16."""
    groups = x.reshape(-1, _EVERY)
    peaks = groups[np.arange(len(groups)), np.argmax(np.abs(groups), axis=1)]
    return tuple(int(v) for v in np.clip(np.rint(peaks * 32767.0), -32768, 32767))


class Display:
    """Cuts the sound into messages of 100 ms for the eye."""

    def __init__(self) -> None:
        self._index = 0
        self._raw = np.zeros(0, np.float32)
        self._clean = np.zeros(0, np.float32)

    def process(self, raw: np.ndarray, clean: np.ndarray, exam: str | None = None) -> list[LiveWave]:
        """Take aligned sound, float32 (n,) each; the messages that became whole. A long hole is jumped
        over.
        """
        self._raw = np.concatenate([self._raw, raw])
        self._clean = np.concatenate([self._clean, clean])
        surplus = max(len(self._raw) - _MOST_AT_ONCE, 0) // _WAVE * _WAVE
        self._cut(surplus)
        made = []
        while len(self._raw) >= _WAVE:
            made.append(
                LiveWave(
                    index=self._index,
                    every=_EVERY,
                    raw=_peaks(self._raw[:_WAVE]),
                    clean=_peaks(self._clean[:_WAVE]),
                    exam=exam,
                )
            )
            self._cut(_WAVE)
        return made

    def skip(self, n: int) -> None:
        """The sound that comes next is `n` samples later."""
        self._cut(len(self._raw))
        self._index += n

    def _cut(self, n: int) -> None:
        self._raw, self._clean = self._raw[n:], self._clean[n:]
        self._index += n


class Shed(enum.IntEnum):
    """What is left out when the machine is late; each includes those before it."""

    NOTHING = 0
    WAVEFORM = 1
    CLASSIFICATION = 2
    DENOISING = 3


class Shedder:
    """Decides from the sound that waits: more is left out at once, less only after five calm seconds."""

    LIMITS_S = (0.25, 0.5, 1.0)
    CALM_S = 0.1
    CALM_FOR_S = 5.0

    def __init__(self) -> None:
        self.now = Shed.NOTHING
        self._calm_since: float | None = None

    def update(self, waiting_s: float, monotonic_s: float) -> Shed:
        """`waiting_s` of sound wait to be processed, at `monotonic_s`."""
        wanted = Shed(sum(waiting_s > limit for limit in self.LIMITS_S))
        if wanted > self.now:
            self.now = wanted
        if waiting_s > self.CALM_S:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = monotonic_s
        elif monotonic_s - self._calm_since >= self.CALM_FOR_S and self.now:
            self.now = Shed(self.now - 1)
            self._calm_since = monotonic_s
        return self.now
