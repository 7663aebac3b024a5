"""What a source of sound is, and how one is chosen by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from device.arrays import Flags, Samples

__all__ = ["Block", "Source"]


@dataclass(frozen=True)
class Block:
    """Sound as it came from a source."""

    samples: Samples
    """float32 (n,), ±1 full scale, at the source's rate."""
    index: int
    """Absolute index of samples[0] at the source's rate; lost samples are counted."""
    monotonic_s: float
    """Monotonic time when the block was complete."""
    lost: int = 0
    """Samples missing just before samples[0]."""
    full: Flags | None = None
    """Where the converter was at full scale, bool (n,), of a source that has changed the samples since; None:
    the samples themselves tell."""


class Source(Protocol):
    """A microphone, a file, a synthetic heart. `read` waits for sound; the rest returns at once."""

    rate_hz: int
    name: str

    def start(self) -> None:
        """Begin. Raises StethopiError when it cannot, with the remedy."""

    def read(self) -> Block | None:
        """The next block, of any length; None when the sound has ended. Raises SourceGone when it
        vanished."""

    def stop(self) -> None:
        """End. Safe to call twice, and from another thread: a waiting `read` then returns None."""
