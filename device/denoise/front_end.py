"""What a denoiser's network hears: the front end that the bundle names, hop by hop.

    spectrum   heart sound: high pass 15 Hz ── steady level ──┬── wave, coarse and fine
                                                              └── log spectrum of the last 64 ms
    lead       ECG: high pass, slow ──┬────────── level ── wave three times: coarse, middle ..
                                      └─ high pass, fast ─┘  .. and fine, the fast one

A front end gives the net's inputs by name, NHWC float32, before quantisation, and beside them what the mask
needs: the levels, and the hops as the net heard them. Hops that come together are taken together, each by
the same arithmetic as alone, so that any chopping gives the same bits. `analyse` and `analyse_lead` compute
the same for many sounds at once, for training and calibration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from device.arrays import AnyArray, Samples
from device.dsp.level import LOUDEST, SILENCE, TIME_CONSTANT_S, hop_high_pass, levels, share_of
from device.errors import StethopiError
from device.rates import HOP, HOP_S

__all__ = [
    "FrontEnd",
    "Heard",
    "LeadFrontEnd",
    "Level",
    "SpectrumFrontEnd",
    "analyse",
    "analyse_lead",
    "front_end_of",
]

SPECTRUM_WINDOW = 128
COARSE = 1.0 / 16.0
FINE = 1.0
SPECTRUM_FLOOR = 1e-5
SPECTRUM_CENTRE = -1.5
SPECTRUM_WIDTH = 1.5
FLAT_MV = 1e-4
"""A hop of a lead, less its slow waves, with a lower root mean square counts as a flat line: a tenth of a
microvolt, under the last bit of every converter and above the rounding of an offset."""


class Heard(NamedTuple):
    """What a front end makes of `k` hops in a row."""

    hops: Samples
    """float32 (k, hop): as they came, with something harmless where they were not finite."""
    passed: Samples
    """float32 (k, hop): through the (slow) high pass."""
    levels: list[float]
    """Of each hop."""
    inputs: tuple[Samples, ...]
    """The net's, float32 (k, ...), in the order of the front end's `inputs`."""


class FrontEnd(Protocol):
    """A front end."""

    inputs: tuple[str, ...]
    """Names of the net's inputs that it makes."""

    def reset(self) -> None:
        """As before the first sample."""

    def process(self, hops: Samples) -> Heard:
        """The next hops, float32 (k, hop)."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        ...

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""


def front_end_of(meta: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> FrontEnd:
    """The front end that a model's entry in the bundle names; the heart sound's where it names none."""
    front = meta.get("front", {"kind": "spectrum"})
    if front["kind"] == "spectrum":
        return SpectrumFrontEnd(arrays["window"])
    if front["kind"] == "lead":
        return LeadFrontEnd(int(meta["hop"]), int(meta["rate_hz"]), front)
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
    """The heart sound's: `wave` (1, 1, 16, 2) and `spectrum` (1, 1, 1, 64). Not finite counts as 0."""

    inputs: tuple[str, ...] = ("wave", "spectrum")

    def __init__(self, window: Samples) -> None:
        self._window = np.ascontiguousarray(window, dtype=np.float32)
        self._high_pass = hop_high_pass()
        self.reset()

    def reset(self) -> None:
        """As before the first sample."""
        self._tracker = Level()
        self._history = np.zeros(SPECTRUM_WINDOW, dtype=np.float32)
        self._edge = np.zeros(HOP + 2, dtype=np.float32)

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        return {
            "level": (self._tracker.value, self._tracker.hops),
            "history": self._history.copy(),
            "edge": self._edge.copy(),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self._tracker = Level()
        self._tracker.value, self._tracker.hops = kept["level"]
        self._history, self._edge = kept["history"].copy(), kept["edge"].copy()

    def process(self, hops: Samples) -> Heard:
        """The next hops, float32 (k, hop)."""
        if not np.isfinite(hops).all():
            hops = np.nan_to_num(hops, nan=0.0, posinf=0.0, neginf=0.0)
        passed = np.empty_like(hops)
        edge, rms = self._edge, []
        for hop, y in zip(hops, passed, strict=True):
            edge[2:] = hop
            y[:] = self._high_pass @ edge
            edge[0], edge[1] = y[-1], hop[-1]
            rms.append(float(y @ y) ** 0.5 * 0.25)  # root of the mean of 16
        levels_now = self._tracker.steps(rms)
        wave = np.empty((len(hops), 1, 1, HOP, 2), dtype=np.float32)
        spectrum = np.empty((len(hops), 1, 1, 1, SPECTRUM_WINDOW // 2), dtype=np.float32)
        history = self._history
        for k, level in enumerate(levels_now):
            gain = np.float32(1.0 / level) if level > SILENCE else np.float32(0.0)
            history[:-HOP] = history[HOP:]
            history[-HOP:] = passed[k]
            scaled = passed[k] * gain
            wave[k, 0, 0, :, 0] = scaled * np.float32(COARSE)
            wave[k, 0, 0, :, 1] = scaled * np.float32(FINE)
            bins = np.fft.rfft(history * self._window * gain)[1:]
            power = (bins.real**2 + bins.imag**2).astype(np.float32)
            spectrum[k, 0, 0, 0] = (
                np.log10(power + np.float32(SPECTRUM_FLOOR)) - np.float32(SPECTRUM_CENTRE)
            ) / np.float32(SPECTRUM_WIDTH)
        np.clip(wave, -1.0, 1.0, out=wave)
        return Heard(hops, passed, levels_now, (wave, spectrum))


def analyse(x: Samples, window: Samples) -> tuple[Samples, Samples]:
    """What the net hears of many sounds at once, in float: for training and calibration.

    x: (batch, n), n a multiple of 16, each from its start. window: (128,) of the spectrum.
    Returns wave (batch, 2, n) and spectrum (batch, 64, n / 16), float32. `SpectrumFrontEnd` computes the
    same hop by hop.
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

    def __init__(self, hop: int, rate_hz: int, front: Mapping[str, Any]) -> None:
        self._hop, self._rate_hz, self._front = hop, rate_hz, front
        self._slow = hop_high_pass(hop, rate_hz, float(front["slow_hz"]))
        self._fast = hop_high_pass(hop, rate_hz, float(front["fast_hz"]))
        self._ranges = np.array([1.0 / r for r in front["ranges"]], dtype=np.float32)
        self.reset()

    def _level(self) -> Level:
        return Level(self._hop / self._rate_hz, float(self._front["time_constant_s"]), FLAT_MV)

    def reset(self) -> None:
        """As before the first sample."""
        self._tracker = self._level()
        self._edges = np.zeros((2, self._hop + 2), dtype=np.float32)
        self._begun = False
        self._last = np.float32(0.0)

    def _fill(self, x: Samples) -> Samples:
        """Hold the last known sample (0 before the first)."""
        y = x.copy()
        known = np.flatnonzero(np.isfinite(y))
        if not len(known):
            y[:] = self._last
            return y
        y[: known[0]] = self._last if self._begun else y[known[0]]
        at = np.maximum.accumulate(np.where(np.isfinite(y), np.arange(len(y)), 0))
        held: Samples = y[at]
        return held

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

    def process(self, hops: Samples) -> Heard:
        """The next hops, float32 (k, hop)."""
        filled, passed, quick = np.empty_like(hops), np.empty_like(hops), np.empty_like(hops)
        (slow, fast), rms = self._edges, []
        for k, hop in enumerate(hops):
            filled[k] = hop = hop if np.isfinite(hop).all() else self._fill(hop)
            if not self._begun:
                slow[1] = hop[0]
                self._begun = True
            slow[2:] = hop
            passed[k] = y = self._slow @ slow
            slow[0], slow[1] = y[-1], hop[-1]
            fast[2:] = y
            quick[k] = z = self._fast @ fast
            fast[0], fast[1] = z[-1], y[-1]
            self._last = hop[-1]
            rms.append((float(z @ z) / self._hop) ** 0.5)
        levels_now = self._tracker.steps(rms)
        wave = np.empty((len(hops), 1, 1, self._hop, 3), dtype=np.float32)
        for k, level in enumerate(levels_now):
            gain = np.float32(1.0 / level) if level > FLAT_MV else np.float32(0.0)
            scaled = passed[k] * gain
            wave[k, 0, 0, :, 0] = scaled * self._ranges[0]
            wave[k, 0, 0, :, 1] = scaled * self._ranges[1]
            wave[k, 0, 0, :, 2] = quick[k] * gain * self._ranges[2]
        np.clip(wave, -1.0, 1.0, out=wave)
        return Heard(filled, passed, levels_now, (wave,))


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
