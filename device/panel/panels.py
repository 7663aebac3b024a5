"""Button and lights: what a health worker has instead of a screen. docs/panel.md is the written language.

One button and one light of three colours, or three lights, and a buzzer if one likes. `GpioPanel` is the
Raspberry Pi's, by the RPi.GPIO interface; `FakePanel` can be pressed and questioned, so that all else is
tested without a Pi. What a press does is `device.panel.button_actions`'s.

    python -I -m device.panel.panels     print the lights as docs/panel.md has them
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from device.errors import StethopiError
from device.gpio import import_gpio
from device.panel.button import Button, Press
from device.panel.light import Light, light_table, sounding
from device.settings.sections import PanelSettings

__all__ = ["FakePanel", "GpioPanel", "NoPanel", "Panel", "open_panel"]

log = logging.getLogger("panel")

_POLL_S = 0.01
_REST_S = 0.2


_WINK_S = 0.1


class Panel(Protocol):
    """A button beside a light."""

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


class GpioPanel(_Presses):
    """The panel at the pins of a Raspberry Pi.

    While nothing happens it sleeps until the button's edge wakes it; where edges cannot be had, or one was
    missed, it looks a hundred times a second instead.
    """

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
        self._button = Button(settings.long_s, settings.double_s, settings.cancel_s, settings.shutdown_s)
        self._light = Light.OFF
        self._since_s = 0.0
        self._set: dict[str, bool] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._edges = 0
        self.by_edges = False
        """Whether edges wake it; else it polls."""

    def start(self) -> None:
        gpio = self._gpio = self._gpio or import_gpio()
        settings = self._settings
        try:
            gpio.setmode(gpio.BCM)
            for pin in self._lights.values():
                gpio.setup(pin, gpio.OUT, initial=gpio.HIGH if settings.active_low else gpio.LOW)
            if settings.buzzer_pin >= 0:
                gpio.setup(settings.buzzer_pin, gpio.OUT, initial=gpio.LOW)
            if settings.button_pin >= 0:
                gpio.setup(settings.button_pin, gpio.IN, pull_up_down=gpio.PUD_UP)
        except Exception as error:  # each stand-in for RPi.GPIO has exceptions of its own
            raise StethopiError(
                f"the panel cannot use its pins ({error}); check [panel] and that no other program has them, "
                f"on a Raspberry Pi 5 run: pip uninstall -y RPi.GPIO && pip install rpi-lgpio, "
                f'or set kind = "none"'
            ) from error
        if settings.button_pin >= 0:
            try:
                gpio.add_event_detect(settings.button_pin, gpio.BOTH, callback=self._edge)
                self.by_edges = True
            except Exception as error:  # "Failed to add edge detection", of some kernels
                log.info("no edges from the button (%s); it is polled", error)
        self._thread = threading.Thread(target=self._run, name="panel", daemon=True)
        self._thread.start()

    def _edge(self, _pin: int) -> None:
        self._edges += 1
        self._wake.set()

    def _run(self) -> None:
        while not self._over.is_set():
            edges = self._edges
            was_at_rest = self._button.at_rest
            wait_s = self.poll()
            if self.by_edges and was_at_rest and not self._button.at_rest and edges == self._edges == 0:
                self.by_edges = False  # it was pressed, and no edge has ever come
                log.info("no edges from the button; it is polled")
            self._wake.wait(wait_s)
            self._wake.clear()

    def poll(self) -> float:
        """Read the button once and set lights and buzzer once; how long nothing can change by itself, s."""
        now_s, settings = self._monotonic(), self._settings
        if settings.button_pin >= 0:
            press = self._button.feed(not self._gpio.input(settings.button_pin), now_s)
            if press:
                self._put(press)
        shine = self._light.shine
        shown_s = now_s - self._since_s
        bright = shine.hz == 0 or int(shown_s * 2 * shine.hz) % 2 == 0
        held_s = self._button.held_s(now_s)
        if any(after <= held_s < after + _WINK_S for after in (settings.long_s, settings.cancel_s)):
            bright = not bright  # a wink: now it may be let go
        for colour, pin in self._lights.items():
            self._output(colour, pin, (bright and bool(getattr(shine, colour))) != settings.active_low)
        if settings.buzzer_pin >= 0:
            self._output("buzzer", settings.buzzer_pin, sounding(self._light.beeps_s, shown_s))
        busy = not self._button.at_rest or shine.hz or shown_s < 2.0 or not self.by_edges
        return _POLL_S if busy else _REST_S

    def _output(self, what: str, pin: int, level: bool) -> None:
        if self._set.get(what) != level:
            self._set[what] = level
            self._gpio.output(pin, level)

    def show(self, light: Light) -> None:
        if light is not self._light:
            self._light, self._since_s = light, self._monotonic()
            self._wake.set()

    def stop(self) -> None:
        self._end()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.join()
        self._light = Light.OFF
        self.poll()
        pins = [*self._lights.values(), self._settings.buzzer_pin, self._settings.button_pin]
        self._gpio.cleanup([pin for pin in pins if pin >= 0])


if __name__ == "__main__":
    print(light_table(), end="")
