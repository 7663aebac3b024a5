"""Time on a machine that may have no clock: boot id, monotonic time, wall time, and what the last is worth.

Order and distance come from (boot id, monotonic time), which no change of the wall clock disturbs. Wall time
goes beside it with the trust that it deserves; once a trusted pair of both exists, the host can correct the
others.
"""

from __future__ import annotations

import ctypes
import functools
import time
import uuid
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Clock", "ClockTrust", "FakeClock", "Stamp", "SystemClock"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_PLAUSIBLE_S = 1_735_689_600.0
"""1 January 2025 UTC. A clock before it was never set: this program is younger."""

_TIME_ERROR = 5
_STA_UNSYNC = 0x0040


class ClockTrust(StrEnum):
    """What wall time is worth."""

    NONE = "none"
    """Nothing is known: the clock starts at some old date with every boot."""
    SET = "set"
    """A plausible date from a hand, an RTC or a former run, but no time server stands behind it."""
    SYNCHRONISED = "synchronised"
    """Kept by a time server: the kernel's clock discipline says so."""


@dataclass(frozen=True)
class Stamp:
    """One instant by all clocks."""

    boot_id: str
    monotonic_s: float
    wall_s: float
    """Seconds since 1970 UTC, as this machine believes."""
    clock_trust: ClockTrust

    def to_json(self) -> dict[str, Any]:
        """The stamp as plain values for a message."""
        return {**asdict(self), "clock_trust": self.clock_trust.value}


class Clock(Protocol):
    """Where time comes from; passed in, so that a test can own it."""

    boot_id: str

    def monotonic(self) -> float:
        """Seconds that never jump, from an arbitrary start."""

    def wall(self) -> float:
        """Seconds since 1970 UTC; may jump."""

    def trust(self) -> ClockTrust:
        """What `wall` is worth now."""

    def stamp(self) -> Stamp:
        """All of it at one instant."""


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2); only `modes` is set, only the answer is used."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    ]


@functools.cache
def _adjtimex() -> Any:
    """The C library's, or None. Looked up once: ctypes makes two new classes each time, which nothing but a
    full garbage collection frees.
    """
    try:
        return ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None


def _kept_by_a_time_server() -> bool:
    """Whether the kernel's clock is disciplined. adjtimex(2) with modes 0 asks and changes nothing."""
    ask, timex = _adjtimex(), _Timex()
    if ask is None:
        return False
    state = ask(ctypes.byref(timex))
    return 0 <= state != _TIME_ERROR and not timex.status & _STA_UNSYNC


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        try:
            self.boot_id = _BOOT_ID.read_text("ascii").strip()
        except OSError:  # not Linux: one id for each run keeps order honest
            self.boot_id = str(uuid.uuid4())

    def monotonic(self) -> float:
        """Seconds that never jump, since some moment of this boot."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970 UTC, as far as this machine knows."""
        return time.time()

    def trust(self) -> ClockTrust:
        """How far `wall` may be believed."""
        if self.wall() < _PLAUSIBLE_S:
            return ClockTrust.NONE
        return ClockTrust.SYNCHRONISED if _kept_by_a_time_server() else ClockTrust.SET

    def stamp(self) -> Stamp:
        """This instant by both clocks."""
        return Stamp(self.boot_id, self.monotonic(), self.wall(), self.trust())


class FakeClock:
    """A clock that goes only when told: `advance` moves both times, `jump` the wall clock alone."""

    def __init__(
        self, monotonic_s: float = 1000.0, wall_s: float = 1.75e9, boot_id: str = "fake-boot"
    ) -> None:
        self.boot_id = boot_id
        self._monotonic, self._wall = monotonic_s, wall_s
        self.trusted = ClockTrust.SET

    def monotonic(self) -> float:
        """Seconds that never jump, since some moment of this boot."""
        return self._monotonic

    def wall(self) -> float:
        """Seconds since 1970 UTC, as far as this machine knows."""
        return self._wall

    def trust(self) -> ClockTrust:
        """How far `wall` may be believed."""
        return self.trusted

    def stamp(self) -> Stamp:
        """This instant by both clocks."""
        return Stamp(self.boot_id, self._monotonic, self._wall, self.trusted)

    def advance(self, seconds: float) -> None:
        """So many seconds pass."""
        self._monotonic += seconds
        self._wall += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock by so many seconds."""
        self._wall += seconds
