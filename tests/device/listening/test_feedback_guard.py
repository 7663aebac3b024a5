"""What is done about feedback: softer, told, and never louder by itself."""

from __future__ import annotations

import numpy as np
import pytest

from device.listening.control import ListeningControl
from device.listening.feedback_guard import FeedbackGuard
from device.listening.outputs import NoListener
from device.settings.sections import ListenSettings
from device.settings.specs import HeartSettings
from device.sources.synthetic import SyntheticSource
from tests.device.fakes import FakeCleaner


class Ears(NoListener):
    """Nobody, who remembers which gain was asked for."""

    def __init__(self) -> None:
        self.gains: list[float | None] = []

    def change(
        self, *, monitor: str | None = None, preset: str | None = None, gain_db: float | None = None
    ) -> None:
        self.gains.append(gain_db)


class Loudspeaker:
    """A guard over a loudspeaker; `lights` is what it showed, `told` how often a change was told."""

    def __init__(self, gain_db: float, monitor: str = "clean") -> None:
        self.ears, self.lights = Ears(), list[bool]()
        self.told = 0
        settings = ListenSettings(output="device", gain_db=gain_db, monitor=monitor)
        self.listening = ListeningControl(settings, 1.0, self.tell)
        self.listening.attach(FakeCleaner(), self.ears)
        self.guard = FeedbackGuard(self.listening, self.lights.append)

    def tell(self) -> None:
        self.told += 1


def rising(seconds: float = 0.95) -> np.ndarray:
    """What a microphone hears of its own loudspeaker: a tone that grows by itself, found once."""
    n = np.arange(round(seconds * 2000))
    return (1e-3 * 10.0 ** (0.0625 * n / 256) * np.sin(2 * np.pi * 437.5 * n / 2000)).astype(np.float32)


def heart(n: int) -> np.ndarray:
    return SyntheticSource(HeartSettings(seed=1)).heart.render(0, n)


@pytest.mark.parametrize(
    ("gain_db", "lowered_db"), [(12.0, 6.0), (0.0, -6.0), (-34.0, -40.0), (-38.0, -40.0)]
)
def test_feedback_lowers_what_the_ear_hears_and_is_told(
    caplog: pytest.LogCaptureFixture, gain_db: float, lowered_db: float
) -> None:
    """Louder instead of softer, it would howl into an ear; below -40 dB no message takes it."""
    speaker, x = Loudspeaker(gain_db), rising()
    speaker.guard.hear(x, x)
    assert speaker.ears.gains == [lowered_db] and speaker.listening.now.gain_db == lowered_db
    assert speaker.told == 1 and speaker.lights == [True] and speaker.guard.found_hz == 437.5
    assert f"gain lowered from {gain_db:g} to {lowered_db:g} dB" in caplog.text
    speaker.guard.hear(heart(10_000), heart(10_000))
    assert speaker.lights == [True, False] and speaker.guard.found_hz is None
    assert speaker.ears.gains == [lowered_db]  # it stays low: louder is for a hand


def test_feedback_that_grows_on_is_lowered_again() -> None:
    speaker, x = Loudspeaker(3.0), rising(1.7)
    for at in range(0, len(x), 100):
        speaker.guard.hear(x[at : at + 100], x[at : at + 100])
    assert speaker.ears.gains == [-3.0, -9.0]


@pytest.mark.parametrize(("monitor", "gains"), [("clean", []), ("raw", [-6.0])])
def test_a_tone_that_is_heard_and_not_played_changes_nothing(monitor: str, gains: list[float]) -> None:
    """A phone that rings beside the chest piece: removed from the clean sound that is played, it is no
    feedback; played raw, it may be."""
    speaker = Loudspeaker(0.0, monitor)
    speaker.guard.hear(rising(), heart(1900))
    assert speaker.ears.gains == gains and speaker.lights == [True] * len(gains)
