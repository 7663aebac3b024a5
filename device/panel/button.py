"""Presses from the edges of a pin."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Press", "Button"]


_BOUNCE_S = 0.025


class Press(StrEnum):
    """What was done with the button."""

    SHORT = "short"
    LONG = "long"
    DOUBLE = "double"
    HELD = "held"
    """It is still down, for so long that this may mean: throw the exam away."""
    SHUTDOWN = "shutdown"
    """It is still down, for so long that nobody does it by accident."""


@dataclass
class Button:
    """Presses from the level of a bouncing contact; fed with time, so it needs none of its own.

    A press is short when the button is let go before `long_s` and not pressed again within `double_s`; long
    when it is let go between `long_s` and `cancel_s`; double when the second press begins within `double_s`
    of letting go. Held is told at `cancel_s` and shutdown at `shutdown_s` while the button is still down;
    letting go after either tells nothing more.
    """

    long_s: float = 1.0
    double_s: float = 0.35
    cancel_s: float = 5.0
    shutdown_s: float = 10.0

    def __post_init__(self) -> None:
        self._level = self._steady = False
        self._changed_s = 0.0
        self._down_s = 0.0
        self._up_s: float | None = None  # a short press that may become a double one
        self._told: Press | None = None  # of this press
        self.at_rest = True
        """Nothing is pressed, and nothing will be told without another press."""

    def feed(self, pressed: bool, now_s: float) -> Press | None:
        """The contact's level at `now_s`, often (every 10 ms); the press that this completes."""
        if pressed != self._level:
            self._level, self._changed_s = pressed, now_s
        press = self._judged(now_s)
        self.at_rest = not (self._level or self._steady or self._up_s is not None)
        return press

    def _judged(self, now_s: float) -> Press | None:
        if self._level != self._steady and now_s - self._changed_s >= _BOUNCE_S:
            self._steady = self._level
            return self._pressed() if self._steady else self._released()
        if self._steady and self._told is not Press.DOUBLE:
            held_s = now_s - self._down_s
            for press, after_s in ((Press.SHUTDOWN, self.shutdown_s), (Press.HELD, self.cancel_s)):
                if held_s >= after_s:
                    if self._told in (press, Press.SHUTDOWN):
                        return None
                    self._told = press
                    return press
        if (
            not self._steady
            and self._up_s is not None
            and now_s - self._up_s > self.double_s
            and not self._level
        ):
            self._up_s = None
            return Press.SHORT
        return None

    def held_s(self, now_s: float) -> float:
        """For how long it has been down; 0 when it is not."""
        return now_s - self._down_s if self._steady else 0.0

    def _pressed(self) -> Press | None:
        self._down_s = self._changed_s
        self._told = None
        if self._up_s is not None and self._changed_s - self._up_s <= self.double_s:
            self._up_s, self._told = None, Press.DOUBLE
            return Press.DOUBLE
        return None

    def _released(self) -> Press | None:
        if self._told is not None:
            return None
        if self._changed_s - self._down_s >= self.long_s:
            return Press.LONG
        self._up_s = self._changed_s
        return None
