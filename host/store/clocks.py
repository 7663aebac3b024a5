"""When it was: what a device's clocks said, corrected once a trusted pair of its two clocks is known.

A device without a network does not know the time; it knows its boot and the seconds since. A *pair* is one
instant of a boot told by both clocks, of which the wall time can be trusted: by the device itself once a time
server keeps its clock, or by this host's clock when a live message of that boot came in. One pair is enough
for every exam of the same boot, those that came before it among them. What belongs to a boot of which no pair
ever came stays as the device believed it, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from device.contract.vocabulary import Moment

__all__ = ["WORDS", "Instant", "Pair", "better", "instant", "pair_of"]

_LATE_S = 60.0
"""A live message is not under way for so long: then this host's clock was set meanwhile."""

WORDS = {
    "none": "the device did not know the time",
    "set": "by the device's clock, set by hand or kept since its last use",
    "synchronised": "by the device's clock, kept by a time server",
    "corrected": "the device did not know the time; corrected by a later message of the same switch-on",
}


@dataclass(frozen=True)
class Pair:
    """Of one boot: wall time at its monotonic second 0."""

    offset_s: float
    by_device: bool
    """The device's own clock was kept by a time server; else it is this host's."""


@dataclass(frozen=True)
class Instant:
    """An instant as it is shown."""

    seconds: float | None
    """Since 1970 UTC; None where nobody knows."""
    basis: str
    """A key of WORDS."""


def pair_of(moment: Moment, received_s: float | None = None) -> Pair | None:
    """The pair that a moment gives; received_s: the host's time when a live message told it."""
    if moment.clock_trust == "synchronised":
        return Pair(moment.wall_s - moment.monotonic_s, True)
    return None if received_s is None else Pair(received_s - moment.monotonic_s, False)


def better(kept: Pair | None, new: Pair) -> Pair:
    """Which of two pairs of one boot to keep.

    The device's own before the host's, the newest of the device's (it follows the drift), and the earliest of
    the host's: a message can only be late.
    """
    if kept is None or new.by_device:
        return new
    if kept.by_device:
        return kept
    return new if new.offset_s < kept.offset_s or new.offset_s - kept.offset_s > _LATE_S else kept


def instant(moment: Moment, pair: Pair | None) -> Instant:
    """When a moment was; `pair` of its boot, None when there is none."""
    if moment.clock_trust == "synchronised":
        return Instant(moment.wall_s, "synchronised")
    if pair is not None:
        return Instant(pair.offset_s + moment.monotonic_s, "corrected")
    if moment.clock_trust == "set":
        return Instant(moment.wall_s, "set")
    return Instant(None, "none")
