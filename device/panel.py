"""Button and lights: what a health worker has instead of a screen.

One button (short, long, double press) and one light of three colours, or three lights. `GpioPanel` is the
Raspberry Pi's, by the RPi.GPIO interface; `FakePanel` can be pressed and questioned, so that all else is
tested without a Pi.

| light | colour | how |
|---|---|---|
| ready | white | steady |
| listening | blue | steady |
| good contact | blue and green | steady |
| bad contact | red and green (yellow) | fast |
| stored: the exam is safe | green | steady |
| delivering | green | slow |
| error | red | fast |
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, NamedTuple, Protocol

from device.errors import StethopiError
from device.settings import PanelSettings

__all__ = [
    "Button",
    "FakePanel",
    "GpioPanel",
    "Light",
    "NoPanel",
    "Panel",
    "Press",
    "import_gpio",
    "open_panel",
]

_POLL_S = 0.01
_BOUNCE_S = 0.025


class Press(StrEnum):
    """What was done with the button."""

    SHORT = "short"
    LONG = "long"
    DOUBLE = "double"


class Shine(NamedTuple):
    """How one light looks: colours, and changes a second (0: steady)."""

    red: bool
    green: bool
    blue: bool
    hz: float = 0.0


class Light(Enum):
    """What the panel says."""

    OFF = "off"
    READY = "ready"
    LISTENING = "listening"
    GOOD_CONTACT = "good contact"
    BAD_CONTACT = "bad contact"
    STORED = "stored"
    DELIVERING = "delivering"
    ERROR = "error"

    @property
    def shine(self) -> Shine:
        return _SHINES[self]


_SHINES = {
    Light.OFF: Shine(False, False, False),
    Light.READY: Shine(True, True, True),
    Light.LISTENING: Shine(False, False, True),
    Light.GOOD_CONTACT: Shine(False, True, True),
    Light.BAD_CONTACT: Shine(True, True, False, 4.0),
    Light.STORED: Shine(False, True, False),
    Light.DELIVERING: Shine(False, True, False, 1.0),
    Light.ERROR: Shine(True, False, False, 4.0),
}


class Panel(Protocol):
    """A button and a light."""

    def start(self) -> None:
        """Begin. Raises StethopiError with the remedy."""

    def show(self, light: Light) -> None:
        """Show this from now on. Returns at once."""

    def next_press(self, timeout_s: float | None = None) -> Press | None:
        """Wait for the next press; None when time ran out or the panel was stopped."""

    def stop(self) -> None:
        """Lights off, and wake who waits. Safe to call twice."""


def open_panel(settings: PanelSettings) -> Panel:
    """The panel that `[panel]` asks for, not yet started."""
    if settings.kind == "gpio":
        return GpioPanel(settings)
    return FakePanel() if settings.kind == "fake" else NoPanel()


@dataclass
class Button:
    """Presses from the level of a bouncing contact; fed with time, so it needs none of its own.

    A press is short when the button is let go before `long_s` and not pressed again within `double_s`; long
    as soon as it was held for `long_s`; double when the second press begins within `double_s` of letting
    go.
    """

    long_s: float = 1.0
    double_s: float = 0.35

    def __post_init__(self) -> None:
        self._level = self._steady = False
        self._changed_s = 0.0
        self._down_s = 0.0
        self._up_s: float | None = None  # a short press that may become a double one
        self._done = True  # this press has been told already

    def feed(self, pressed: bool, now_s: float) -> Press | None:
        """The contact's level at `now_s`, often (every 10 ms); the press that this completes."""
        if pressed != self._level:
            self._level, self._changed_s = pressed, now_s
        if self._level != self._steady and now_s - self._changed_s >= _BOUNCE_S:
            self._steady = self._level
            return self._pressed() if self._steady else self._released()
        if self._steady and not self._done and now_s - self._down_s >= self.long_s:
            self._done = True
            return Press.LONG
        if (
            not self._steady
            and self._up_s is not None
            and now_s - self._up_s > self.double_s
            and not self._level
        ):
            self._up_s = None
            return Press.SHORT
        return None

    def _pressed(self) -> Press | None:
        self._down_s = self._changed_s
        if self._up_s is not None and self._changed_s - self._up_s <= self.double_s:
            self._up_s, self._done = None, True
            return Press.DOUBLE
        self._done = False
        return None

    def _released(self) -> Press | None:
        if not self._done:
            self._done, self._up_s = True, self._changed_s
        return None


