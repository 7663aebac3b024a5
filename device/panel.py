"""Button and lights: what a health worker has instead of a screen. docs/panel.md is the written language.

One button and one light of three colours, or three lights, and a buzzer if one likes. `GpioPanel` is the
Raspberry Pi's, by the RPi.GPIO interface; `FakePanel` can be pressed and questioned, so that all else is
tested without a Pi. What a press does is `device.guide`'s.

    python -I -m device.panel     print the lights as docs/panel.md has them
"""

from __future__ import annotations

import logging
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
    "Lamp",
    "Light",
    "NoPanel",
    "Panel",
    "Press",
    "import_gpio",
    "light_table",
    "open_panel",
]

log = logging.getLogger("panel")

_POLL_S = 0.01
_REST_S = 0.2
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
    NEXT_SITE = "next site"
    STORED = "stored"
    DELIVERING = "delivering"
    ASK_CANCEL = "cancel?"
    CODE_TAKEN = "code taken"
    CODE_WRONG = "code wrong"
    FEEDBACK = "feedback"
    NO_SOUND = "no sound"
    ERROR = "error"
    SHUTTING_DOWN = "shutting down"

    @property
    def shine(self) -> Shine:
        return _SHINES[self]

    @property
    def beeps_s(self) -> tuple[float, ...]:
        """How the buzzer says it, seconds of each beep; nothing while a heart is being heard."""
        return _BEEPS_S.get(self, ())


_SHINES = {
    Light.OFF: Shine(False, False, False),
    Light.READY: Shine(True, True, True),
    Light.LISTENING: Shine(False, False, True),
    Light.GOOD_CONTACT: Shine(False, True, True),
    Light.BAD_CONTACT: Shine(True, True, False, 4.0),
    Light.NEXT_SITE: Shine(False, False, True, 1.0),
    Light.STORED: Shine(False, True, False),
    Light.DELIVERING: Shine(False, True, False, 1.0),
    Light.ASK_CANCEL: Shine(True, False, True, 2.0),
    Light.CODE_TAKEN: Shine(False, True, False, 4.0),
    Light.CODE_WRONG: Shine(True, True, False, 1.0),
    Light.FEEDBACK: Shine(True, False, True, 4.0),
    Light.NO_SOUND: Shine(True, False, False, 1.0),
    Light.ERROR: Shine(True, False, False, 4.0),
    Light.SHUTTING_DOWN: Shine(True, True, True, 4.0),
}
_BEEPS_S = {
    Light.NEXT_SITE: (0.1,),
    Light.STORED: (0.4,),
    Light.ASK_CANCEL: (0.1, 0.1),
    Light.CODE_TAKEN: (0.05,),
    Light.CODE_WRONG: (0.2, 0.2),
    Light.NO_SOUND: (0.1, 0.1, 0.1),
    Light.ERROR: (0.1, 0.1, 0.1),
    Light.SHUTTING_DOWN: (0.8,),
}
_BEEP_GAP_S = 0.1
_WINK_S = 0.1


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


class Lamp:
    """What the light says when several things want to be said: the exam's progress, and over it what is
    wrong, and over that what is asked for the moment. Any thread may call.
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
            f"{what} cannot reach the pins ({error}); on a Raspberry Pi run: pip uninstall -y RPi.GPIO && "
            f"pip install rpi-lgpio; on a machine without pins set {without}"
        ) from None
    return GPIO


class GpioPanel(_Presses):
    """Button and lights at the pins of a Raspberry Pi.

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
            self._output("buzzer", settings.buzzer_pin, _sounding(self._light.beeps_s, shown_s))
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


def _sounding(beeps_s: tuple[float, ...], at_s: float) -> bool:
    for beep_s in beeps_s:
        if at_s < beep_s:
            return at_s >= 0
        at_s -= beep_s + _BEEP_GAP_S
    return False


def light_table() -> str:
    """The lights as a table in Markdown."""

    def colour(shine: Shine) -> str:
        lit = [name for name in ("red", "green", "blue") if getattr(shine, name)]
        known = {
            "red green blue": "white",
            "red green": "yellow",
            "green blue": "cyan",
            "red blue": "magenta",
        }
        name = known.get(" ".join(lit), lit[0] if lit else "none")
        return name if len(lit) < 2 else f"{name} ({' and '.join(lit)})" if len(lit) == 2 else f"{name} (all)"

    rows = ["| light | colour | how | buzzer |", "|---|---|---|---|"]
    for light in Light:
        shine = light.shine
        how = f"{shine.hz:g} times a second" if shine.hz else "steady"
        beeps = " ".join("–" if beep > 0.3 else "·" for beep in light.beeps_s)
        rows.append(f"| {light.value} | {colour(shine)} | {'' if light is Light.OFF else how} | {beeps} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(light_table(), end="")
