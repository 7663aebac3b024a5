"""Gain, band and fades of what goes to the ear."""

from __future__ import annotations

from typing import Any

import numpy as np

from device.arrays import Samples
from device.listening.presets import Preset
from device.rates import WORKING_RATE_HZ

__all__ = ["FADE", "Blend", "Loudness", "Shaper"]


FADE = WORKING_RATE_HZ // 100
"""Working-rate samples of a fade: 10 ms."""


_BLEND = WORKING_RATE_HZ // 50


class Blend:
    """Raw or clean of two aligned sounds at the working rate. Any chopping gives the same sound."""

    def __init__(self, raw: bool) -> None:
        self._raw = raw
        self._at = 0 if raw else _BLEND  # of the fade from raw to clean

    def choose(self, raw: bool) -> None:
        """Which one, from the next sample on, within 20 ms. May be called by any thread."""
        self._raw = raw

    def process(self, raw: Samples, clean: Samples) -> Samples:
        """Two float32 (n,) → float32 (n,)."""
        want_raw = self._raw
        if self._at == (0 if want_raw else _BLEND):
            return np.asarray(raw if want_raw else clean, np.float32)
        step = -1 if want_raw else 1
        at = np.clip(self._at + step * np.arange(1, len(raw) + 1), 0, _BLEND)
        share = 0.5 - 0.5 * np.cos(np.pi * at / _BLEND)
        self._at = int(at[-1]) if len(at) else self._at
        return np.where(at == _BLEND, clean, raw + share * (clean - raw)).astype(np.float32)


class Loudness:
    """Keeps the running loudness at or below a limit: protection of the ear from sound that lasts.

    The mean square is followed with 125 ms (the "fast" of sound level meters, IEC 61672-1); what it exceeds
    the limit by is taken away, and given back by 20 dB a second. A single beat passes: the peak limiter
    behind this one is for that. No look-ahead, no delay. Steps of 5 ms on the absolute grid, so that any
    chopping gives the same sound.

    loudest_db: rms of full scale; 0 or more: never.
    """

    def __init__(self, loudest_db: float, rate_hz: int = WORKING_RATE_HZ) -> None:
        self._most = 10.0 ** (loudest_db / 20.0) if loudest_db < 0 else 0.0
        self._step = max(rate_hz // 200, 1)
        seconds = self._step / rate_hz
        self._follow = 1.0 - float(np.exp(-seconds / 0.125))
        self._release = 10.0 ** (20.0 * seconds / 20.0)
        self.reset()

    def reset(self) -> None:
        """What comes next begins anew."""
        self._mean = 0.0
        self._from = self._to = 1.0
        self._squares = np.zeros(0)

    @property
    def gain(self) -> float:
        """By what the sound is multiplied now, at most 1."""
        return self._to

    def process(self, x: Samples) -> Samples:
        """float32 (n,) → float32 (n,)."""
        if not self._most:
            return x
        y = np.empty_like(x)
        at = 0
        while at < len(x):
            done = len(self._squares)
            piece = x[at : at + self._step - done]
            share = np.arange(done + 1, done + 1 + len(piece)) / self._step
            y[at : at + len(piece)] = piece * (self._from + share * (self._to - self._from))
            self._squares = np.concatenate([self._squares, np.square(piece, dtype=np.float64)])
            at += len(piece)
            if len(self._squares) == self._step:
                self._mean += self._follow * (float(np.mean(self._squares)) - self._mean)
                self._squares = np.zeros(0)
                wanted = min(self._most / max(np.sqrt(self._mean), 1e-12), 1.0)
                self._from, self._to = self._to, float(min(wanted, self._to * self._release))
        return y


class Shaper:
    """Preset, gain, loudness, soft limiter, fades; any chopping gives the same sound.

    Up to 70 % of `limit` the sound is only amplified; above it bends, and never passes `limit`.
    """

    def __init__(
        self,
        gain_db: float = 0.0,
        limit: float = 1.0,
        preset: str = "none",
        rate_hz: int = WORKING_RATE_HZ,
        loudest_db: float = 0.0,
    ) -> None:
        self.rate_hz = rate_hz
        self._loudness = Loudness(loudest_db, rate_hz)
        self.fade = rate_hz // 100
        self._preset = Preset(preset, rate_hz)
        self._gain = 10.0 ** (gain_db / 20.0)
        self._target = self._gain
        self._limit = limit
        self._faded = 0  # samples of the fade-in that are behind us
        self._last = 0.0

    def set_gain_db(self, gain_db: float) -> None:
        """A new gain, reached within the next sound that comes. May be called by any thread."""
        self._target = 10.0 ** (gain_db / 20.0)

    def set_preset(self, preset: str) -> None:
        """Another preset, without a click. May be called by any thread."""
        self._preset.change(preset)

    def process(self, x: Samples) -> Samples:
        """float32 (n,) → float32 (n,), within ±limit."""
        x = np.asarray(x, dtype=np.float32)
        if not len(x):
            return x
        x = self._preset.process(x)
        target = self._target
        gain: Any = np.float32(self._gain)
        if target != self._gain:
            gain = np.linspace(self._gain, target, len(x), dtype=np.float32)
            self._gain = target
        y = self._loudness.process(x * gain)
        knee = np.float32(0.7 * self._limit)
        room = np.float32(self._limit) - knee
        over = np.maximum(np.abs(y) - knee, 0.0)
        y = np.where(over > 0, np.copysign(knee + room * np.tanh(over / room), y), y)
        if self._faded < self.fade:
            at = np.minimum(np.arange(self._faded + 1, self._faded + 1 + len(y)), self.fade)
            y = y * (0.5 - 0.5 * np.cos(np.pi * at / self.fade))
            self._faded = min(self._faded + len(y), self.fade)
        y = y.astype(np.float32)
        self._last = float(y[-1])
        return y

    def tail(self) -> Samples:
        """What follows the last sample when sound stops here: it fades to nothing, float32 (fade,); then a
        new start.
        """
        fade = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, self.fade + 1) / self.fade)
        tail: Samples = (self._last * fade).astype(np.float32)
        self._faded, self._last = 0, 0.0
        self._preset.reset()
        return tail
