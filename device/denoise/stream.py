"""Clean a signal hop by hop while it comes in: the heart sound 24 ms behind (8 ms hop, 16 ms look-ahead), the
ECG 150 ms behind.

    hop ── front end (device.denoise.front_end) ── int8 net ── answers
    hop ── removal (device.denoise.mask), by the answers, in float32 ── finished hop ── strength ── out

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

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from device.arrays import Int8Array, Samples
from device.denoise.front_end import MOST_HOPS, Scale, analyse, front_end_of
from device.denoise.mask import mask_of, widen
from device.errors import StethopiError
from device.inference.bundle import Bundle, ModelEntry
from device.inference.interpreter import Interpreter
from device.rates import HOP, WORKING_RATE_HZ
from device.timing import StageTimer

__all__ = ["LOOK_AHEAD", "Denoiser", "denoise", "analyse", "vector_difference_db", "widen"]

LOOK_AHEAD = 2 * HOP
"""Samples of heart sound after a hop's end that are heard before the hop is given out: 16 ms."""


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
        inputs, outputs = meta["inputs"], meta["outputs"]
        heard = {t["name"]: t["position"] for t in inputs}
        answers = {t["name"]: t["position"] for t in outputs}
        written = {name: self._net.outputs[position] for name, position in answers.items()}
        told = {name: (tensor.scale, tensor.zero_point) for name, tensor in written.items()}
        scales = {name: self._scale_of(entry, position) for name, position in heard.items()}
        self._front_end = front_end_of(meta, entry.arrays, scales)
        self._mask = mask_of(meta, entry.arrays, told)
        into = [self._net.input_memory(heard[name]) for name in self._front_end.inputs]
        self._heard = list(zip(into, map(_rows, self._front_end.heard), strict=True))
        self._answers = {}
        self._answered = []
        for name in self._mask.outputs:
            memory = self._net.output_memory(answers[name])
            self._answers[name] = np.empty((MOST_HOPS, len(memory)), dtype=np.int8)
            self._answered.append((memory, _rows(self._answers[name])))
        self._state_in = [inputs[s["input"]]["position"] for s in meta["states"]]
        self._state = [self._net.input_memory(p) for p in self._state_in]
        new = [self._net.output_memory(outputs[s["output"]]["position"]) for s in meta["states"]]
        self._turn = list(zip(self._state, new, strict=True))
        self.strength = strength
        self.step_times = StageTimer("denoise", budget_s or self.hop_s / 4)
        self._reset()

    def _scale_of(self, entry: ModelEntry, position: int) -> Scale:
        tensor = self._net.inputs[position]
        if tensor.dtype != np.int8:
            raise StethopiError(f"{entry.tflite}: input {position} is not int8; install the bundle again")
        return Scale(np.float32(1.0 / tensor.scale), np.float32(tensor.zero_point))

    @property
    def strength(self) -> float:
        """0: the signal as it came, delayed; 1: all of the cleaning."""
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
        for memory, position in zip(self._state, self._state_in, strict=True):
            memory[:] = np.full(len(memory), self._net.inputs[position].zero_point, dtype=np.int8).data
        self._front_end.reset()
        self._mask.reset()
        self._mixed = self._strength
        self._pending = np.zeros(0, dtype=np.float32)
        self._hops = 0

    @property
    def state(self) -> list[Int8Array]:
        """The net's state tensors, copied."""
        shapes = [self._net.inputs[position].shape for position in self._state_in]
        return [
            np.array(memory, dtype=np.int8).reshape(shape)
            for memory, shape in zip(self._state, shapes, strict=True)
        ]

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next sample depends on, copied. `restore` it in this or another Denoiser."""
        return {
            "state": self.state,
            "front end": self._front_end.snapshot(),
            "mask": self._mask.snapshot(),
            "mixed": self._mixed,
            "pending": self._pending.copy(),
            "hops": self._hops,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        for memory, state in zip(self._state, kept["state"], strict=True):
            memory[:] = state.reshape(-1).data
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
        # a product is finite only where every sample is, and costs less than looking at each
        at_once = MOST_HOPS if math.isfinite(x.dot(x)) or np.isfinite(x).all() else 1
        for start in range(0, whole, at_once):
            piece = hops[start : start + at_once]
            if at_once == 1 and not np.isfinite(piece).all():
                piece = self._front_end.fill(piece[0])[None]
            out[start : start + len(piece)] = self._steps(piece)
        # what lies before the first sample of the signal
        first = max(0, min(whole, self.look_ahead // hop - self._hops))
        self._hops += whole
        return out[first:].reshape(-1)

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
        """Hops in (k, hop), the hops that begin the look-ahead earlier out. Only the net goes hop by hop."""
        began_s = time.perf_counter()
        k = len(hops)
        self._front_end.steps(hops)
        net, turn, heard = self._net, self._turn, self._heard
        for n in range(k):
            for memory, rows in heard:
                memory[:] = rows[n]
            net.invoke()
            for memory, rows in self._answered:
                rows[n][:] = memory
            for state, new in turn:
                state[:] = new
        answers = {}
        for name, answer in self._answers.items():
            answers[name] = answer[:k]
        raw, clean = self._mask.steps(hops, self._front_end, answers)
        strength: Any = self._strength
        if strength != self._mixed:
            # another strength is reached within this hop, without a click
            wanted, before = strength, self._mixed if self._hops else strength
            strength = np.full(hops.shape, wanted, dtype=np.float32)
            strength[0] = np.linspace(before, wanted, self.hop + 1, dtype=np.float32)[1:]
            self._mixed = wanted
        removed: Samples = raw - clean
        if strength is not self._strength or strength != 1.0:
            removed *= strength
        cleaned = np.subtract(raw, removed, removed)
        self.step_times.add((time.perf_counter() - began_s) / k, k)
        return cleaned


def _rows(x: Int8Array) -> list[memoryview]:
    """The memory of each row, flat."""
    flat, size = x.data.cast("B").cast("b"), x[0].size
    return [flat[at : at + size] for at in range(0, len(flat), size)]


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
