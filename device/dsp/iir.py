"""Second-order sections: Butterworth designs, their response and delay, and a cascade that streams."""

from __future__ import annotations

import numpy as np

from device.arrays import Reals, Samples, Spectrum

__all__ = ["band_pass_sections", "gain_db", "group_delay_s", "Cascade"]


def band_pass_sections(order: int, low_hz: float, high_hz: float, rate_hz: int) -> Reals:
    """Second-order sections of a Butterworth band-pass, float64 (order, 6), rows b0 b1 b2 1 a1 a2.

    The poles of the low-pass prototype, moved to the band, by the bilinear transform with both edges
    prewarped (A. V. Oppenheim and R. W. Schafer, "Discrete-Time Signal Processing", 3rd edition, 7.2).
    """
    prototype = -np.exp(0.5j * np.pi * np.arange(1 - order, order, 2) / order)
    low, high = 2.0 * rate_hz * np.tan(np.pi * np.array([low_hz, high_hz]) / rate_hz)
    half = prototype * (high - low) / 2.0
    root = np.sqrt(half**2 - low * high + 0j)
    analogue = np.concatenate([half + root, half - root])
    poles = (2.0 * rate_hz + analogue) / (2.0 * rate_hz - analogue)
    real = np.sort(poles[np.abs(poles.imag) < 1e-12].real)
    pairs = [(p, p.conj()) for p in poles if p.imag >= 1e-12]
    pairs += list(zip(real[0::2], real[1::2], strict=True))
    pairs.sort(key=lambda pair: max(abs(pair[0]), abs(pair[1])))
    # each pair of poles gets one zero at 0 Hz and one at half the rate
    middle = 2.0 * np.arctan(np.sqrt(low * high) / (2.0 * rate_hz))
    z = np.exp(-1j * middle)
    rows = []
    for first, second in pairs:
        a1, a2 = -(first + second).real, (first * second).real
        gain = abs((1.0 + a1 * z + a2 * z * z) / (1.0 - z * z))
        rows.append([gain, 0.0, -gain, 1.0, a1, a2])
    return np.array(rows)


_UNIT = 64


def butterworth(order: int, edge_hz: float, rate_hz: int, high: bool) -> list[list[float]]:
    """Sections [b0, b1, b2, a0 = 1, a1, a2] of a Butterworth low or high pass of even order."""
    k = np.tan(np.pi * edge_hz / rate_hz)
    made = []
    for n in range(order // 2):
        # each pair of poles of the prototype: s² + s / q + 1
        over_q = 2.0 * np.sin(np.pi * (2 * n + 1) / (2 * order))
        a0 = 1.0 + k * over_q + k * k
        gain = (1.0 if high else k * k) / a0
        middle = -2.0 if high else 2.0
        made.append(
            [gain, middle * gain, gain, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k * over_q + k * k) / a0]
        )
    return made


def _response(part: Reals, z: Spectrum) -> Spectrum:
    response: Spectrum = (part[0] + part[1] * z + part[2] * z * z).astype(np.complex128)
    return response


def gain_db(sos: Reals, hz: Reals, rate_hz: int) -> Reals:
    """Gain of sections at frequencies (n,), in dB."""
    z = np.exp(-2j * np.pi * np.asarray(hz, np.float64) / rate_hz)
    total = np.ones(z.shape, np.complex128)
    for row in sos:
        total = total * _response(row[:3], z) / _response(row[3:], z)
    return np.asarray(20.0 * np.log10(np.maximum(np.abs(total), 1e-30)))


def group_delay_s(sos: Reals, hz: Reals, rate_hz: int) -> Reals:
    """Group delay of sections at frequencies (n,), in seconds: -dφ/dω, from the polynomials themselves."""
    z = np.exp(-2j * np.pi * np.asarray(hz, np.float64) / rate_hz)
    total = np.zeros(z.shape)
    for row in sos:
        for part, sign in ((row[:3], 1.0), (row[3:], -1.0)):
            rise = part[1] * z + 2.0 * part[2] * z * z
            whole = _response(part, z)
            # on the unit circle, where a high pass has its zeros, the limit is half a sample a zero
            safe = np.abs(whole) > 1e-9
            total += sign * np.where(safe, (rise / np.where(safe, whole, 1.0)).real, 1.0)
    return total / rate_hz


class Cascade:
    """Second-order sections in series, streaming: `process` gives a sample for each sample, at once.

    state: float64 (sections, 2), as it was before the unit of 64 samples that is under way (transposed direct
    form II); pending: what is there of that unit. Everything that the next sample depends on is in these two.

    A whole unit is one product of a fixed matrix with (state, samples); the samples of a unit that are still
    to come are zeros in it, which changes no bit of those before, so any chopping gives the same bits.
    """

    def __init__(self, sos: Reals) -> None:
        self.sos = np.asarray(sos, np.float64).reshape(len(sos), 6)
        self._step = _unit_matrix(self.sos)
        self.reset()

    def reset(self) -> None:
        """As if silence had been heard for ever."""
        self.state = np.zeros((len(self.sos), 2))
        self.pending = np.zeros(0)

    def process(self, x: Samples) -> Samples:
        """float32 (n,) → float32 (n,). What is not finite counts as 0."""
        x = np.asarray(x, np.float32)
        if not len(self.sos) or not len(x):
            return x
        if not np.isfinite(x).all():
            x = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
        states = self.state.size
        given = len(self.pending)
        sound = np.concatenate([self.pending, x])
        out = np.empty(len(sound))
        column = np.empty(states + _UNIT)
        for at in range(0, len(sound), _UNIT):
            unit = sound[at : at + _UNIT]
            column[:states] = self.state.reshape(-1)
            column[states : states + len(unit)] = unit
            column[states + len(unit) :] = 0.0
            found = self._step @ column
            out[at : at + len(unit)] = found[: len(unit)]
            if len(unit) == _UNIT:
                self.state = found[_UNIT:].reshape(-1, 2)
        self.pending = sound[len(sound) // _UNIT * _UNIT :].copy()
        return out[given:].astype(np.float32)


def _unit_matrix(sos: Reals) -> Reals:
    """(64 + states, states + 64): (state, samples) → (output, next state), from the recursion itself."""
    states = 2 * len(sos)
    # each column is one experiment: that state, or that sample, is 1 and all else 0
    basis = np.eye(states + _UNIT)
    state = basis[:states].reshape(len(sos), 2, states + _UNIT).copy()
    rows = []
    for n in range(_UNIT):
        x = basis[states + n]
        for k, (b0, b1, b2, _, a1, a2) in enumerate(sos):
            y = b0 * x + state[k, 0]
            state[k, 0] = b1 * x - a1 * y + state[k, 1]
            state[k, 1] = b2 * x - a2 * y
            x = y
        rows.append(x)
    return np.ascontiguousarray(np.concatenate([np.array(rows), state.reshape(states, states + _UNIT)]))
