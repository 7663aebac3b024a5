"""What a denoiser's network hears: the front end that the bundle names, one hop at a time.

    spectrum   heart sound: high pass 15 Hz ── steady level ──┬── wave, coarse and fine
                                                              └── log spectrum of the last 64 ms
    lead       ECG: high pass, slow ──┬────────── level ── wave three times: coarse, middle ..
                                      └─ high pass, fast ─┘  .. and fine, the fast one

A front end gives the net's inputs in int8, and keeps beside them what the removal needs: the level, and the
hops as the net heard them. `hear` and `hear_lead` compute the same for many
sounds at once, for training and calibration.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from device.arrays import AnyArray, Indices, Int8Array, Samples
from device.dsp.level import LOUDEST, SILENCE, TIME_CONSTANT_S, hop_high_pass, levels, share_of
from device.errors import StethopiError
from device.rates import HOP, HOP_S

__all__ = ["FrontEnd", "LeadFrontEnd", "Scale", "SpectrumFrontEnd", "analyse", "analyse_lead", "front_end_of"]

SPECTRUM_WINDOW = 128
COARSE = 1.0 / 16.0
FINE = 1.0
SPECTRUM_FLOOR = 1e-5
SPECTRUM_CENTRE = -1.5
SPECTRUM_WIDTH = 1.5
FLAT_MV = 1e-4
"""A hop of a lead, less its slow waves, with a lower root mean square counts as a flat line: a tenth of a
microvolt, under the last bit of every converter and above the rounding of an offset."""


MOST_HOPS = 32
"""Hops computed at once, at most."""

_STEPS = 256


@dataclass(frozen=True)
class Scale:
    """How an input of the net writes real numbers as int8."""

    inverse: np.float32
    """One over the scale."""
    zero_point: np.float32

    def quantise(self, x: Samples) -> Int8Array:
        """Real numbers → int8, rounded and cut to its range."""
        q: Int8Array = np.clip(np.rint(x * self.inverse + self.zero_point), -128, 127).astype(np.int8)
        return q


class FrontEnd(Protocol):
    """A front end. `level` (hops,) and `passed` (hops, hop), float32, are those of the last `steps`."""

    inputs: tuple[str, ...]
    heard: tuple[Int8Array, ...]
    """int8 (MOST_HOPS, …) of each input: always the same memory; `steps` fills a row for each hop."""
    level: Samples
    passed: Samples

    def reset(self) -> None:
        """As before the first sample."""

    def fill(self, x: Samples) -> Samples:
        """The samples with something harmless where they are not finite."""
        ...

    def steps(self, hops: Samples) -> None:
        """Take finite float32 (k, hop), k ≤ MOST_HOPS; the same bits, however hops are spread over calls."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""


def front_end_of(
    meta: Mapping[str, Any], arrays: Mapping[str, AnyArray], scales: Mapping[str, Scale]
) -> FrontEnd:
    """The front end that a model's entry in the bundle names; the heart sound's where it names none.

    scales: of the net's inputs, by name.
    """
    front = meta.get("front", {"kind": "spectrum"})
    if front["kind"] == "spectrum":
        return SpectrumFrontEnd(arrays["window"], scales["wave"], scales["spectrum"])
    if front["kind"] == "lead":
        return LeadFrontEnd(int(meta["hop"]), int(meta["rate_hz"]), front, scales.get("wave"))
    raise StethopiError(f"the bundle asks for a front end {front['kind']!r}; update stethopi")


