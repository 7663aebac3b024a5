"""What the light says while exams are heard, stored and delivered."""

from __future__ import annotations

from typing import Any

from device.contract.live import LiveExam
from device.panel.lamp import Lamp
from device.panel.light import Light
from device.screening import quality

__all__ = ["STORED_S", "ExamLight"]

STORED_S = 8.0
"""How long the light says that the exam is safe."""

_LIGHTS = {
    "recording": Light.LISTENING,
    "cancelled": Light.READY,
    "partial": Light.ERROR,
}


class ExamLight:
    """The light of an exam, by its live messages."""

    def __init__(self, lamp: Lamp) -> None:
        self._lamp = lamp

    def tell(self, name: str, message: Any) -> None:
        """A live message, by its name."""
        if name == "quality" and message.quality is not None:
            good = message.quality >= quality.GOOD
            self._lamp.show(Light.GOOD_CONTACT if good else Light.BAD_CONTACT)
        elif name == "exam":
            self._progress(message)

    def _progress(self, message: LiveExam) -> None:
        heard = self._lamp.base in (Light.GOOD_CONTACT, Light.BAD_CONTACT)
        if message.state == "site done":
            last = message.position + 1 >= message.sites
            self._lamp.show(Light.LISTENING if last else Light.NEXT_SITE)
        elif message.state in _LIGHTS and not (message.state == "recording" and heard and message.seconds):
            self._lamp.show(_LIGHTS[message.state])

    def stored(self) -> None:
        """An exam is safe."""
        self._lamp.show(Light.STORED, STORED_S)

    def delivery(self, going: bool) -> None:
        """Whether exams are on their way to the host, told while nothing else is to be said."""
        if self._lamp.base in (Light.READY, Light.DELIVERING):
            self._lamp.show(Light.DELIVERING if going else Light.READY)
