"""Rates and lengths that every room shares. One clock: the absolute sample index at the working rate."""

from __future__ import annotations

from device.errors import BadInput

__all__ = [
    "ECG_RATE_HZ",
    "HIGHEST_RATE_HZ",
    "HOP",
    "HOP_S",
    "LOWEST_RATE_HZ",
    "WINDOW",
    "WINDOW_EVERY",
    "WORKING_RATE_HZ",
    "check_rate",
]

WORKING_RATE_HZ = 2000
"""Heart sound is processed, recorded and delivered at this rate."""

HOP = 16
"""Samples in one step of the streaming path: 8 ms."""

HOP_S = HOP / WORKING_RATE_HZ

WINDOW = 5 * WORKING_RATE_HZ
"""Samples the classifier hears at once: 5 s."""

WINDOW_EVERY = 1 * WORKING_RATE_HZ
"""Samples from one classified window to the next: 1 s."""

ECG_RATE_HZ = 360
"""The ECG is watched over, cleaned, recorded and delivered at this rate, in mV."""

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = WORKING_RATE_HZ, 192_000
"""Of sound that comes in."""


def check_rate(rate_hz: int, what: str = "rate") -> int:
    """The rate, when it can be used. Raises BadInput when it is not a whole number from 2000 to 192000."""
    if rate_hz != int(rate_hz) or not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise BadInput(
            f"{what} of {rate_hz:g} Hz: not from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz; "
            f"resample it, for example: sox IN OUT rate 4000"
        )
    return int(rate_hz)
