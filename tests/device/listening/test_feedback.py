"""Feedback is a tone that grows because it is heard again; nothing else that hearts and rooms do is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.checks.figures import feedback as figures_feedback
from device.listening import feedback
from device.listening.feedback import FeedbackWatch
from device.settings.specs import HeartSettings
from device.sources.files import read_working_rate, write_sound
from device.sources.synthetic import synthesise

RATE = 2000


def loop(gain: float, hz: float = 430.0, seconds: float = 8.0, delay_s: float = 0.06) -> np.ndarray:
    """A microphone that hears its loudspeaker: heart, and what the loop of that gain makes of it.

    The room passes a narrow band best; the loudspeaker clips at full scale.
    """
    heart = synthesise(HeartSettings(noise_db=20, level=0.1), seconds).samples.astype(np.float64)
    delay = round(delay_s * RATE)
    r = 0.995
    a1, a2 = -2 * r * np.cos(2 * np.pi * hz / RATE), r * r
    heard = np.zeros(len(heart))
    y1 = y2 = 0.0
    for n in range(len(heart)):
        x = np.clip(heard[n - delay], -1, 1) if n >= delay else 0.0
        y = (1 - r) * 2 * x - a1 * y1 - a2 * y2
        y1, y2 = y, y1
        heard[n] = heart[n] + gain * y
    return np.clip(heard, -1, 1).astype(np.float32)


def times(x: np.ndarray, played: np.ndarray | None = None, chop: int = 100) -> int:
    watch = FeedbackWatch()
    played = x if played is None else played
    for at in range(0, len(x), chop):
        watch.process(x[at : at + chop], played[at : at + chop])
    return watch.times


@pytest.mark.parametrize("hz", [180.0, 430.0, 700.0])
@pytest.mark.parametrize("gain", [1.6, 3.0])
def test_a_loop_that_swings_up_is_found_and_one_that_does_not_is_none(hz: float, gain: float) -> None:
    x = loop(gain, hz)
    assert times(x) >= 1
    watch = FeedbackWatch()
    at = next(at for at in range(0, len(x), 50) if watch.process(x[at : at + 50], x[at : at + 50]))
    assert watch.found == pytest.approx(hz, abs=15) and np.abs(x[:at]).max() <= 1.0
    assert times(loop(0.5, hz)) == 0


@pytest.mark.parametrize("hz", [180.0, 430.0, 700.0])
def test_a_tone_that_is_clipped_to_a_square_is_found(hz: float) -> None:
    """It grows no more, and a fifth of its power lies in its harmonics."""
    heart = synthesise(HeartSettings(noise_db=20, level=0.1), 3).samples
    x = np.clip(heart + 10 * np.sin(2 * np.pi * hz * np.arange(len(heart)) / RATE), -1, 1)
    assert times(x.astype(np.float32)) >= 1


def test_it_ends_when_the_tone_does() -> None:
    watch = FeedbackWatch()
    x = loop(3.0)
    watch.process(x, x)
    assert watch.found is not None
    quiet = synthesise(HeartSettings(noise_db=20, level=0.1), 5).samples
    assert not watch.process(quiet, quiet) and watch.found is None


def test_what_is_not_played_is_no_feedback() -> None:
    x = loop(3.0)
    assert times(x, synthesise(HeartSettings(level=0.1), 8).samples) == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["white", "hum", "breath", "rub"])
def test_hearts_hum_breath_and_rubbing_are_none(kind: str, seed: int) -> None:
    settings = HeartSettings(noise=kind, noise_db=-6, seed=seed, murmur="systolic", grade=6)
    assert times(synthesise(settings, 20).samples) == 0


def test_real_hearts_and_switched_tones_are_none(normal_recording: Path, murmur_recording: Path) -> None:
    for path in (normal_recording, murmur_recording):
        x, _ = read_working_rate(str(path))
        assert times(x) == 0 and times(x * (0.9 / np.abs(x).max())) == 0
    t = np.arange(10 * RATE) / RATE
    on = np.where((t > 3) & (t < 7), 0.05, 0.0) * np.sin(2 * np.pi * 300 * t)
    assert times(on.astype(np.float32)) == 0


def tone(db_a_step: float, steps: int, from_db: float = -60.0, hz: float = 437.5) -> np.ndarray:
    """A sine that rises by so much every 128 ms, of just so many looks; its line lies on the grid."""
    n = np.arange(512 + (steps - 1) * 256)
    size = 10.0 ** ((from_db + db_a_step * n / 256) / 20.0)
    return (size * np.sin(2 * np.pi * hz * n / RATE)).astype(np.float32)


@pytest.mark.parametrize("db_a_step", [-1.25, -0.25, 0.0, 0.25, 1.15])
def test_a_tone_that_does_not_rise_or_rises_slower_than_feedback_is_none(db_a_step: float) -> None:
    """A falling one rings out, a level one hums, a slow one is a person who comes nearer."""
    assert times(tone(db_a_step, 6)) == 0


def test_a_tone_that_rises_by_itself_is_found_at_its_sixth_look_and_not_before() -> None:
    assert times(tone(1.25, 6)) == 1
    assert times(tone(1.25, 5)) == 0


def test_a_tone_that_goes_on_rising_is_told_again() -> None:
    """Once lowered was not enough: the next six looks lower it again."""
    assert times(tone(1.25, 12)) == 2


def test_a_tone_at_the_top_of_the_scale_is_found_after_longer_than_any_heart_sound() -> None:
    """It need not rise; but not one look sooner, and not when it stands a little lower."""
    assert times(tone(0.0, 12, from_db=-15.0)) == 1
    assert times(tone(0.0, 11, from_db=-15.0)) == 0
    assert times(tone(0.0, 40, from_db=-17.0)) == 0


@pytest.mark.parametrize(
    ("rises_db", "found"),
    [
        ((1.5, 1.5, 1.5, 1.5, 0.0), True),  # just enough in all
        ((1.5, 1.5, 1.5, 1.25, 0.0), False),
        ((0.3, 2.0, 2.0, 2.0, 0.0), True),  # just enough in four of five steps
        ((0.25, 2.0, 2.0, 2.0, 0.0), False),
        ((2.0, 2.0, 2.0, 0.0, 0.0), False),
        ((2.0, 2.0, 2.0, 2.0, -1.0), True),  # the heart beats on beside it
        ((6.75, 1.0, 1.0, 1.0, 0.25), True),
        ((7.0, 1.0, 1.0, 1.0, 0.0), False),  # a tone that was switched on, and its room
        ((-2.0, -2.0, -2.0, -2.0, -2.0), False),
        ((0.0, 0.0, 0.0, 0.0, 0.0), False),
    ],
)
def test_what_counts_as_rising_by_itself(rises_db: tuple[float, ...], found: bool) -> None:
    assert feedback._has_risen(np.cumsum([0.0, *rises_db]).tolist()) is found


def test_on_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sound(tmp_path / "x.wav", loop(3.0), RATE)
    assert figures_feedback.main([str(tmp_path / "x.wav")]) == 0
    assert "times" in capsys.readouterr().out
    assert figures_feedback.main([str(tmp_path / "none.wav")]) == 2 and figures_feedback.main([]) == 2
