"""Clean a signal hop by hop while it comes in: the heart sound 24 ms behind (8 ms hop, 16 ms look-ahead), the
ECG 150 ms behind.

    hop ── less an offset (device.dsp.offset) ── hop
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

from collections.abc import Mapping
from typing import Any

import numpy as np

from device.denoise.front_end import analyse, front_end_of
from device.denoise.mask import mask_of, widen
from device.dsp.offset import OffsetFilter
from device.errors import StethopiError
from device.inference.bundle import Bundle, ModelEntry
from device.inference.interpreter import Interpreter, dequantise
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
        self._hearing = front_end_of(meta, entry.arrays)
        self._removal = mask_of(meta, entry.arrays)
        # an ECG's baseline is its own network's business
        self._offset = OffsetFilter() if entry.name == "denoiser" else None
        inputs, outputs = meta["inputs"], meta["outputs"]
        by_name = {t["name"]: t for t in inputs}
        answers = {t["name"]: t for t in outputs}
        self._heard_in = [(name, *self._scale_of(entry, by_name[name])) for name in self._hearing.inputs]
        self._state_in = [inputs[s["input"]]["position"] for s in meta["states"]]
        self._state_out = [outputs[s["output"]]["position"] for s in meta["states"]]
        self._answers_out = [(name, answers[name]["position"]) for name in self._removal.outputs]
        self.strength = strength
        self.step_times = StageTimer("denoise", budget_s or self.hop_s / 4)
        self._reset()

    def _scale_of(self, entry: ModelEntry, said: Mapping[str, Any]) -> tuple[int, np.float32, np.float32]:
        """An input's position, one over its scale, its zero point."""
        position = said["position"]
        tensor = self._net.inputs[position]
        if tensor.dtype != np.int8:
            raise StethopiError(f"{entry.tflite}: input {position} is not int8; install the bundle again")
        return position, np.float32(1.0 / tensor.scale), np.float32(tensor.zero_point)

    @property
    def strength(self) -> float:
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
        inputs = self._net.inputs
        # the state of "heard nothing": real zero, which int8 writes as the zero point
        self.state = [np.full(inputs[p].shape, inputs[p].zero_point, dtype=np.int8) for p in self._state_in]
        self._hearing.reset()
        self._removal.reset()
        if self._offset:
            self._offset.reset()
        self._taken = np.zeros(self.look_ahead + self.hop, dtype=np.float32)
        self._mixed = self._strength
        self._pending = np.zeros(0, dtype=np.float32)
        self._hops = 0

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next sample depends on, copied. `restore` it in this or another Denoiser."""
        return {
            "state": [s.copy() for s in self.state],
            "hearing": self._hearing.snapshot(),
            "removal": self._removal.snapshot(),
            "offset": self._offset.snapshot() if self._offset else (),
            "taken": self._taken.copy(),
            "mixed": self._mixed,
            "pending": self._pending.copy(),
            "hops": self._hops,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        self.state = [s.copy() for s in kept["state"]]
        self._hearing.restore(kept["hearing"])
        self._removal.restore(kept["removal"])
        if self._offset:
            self._offset.restore(kept["offset"])
        self._taken = kept["taken"].copy()
        self._mixed = kept["mixed"]
        self._pending, self._hops = kept["pending"].copy(), kept["hops"]

    def process(self, x: np.ndarray) -> np.ndarray:
        """Take any number of samples, float32 (n,); give those that are finished.

        Samples that are not finite count as 0 (heart sound) or hold the one before (ECG).
        """
        hop = self.hop
        x = np.asarray(x, dtype=np.float32)
        if len(self._pending):
            x = np.concatenate([self._pending, x])
        whole = len(x) // hop
        self._pending = x[whole * hop :].copy()
        out = np.empty((whole, hop), dtype=np.float32)
        first = 0
        for k in range(whole):
            with self.step_times:
                done = self._step(x[k * hop : (k + 1) * hop])
            out[k] = done
            self._hops += 1
            if self._hops * hop <= self.look_ahead:
                first = k + 1  # before the first sample of the signal
        return out[first:].reshape(-1)

    def flush(self) -> np.ndarray:
        """The rest of the signal: as much as was put in minus what has come out. Afterwards a new one may
        begin."""
        total = self._hops * self.hop + len(self._pending)
        given = max(0, self._hops * self.hop - self.look_ahead)
        padding = -len(self._pending) % self.hop + self.look_ahead
        unknown = np.full(padding, np.nan, dtype=np.float32)  # the front end knows what silence is
        rest = self.process(unknown)[: total - given]
        self._reset()
        return rest

    def _step(self, hop: np.ndarray) -> np.ndarray:
        """One hop in, the hop that begins the look-ahead earlier out."""
        taken = self._offset.step(hop) if self._offset else None
        if taken is not None:
            hop = hop - taken
            self._taken[: -self.hop] = self._taken[self.hop :]
            self._taken[-self.hop :] = taken
        if not np.isfinite(hop).all():
            hop = self._hearing.fill(hop)
        heard = self._hearing.step(hop)
        net = self._net
        for name, position, inverse_scale, zero_point in self._heard_in:
            net.set(position, _to_int8(heard[name], inverse_scale, zero_point))
        for position, state in zip(self._state_in, self.state, strict=True):
            net.set(position, state)
        net.invoke()
        self.state = [net.get(position) for position in self._state_out]
        answers = {}
        for name, position in self._answers_out:
            tensor = net.outputs[position]
            answers[name] = dequantise(net.get(position), tensor.scale, tensor.zero_point).reshape(-1)
        raw, clean = self._removal.step(hop, self._hearing, answers)
        strength: Any = self._strength
        if strength != self._mixed:
            # another strength is reached within this hop, without a click
            wanted, before = strength, self._mixed if self._hops else strength
            strength = np.linspace(before, wanted, self.hop + 1, dtype=np.float32)[1:]
            self._mixed = wanted
        result: np.ndarray = raw - strength * (raw - clean)
        if taken is not None:  # as much of the offset stays as of everything else that is not heart
            result = result + (np.float32(1.0) - strength) * self._taken[: self.hop]
        return result


def _to_int8(x: np.ndarray, inverse_scale: np.float32, zero_point: np.float32) -> np.ndarray:
    return np.clip(np.rint(x * inverse_scale + zero_point), -128, 127).astype(np.int8)


def denoise(entry: ModelEntry, x: np.ndarray, strength: float = 1.0) -> np.ndarray:
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
