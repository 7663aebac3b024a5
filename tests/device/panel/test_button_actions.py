"""What one button means: presses in time on one side, what is done and shown on the other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.exam.plan import Phase
from device.exam.subjects import Subjects, code
from device.panel.button import Button, Press
from device.panel.button_actions import ASK_S, Guide
from device.panel.lamp import Lamp
from device.panel.light import Light
from device.panel.panels import FakePanel


class Exam:
    """An exam of four sites as the guide sees it; `done` is what was done."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.site = 0
        self.done: list[str] = []

    def begin(self, same_subject: bool = False) -> bool:
        self.done.append("again" if same_subject else "begin")
        assert self.phase is Phase.IDLE
        self.phase, self.site = Phase.RECORDING, 0
        return True

    def stop(self) -> bool:
        self.done.append("stop")
        self.phase = Phase.IDLE
        return True

    def next_site(self) -> bool:
        self.done.append("next")
        if self.phase is Phase.BETWEEN:
            self.phase, self.site = Phase.RECORDING, self.site + 1
        elif self.phase is Phase.RECORDING:
            self.phase = Phase.BETWEEN if self.site < 3 else Phase.IDLE
        return True

    def repeat_site(self) -> bool:
        self.done.append("repeat")
        self.phase = Phase.RECORDING
        return True

    def cancel(self) -> bool:
        self.done.append("cancel")
        self.phase = Phase.IDLE
        return True

    def shut_down(self) -> bool:
        self.done.append("shut down")
        return True

    def louder(self, steps: int) -> bool:
        self.done.append(f"{steps:+d}")
        return True


