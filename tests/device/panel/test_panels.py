"""Button and lights, without a Pi: what a press means, what a light looks like, what is said where no pins
are."""

from __future__ import annotations

import builtins
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.errors import StethopiError
from device.panel.button import Button, Press
from device.panel.light import Light, light_table
from device.panel.panels import FakePanel, GpioPanel, NoPanel, open_panel
from device.settings.sections import PanelSettings
from tests.waiting import until


def presses(
    spans: list[tuple[float, float]], until: float, bounce: bool = False
) -> list[tuple[float, Press]]:
    """What a button tells that is down during `spans`, polled every 10 ms."""
    button, told = Button(), []
    for tick in range(round(until * 100)):
        now = tick / 100
        down = any(a <= now < b for a, b in spans)
        near = any(0 <= now - edge < 0.02 for span in spans for edge in span)
        if bounce and near and tick % 2:
            down = not down
        press = button.feed(down, now)
        if press:
            told.append((now, press))
    return told


@pytest.mark.parametrize("bounce", [False, True])
@pytest.mark.parametrize(
    ("spans", "meant"),
    [
        ([(1.0, 1.1)], [Press.SHORT]),
        ([(1.0, 1.9)], [Press.SHORT]),
        ([(1.0, 2.5)], [Press.LONG]),
        ([(1.0, 5.9)], [Press.LONG]),
        ([(1.0, 6.2)], [Press.HELD]),
        ([(1.0, 11.5)], [Press.HELD, Press.SHUTDOWN]),
        ([(1.0, 1.1), (1.3, 1.4)], [Press.DOUBLE]),
        ([(1.0, 1.1), (1.3, 3.0)], [Press.DOUBLE]),
        ([(1.0, 1.1), (2.0, 2.1)], [Press.SHORT, Press.SHORT]),
        ([(1.0, 1.1), (1.3, 1.4), (1.6, 1.7)], [Press.DOUBLE, Press.SHORT]),
        ([(1.0, 2.5), (2.7, 2.8)], [Press.LONG, Press.SHORT]),
        ([(1.0, 1.1), (1.8, 3.2)], [Press.SHORT, Press.LONG]),
    ],
)
def test_what_a_press_means(spans: list[tuple[float, float]], meant: list[Press], bounce: bool) -> None:
    assert [press for _, press in presses(spans, 13.0, bounce)] == meant


def test_a_press_is_told_in_time() -> None:
    """Long when it is let go, double as it begins, short once no second press can follow."""
    ((long, _),) = presses([(1.0, 3.0)], 6.0)
    assert 3.0 <= long <= 3.1
    ((double, _),) = presses([(1.0, 1.1), (1.3, 2.0)], 3.0)
    assert double < 1.4
    ((short, _),) = presses([(1.0, 1.1)], 3.0)
    assert 1.45 <= short <= 1.5


def test_a_spark_is_no_press() -> None:
    assert presses([(1.0, 1.02)], 3.0) == []
    assert presses([(0.0, 0.0)], 3.0) == []


@given(st.lists(st.booleans(), max_size=600))
def test_no_press_is_told_twice(levels: list[bool]) -> None:
    """Whatever the contact does: not more presses than times it went down, but for what holding on adds."""
    button, told = Button(), []
    for tick, level in enumerate([*levels, *[False] * 100]):
        if press := button.feed(level, tick / 100):
            told.append(press)
    downs = sum(a < b for a, b in zip([False, *levels], levels, strict=False))
    assert len(told) - told.count(Press.SHUTDOWN) <= downs and button.at_rest


class FakeGpio:
    """As much of RPi.GPIO as the panel uses."""

    BCM, IN, OUT, LOW, HIGH, PUD_UP = "BCM", "in", "out", 0, 1, "up"

    def __init__(self) -> None:
        self.pins: dict[int, bool] = {}
        self.level: dict[int, int] = {}
        self.log: list[tuple[Any, ...]] = []
        self.edges = ""
        self.reads = 0

    def setmode(self, mode: str) -> None:
        self.log.append(("setmode", mode))

    def setup(self, pin: int, way: str, initial: int | None = None, pull_up_down: str | None = None) -> None:
        self.log.append(("setup", pin, way, pull_up_down))
        if initial is not None:
            self.pins[pin] = bool(initial)
        else:
            self.level[pin] = 1

    BOTH = "both"

    def add_event_detect(self, pin: int, edge: str, callback: Any) -> None:
        if not self.edges:
            raise RuntimeError("Failed to add edge detection")
        self.on_edge = callback

    def set(self, pin: int, level: int) -> None:
        """The contact changes, and the kernel tells of it, if it does."""
        self.level[pin] = level
        if self.edges == "told":
            self.on_edge(pin)

    def input(self, pin: int) -> int:
        self.reads += 1
        return self.level[pin]

    def output(self, pin: int, value: bool) -> None:
        self.pins[pin] = bool(value)

    def cleanup(self, pins: list[int]) -> None:
        self.log.append(("cleanup", *pins))


