"""Listening presets: what a stethoscope's bell and diaphragm let through, as causal IIR filters in NumPy.

    none          everything, untouched
    bell          20 to 200 Hz      low sounds: S3, S4, the rumble of mitral stenosis
    diaphragm     100 to 500 Hz     high sounds: S1, S2, the hiss of regurgitation
    extended      20 to 800 Hz      all that the working rate holds of a heart

Each is a Butterworth high pass of order 2 at its lower edge and a low pass of order 4 at its upper one, both
3 dB down there, in second-order sections. The sections come from the poles of the analogue prototype by the
bilinear transform with the edge prewarped (A. V. Oppenheim and R. W. Schafer, "Discrete-Time Signal
Processing", 3rd edition, 7.2), computed here for the rate at hand.

They delay what they pass by little: the group delay at 2 kHz in the middle of the band (the geometric mean of
its edges) is 3.3 ms for bell, 1.3 ms for diaphragm and 0.5 ms for extended; `group_delay_s` tells it at any
frequency.

    python -I -m device.listening.presets [RATE_HZ]     gain and group delay of each preset
"""

from __future__ import annotations

import numpy as np

from device.arrays import Reals, Samples
from device.dsp.iir import Cascade, butterworth, gain_db, group_delay_s
from device.rates import WORKING_RATE_HZ

__all__ = ["BANDS_HZ", "PRESETS", "Preset", "sections"]

BANDS_HZ = {"bell": (20.0, 200.0), "diaphragm": (100.0, 500.0), "extended": (20.0, 800.0)}
"""Lower and upper edge of each preset: there it is 3 dB down."""

PRESETS = ("none", *BANDS_HZ)

_LOW_ORDER = 2
_HIGH_ORDER = 4

_WARM_S = 0.06
_FADE_S = 0.02


def sections(preset: str, rate_hz: int = WORKING_RATE_HZ) -> Reals:
    """Second-order sections of a preset, float64 (3, 6), rows b0 b1 b2 1 a1 a2; (0, 6) for "none".

    KeyError for another name. ValueError for a rate that cannot hold the band.
    """
    if preset == "none":
        return np.zeros((0, 6))
    low_hz, high_hz = BANDS_HZ[preset]
    if rate_hz <= 2 * high_hz:
        raise ValueError(f"{preset} at {rate_hz} Hz: its band reaches up to {high_hz:g} Hz")
    return np.array(
        butterworth(_LOW_ORDER, low_hz, rate_hz, high=True)
        + butterworth(_HIGH_ORDER, high_hz, rate_hz, False)
    )


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
        thread.
        """
        if preset not in PRESETS:
            raise KeyError(preset)
        self.name = preset

    def reset(self) -> None:
        """As if silence had been heard for ever; a change under way is over."""
        self._now, self._heard = Cascade(sections(self.name, self.rate_hz)), self.name
        self._coming = None

    def process(self, x: Samples) -> Samples:
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
        sys.exit("usage: python -I -m device.listening.presets [RATE_HZ]")
    try:
        print(_figures(int(sys.argv[1]) if len(sys.argv) == 2 else WORKING_RATE_HZ))
    except ValueError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        sys.exit(2)
