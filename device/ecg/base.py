"""What every source of an ECG gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from device.arrays import Flags
from device.contract.vocabulary import ECG_FULL_SCALE_MV
from device.sources.base import Block

__all__ = ["EcgBlock", "EcgSource"]


FULL_MV = ECG_FULL_SCALE_MV


@dataclass(frozen=True)
class EcgBlock(Block):
    """Samples in mV, float32 (n,); not a number where the converter gave none. `monotonic_s` is when the last
    of them was taken.
    """

    off: Flags | None = None
    """bool (n,): the amplifier says that an electrode is off; None where it is not asked."""


class EcgSource(Protocol):
    """As device.sources.base.Source, for one lead."""

    rate_hz: int
    name: str
    rails_mv: tuple[float, float] | None
    """The ends of its range: an electrode that is off drives it there."""
    played: bool
    """A recording: its first sample belongs to the first one of the sound."""

    def start(self) -> None:
        """Begin. Raises StethopiError when it cannot, with the remedy."""

    def read(self) -> EcgBlock | None:
        """The next block; None when it has ended. Raises SourceGone when it vanished."""

    def stop(self) -> None:
        """End. Safe to call twice, and from another thread."""