RED, GREEN, BLUE, BUTTON = 22, 27, 23, 17


@pytest.mark.parametrize("active_low", [False, True])
def test_lights_at_the_pins(active_low: bool) -> None:
    gpio, now = FakeGpio(), [10.0]
    panel = GpioPanel(PanelSettings("gpio", active_low=active_low), gpio=gpio, monotonic=lambda: now[0])

    def shining() -> set[int]:
        panel.poll()
        return {pin for pin, level in gpio.pins.items() if level != active_low}

    panel.start()
    assert panel._thread is not None
    assert ("setup", BUTTON, "in", "up") in gpio.log and shining() == set()
    panel.show(Light.READY)
    assert shining() == {RED, GREEN, BLUE}
    panel.show(Light.STORED)
    assert shining() == {GREEN}
    panel.show(Light.ERROR)
    seen = []
    for _ in range(8):
        seen.append(bool(shining()))
        now[0] += 1 / 8
    assert seen == [True, False] * 4
    panel.show(Light.DELIVERING)
    seen = []
    for _ in range(8):
        seen.append(shining() == {GREEN})
        now[0] += 1 / 8
    assert seen == [True] * 4 + [False] * 4
    panel.stop()
    panel.stop()
    assert gpio.log[-1] == ("cleanup", RED, GREEN, BLUE, BUTTON) and shining() == set()
    assert panel.next_press() is None


def test_every_light_looks_different_and_only_a_stored_exam_is_green() -> None:
    shines = [light.shine for light in Light]
    assert len(set(shines)) == len(Light)
    steady_green = [
        light for light in Light if light.shine[:3] == (False, True, False) and not light.shine.hz
    ]
    assert steady_green == [Light.STORED]


@pytest.mark.parametrize("edges", ["", "silent", "told"])
def test_the_button_at_its_pin(edges: str) -> None:
    """By edges, and by polling where they cannot be had, or never come."""
    gpio, now = FakeGpio(), [10.0]
    settings = PanelSettings("gpio", red_pin=-1, green_pin=-1, blue_pin=-1, long_s=0.3)
    panel = GpioPanel(settings, gpio=gpio, monotonic=lambda: now[0])
    gpio.edges = edges
    panel.start()
    panel.show(Light.READY)

    def after(seconds: float) -> None:
        """So much later, and the panel has seen it: the look that is under way may still be of before."""
        now[0] += seconds
        seen = gpio.reads
        until(lambda: gpio.reads >= seen + 2)

    for held_s, press in ((0.4, Press.LONG), (0.1, Press.SHORT)):
        for level, lasts_s in ((0, held_s), (1, 1.0)):
            gpio.set(BUTTON, level)
            for seconds in (0.0, 0.05, lasts_s):  # it changes, bounces no more, stays
                after(seconds)
        assert panel.next_press(20) is press
    assert panel.next_press(0.0) is None
    assert panel.by_edges == (edges == "told")
    panel.stop()


def test_with_edges_it_sleeps_while_nothing_happens() -> None:
    looked = {}
    now = [10.0]
    for edges in ("", "told"):
        gpio = FakeGpio()
        gpio.edges = edges
        panel = GpioPanel(PanelSettings("gpio"), gpio=gpio, monotonic=lambda: now[0])
        panel.start()
        now[0] += 3.0  # no light has changed for long
        looked[edges] = panel.poll()
        panel.stop()
    assert looked[""] == pytest.approx(0.01) and looked["told"] >= 0.1


