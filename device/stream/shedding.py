"""What is left out when the machine is late."""

from __future__ import annotations

import enum

__all__ = ["Shed", "Shedder"]


class Shed(enum.IntEnum):
    """What is left out when the machine is late; each includes those before it."""

    NOTHING = 0
    WAVEFORM = 1
    CLASSIFICATION = 2
    DENOISING = 3


class Shedder:
    """Decides from the sound that waits: more is left out at once, less only after five calm seconds."""

    LIMITS_S = (0.25, 0.5, 1.0)
    CALM_S = 0.1
    CALM_FOR_S = 5.0

    def __init__(self) -> None:
        self.now = Shed.NOTHING
        self._calm_since: float | None = None

    def update(self, waiting_s: float, monotonic_s: float) -> Shed:
        """`waiting_s` of sound wait to be processed, at `monotonic_s`."""
        wanted = Shed(sum(waiting_s > limit for limit in self.LIMITS_S))
        if wanted > self.now:
            self.now = wanted
        if waiting_s > self.CALM_S:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = monotonic_s
        elif monotonic_s - self._calm_since >= self.CALM_FOR_S and self.now:
            self.now = Shed(self.now - 1)
            self._calm_since = monotonic_s
        return self.now
