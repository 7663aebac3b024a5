"""Clean the heart sound hop by hop while somebody listens, 24 ms behind the sound (8 ms hop, 16 ms
look-ahead).

    hop of 16 ── high pass ── level ──┬── wave, coarse and fine ──┐
                                      └── spectrum of last 64 ms ─┴─ int8 net ── shares to remove
    frame that ends here ── analysis ── times shares of the bands ── synthesis ── taken from the sound
    finished hop of 16 ── less the share in time ── out

The int8 net only decides what to remove; that is taken from the unquantised sound in float32. So
quantisation costs little, and where the net finds nothing to remove the sound passes bit by bit. `strength`
0 … 1 scales the removal.

Sample n of the output stands for the same instant as sample n of the input; flush() gives the rest, so that
as many samples come out as went in. Computation goes on an absolute grid of 16 samples, so that any chopping
of the same sound gives the same bits. All state is in the open: `snapshot()`, `restore()`.

    python -m device.denoise FILE      chopped against whole, stored vectors, delay, time a hop, missed ones
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from device.bundle import Bundle, ModelEntry
from device.errors import StethopiError
from device.level import SILENCE, Level, hop_high_pass, levels
from device.rates import HOP, HOP_S, WORKING_RATE_HZ
from device.runtime import Interpreter, dequantise
from device.timing import StageTimer

__all__ = ["LOOK_AHEAD", "Denoiser", "denoise", "hear", "vector_difference_db", "widen"]

LOOK_AHEAD = 2 * HOP
"""Samples after a hop's end that are heard before the hop is given out: 16 ms."""

SPECTRUM_WINDOW = 128
COARSE = 1.0 / 16.0
FINE = 1.0
SPECTRUM_FLOOR = 1e-5
SPECTRUM_CENTRE = -1.5
SPECTRUM_WIDTH = 1.5