def test_the_buzzer_says_what_is_important_and_is_silent_while_a_heart_is_heard() -> None:
    gpio, now, pin = FakeGpio(), [10.0], 5
    panel = GpioPanel(PanelSettings("gpio", buzzer_pin=pin), gpio=gpio, monotonic=lambda: now[0])
    panel.start()

    def sounding(light: Light) -> list[bool]:
        panel.show(light)
        now[0] += 0.05
        heard = []
        for _ in range(10):
            panel.poll()
            heard.append(gpio.pins[pin])
            now[0] += 0.1
        return heard

    assert sounding(Light.STORED) == [True] * 4 + [False] * 6
    assert sounding(Light.ERROR) == [True, False] * 3 + [False] * 4
    for light in (Light.LISTENING, Light.GOOD_CONTACT, Light.BAD_CONTACT, Light.FEEDBACK):
        assert not any(sounding(light))
    panel.stop()
    assert gpio.pins[pin] is False and pin in gpio.log[-1]


def test_the_light_winks_when_a_long_press_may_be_let_go() -> None:
    gpio, now = FakeGpio(), [10.0]
    panel = GpioPanel(PanelSettings("gpio"), gpio=gpio, monotonic=lambda: now[0])
    gpio.setup(BUTTON, "in")
    panel._gpio = gpio
    panel.show(Light.STORED)
    dark = []
    gpio.level[BUTTON] = 0
    for tick in range(600):
        now[0] = 10.0 + tick / 100
        panel.poll()
        if not gpio.pins[GREEN]:
            dark.append(tick / 100)
    assert dark[0] == pytest.approx(1.0, abs=0.02) and dark[-1] == pytest.approx(5.1, abs=0.02)
    assert len(dark) == pytest.approx(20, abs=2)


def test_the_lights_are_written_down() -> None:
    text = (Path(__file__).parents[3] / "docs" / "panel.md").read_text()
    assert light_table() in text, "print it: python -I -m device.panel.panels"


def importing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real = builtins.__import__

    def failing(name: str, *rest: Any) -> Any:
        if name == "RPi":
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", failing)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ImportError("No module named 'RPi'"),
            "the panel needs RPi.GPIO (No module named 'RPi'); run: pip install 'stethopi[pi]', "
            'or set [panel] kind = "none"',
        ),
        (
            RuntimeError("This module can only be run on a Raspberry Pi!"),
            "the panel cannot reach the pins (This module can only be run on a Raspberry Pi!); "
            "on a Raspberry Pi run: pip uninstall -y RPi.GPIO && pip install rpi-lgpio; "
            'on a machine without pins set [panel] kind = "none"',
        ),
    ],
)
def test_no_pi_no_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    importing(monkeypatch, error)
    with pytest.raises(StethopiError) as caught:
        open_panel(PanelSettings("gpio")).start()
    assert str(caught.value) == message


def test_pins_that_are_taken_are_told() -> None:
    gpio = FakeGpio()

    def busy(*_: Any, **__: Any) -> None:
        raise Exception("GPIO busy")

    gpio.setup = busy  # type: ignore[method-assign]
    with pytest.raises(StethopiError, match=r"cannot use its pins \(GPIO busy\); check \[panel\]"):
        GpioPanel(PanelSettings("gpio"), gpio=gpio).start()


def test_the_fake_is_pressed_and_questioned() -> None:
    panel = open_panel(PanelSettings("fake"))
    assert isinstance(panel, FakePanel) and panel.light is Light.OFF
    panel.start()
    panel.press()
    panel.press(Press.DOUBLE)
    assert [panel.next_press(0), panel.next_press(0), panel.next_press(0)] == [
        Press.SHORT,
        Press.DOUBLE,
        None,
    ]

    def later() -> None:
        for light in (Light.READY, Light.READY, Light.STORED):
            panel.show(light)

    threading.Timer(0.02, later).start()
    assert panel.wait_for(Light.STORED, 20) and panel.light is Light.STORED
    assert not panel.wait_for(Light.ERROR, 0)
    assert panel.history == [Light.OFF, Light.READY, Light.STORED]


@pytest.mark.parametrize("panel", [FakePanel(), NoPanel()])
def test_stop_wakes_all_who_wait(panel: FakePanel | NoPanel) -> None:
    got: list[Press | None] = []
    threads = [threading.Thread(target=lambda: got.append(panel.next_press())) for _ in range(3)]
    for thread in threads:
        thread.start()
    panel.start()
    panel.show(Light.READY)
    panel.stop()
    panel.stop()
    for thread in threads:
        thread.join(10)
    assert got == [None] * 3 and panel.next_press() is None


def test_without_a_panel_nothing_is_pressed() -> None:
    assert isinstance(open_panel(PanelSettings()), NoPanel)
    assert open_panel(PanelSettings()).next_press(0.0) is None
