"""A heart that is not there: S1, S2, murmurs and noise made from a seed, with the truth beside the sound.

Each heart sound is a sum of damped sinusoids with random phases; S2 has its two parts, which breathing in
pulls apart; the rate swings with the breath. Systole lasts as long as measured in people at that rate.
Murmurs are bands of noise under an envelope: rising and falling in systole, falling in diastole. It is no
model of disease: it is there to try the path from source to verdict where no patient is.

Everything is a function of (settings, time): the same seed gives the same sound, whatever the blocks.

Sources: systolic time, Weissler et al., Circulation 1968;37:149 (ejection time 0.413 - 0.0017 rate, in s),
with 30 ms of isovolumetric contraction before it; damped sums for heart sounds after Almasi et al., EMBC
2011, who use Gabor kernels.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from math import inf
from typing import NamedTuple

import numpy as np

from device.arrays import Reals, Samples
from device.errors import SourceGone
from device.settings.specs import HeartSettings
from device.sources.base import Block
from device.sources.files import Sound
from device.sources.replay import Pacer
from device.spans import Gap

__all__ = ["Heart", "SyntheticSource", "synthesise"]


_BREATH_HZ = 0.25
_FIRST_S = 0.25
"""Onset of the first S1."""
_S1_S = 0.12
_S2_S = 0.10
_FRAME_S = 0.5
_RENDER_S = 1.0
_MOST_BEATS = 512
"""Held at once, some 130 KB; a heart may beat for weeks."""

# (share of the peak, Hz, time constant of the decay in s) of each part of a sound
_S1_PARTS = ((1.0, 36.0, 0.022), (0.8, 58.0, 0.020), (0.45, 95.0, 0.014), (0.12, 150.0, 0.009))
_A2_PARTS = ((0.6, 52.0, 0.016), (0.7, 78.0, 0.014), (0.35, 125.0, 0.010), (0.1, 190.0, 0.007))
_P2_PARTS = ((0.35, 48.0, 0.016), (0.35, 70.0, 0.013))

# lowest and highest Hz of a band of noise
_SYSTOLIC_HZ = (90.0, 320.0)
_DIASTOLIC_HZ = (130.0, 420.0)
_BREATH_BAND_HZ = (120.0, 600.0)
_RUB_BAND_HZ = (30.0, 450.0)


class Beat(NamedTuple):
    """One heart beat, times in s from the start of the sound."""

    number: int
    s1: float
    """Onset of S1."""
    s2: float
    """Onset of S2."""
    end: float
    """Onset of the next S1."""
    strength: float
    split: float
    """From A2 to P2."""


def _damped(t: Reals, parts: tuple[tuple[float, float, float], ...], random: np.random.Generator) -> Reals:
    """Sum of damped sinusoids that set in at t = 0 within some ms; t in s, (n,)."""
    y = np.zeros(len(t))
    for share, hz, decay in parts:
        hz *= 1.0 + 0.04 * random.standard_normal()
        phase = random.uniform(-0.6, 0.6)
        at = np.maximum(t, 0.0)
        y += (
            share
            * np.sin(2 * np.pi * hz * at + phase)
            * (1.0 - np.exp(-at / 0.004)) ** 2
            * np.exp(-at / decay)
        )
    return np.where(t > 0, y, 0.0)


def _band(t: Reals, hz: tuple[float, float], random: np.random.Generator, parts: int = 40) -> Reals:
    """Noise of rms 1 in a band: sinusoids of random frequency and phase, as a function of time, (n,)."""
    f = random.uniform(*hz, parts)
    phase = random.uniform(0, 2 * np.pi, parts)
    return np.sin(2 * np.pi * np.outer(t, f) + phase).sum(axis=1) * np.sqrt(2.0 / parts)


class Heart:
    """The sound of one heart as a function of time. No end of its own: `seconds` is the source's business."""

    def __init__(self, settings: HeartSettings) -> None:
        self.settings = settings
        self._beats: list[Beat] = []
        self._gain = settings.level
        if settings.level > 0:
            quiet = _calm(settings.rate, settings.seed)
            self._gain = settings.level / quiet.peak
            self._rms = settings.level * quiet.rms / quiet.peak
        else:
            self._rms = 0.0

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, *what])

    def beats(self, start_s: float, end_s: float) -> list[Beat]:
        """The beats that overlap [start_s, end_s)."""
        if self._beats and start_s < self._beats[0].s1 and self._beats[0].number:
            self._beats = []  # somebody looks back at what was let go: count from the first beat again
        while not self._beats or self._beats[-1].end < end_s:
            last = self._beats[-1] if self._beats else None
            self._beats.append(self._beat(last.number + 1, last.end) if last else self._beat(0, _FIRST_S))
            if len(self._beats) > _MOST_BEATS and self._beats[_MOST_BEATS // 2].end < start_s:
                del self._beats[: _MOST_BEATS // 2]
        first = bisect_right(self._beats, start_s, key=lambda beat: beat.end)
        return [beat for beat in self._beats[first:] if beat.s1 < end_s]

    def _beat(self, number: int, s1: float) -> Beat:
        random = self._random(1, number)
        breath = np.sin(2 * np.pi * _BREATH_HZ * s1)
        wander = float(np.clip(random.standard_normal(), -2, 2))
        period = 60.0 / self.settings.rate * (1.0 - 0.03 * breath + 0.012 * wander)
        systole = min(0.413 - 0.0017 * self.settings.rate + 0.030, 0.5 * period)
        strength = 1.0 - 0.08 * breath + 0.03 * float(random.standard_normal())
        return Beat(
            number, s1, s1 + max(systole, 0.13), s1 + period, strength, 0.015 + 0.02 * max(breath, 0.0)
        )

    def states(self, start_s: float, end_s: float) -> list[tuple[float, float, str]]:
        """The truth: (start, end, state) in s, in order, of S1, systole, S2 and diastole within [start_s,
        end_s)."""
        found = [(start_s, min(_FIRST_S, end_s), "diastole")] if start_s < min(_FIRST_S, end_s) else []
        for beat in self.beats(start_s, end_s):
            edges = (beat.s1, beat.s1 + min(_S1_S, 0.9 * (beat.s2 - beat.s1)), beat.s2)
            ends = (*edges, beat.s2 + min(_S2_S, 0.5 * (beat.end - beat.s2)), beat.end)
            for a, b, state in zip(ends, ends[1:], ("S1", "systole", "S2", "diastole"), strict=False):
                if b > start_s and a < end_s:
                    found.append((max(a, start_s), min(b, end_s), state))
        return found

    def render(self, start: int, n: int) -> Samples:
        """Samples start … start + n - 1 at rate_hz, float32 (n,), cut to ±1. n of any size; best are
        seconds."""
        t = (start + np.arange(n)) / self.settings.rate_hz
        y = self._gain * self._heart(t) if self._gain > 0 else np.zeros(n)
        if self.settings.noise_db < inf and self._rms > 0:
            y = y + self._rms * 10 ** (-self.settings.noise_db / 20) * self._noise(start, t)
        return np.clip(y, -1.0, 1.0).astype(np.float32)

    def _heart(self, t: Reals) -> Reals:
        y = np.zeros(len(t))
        if not len(t):
            return y
        for beat in self.beats(t[0] - 1.0, t[-1] + 0.01):
            random = self._random(2, beat.number)
            for onset, parts in (
                (beat.s1, _S1_PARTS),
                (beat.s2, _A2_PARTS),
                (beat.s2 + beat.split, _P2_PARTS),
            ):
                a, b = np.searchsorted(t, (onset, onset + 0.25))
                y[a:b] += beat.strength * _damped(t[a:b] - onset, parts, random)
            self._murmur(y, t, beat)
        return y

    def _murmur(self, y: Reals, t: Reals, beat: Beat) -> None:
        kind = self.settings.murmur
        if kind == "none":
            return
        start, end = (
            (beat.s1 + 0.05, beat.s2 - 0.01) if kind == "systolic" else (beat.s2 + 0.06, beat.end - 0.04)
        )
        a, b = np.searchsorted(t, (start, end))
        if a >= b or end <= start:
            return
        place = (t[a:b] - start) / (end - start)
        if kind == "systolic":
            envelope, band = np.sin(np.pi * place), _SYSTOLIC_HZ
        else:
            envelope, band = np.minimum(place / 0.1, 1.0) * (1.0 - place) ** 1.5, _DIASTOLIC_HZ
        loud = 0.35 * 10 ** (-6.0 * (6 - self.settings.grade) / 20)
        y[a:b] += beat.strength * loud * envelope * _band(t[a:b], band, self._random(3, beat.number))

    def _noise(self, start: int, t: Reals) -> Reals:
        """Noise of rms about 1 within 0 to 1 kHz, (n,)."""
        kind, rate_hz = self.settings.noise, self.settings.rate_hz
        if kind == "white":
            y = np.empty(len(t))
            for second in range(start // rate_hz, -(-(start + len(t)) // rate_hz)):
                values = self._random(4, second).standard_normal(rate_hz)
                a, b = max(second * rate_hz, start), min((second + 1) * rate_hz, start + len(t))
                y[a - start : b - start] = values[a - second * rate_hz : b - second * rate_hz]
            return y * np.sqrt(rate_hz / 2000.0)
        if kind == "hum":
            parts = ((1.0, 50.0), (0.4, 100.0), (0.5, 150.0), (0.2, 250.0))
            y = sum((share * np.sin(2 * np.pi * hz * t + hz) for share, hz in parts), np.zeros(len(t)))
            return y / np.sqrt(sum(share**2 for share, _ in parts) / 2)
        band = _BREATH_BAND_HZ if kind == "breath" else _RUB_BAND_HZ
        y = np.zeros(len(t))
        # frames of half a second that fade into each other, each a function of its number
        for frame in range(int(t[0] / _FRAME_S) - 1, int(t[-1] / _FRAME_S) + 1) if len(t) else ():
            random = self._random(5, frame + 1)
            middle = (frame + 1) * _FRAME_S
            a, b = np.searchsorted(t, (middle - _FRAME_S, middle + _FRAME_S))
            fade = np.cos(np.pi * (t[a:b] - middle) / (2 * _FRAME_S))
            loud = 1.0
            if kind == "rub":  # a third of the time, and of very different strength
                loud = float(random.exponential(1.5)) if random.random() < 0.33 else 0.03
            y[a:b] += loud * fade * _band(t[a:b], band, random)
        if kind == "breath":
            y *= np.sqrt(2.0) * np.abs(np.sin(np.pi * _BREATH_HZ * 2 * t))
        return y


class _Calm(NamedTuple):
    peak: float
    rms: float


@lru_cache(maxsize=32)
def _calm(rate: float, seed: int) -> _Calm:
    """Peak and rms of the heart alone, without murmur and noise, over its first 20 s at 2 kHz and level 1."""
    heart = Heart(HeartSettings(rate=rate, seed=seed, level=0.0))
    y = heart._heart(np.arange(40_000) / 2000.0)
    return _Calm(float(np.abs(y).max()), float(np.sqrt(np.mean(y**2))))


def synthesise(settings: HeartSettings, seconds: float = 20.0) -> Sound:
    """The first seconds of a synthetic heart as a recording with its true states."""
    seconds = min(seconds, settings.seconds)
    n = round(seconds * settings.rate_hz)
    heart = Heart(settings)
    pieces = [heart.render(at, min(settings.rate_hz, n - at)) for at in range(0, n, settings.rate_hz)]
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return Sound(samples, settings.rate_hz, bits=32, states=heart.states(0.0, seconds), floating=True)


class SyntheticSource:
    """A synthetic heart as a source of sound, in real time or as fast as it is read.

    `block`: samples of each block, in turn; any sizes give the same sound. `states` is the truth about what
    was read. After it unplugged itself (SourceGone) it can be started again; what it missed counts as lost.
    """

    def __init__(
        self,
        settings: HeartSettings,
        *,
        pace: str = "real",
        block: int | tuple[int, ...] = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.rate_hz = settings.rate_hz
        murmur = "" if settings.murmur == "none" else f", {settings.murmur} murmur of grade {settings.grade}"
        self.name = f"synthetic heart, {settings.rate:g}/min{murmur}"
        self.notes: list[str] = []
        self.gaps: list[Gap] = []
        self.heart = Heart(settings)
        self._pacer = Pacer(self.rate_hz, pace, monotonic)
        sizes = block if isinstance(block, tuple) else (block,)
        self._sizes = [size or max(self.rate_hz // 50, 1) for size in sizes]
        self._reads = 0
        self._index = 0
        self._lost = 0
        self._end = _samples(settings.seconds, self.rate_hz)
        self._gone_left = settings.gone_times
        self._gone = _samples(settings.gone_after_s, self.rate_hz) if self._gone_left else inf
        self._freeze = _samples(settings.freeze_after_s, self.rate_hz)
        self._back_at = -inf
        self._piece = (0, np.zeros(0, np.float32))
        self._stopped = threading.Event()

    @property
    def states(self) -> list[tuple[float, float, str]]:
        """(start, end, state) in s of all that was read so far."""
        return self.heart.states(0.0, self._index / self.rate_hz)

    def start(self) -> None:
        now = self._pacer.monotonic()
        if now < self._back_at:
            raise SourceGone(f"{self.name}: is unplugged; plug it in again")
        if self._back_at > -inf:
            self._back_at = -inf
            lost = self._pacer.resumed(self._index)
            self._lost += lost
            self._index += lost
            if self._gone_left and self._gone == inf:
                self._gone = self._index + _samples(self.settings.gone_after_s, self.rate_hz)
        else:
            self._pacer.begin(self._index)
        self._stopped.clear()

    def read(self) -> Block | None:
        size = self._sizes[self._reads % len(self._sizes)]
        end = int(min(self._index + size, self._end, self._gone if self._index < self._gone else inf))
        if self._index == self._gone:
            self._gone, self._gone_left = inf, self._gone_left - 1
            self._back_at = self._pacer.monotonic() + self.settings.gone_for_s
            raise SourceGone(f"{self.name}: was unplugged; plug it in again")
        if end <= self._index:
            return None
        if end > self._freeze:
            self._stopped.wait()  # alive and silent, until somebody stops it
            self._freeze, self._back_at = inf, self._pacer.monotonic()
            return None
        if self._stopped.is_set() or not self._pacer.wait(end, self._stopped):
            return None
        self._reads += 1
        samples = self._rendered(self._index, end)
        block = Block(samples, self._index, self._pacer.monotonic(), self._lost)
        self._index, self._lost = end, 0
        return block

    def stop(self) -> None:
        self._stopped.set()

    def _rendered(self, start: int, end: int) -> Samples:
        """Samples from whole seconds, so that the sums are the same however they are asked for."""
        unit = round(_RENDER_S * self.rate_hz)
        pieces = []
        while start < end:
            second = start // unit
            if self._piece[0] != second or not len(self._piece[1]):
                self._piece = (second, self.heart.render(second * unit, unit))
            stop = min(end, (second + 1) * unit)
            pieces.append(self._piece[1][start - second * unit : stop - second * unit])
            start = stop
        return np.concatenate(pieces)


def _samples(seconds: float, rate_hz: int) -> float:
    return inf if seconds == inf else round(seconds * rate_hz)