class Level:
    """The steady level, one hop at a time. `value` is 0.0 before the first sound."""

    __slots__ = ("_forget", "_silence", "hops", "value")

    def __init__(
        self, hop_s: float = HOP_S, time_constant_s: float = TIME_CONSTANT_S, silence: float = SILENCE
    ) -> None:
        self.value = 0.0
        self.hops = 0
        self._forget = share_of(hop_s, time_constant_s)
        self._silence = silence

    def step(self, hop_rms: float) -> float:
        """Take one hop's root mean square and give the level, which includes that hop."""
        if hop_rms > self._silence:
            if self.hops == 0:
                self.value = hop_rms
            else:
                share = max(1.0 / (self.hops + 1), self._forget)
                self.value += share * (min(hop_rms, LOUDEST * self.value) - self.value)
            self.hops += 1
        return self.value

    def steps(self, hop_rms: Iterable[float]) -> list[float]:
        """The same for hops in a row: the level after each."""
        return [self.step(rms) for rms in hop_rms]


class SpectrumFrontEnd:
    """The heart sound's: `wave` (16, 2) and `spectrum` (64,) a hop. Not finite counts as 0.

    A call into NumPy costs as much as some thousand multiplications, so what does not depend on the hop
    before is computed of all hops at once, and int8 comes from the real numbers by one search in a sorted
    table of where it changes: clipping, logarithm, scale and rounding are in that table.
    """

    inputs: tuple[str, ...] = ("wave", "spectrum")

    def __init__(self, window: Samples, wave: Scale, spectrum: Scale) -> None:
        self._window = np.ascontiguousarray(window, dtype=np.float32)
        self._high_pass = hop_high_pass()
        self._coarse, self._fine = (
            _table(functools.partial(_wave, scale=wave, part=part), np.float32) for part in (COARSE, FINE)
        )
        self._log = _table(functools.partial(_spectrum, scale=spectrum), np.float64)
        kept = SPECTRUM_WINDOW - HOP
        self._history = np.zeros(kept + MOST_HOPS * HOP, dtype=np.float32)
        """The last 112 samples that passed, then those of the hops at hand."""
        self._passed = [self._history[kept + HOP * k : kept + HOP * (k + 1)] for k in range(MOST_HOPS)]
        self._grid = self._history[kept:].reshape(MOST_HOPS, HOP)
        self._frames = np.lib.stride_tricks.sliding_window_view(self._history, SPECTRUM_WINDOW)[::HOP]
        self._edges = np.zeros((MOST_HOPS, HOP + 2), dtype=np.float32)
        self._edge = list(self._edges)
        # items of a memoryview are read and written without making an array
        self._history_items: Any = self._history.data
        self._edge_items: Any = self._edges.data
        self._gain = np.zeros((MOST_HOPS, 1), dtype=np.float32)
        self._gain_items: Any = self._gain.data
        self._framed = np.empty((MOST_HOPS, SPECTRUM_WINDOW), dtype=np.float32)
        self._wave_out = np.empty((MOST_HOPS, HOP, 2), dtype=np.int8)
        self._spectrum_out = np.empty((MOST_HOPS, SPECTRUM_WINDOW // 2), dtype=np.int8)
        self.heard: tuple[Int8Array, ...] = (self._wave_out, self._spectrum_out)
        self.reset()

    def reset(self) -> None:
        """As before the first sample."""
        self._tracker = Level()
        self._history[:] = 0.0
        self._last = 0.0
        self.level = np.zeros(0, dtype=np.float32)
        self.passed = np.zeros((0, HOP), dtype=np.float32)

    def fill(self, x: Samples) -> Samples:
        """Silence where a sample is not finite."""
        return np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        return {
            "level": (self._tracker.value, self._tracker.hops),
            "history": self._history[: SPECTRUM_WINDOW - HOP].copy(),
            "last": self._last,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self._tracker = Level()
        self._tracker.value, self._tracker.hops = kept["level"]
        self._history[: SPECTRUM_WINDOW - HOP] = kept["history"]
        self._last = kept["last"]

    def steps(self, hops: Samples) -> None:
        """Finite float32 (k, 16) → `wave` and `spectrum`, in `heard`."""
        k = len(hops)
        kept = SPECTRUM_WINDOW - HOP
        edges: Any = self._edge_items
        history, gains = self._history_items, self._gain_items
        self._edges[:k, 2:] = hops
        high_pass, tracker = self._high_pass, self._tracker
        last = self._last
        for n in range(k):
            passed = self._passed[n]
            edges[n, 0] = history[kept + HOP * n - 1]
            edges[n, 1] = last
            high_pass.dot(self._edge[n], passed)
            last = edges[n, HOP + 1]
            level = tracker.step(float(passed.dot(passed)) ** 0.5 * 0.25)  # root of the mean of 16
            gains[n, 0] = 1.0 / level if level > SILENCE else 0.0
        self._last = last
        gain = self._gain[:k]
        framed = np.multiply(self._frames[:k], self._window, self._framed[:k])
        np.multiply(framed, gain, framed)
        bins = np.fft.rfft(framed)
        parts = bins.view(bins.real.dtype)
        np.multiply(parts, parts, parts)
        power = parts[:, 2::2] + parts[:, 3::2]
        scaled = self._grid[:k] * gain
        wave, spectrum = self._wave_out[:k], self._spectrum_out[:k]
        wave[:, :, 0] = self._coarse.searchsorted(scaled, "right")
        wave[:, :, 1] = self._fine.searchsorted(scaled, "right")
        spectrum[:] = self._log.searchsorted(power, "right")
        history[:kept] = history[HOP * k : HOP * k + kept]


def _wave(x: Samples, scale: Scale, part: float) -> Int8Array:
    return scale.quantise(np.clip(x * np.float32(part), np.float32(-1.0), np.float32(1.0)))


def _spectrum(power: Samples, scale: Scale) -> Int8Array:
    log = np.log10(np.maximum(power, 0.0).astype(np.float32) + np.float32(SPECTRUM_FLOOR))
    return scale.quantise((log - np.float32(SPECTRUM_CENTRE)) / np.float32(SPECTRUM_WIDTH))


def _table(f: Callable[[Any], Int8Array], dtype: type[np.floating[Any]]) -> AnyArray:
    """Where a function to int8 that never falls changes: `_table(f).searchsorted(x, "right")`, cut to eight
    bits, is `f(x)`, to the last bit, for every finite x.

    Found by halving over the bit patterns, which are in the order of the numbers they stand for.
    """
    of_bits = np.int32 if dtype is np.float32 else np.int64
    largest = int(np.array(np.finfo(dtype).max, dtype=dtype).view(of_bits))

    def number(order: AnyArray) -> AnyArray:
        size = np.abs(order).astype(of_bits).view(dtype)
        signed: AnyArray = np.where(order < 0, -size, size)
        return signed

    wanted = np.arange(-127, 128)
    low = np.full(len(wanted), -largest, dtype=np.int64)
    high = np.full(len(wanted), largest, dtype=np.int64)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        reached = f(number(high)) >= wanted
        while (low < high).any():
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            enough = f(number(middle)) >= wanted
            high = np.where(enough, middle, high)
            low = np.where(enough, low, np.minimum(middle + 1, high))
    edges = np.where(reached, number(high), np.inf)
    # as many in front of them as make the place of a number, less 256, the number in eight bits
    table: AnyArray = np.concatenate([np.full(_STEPS // 2, -np.inf), edges]).astype(dtype)
    return table


def analyse(x: Samples, window: Samples) -> tuple[Samples, Samples]:
    """What the net hears of many sounds at once, in float: for training and calibration.

    x: (batch, n), n a multiple of 16, each from its start. window: (128,) of the spectrum.
    Returns wave (batch, 2, n) and spectrum (batch, 64, n / 16), float32. `SpectrumFrontEnd` computes the same
    hop by hop.
    """
    batch, n = x.shape
    hops = n // HOP
    step = hop_high_pass().T
    passed = np.empty((batch, hops, HOP), dtype=np.float32)
    z = np.zeros((batch, HOP + 2), dtype=np.float32)
    grid = x[:, : hops * HOP].reshape(batch, hops, HOP)
    for t in range(hops):
        z[:, 2:] = grid[:, t]
        y = z @ step
        passed[:, t] = y
        z[:, 0] = y[:, -1]
        z[:, 1] = grid[:, t, -1]
    level = levels(np.sqrt(np.mean(passed.astype(np.float64) ** 2, -1)))
    gain = np.divide(1.0, level, out=np.zeros_like(level), where=level > SILENCE).astype(np.float32)
    scaled = (passed * gain[:, :, None]).reshape(batch, 1, hops * HOP)
    wave = np.concatenate([np.clip(scaled * COARSE, -1, 1), np.clip(scaled * FINE, -1, 1)], 1)
    padded = np.pad(passed.reshape(batch, -1), ((0, 0), (SPECTRUM_WINDOW - HOP, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, SPECTRUM_WINDOW, axis=1)[:, ::HOP]
    bins = np.fft.rfft(frames * window * gain[:, :, None])[:, :, 1:]
    power = bins.real**2 + bins.imag**2
    spectrum = (np.log10(power + SPECTRUM_FLOOR) - SPECTRUM_CENTRE) / SPECTRUM_WIDTH
    return wave.astype(np.float32), np.ascontiguousarray(spectrum.swapaxes(1, 2)).astype(np.float32)


# ── the ECG's ───────────────────────────────────────────────────────────────────────────────────────────────


class LeadFrontEnd:
    """The ECG's: `wave` (1, 1, hop, 3), in levels: the slow high pass coarse and less coarse, the fast one
    fine.

    front: slow_hz and fast_hz, corners of two first-order high passes, one behind the other; time_constant_s
    of the level, which is that of the fast one (a wandering baseline is not loudness); ranges, how many
    levels are full scale in the three. Both filters begin settled on the first sample, so an electrode's
    offset is no step. What is not finite holds the sample before it.
    """

    inputs: tuple[str, ...] = ("wave",)

    def __init__(self, hop: int, rate_hz: int, front: Mapping[str, Any], scale: Scale | None = None) -> None:
        self._hop, self._rate_hz, self._front, self._scale = hop, rate_hz, front, scale
        self._slow = hop_high_pass(hop, rate_hz, float(front["slow_hz"]))
        self._fast = hop_high_pass(hop, rate_hz, float(front["fast_hz"]))
        self._ranges = np.array([1.0 / r for r in front["ranges"]], dtype=np.float32)
        self._wave = np.empty((hop, 3), dtype=np.float32)
        self.heard: tuple[Int8Array, ...] = (np.empty((MOST_HOPS, hop, 3), dtype=np.int8),)
        self.reset()

    def _level(self) -> Level:
        return Level(self._hop / self._rate_hz, float(self._front["time_constant_s"]), FLAT_MV)

    def reset(self) -> None:
        """As before the first sample."""
        self._tracker = self._level()
        self._edges = np.zeros((2, self._hop + 2), dtype=np.float32)
        self._begun = False
        self._last = np.float32(0.0)
        self.level = np.zeros(0, dtype=np.float32)
        self.passed = np.zeros((0, self._hop), dtype=np.float32)

    def fill(self, x: Samples) -> Samples:
        """Hold the last known sample (0 before the first)."""
        y = x.copy()
        known = np.flatnonzero(np.isfinite(y))
        if not len(known):
            y[:] = self._last
            return y
        y[: known[0]] = self._last if self._begun else y[known[0]]
        at: Indices = np.maximum.accumulate(np.where(np.isfinite(y), np.arange(len(y)), 0))
        return y[at]

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        return {
            "level": (self._tracker.value, self._tracker.hops),
            "edges": self._edges.copy(),
            "begun": (self._begun, self._last),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self._tracker = self._level()
        self._tracker.value, self._tracker.hops = kept["level"]
        self._edges = kept["edges"].copy()
        self._begun, self._last = kept["begun"]

    def steps(self, hops: Samples) -> None:
        """Finite float32 (k, hop) → `wave`, in `heard`."""
        assert self._scale is not None
        self.heard[0][: len(hops)] = self._scale.quantise(self.hear(hops))

    def hear(self, hops: Samples) -> Samples:
        """Finite float32 (k, hop) → `wave` before quantisation, (k, hop, 3)."""
        wave = np.empty((len(hops), self._hop, 3), dtype=np.float32)
        self.level = np.empty(len(hops), dtype=np.float32)
        self.passed = np.empty(hops.shape, dtype=np.float32)
        for k, hop in enumerate(hops):
            wave[k], self.level[k], self.passed[k] = self._hear(hop)
        return wave

    def _hear(self, hop: Samples) -> tuple[Samples, float, Samples]:
        slow, fast = self._edges
        if not self._begun:
            slow[1] = hop[0]
            self._begun = True
        slow[2:] = hop
        passed = self._slow @ slow
        slow[0], slow[1] = passed[-1], hop[-1]
        fast[2:] = passed
        quick = self._fast @ fast
        fast[0], fast[1] = quick[-1], passed[-1]
        self._last = hop[-1]
        level = self._tracker.step((float(quick @ quick) / self._hop) ** 0.5)
        gain = np.float32(1.0 / level) if level > FLAT_MV else np.float32(0.0)
        wave = self._wave
        scaled = passed * gain
        wave[:, 0] = scaled * self._ranges[0]
        wave[:, 1] = scaled * self._ranges[1]
        wave[:, 2] = quick * gain * self._ranges[2]
        np.clip(wave, -1.0, 1.0, out=wave)
        return wave, level, passed


def analyse_lead(
    x: Samples, hop: int, rate_hz: int, front: Mapping[str, Any]
) -> tuple[Samples, Samples, Samples]:
    """What `LeadFrontEnd` hears of many leads at once: (batch, n), n a multiple of the hop, each from its
    start.

    Returns wave (batch, 3, n), the slow high pass of x (batch, n), and the level of each hop (batch, hops).
    """
    batch, n = x.shape
    hops = n // hop
    slow, fast = (hop_high_pass(hop, rate_hz, float(front[k])).T for k in ("slow_hz", "fast_hz"))
    passed = np.empty((batch, hops, hop), dtype=np.float32)
    quick = np.empty((batch, hops, hop), dtype=np.float32)
    a = np.zeros((batch, hop + 2), dtype=np.float32)
    b = np.zeros((batch, hop + 2), dtype=np.float32)
    grid = x[:, : hops * hop].reshape(batch, hops, hop)
    a[:, 1] = grid[:, 0, 0]
    for t in range(hops):
        a[:, 2:] = grid[:, t]
        p = a @ slow
        a[:, 0], a[:, 1] = p[:, -1], grid[:, t, -1]
        b[:, 2:] = p
        q = b @ fast
        b[:, 0], b[:, 1] = q[:, -1], p[:, -1]
        passed[:, t], quick[:, t] = p, q
    level = levels(
        np.sqrt(np.mean(quick.astype(np.float64) ** 2, -1)),
        hop / rate_hz,
        float(front["time_constant_s"]),
        FLAT_MV,
    )
    gain = np.divide(1.0, level, out=np.zeros_like(level), where=level > FLAT_MV).astype(np.float32)
    gain = gain[:, :, None]
    coarse, middle, fine = (np.float32(1.0 / r) for r in front["ranges"])
    scaled = passed * gain
    wave = np.stack([scaled * coarse, scaled * middle, quick * gain * fine], 1).reshape(batch, 3, hops * hop)
    return (
        np.clip(wave, -1.0, 1.0),
        passed.reshape(batch, hops * hop),
        level.astype(np.float32),
    )