def hear(x: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the net hears of many sounds at once, in float: for training and calibration.

    x: (batch, n), n a multiple of 16, each from its start. window: (128,) of the spectrum.
    Returns wave (batch, 2, n) and spectrum (batch, 64, n / 16), float32. `Denoiser` computes the same hop by
    hop.
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


def widen(shares: Any) -> Any:
    """The net's answer in 0 … 1 slightly widened, so that both ends (keep all, remove all) are exactly
    reached."""
    return (shares * 1.04 - 0.02).clip(0.0, 1.0)


class Denoiser:
    """The streaming stage. float32 at 2 kHz in, the same length out; see the module's text.

    entry: the bundle's `denoiser`. strength: 0 gives the sound back as it came, 1 denoises fully; may be set
    at any time. budget_s: a step taking longer counts as missed in `step_times` (a quarter of the hop).
    Raises StethopiError when the model does not fit this code. Not thread safe.
    """

    hop_s = HOP_S
    look_ahead_s = LOOK_AHEAD / WORKING_RATE_HZ

    def __init__(self, entry: ModelEntry, strength: float = 1.0, *, budget_s: float = HOP_S / 4) -> None:
        self._net = Interpreter(entry.tflite)
        meta = entry.meta
        if (meta["rate_hz"], meta["hop"], meta["look_ahead"]) != (WORKING_RATE_HZ, HOP, LOOK_AHEAD):
            raise StethopiError(
                f"{entry.tflite}: made for {meta['rate_hz']} Hz, hop {meta['hop']}, look-ahead "
                f"{meta['look_ahead']}; this program streams {WORKING_RATE_HZ}, {HOP}, {LOOK_AHEAD}"
            )
        inputs, outputs = meta["inputs"], meta["outputs"]
        by_name = {t["name"]: t for t in inputs}
        self._wave_in, self._spectrum_in = by_name["wave"]["position"], by_name["spectrum"]["position"]
        self._state_in = [inputs[s["input"]]["position"] for s in meta["states"]]
        self._state_out = [outputs[s["output"]]["position"] for s in meta["states"]]
        self._shares_out = outputs[0]["position"]
        for position in (self._wave_in, self._spectrum_in):
            if self._net.inputs[position].dtype != np.int8:
                raise StethopiError(f"{entry.tflite}: input {position} is not int8; install the bundle again")
        self._wave_scale = np.float32(1.0 / self._net.inputs[self._wave_in].scale)
        self._wave_zero = np.float32(self._net.inputs[self._wave_in].zero_point)
        self._spectrum_scale = np.float32(1.0 / self._net.inputs[self._spectrum_in].scale)
        self._spectrum_zero = np.float32(self._net.inputs[self._spectrum_in].zero_point)
        a = entry.arrays
        self._analysis = np.ascontiguousarray(a["analysis"], dtype=np.float32)
        self._synthesis = np.ascontiguousarray(a["synthesis"], dtype=np.float32)
        self._spread = np.ascontiguousarray(a["spread"], dtype=np.float32)
        self._interpolation = np.ascontiguousarray(a["interpolation"], dtype=np.float32)
        self._window = np.ascontiguousarray(a["window"], dtype=np.float32)
        self._high_pass = hop_high_pass()
        self._bands = self._spread.shape[1]
        self._frame = self._analysis.shape[1]
        self._reach = self._synthesis.shape[0]
        self.strength = strength
        self.step_times = StageTimer("denoise", budget_s)
        self._wave = np.empty((1, 1, HOP, 2), dtype=np.float32)
        self._points = np.zeros(self._interpolation.shape[1], dtype=np.float32)
        self._reset()

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
        """From a sample coming in to its clean twin coming out: hop and look-ahead, 24 ms."""
        return self.hop_s + self.look_ahead_s

    def _reset(self) -> None:
        inputs = self._net.inputs
        # the state of "heard nothing": real zero, which int8 writes as the zero point
        self.state = [np.full(inputs[p].shape, inputs[p].zero_point, dtype=np.int8) for p in self._state_in]
        self._level = Level()
        self._sound = np.zeros(self._frame, dtype=np.float32)
        self._passed = np.zeros(SPECTRUM_WINDOW, dtype=np.float32)
        self._edge = np.zeros(HOP + 2, dtype=np.float32)
        self._removed = np.zeros(self._reach, dtype=np.float32)
        self._last_point = np.float32(0.0)
        self._mixed = self._strength
        self._pending = np.zeros(0, dtype=np.float32)
        self._hops = 0

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next sample depends on, copied. `restore` it in this or another Denoiser."""
        return {
            "state": [s.copy() for s in self.state],
            "level": (self._level.value, self._level.hops),
            "sound": self._sound.copy(),
            "passed": self._passed.copy(),
            "edge": self._edge.copy(),
            "removed": self._removed.copy(),
            "last_point": self._last_point,
            "mixed": self._mixed,
            "pending": self._pending.copy(),
            "hops": self._hops,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        self.state = [s.copy() for s in kept["state"]]
        self._level = Level()
        self._level.value, self._level.hops = kept["level"]
        self._sound, self._passed, self._edge = (
            kept["sound"].copy(),
            kept["passed"].copy(),
            kept["edge"].copy(),
        )
        self._removed, self._last_point = kept["removed"].copy(), kept["last_point"]
        self._mixed = kept["mixed"]
        self._pending, self._hops = kept["pending"].copy(), kept["hops"]

    def process(self, x: np.ndarray) -> np.ndarray:
        """Take any number of samples, float32 (n,); give those that are finished. Not finite counts as 0."""
        x = np.asarray(x, dtype=np.float32)
        if not np.isfinite(x).all():
            x = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
        if len(self._pending):
            x = np.concatenate([self._pending, x])
        whole = len(x) // HOP
        self._pending = x[whole * HOP :].copy()
        out = np.empty((whole, HOP), dtype=np.float32)
        first = 0
        for k in range(whole):
            with self.step_times:
                done = self._step(x[k * HOP : (k + 1) * HOP])
            out[k] = done
            self._hops += 1
            if self._hops * HOP <= LOOK_AHEAD:
                first = k + 1  # before the first sample of the sound
        return out[first:].reshape(-1)

    def flush(self) -> np.ndarray:
        """The rest of the sound: as much as was put in minus what has come out. Afterwards a new sound may
        begin."""
        total = self._hops * HOP + len(self._pending)
        given = max(0, self._hops * HOP - LOOK_AHEAD)
        padding = -len(self._pending) % HOP + LOOK_AHEAD
        rest = self.process(np.zeros(padding, dtype=np.float32))[: total - given]
        self._reset()
        return rest

    def _step(self, hop: np.ndarray) -> np.ndarray:
        """One hop in, the hop that begins 32 samples earlier out."""
        # what the net hears
        edge = self._edge
        edge[2:] = hop
        passed = self._high_pass @ edge
        edge[0], edge[1] = passed[-1], hop[-1]
        level = self._level.step(float(passed @ passed) ** 0.5 * 0.25)  # root of the mean of 16
        gain = np.float32(1.0 / level) if level > SILENCE else np.float32(0.0)
        history = self._passed
        history[:-HOP] = history[HOP:]
        history[-HOP:] = passed
        wave = self._wave
        scaled = passed * gain
        wave[0, 0, :, 0] = scaled * np.float32(COARSE)
        wave[0, 0, :, 1] = scaled * np.float32(FINE)
        np.clip(wave, -1.0, 1.0, out=wave)
        bins = np.fft.rfft(history * self._window * gain)[1:]
        power = (bins.real**2 + bins.imag**2).astype(np.float32)
        spectrum = (np.log10(power + np.float32(SPECTRUM_FLOOR)) - np.float32(SPECTRUM_CENTRE)) / np.float32(
            SPECTRUM_WIDTH
        )

        # the net
        net = self._net
        net.set(self._wave_in, _to_int8(wave, self._wave_scale, self._wave_zero))
        net.set(
            self._spectrum_in,
            _to_int8(spectrum.reshape(1, 1, 1, -1), self._spectrum_scale, self._spectrum_zero),
        )
        for position, state in zip(self._state_in, self.state, strict=True):
            net.set(position, state)
        net.invoke()
        self.state = [net.get(position) for position in self._state_out]
        answer = net.outputs[self._shares_out]
        shares = widen(dequantise(net.get(self._shares_out), answer.scale, answer.zero_point).reshape(-1))

        # what is taken away
        sound = self._sound
        sound[:-HOP] = sound[HOP:]
        sound[-HOP:] = hop
        found = (self._analysis @ sound) * (self._spread @ shares[: self._bands])
        removed = self._removed
        removed[:-HOP] = removed[HOP:]
        removed[-HOP:] = 0.0
        removed += self._synthesis @ found
        points = self._points
        points[0] = self._last_point
        points[1:] = shares[self._bands :]
        self._last_point = points[-1]
        raw = sound[-LOOK_AHEAD - HOP : -LOOK_AHEAD]
        clean = (raw - removed[:HOP]) * (np.float32(1.0) - self._interpolation @ points)
        strength: Any = self._strength
        if strength != self._mixed:
            # another strength is reached within this hop, without a click
            wanted, before = strength, self._mixed if self._hops else strength
            strength = np.linspace(before, wanted, HOP + 1, dtype=np.float32)[1:]
            self._mixed = wanted
        result: np.ndarray = raw - strength * (raw - clean)
        return result


def _to_int8(x: np.ndarray, inverse_scale: np.float32, zero_point: np.float32) -> np.ndarray:
    return np.clip(np.rint(x * inverse_scale + zero_point), -128, 127).astype(np.int8)


def denoise(entry: ModelEntry, x: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """A whole sound at 2 kHz, (n,) → (n,), exactly as the stream computes it."""
    stage = Denoiser(entry, strength)
    return np.concatenate([stage.process(x), stage.flush()])


def vector_difference_db(bundle: Bundle) -> float:
    """How far below the expected sound this machine's error lies on the bundle's stored vector, dB (higher
    is better).

    100 when not one bit differs. Two interpreters differ in the last bits of int8; below 30 the machine
    computes wrongly.
    """
    vectors = bundle.vectors()
    expected = vectors["denoiser/y"].astype(np.float64)
    found = denoise(bundle.model("denoiser"), vectors["denoiser/x"])
    error = float(np.sum((found - expected) ** 2))
    return min(100.0, 10 * float(np.log10(np.sum(expected**2) / max(error, 1e-30))))


def _figures(path: str, folder: Path | None) -> tuple[str, bool]:
    from device.bundle import load
    from device.resample import Decimator
    from device.sources.files import read_sound

    bundle = load(folder)
    entry = bundle.model("denoiser")
    sound = read_sound(path)
    decimator = Decimator(sound.rate_hz)
    x = np.concatenate([decimator.process(sound.samples), decimator.flush()])
    stage = Denoiser(entry)
    whole = np.concatenate([stage.process(x), stage.flush()])
    times = stage.step_times
    chopped = Denoiser(entry)
    rng = np.random.default_rng(0)
    parts, at = [], 0
    while at < len(x):
        size = int(rng.integers(0, 700))
        parts.append(chopped.process(x[at : at + size]))
        at += size
    parts.append(chopped.flush())
    apart = float(np.max(np.abs(np.concatenate(parts) - whole), initial=0.0))
    vector_db = vector_difference_db(bundle)
    worst = max(
        Decimator(rate).delay_s
        for rate in (2000, 4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000)
    )
    total = worst + stage.delay_s
    p50, p99 = times.p50 or 0.0, times.p99 or 0.0
    fine = apart == 0.0 and len(whole) == len(x) and vector_db >= 30.0 and total <= 0.040
    text = (
        f"bundle {bundle.version}, {len(x) / WORKING_RATE_HZ:.1f} s of sound\n"
        f"chopped vs whole: max difference {apart:g} (limit 0)\n"
        f"stored vectors: error {vector_db:.1f} dB below the expected (limit 30; 100: bit by bit)\n"
        f"delay {total * 1e3:.1f} ms (limit 40): decimator {worst * 1e3:.2f} at the worst rate, hop "
        f"{stage.hop_s * 1e3:.0f}, look-ahead {stage.look_ahead_s * 1e3:.0f}\n"
        f"step p50 {p50 * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms of {HOP_S * 1e3:.0f}; budget "
        f"{times.budget_s * 1e3:.0f} ms, missed {times.missed} of {times.count}"
    )
    return text, fine


def main(argv: list[str] | None = None) -> int:
    import argparse
    import sys

    parser = argparse.ArgumentParser(
        prog="python -m device.denoise", description="Check the denoiser on a recording."
    )
    parser.add_argument("file", help="WAV or FLAC")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest there is)")
    options = parser.parse_args(argv)
    try:
        text, fine = _figures(options.file, options.bundle)
    except StethopiError as error:
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
