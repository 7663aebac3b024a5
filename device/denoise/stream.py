"""Clean a signal hop by hop while it comes in: the heart sound 24 ms behind (8 ms hop, 16 ms look-ahead), the
ECG 150 ms behind.

    hop ── less an offset (device.dsp.offset) ── hop
    hop ── front end (device.denoise.front_end) ── int8 net ── answers
    hop ── mask (device.denoise.mask), by the answers, in float32 ── finished hop ── strength ── out

Hops that come together go through each stage together: what a 20-ms block brings is one way through.

Rate, hop, look-ahead, front end and the form of the answers stand in the bundle: `denoiser` is the heart
sound's (2 kHz, ±1), `ecg` the ECG's (360 Hz, millivolts).

The int8 net only decides what to remove; that is taken from the unquantised signal in float32. So
quantisation costs little, and where the net finds nothing to remove the signal passes. `strength` 0 … 1
scales the removal.

Sample n of the output stands for the same instant as sample n of the input; flush() gives the rest, so that
as many samples come out as went in. Computation goes on an absolute grid of hops, so that any chopping of the
same signal gives the same bits. All state is in the open: `snapshot()`, `restore()`.

    python -I -m device.checks.figures.denoise FILE
        chopped against whole, stored vectors, delay, time a hop, missed ones
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from device.arrays import Samples
from device.denoise.front_end import analyse, front_end_of
from device.denoise.mask import mask_of, widen
from device.dsp.offset import OffsetFilter
from device.errors import StethopiError
from device.inference.bundle import Bundle, ModelEntry
from device.inference.interpreter import Interpreter
from device.rates import HOP, WORKING_RATE_HZ
from device.timing import StageTimer

__all__ = ["LOOK_AHEAD", "Denoiser", "denoise", "analyse", "vector_difference_db", "widen"]

LOOK_AHEAD = 2 * HOP
"""Samples of heart sound after a hop's end that are heard before the hop is given out: 16 ms."""

_TOGETHER = 4
"""At most so many hops go through the stages together: a block of 20 ms has three, and how long a step takes
is told as the mean of so few."""


