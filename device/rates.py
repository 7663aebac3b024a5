"""Rates and lengths that every room shares. One clock: the absolute sample index at the working rate."""

from __future__ import annotations

__all__ = ["ECG_RATE_HZ", "HOP", "HOP_S", "WINDOW", "WINDOW_EVERY", "WORKING_RATE_HZ"]

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