class _Presses:
    """The queue of presses that all panels share."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Press | None] = queue.SimpleQueue()
        self._over = threading.Event()

    def _put(self, press: Press) -> None:
        self._queue.put(press)

    def next_press(self, timeout_s: float | None = None) -> Press | None:
        if self._over.is_set():
            return None
        try:
            press = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if press is None:
            self._queue.put(None)  # for the next who waits
        return press

    def _end(self) -> None:
        self._over.set()
        self._queue.put(None)


class NoPanel(_Presses):
    """No button, no light."""

    def start(self) -> None:
        pass

    def show(self, light: Light) -> None:
        pass

    def stop(self) -> None:
        self._end()


class FakePanel(_Presses):
    """A panel that a test, or a person at a keyboard, presses and questions."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Light] = []
        """Everything that was shown, in order, repetitions left out."""
        self._changed = threading.Condition()

    def start(self) -> None:
        self.show(Light.OFF)

    def show(self, light: Light) -> None:
        with self._changed:
            if not self.history or self.history[-1] is not light:
                self.history.append(light)
                self._changed.notify_all()

    @property
    def light(self) -> Light:
        """What is shown now."""
        with self._changed:
            return self.history[-1] if self.history else Light.OFF

    def press(self, press: Press = Press.SHORT) -> None:
        """Press the button."""
        self._put(press)

    def wait_for(self, light: Light, timeout_s: float) -> bool:
        """Wait until it is shown; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.history) and self.history[-1] is light, timeout_s)

    def stop(self) -> None:
        self.show(Light.OFF)
        self._end()


def import_gpio(what: str = "the panel", without: str = '[panel] kind = "none"') -> Any:
    """The RPi.GPIO module, or what stands in for it on newer boards (rpi-lgpio has the same name).

    what: who needs it; without: the setting that does without.
    """
    try:
        from RPi import GPIO
    except ImportError as error:
        raise StethopiError(
            f"{what} needs RPi.GPIO ({error}); run: pip install 'stethopi[pi]', or set {without}"
        ) from None
    except RuntimeError as error:
        raise StethopiError(
            f"{what} cannot reach the pins ({error}); set {without} on a machine without them"
        ) from None
    return GPIO


class GpioPanel(_Presses):
    """Button and lights at the pins of a Raspberry Pi. The button is polled, for edges fail on some
    boards."""

    def __init__(
        self, settings: PanelSettings, *, gpio: Any = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._settings = settings
        self._gpio = gpio
        self._monotonic = monotonic
        self._lights = {
            colour: getattr(settings, f"{colour}_pin")
            for colour in ("red", "green", "blue")
            if getattr(settings, f"{colour}_pin") >= 0
        }
        self._button = Button(settings.long_s, settings.double_s)
        self._light = Light.OFF
        self._since_s = 0.0
        self._set: dict[str, bool] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        gpio = self._gpio = self._gpio or import_gpio()
        try:
            gpio.setmode(gpio.BCM)
            for pin in self._lights.values():
                gpio.setup(pin, gpio.OUT, initial=gpio.HIGH if self._settings.active_low else gpio.LOW)
            if self._settings.button_pin >= 0:
                gpio.setup(self._settings.button_pin, gpio.IN, pull_up_down=gpio.PUD_UP)
        except Exception as error:  # each stand-in for RPi.GPIO has exceptions of its own
            raise StethopiError(
                f"the panel cannot use its pins ({error}); check [panel] and that no other program has them, "
                f'or set kind = "none"'
            ) from error
        self._thread = threading.Thread(target=self._run, name="panel", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_POLL_S):
            self.poll()

    def poll(self) -> None:
        """Read the button once and set the lights once."""
        now_s = self._monotonic()
        if self._settings.button_pin >= 0:
            press = self._button.feed(not self._gpio.input(self._settings.button_pin), now_s)
            if press:
                self._put(press)
        shine = self._light.shine
        bright = shine.hz == 0 or int((now_s - self._since_s) * 2 * shine.hz) % 2 == 0
        for colour, pin in self._lights.items():
            on = bright and bool(getattr(shine, colour))
            if self._set.get(colour) != on:
                self._set[colour] = on
                self._gpio.output(pin, on != self._settings.active_low)

    def show(self, light: Light) -> None:
        if light is not self._light:
            self._light, self._since_s = light, self._monotonic()

    def stop(self) -> None:
        self._end()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.join()
        self._light = Light.OFF
        self.poll()
        self._gpio.cleanup([*self._lights.values(), *([p] if (p := self._settings.button_pin) >= 0 else [])])