class Denoiser:
    """The streaming stage. float32 at the model's rate in, the same length out; see the module's text.

    entry: the bundle's `denoiser` or `ecg`. strength: 0 gives the signal back as it came, 1 denoises fully;
    may be set at any time. budget_s: a step taking longer counts as missed in `step_times` (default: a
    quarter of the hop). Raises StethopiError when the model does not fit this code. Not thread safe.
    """

    def __init__(self, entry: ModelEntry, strength: float = 1.0, *, budget_s: float | None = None) -> None:
        self._net = Interpreter(entry.tflite)
        meta = entry.meta
        self.rate_hz, self.hop, self.look_ahead = (int(meta[k]) for k in ("rate_hz", "hop", "look_ahead"))
        known = (WORKING_RATE_HZ, HOP, LOOK_AHEAD)
        if entry.name == "denoiser" and (self.rate_hz, self.hop, self.look_ahead) != known:
            raise StethopiError(
                f"{entry.tflite}: made for {meta['rate_hz']} Hz, hop {meta['hop']}, look-ahead "
                f"{meta['look_ahead']}; this program streams {WORKING_RATE_HZ}, {HOP}, {LOOK_AHEAD}"
            )
        self.hop_s, self.look_ahead_s = self.hop / self.rate_hz, self.look_ahead / self.rate_hz
        self._front_end = front_end_of(meta, entry.arrays)
        self._mask = mask_of(meta, entry.arrays)
        # an ECG's baseline is its own network's business
        self._offset = OffsetFilter() if entry.name == "denoiser" else None
        net, inputs, outputs = self._net, meta["inputs"], meta["outputs"]
        inputs_at = {t["name"]: t["position"] for t in inputs}
        answers_at = {t["name"]: t["position"] for t in outputs}
        self._heard_in = [self._heard_by(entry, inputs_at[name]) for name in self._front_end.inputs]
        self._answers_out = []
        for name in self._mask.outputs:
            get, tensor = net.getter(answers_at[name]), net.outputs[answers_at[name]]
            scale, zero_point = np.float32(tensor.scale), np.float32(tensor.zero_point)
            self._answers_out.append((name, get, int(np.prod(tensor.shape)), scale, zero_point))
        states_in = [inputs[s["input"]]["position"] for s in meta["states"]]
        states_out = [outputs[s["output"]]["position"] for s in meta["states"]]
        self._states = [net.inputs[position] for position in states_in]
        self._set_states = [net.setter(position) for position in states_in]
        self._get_states = [net.getter(position) for position in states_out]
        self.strength = strength
        self.step_times = StageTimer("denoise", budget_s or self.hop_s / 4)
        self._reset()

    def _heard_by(
        self, entry: ModelEntry, position: int
    ) -> tuple[Callable[[Samples], None], np.float32, np.float32]:
        """How an input is set, one over its scale, its zero point."""
        tensor = self._net.inputs[position]
        if tensor.dtype != np.int8:
            raise StethopiError(f"{entry.tflite}: input {position} is not int8; install the bundle again")
        return self._net.setter(position), np.float32(1.0 / tensor.scale), np.float32(tensor.zero_point)

    @property
    def strength(self) -> float:
        """Of denoising: 0 is raw, delayed to match; 1 is all that the network says."""
        return float(self._strength)

    @strength.setter
    def strength(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"strength = {value}: not in 0 … 1")
        self._strength = np.float32(value)

    @property
    def delay_s(self) -> float:
        """From a sample coming in to its clean twin coming out: hop and look-ahead."""
        return self.hop_s + self.look_ahead_s

    def _reset(self) -> None:
        # the state of "heard nothing": real zero, which int8 writes as the zero point
        self.state = [np.full(state.shape, state.zero_point, dtype=np.int8) for state in self._states]
        if self._offset is not None:
            self._offset.reset()
        # what was taken out of the hops that are not given out yet
        self._taken: deque[Samples | None] = deque([None] * (self.look_ahead // self.hop))
        self._front_end.reset()
        self._mask.reset()
        self._mixed = self._strength
        self._pending = np.zeros(0, dtype=np.float32)
        self._hops = 0

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next sample depends on, copied. `restore` it in this or another Denoiser."""
        return {
            "state": [s.copy() for s in self.state],
            "offset": None if self._offset is None else self._offset.snapshot(),
            "taken": tuple(self._taken),
            "front end": self._front_end.snapshot(),
            "mask": self._mask.snapshot(),
            "mixed": self._mixed,
            "pending": self._pending.copy(),
            "hops": self._hops,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self.state = [s.copy() for s in kept["state"]]
        if self._offset is not None:
            self._offset.restore(kept["offset"])
        self._taken = deque(kept["taken"])
        self._front_end.restore(kept["front end"])
        self._mask.restore(kept["mask"])
        self._mixed = kept["mixed"]
        self._pending, self._hops = kept["pending"].copy(), kept["hops"]

    def process(self, x: Samples) -> Samples:
        """Take any number of samples, float32 (n,); give those that are finished.

        Samples that are not finite count as 0 (heart sound) or hold the one before (ECG).
        """
        hop = self.hop
        x = np.asarray(x, dtype=np.float32)
        if len(self._pending):
            x = np.concatenate([self._pending, x])
        whole = len(x) // hop
        self._pending = x[whole * hop :].copy()
        hops = x[: whole * hop].reshape(whole, hop)
        out = np.empty((whole, hop), dtype=np.float32)
        before = min(max(self.look_ahead // hop - self._hops, 0), whole)  # the first sample of the signal
        for at in range(0, whole, _TOGETHER):
            out[at : at + _TOGETHER] = self._steps(hops[at : at + _TOGETHER])
        return out[before:].reshape(-1)

    def flush(self) -> Samples:
        """The rest of the signal: as much as was put in minus what has come out. Afterwards a new one may
        begin.
        """
        total = self._hops * self.hop + len(self._pending)
        given = max(0, self._hops * self.hop - self.look_ahead)
        padding = -len(self._pending) % self.hop + self.look_ahead
        unknown = np.full(padding, np.nan, dtype=np.float32)  # the front end knows what silence is
        rest = self.process(unknown)[: total - given]
        self._reset()
        return rest

    def _steps(self, hops: Samples) -> Samples:
        """Hops in, float32 (k, hop); those that begin the look-ahead earlier out."""
        began_s = time.perf_counter()
        hops, taken = self._less_offset(hops)
        heard = self._front_end.process(hops)
        inputs = []
        for x, (put, inverse_scale, zero_point) in zip(heard.inputs, self._heard_in, strict=True):
            inputs.append((put, np.clip(np.rint(x * inverse_scale + zero_point), -128, 127).astype(np.int8)))
        answers = {}
        for name, _, n, _, _ in self._answers_out:
            answers[name] = np.empty((len(hops), n), np.float32)
        for k in range(len(hops)):
            for put, x in inputs:
                put(x[k])
            for put, state in zip(self._set_states, self.state, strict=True):
                put(state)
            self._net.invoke()
            for n, get in enumerate(self._get_states):
                self.state[n] = get()
            for name, get, _, scale, zero_point in self._answers_out:
                answers[name][k] = (get().reshape(-1).astype(np.float32) - zero_point) * scale
        raw, clean = self._mask.process(heard, answers)
        for k in range(len(hops)):
            strength: Any = self._strength
            if strength != self._mixed:
                # another strength is reached within this hop, without a click
                before = self._mixed if self._hops else strength
                self._mixed = strength
                strength = np.linspace(before, strength, self.hop + 1, dtype=np.float32)[1:]
            raw[k] -= strength * (raw[k] - clean[k])
            if (offset := taken[k]) is not None:  # as much stays as of everything else that is not heart
                raw[k] += (np.float32(1.0) - strength) * offset
            self._hops += 1
        self.step_times.add((time.perf_counter() - began_s) / len(hops), len(hops))
        return raw

    def _less_offset(self, hops: Samples) -> tuple[Samples, list[Samples | None]]:
        """Hops without an offset, and what was taken out of each of those that are given out now."""
        if self._offset is None:
            return hops, [None] * len(hops)
        less, finished = hops, []
        for k, hop in enumerate(hops):
            taken = self._offset.step(hop)
            if taken is not None:
                if less is hops:
                    less = hops.copy()
                less[k] -= taken
            self._taken.append(taken)
            finished.append(self._taken.popleft())
        return less, finished


def denoise(entry: ModelEntry, x: Samples, strength: float = 1.0) -> Samples:
    """A whole signal at the model's rate, (n,) → (n,), exactly as the stream computes it."""
    stage = Denoiser(entry, strength)
    return np.concatenate([stage.process(x), stage.flush()])


def vector_difference_db(bundle: Bundle, name: str = "denoiser") -> float:
    """How far below the expected signal this machine's error lies on the bundle's stored vector, dB (higher
    is better).

    100 when not one bit differs. Two interpreters differ in the last bits of int8; below 30 the machine
    computes wrongly.
    """
    vectors = bundle.vectors()
    expected = vectors[f"{name}/y"].astype(np.float64)
    found = denoise(bundle.model(name), vectors[f"{name}/x"])
    error = float(np.sum((found - expected) ** 2))
    return min(100.0, 10 * float(np.log10(np.sum(expected**2) / max(error, 1e-30))))
