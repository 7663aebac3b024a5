"""How loud the sound is, tracked slowly and causally, so that a whisper and a shout give the same result.

A denoiser hears `sound * gain` with `gain = 1 / level`, one gain a hop; its answer is applied to the sound
itself, so the gain never touches what is heard. The level is the running mean of each hop's root mean
square: all hops so far count alike at the start (so there is no wrong first guess), later with a time
constant of two seconds. A hop louder than eight times the level counts as eight times (a knock on the chest
piece must not deafen the net for seconds). No absolute threshold: `k * x` has exactly `k` times the level of
`x`. Hops of digital silence count nothing. Sound that comes in is tracked by `Level` of the denoiser's front
end.

    python -I -m device.checks.figures.level FILE      level at each second, in dB of full scale
"""

from __future__ import annotations

import numpy as np

from device.arrays import Floats, Reals, Samples
from device.rates import HOP, HOP_S, WORKING_RATE_HZ

__all__ = ["HIGH_PASS_HZ", "LOUDEST", "SILENCE", "hop_high_pass", "levels", "share_of"]

HIGH_PASS_HZ = 15.0
"""Corner of the first-order high pass before the level: an offset or slow drift of the microphone is not
loudness."""

TIME_CONSTANT_S = 2.0
LOUDEST = 8.0
SILENCE = 1e-9
"""Root mean square below which a hop counts as digital silence (one step of 24 bit is 1.2e-7)."""


def share_of(hop_s: float, time_constant_s: float) -> float:
    """Weight of one hop in the running mean."""
    return 1.0 - float(np.exp(-hop_s / time_constant_s))


def hop_high_pass(hop: int = HOP, rate_hz: int = WORKING_RATE_HZ, corner_hz: float = HIGH_PASS_HZ) -> Samples:
    """The high pass as one matrix a hop, float32 (hop, hop + 2).

    `y = M @ concatenate([[last y], [last x], x])`, which is y[n] = x[n] - x[n-1] + a y[n-1].
    """
    a = high_pass_pole(rate_hz, corner_hz)
    m = np.zeros((hop, hop + 2))
    row = np.zeros(hop + 2)
    row[0] = 1.0
    for n in range(hop):
        row = a * row
        row[n + 2] += 1.0
        row[n + 1] -= 1.0
        m[n] = row
    return m.astype(np.float32)


def high_pass_pole(rate_hz: int = WORKING_RATE_HZ, corner_hz: float = HIGH_PASS_HZ) -> float:
    return float(np.exp(-2 * np.pi * corner_hz / rate_hz))


def levels(
    hop_rms: Floats,
    hop_s: float = HOP_S,
    time_constant_s: float = TIME_CONSTANT_S,
    silence: float = SILENCE,
) -> Reals:
    """Of many sounds at once: root mean squares (batch, hops) → levels (batch, hops)."""
    forget = share_of(hop_s, time_constant_s)
    rms = np.asarray(hop_rms, dtype=np.float64)
    value = np.zeros(rms.shape[0])
    count = np.zeros(rms.shape[0])
    out = np.empty_like(rms)
    for t in range(rms.shape[1]):
        r = rms[:, t]
        heard = r > silence
        share = np.maximum(1.0 / (count + 1.0), forget)
        limited = np.where(count == 0, r, np.minimum(r, LOUDEST * value))
        value = np.where(heard, value + share * (limited - value), value)
        count += heard
        out[:, t] = value
    return out
