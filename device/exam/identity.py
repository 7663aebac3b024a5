"""What every exam of a device says about itself, and what it asks of a judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from device.contract.exam import Delay
from device.screening.features import ScreeningFrames
from device.screening.quality import Quality
from device.screening.verdict import Window

__all__ = ["Contact", "WindowJudge", "LiveSink", "Identity"]


class WindowJudge(Protocol):
    """What the examiner asks of the classifier: device.screening.screen.Screener."""

    every: int
    spectrum: ScreeningFrames
    """Of the stream that it hears; `flush` completes it, and begins another."""
    sound: np.ndarray
    """The newest seconds of what the spectrum is of: less an offset."""

    def mark_gap(self, start: int, end: int) -> None: ...

    def process(self, x: np.ndarray) -> list[Window]: ...

    def flush(self) -> list[Window]: ...


Contact = Callable[[np.ndarray, Iterable[Any], np.ndarray], Quality]
"""How good the newest sound is: takes it with its gaps and its band powers, as `quality.assess`."""

LiveSink = Callable[[str, Any], None]
"""Takes the name of a live topic and its message."""


@dataclass(frozen=True)
class Identity:
    """What every exam of this device says about itself."""

    fleet: str
    device: str
    software: str
    bundle: str
    source: str
    source_rate_hz: int
    delay: Delay
