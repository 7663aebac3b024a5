"""The panel's thread: presses, and words of the keypad."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from device.errors import StethopiError
from device.panel.button_actions import Guide
from device.panel.keypad import Keypad
from device.panel.lamp import Lamp
from device.panel.light import Light
from device.panel.panels import Panel

__all__ = ["PanelThread"]

log = logging.getLogger("daemon")

T = TypeVar("T")


class PanelThread:
    """Takes what a hand says to the guide."""

    def __init__(self, panel: Panel, guide: Guide, lamp: Lamp, keyboard: str, stop: threading.Event) -> None:
        """keyboard: as in `[panel]`. stop: ends `run`, and the keypad with it."""
        self._panel = panel
        self._guide = guide
        self._lamp = lamp
        self._stop = stop
        self._keypad: Keypad | None = None
        if keyboard != "none":
            self._keypad = Keypad(keyboard, lambda word: self._say(guide.typed, word))

    def run(self) -> None:
        if self._keypad is not None:
            self._keypad.start()
        try:
            while not self._stop.is_set():
                if (press := self._panel.next_press(0.5)) is not None:
                    self._say(self._guide.pressed, press)
        finally:
            if self._keypad is not None:
                self._keypad.stop()

    def _say(self, hear: Callable[[T], None], said: T) -> None:
        try:
            hear(said)
        except StethopiError as error:
            log.error("%s", error)
            self._lamp.show(Light.ERROR)
