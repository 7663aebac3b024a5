"""Listening presets: what a stethoscope's bell and diaphragm let through, as causal IIR filters in NumPy.

    none          everything, untouched
    bell          20 to 200 Hz      low sounds: S3, S4, the rumble of mitral stenosis
    diaphragm     100 to 500 Hz     high sounds: S1, S2, the hiss of regurgitation
    extended      20 to 800 Hz      all that the working rate holds of a heart

Each is a Butterworth high pass of order 2 at its lower edge and a low pass of order 4 at its upper
one, both 3 dB down there, in second-order sections. The sections come from the poles of the analogue
prototype by the bilinear transform with the edge prewarped (A. V. Oppenheim and R. W. Schafer, "Discrete-Time
Signal Processing", 3rd edition, 7.2), computed here for the rate at hand.

They delay what they pass by little: the group delay at 2 kHz in the middle of the band (the geometric mean of
its edges) is 3.3 ms for bell, 1.3 ms for diaphragm and 0.5 ms for extended; `group_delay_s` tells it at any
frequency.

    python -I -m device.presets [RATE_HZ]     gain and group delay of each preset
"""

from __future__ import annotations

import numpy as np

from device.rates import WORKING_RATE_HZ

__all__ = ["BANDS_HZ", "PRESETS", "Cascade", "Preset", "gain_db", "group_delay_s", "sections"]

BANDS_HZ = {"bell": (20.0, 200.0), "diaphragm": (100.0, 500.0), "extended": (20.0, 800.0)}
"""Lower and upper edge of each preset: there it is 3 dB down."""

PRESETS = ("none", *BANDS_HZ)

_LOW_ORDER = 2
_HIGH_ORDER = 4
_UNIT = 64
_WARM_S = 0.06
_FADE_S = 0.02


def _butterworth(order: int, edge_hz: float, rate_hz: int, high: bool) -> list[list[float]]:
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


def sections(preset: str, rate_hz: int = WORKING_RATE_HZ) -> np.ndarray:
    """Second-order sections of a preset, float64 (3, 6), rows b0 b1 b2 1 a1 a2; (0, 6) for "none".

    KeyError for another name. ValueError for a rate that cannot hold the band.
    """
    if preset == "none":
        return np.zeros((0, 6))
    low_hz, high_hz = BANDS_HZ[preset]
    if rate_hz <= 2 * high_hz:
        raise ValueError(f"{preset} at {rate_hz} Hz: its band reaches up to {high_hz:g} Hz")
    return np.array(
        _butterworth(_LOW_ORDER, low_hz, rate_hz, high=True)
        + _butterworth(_HIGH_ORDER, high_hz, rate_hz, False)
    )


def _response(part: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (part[0] + part[1] * z + part[2] * z * z).astype(np.complex128)


def gain_db(sos: np.ndarray, hz: np.ndarray, rate_hz: int) -> np.ndarray:
    """Gain of sections at frequencies (n,), in dB."""
    z = np.exp(-2j * np.pi * np.asarray(hz, np.float64) / rate_hz)
    total = np.ones(z.shape, np.complex128)
    for row in sos:
        total = total * _response(row[:3], z) / _response(row[3:], z)
    return np.asarray(20.0 * np.log10(np.maximum(np.abs(total), 1e-30)))


def group_delay_s(sos: np.ndarray, hz: np.ndarray, rate_hz: int) -> np.ndarray:
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

    def __init__(self, sos: np.ndarray) -> None:
        self.sos = np.asarray(sos, np.float64).reshape(len(sos), 6)
        self._step = _unit_matrix(self.sos)
        self.reset()

    def reset(self) -> None:
        """As if silence had been heard for ever."""
        self.state = np.zeros((len(self.sos), 2))
        self.pending = np.zeros(0)

    def process(self, x: np.ndarray) -> np.ndarray:
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


def _unit_matrix(sos: np.ndarray) -> np.ndarray:
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


class Preset:
    """A preset that can be changed while it runs, without a click.

    A new one first listens along unheard for 60 ms, so that its own start has died away, and is then faded in
    over 20 ms while the old one is faded out. A wish that comes meanwhile waits for the end of the fade.
    """

    def __init__(self, preset: str = "none", rate_hz: int = WORKING_RATE_HZ) -> None:
        self.rate_hz = rate_hz
        self.name = preset
        """The one that was asked for last."""
        self._heard = preset
        self._now = Cascade(sections(preset, rate_hz))
        self._coming: tuple[str, Cascade] | None = None
        self._at = 0  # samples since the coming one began to listen
        self._warm = round(_WARM_S * rate_hz)
        self._fade = round(_FADE_S * rate_hz)

    def change(self, preset: str) -> None:
        """Another preset from the next sample on. KeyError for a name that is none. May be called by any
        thread."""
        if preset not in PRESETS:
            raise KeyError(preset)
        self.name = preset

    def reset(self) -> None:
        """As if silence had been heard for ever; a change under way is over."""
        self._now, self._heard = Cascade(sections(self.name, self.rate_hz)), self.name
        self._coming = None

    def process(self, x: np.ndarray) -> np.ndarray:
        """float32 (n,) → float32 (n,), at once."""
        x = np.asarray(x, np.float32)
        pieces = []
        while len(x):
            if self._coming is None and self.name != self._heard:
                wished = self.name
                self._coming, self._at = (wished, Cascade(sections(wished, self.rate_hz))), 0
            if self._coming is None:
                pieces.append(self._now.process(x))
                break
            n = min(len(x), self._warm + self._fade - self._at)
            part, x = x[:n], x[n:]
            name, coming = self._coming
            old, new = self._now.process(part), coming.process(part)
            at = np.arange(self._at + 1, self._at + 1 + n) - self._warm
            share = 0.5 - 0.5 * np.cos(np.pi * np.clip(at / self._fade, 0.0, 1.0))
            pieces.append((old + share * (new - old)).astype(np.float32))
            self._at += n
            if self._at == self._warm + self._fade:
                self._now, self._heard, self._coming = coming, name, None
        return np.concatenate(pieces) if pieces else x


def _figures(rate_hz: int) -> str:
    lines = [f"at {rate_hz} Hz   gain in dB, group delay in ms"]
    for name, (low_hz, high_hz) in BANDS_HZ.items():
        sos = sections(name, rate_hz)
        at = np.array(
            [low_hz / 2, low_hz, np.sqrt(low_hz * high_hz), high_hz, min(2 * high_hz, 0.49 * rate_hz)]
        )
        told = "   ".join(
            f"{hz:.0f} Hz {gain:+.1f} dB {1e3 * delay:.1f} ms"
            for hz, gain, delay in zip(
                at, gain_db(sos, at, rate_hz), group_delay_s(sos, at, rate_hz), strict=True
            )
        )
        lines.append(f"{name:<10} {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    if len(sys.argv) > 2 or (len(sys.argv) == 2 and not sys.argv[1].isdecimal()):
        sys.exit("usage: python -I -m device.presets [RATE_HZ]")
    try:
        print(_figures(int(sys.argv[1]) if len(sys.argv) == 2 else WORKING_RATE_HZ))
    except ValueError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        sys.exit(2)
