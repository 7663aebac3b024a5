"""Which light is shown now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from device.panel.light import Light
from device.panel.panels import Panel

__all__ = ["Lamp"]


class Lamp:
    """Which of several things the light says: the exam's progress, over it what is wrong, over that what is
    asked for the moment. Any thread may call.
    """

    _ORDER = (Light.SHUTTING_DOWN, Light.NO_SOUND, Light.FEEDBACK)

    def __init__(self, panel: Panel, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._panel = panel
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._base = Light.OFF
        self._next: tuple[Light, float] | None = None
        self._over: set[Light] = set()
        self._now: tuple[Light, float] | None = None

    @property
    def base(self) -> Light:
        """The exam's progress, whatever is shown over it."""
        with self._lock:
            return self._base

    def show(self, light: Light, for_s: float | None = None, then: Light = Light.READY) -> None:
        """The exam's progress from now on; `then` after `for_s`, if nothing else was shown meanwhile."""
        with self._lock:
            self._base = light
            self._next = None if for_s is None else (then, self._monotonic() + for_s)
            self._refresh()

    def over(self, light: Light, on: bool) -> None:
        """Something is wrong (or no more), whatever the exam does."""
        with self._lock:
            (self._over.add if on else self._over.discard)(light)
            self._refresh()

    def flash(self, light: Light | None, for_s: float = 0.0) -> None:
        """For a moment, over all but a shutdown; None: no more."""
        with self._lock:
            self._now = None if light is None else (light, self._monotonic() + for_s)
            self._refresh()

    def look(self) -> None:
        """End what has been shown for long enough. To be called often."""
        with self._lock:
            now = self._monotonic()
            if self._now and now >= self._now[1]:
                self._now = None
            if self._next and now >= self._next[1]:
                self._base, self._next = self._next[0], None
            self._refresh()

    def _refresh(self) -> None:
        wrong = [light for light in self._ORDER if light in self._over]
        if self._now and Light.SHUTTING_DOWN not in wrong:
            self._panel.show(self._now[0])
        else:
            self._panel.show(wrong[0] if wrong else self._base)