class Bench:
    """A guide with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.panel = FakePanel()
        self.lamp = Lamp(self.panel, lambda: self.now)
        self.exam = Exam()
        self.subjects = Subjects()
        self.guide = Guide(self.lamp, self.exam, self.subjects, lambda: self.now)
        self.lamp.show(Light.READY)

    def press(self, *presses: Press) -> list[str]:
        self.exam.done.clear()
        for press in presses:
            self.guide.pressed(press)
        return self.exam.done

    def later(self, seconds: float) -> Light:
        self.now += seconds
        self.lamp.look()
        return self.panel.light


@pytest.mark.parametrize(
    ("phase", "press", "does"),
    [
        (Phase.IDLE, Press.SHORT, "begin"),
        (Phase.IDLE, Press.DOUBLE, "again"),
        (Phase.IDLE, Press.LONG, "next"),
        (Phase.RECORDING, Press.SHORT, "stop"),
        (Phase.RECORDING, Press.LONG, "next"),
        (Phase.RECORDING, Press.DOUBLE, "repeat"),
        (Phase.SETTLING, Press.DOUBLE, "repeat"),
        (Phase.BETWEEN, Press.SHORT, "next"),
        (Phase.BETWEEN, Press.LONG, "next"),
        (Phase.BETWEEN, Press.DOUBLE, "repeat"),
        (Phase.IDLE, Press.SHUTDOWN, "shut down"),
        (Phase.RECORDING, Press.SHUTDOWN, "shut down"),
    ],
)
def test_what_a_press_does(phase: Phase, press: Press, does: str) -> None:
    bench = Bench()
    bench.exam.phase = phase
    assert bench.press(press) == [does]


def test_an_exam_is_thrown_away_only_after_the_light_has_asked() -> None:
    bench = Bench()
    bench.exam.phase = Phase.RECORDING
    bench.lamp.show(Light.GOOD_CONTACT)
    assert bench.press(Press.HELD) == [] and bench.panel.light is Light.ASK_CANCEL
    assert bench.later(ASK_S - 0.1) is Light.ASK_CANCEL
    assert bench.press(Press.SHORT) == ["cancel"] and bench.panel.light is not Light.ASK_CANCEL


def test_whoever_does_not_answer_keeps_the_exam() -> None:
    bench = Bench()
    bench.exam.phase = Phase.RECORDING
    bench.lamp.show(Light.GOOD_CONTACT)
    bench.press(Press.HELD)
    assert bench.later(ASK_S + 0.1) is Light.GOOD_CONTACT
    assert bench.press(Press.SHORT) == ["stop"]
    bench.exam.phase = Phase.RECORDING
    assert bench.press(Press.HELD, Press.LONG) == ["next"]
    assert bench.panel.light is Light.GOOD_CONTACT


def test_without_an_exam_nothing_is_asked() -> None:
    bench = Bench()
    assert bench.press(Press.HELD) == [] and bench.panel.light is Light.READY
    assert bench.press(Press.SHORT) == ["begin"]


def test_what_is_wrong_is_shown_over_what_goes_on() -> None:
    bench = Bench()
    bench.lamp.show(Light.LISTENING)
    bench.lamp.over(Light.NO_SOUND, True)
    bench.lamp.show(Light.GOOD_CONTACT)
    assert bench.panel.light is Light.NO_SOUND and bench.lamp.base is Light.GOOD_CONTACT
    bench.lamp.flash(Light.CODE_TAKEN, 1.0)
    assert bench.panel.light is Light.CODE_TAKEN
    assert bench.later(1.1) is Light.NO_SOUND
    bench.lamp.over(Light.NO_SOUND, False)
    assert bench.panel.light is Light.GOOD_CONTACT
    bench.lamp.show(Light.STORED, for_s=8.0)
    assert bench.later(7.9) is Light.STORED and bench.later(0.2) is Light.READY
    bench.lamp.show(Light.STORED, for_s=8.0)
    bench.lamp.show(Light.LISTENING)
    assert bench.later(9.0) is Light.LISTENING
    bench.lamp.over(Light.SHUTTING_DOWN, True)
    bench.lamp.flash(Light.CODE_WRONG, 5.0)
    assert bench.panel.light is Light.SHUTTING_DOWN


def test_words_of_the_keypad() -> None:
    bench = Bench()
    bench.guide.typed("+")
    bench.guide.typed("-")
    assert bench.exam.done == ["+1", "-1"]
    right = code("V3", 42)
    bench.guide.typed(right)
    assert bench.panel.light is Light.CODE_TAKEN and bench.subjects.take() == right
    assert bench.later(2.0) is Light.READY
    bench.guide.typed(right[:-1] + ("A" if right[-1] != "A" else "B"))
    assert bench.panel.light is Light.CODE_WRONG and bench.subjects.take() is None
    bench.guide.typed("Mary Smith")
    assert bench.subjects.take() is None
    assert bench.subjects.take(again=True) is None


# ---- presses in time


def told(spans: list[tuple[float, float]], until: float, bounce: list[float] = []) -> list[Press]:  # noqa: B006
    """What a button tells that is down during `spans`; near each edge it bounces for so long."""
    button, found = Button(), []
    edges = [edge for span in spans for edge in span]
    for tick in range(round(until * 200)):
        now = tick / 200
        down = any(a <= now < b for a, b in spans)
        for edge, length in zip(edges, bounce, strict=False):
            if 0 <= now - edge < length and tick % 2:
                down = not down
        if press := button.feed(down, now):
            found.append(press)
    assert button.at_rest
    return found


def meant(spans: list[tuple[float, float]]) -> list[Press]:
    """The same by the words of docs/panel.md."""
    button, found, at = Button(), [], 0
    while at < len(spans):
        down, up = spans[at]
        held = up - down
        if held < button.long_s:
            twice = at + 1 < len(spans) and spans[at + 1][0] - up <= button.double_s
            found.append(Press.DOUBLE if twice else Press.SHORT)
            at += 2 if twice else 1
            continue
        if held < button.cancel_s:
            found.append(Press.LONG)
        if held >= button.cancel_s:
            found.append(Press.HELD)
        if held >= button.shutdown_s:
            found.append(Press.SHUTDOWN)
        at += 1
    return found


LENGTHS = st.sampled_from([0.06, 0.1, 0.2, 0.5, 0.9, 1.1, 2.0, 4.8, 5.2, 7.0, 9.8, 10.2, 13.0])
PAUSES = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.6, 1.5])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(PAUSES, LENGTHS), max_size=5),
    st.lists(st.sampled_from([0.0, 0.01, 0.02]), max_size=10),
)
def test_any_row_of_presses_is_told_as_it_is_written(
    row: list[tuple[float, float]], bounce: list[float]
) -> None:
    spans, now = [], 0.5
    for pause, length in row:
        spans.append((now + pause, now + pause + length))
        now += pause + length
    assert told(spans, now + 1.0, bounce) == meant(spans)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Press)), st.sampled_from([0.2, 3.0, 9.0])), max_size=40))
def test_no_row_of_presses_throws_an_exam_away_unasked(row: list[tuple[Press, float]]) -> None:
    bench = Bench()
    asked_at = None
    for press, wait in row:
        before = bench.exam.phase
        bench.exam.done.clear()
        bench.guide.pressed(press)
        if "cancel" in bench.exam.done:
            assert asked_at is not None and bench.now - asked_at < ASK_S and press is Press.SHORT
        asked_at = bench.now if press is Press.HELD and before is not Phase.IDLE else None
        assert (bench.panel.light is Light.ASK_CANCEL) == (asked_at is not None)
        bench.later(wait)
        assert len(bench.exam.done) <= 1


def test_the_light_asks_while_the_button_is_still_down_and_shutdown_takes_longer() -> None:
    button = Button()
    levels = [(tick / 100, 100 <= tick < 1300) for tick in range(1400)]
    found = [(now, press) for now, down in levels if (press := button.feed(down, now))]
    ((held, first), (shutdown, second)) = found
    assert (first, second) == (Press.HELD, Press.SHUTDOWN)
    assert 6.0 <= held <= 6.05 and 11.0 <= shutdown <= 11.05
