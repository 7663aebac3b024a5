"""The verdict: any chopping gives the same windows, and what cannot be judged is `unsure` with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.checks.figures import screen as figures_screen
from device.inference import bundle
from device.inference.bundle import ModelEntry
from device.rates import WINDOW, WINDOW_EVERY
from device.screening import screen
from device.screening.quality import GOOD
from device.screening.screen import Screener, screen_recording
from device.screening.verdict import Findings, Label, Window, verdict
from device.sources.files import read_working_rate

META = {
    "combine": {"murmur": 0.25, "abnormal": 0.75},
    "bias": 0.1,
    "temperature": 2.0,
    "murmur_bias": 0.0,
    "murmur_temperature": 1.0,
    "threshold": 0.5,
    "undecided": [0.48, 0.52],
}
ENTRY = ModelEntry("classifier", Path("none.tflite"), META)


def network(x: np.ndarray) -> np.ndarray:
    """Every sample of the input has a say, so a shifted window is seen."""
    weights = np.cos(np.arange(x.size) * 0.37).reshape(x.shape)
    return np.array([(x * weights).sum(), (x * weights[::-1]).sum()], np.float32) * 0.05


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    path = Path(__file__).resolve().parent.parent.parent / "data" / "circor" / "68379_MV.flac"
    return read_working_rate(path)[0]


def window(probability: float | None, quality: float = 0.9, reasons: tuple[str, ...] = ()) -> Window:
    return Window(0, probability, quality, reasons, probability)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 7000), max_size=10), st.integers(0, 18_600))
def test_any_chopping_gives_the_same_windows(sizes: list[int], length: int) -> None:
    path = Path(__file__).resolve().parent.parent.parent / "data" / "circor" / "68379_MV.flac"
    x = read_working_rate(path)[0][:length]
    whole = screen_recording(x, ENTRY, network=network)
    stream, got, start = Screener(ENTRY, network), [], 0
    for size in [*sizes, length]:
        got += stream.process(x[start : start + size])
        start = min(start + size, length)
    got += stream.flush()
    assert got == whole.windows


def test_a_window_starts_every_second(sound: np.ndarray) -> None:
    found = screen_recording(sound, ENTRY, network=network)
    assert [w.start for w in found.windows] == list(range(0, len(sound) - WINDOW + 1, WINDOW_EVERY))


def test_a_window_hears_its_own_five_seconds_only(sound: np.ndarray) -> None:
    whole = screen_recording(sound, ENTRY, network=network)
    third = screen_recording(sound[4000 : 4000 + WINDOW], ENTRY, network=network)
    assert third.windows[0].probability == pytest.approx(whole.windows[2].probability, abs=1e-6)
    assert third.windows[0].quality == pytest.approx(whole.windows[2].quality)


def test_a_window_is_there_soon_after_its_last_sample(sound: np.ndarray) -> None:
    assert len(Screener(ENTRY, network).process(sound[: WINDOW + 80])) == 1


@pytest.mark.parametrize("gain", [0.02, 0.3])
def test_the_level_does_not_change_the_verdict(sound: np.ndarray, gain: float) -> None:
    loud = screen_recording(sound, ENTRY, network=network)
    other = screen_recording((sound * np.float32(gain)), ENTRY, network=network)
    assert other.probability == pytest.approx(loud.probability, abs=1e-3)


@pytest.mark.parametrize("samples", [0, 10, 3999])
def test_under_two_seconds_is_unsure(sound: np.ndarray, samples: int) -> None:
    found = screen_recording(sound[:samples], ENTRY, network=network)
    assert found == Findings(Label.UNSURE, None, None, ["under 2 s of sound"], [], None)


@pytest.mark.parametrize("samples", [4000, 7777, 9999])
def test_two_to_five_seconds_are_repeated(sound: np.ndarray, samples: int) -> None:
    found = screen_recording(sound[:samples], ENTRY, network=network)
    assert len(found.windows) == 1
    assert found.probability is not None


def test_silence_is_unsure_and_has_no_probability() -> None:
    found = screen_recording(np.zeros(20_000, np.float32), ENTRY, network=network)
    assert found.label is Label.UNSURE
    assert found.probability is None
    assert found.reasons == ["silence"]
    assert found.quality == 0.0
    assert len(found.windows) == 6


def test_gaps_lower_the_quality_of_the_windows_that_hold_them(sound: np.ndarray) -> None:
    found = screen_recording(sound, ENTRY, gaps=[(0, 1800)], network=network)
    assert "gaps" in found.windows[0].reasons
    assert not any("gaps" in w.reasons for w in found.windows[1:])


def test_the_probability_is_that_of_the_mean_logit_of_good_windows() -> None:
    windows = [window(0.9), window(0.5), window(0.01, quality=0.1, reasons=("clipped",))]
    found = verdict(windows, META)
    assert found.probability == pytest.approx(0.75)
    assert found.label is Label.ABNORMAL
    assert found.windows == windows


def test_the_threshold_and_the_undecided_zone() -> None:
    assert verdict([window(0.2)], META).label is Label.NORMAL
    assert verdict([window(0.8)], META).label is Label.ABNORMAL
    close = verdict([window(0.51)], META)
    assert close.label is Label.UNSURE
    assert close.reasons == ["probability close to the threshold"]
    assert close.probability == pytest.approx(0.51)


def test_too_few_good_windows_is_unsure_and_says_why() -> None:
    bad = window(0.9, quality=0.1, reasons=("clipped",))
    found = verdict([window(0.9), *[bad] * 8], META)
    assert found.label is Label.UNSURE
    assert found.reasons == ["clipped"]
    assert found.probability is not None
    assert verdict([bad], META).label is Label.UNSURE


@pytest.mark.parametrize(
    ("good", "bad", "judged"),
    [
        (1, 0, True),  # a recording of five seconds
        (0, 1, False),
        (1, 1, True),
        (1, 4, True),  # a third of five is one
        (1, 5, False),
        (2, 4, True),  # a third of six is two
        (2, 7, False),
        (3, 6, True),  # a third of nine is three
        (2, 53, False),
        (3, 53, True),  # and three are enough for a minute
    ],
)
def test_a_third_of_the_windows_or_three_must_be_good(good: int, bad: int, judged: bool) -> None:
    windows = [window(0.9)] * good + [window(0.9, quality=0.1, reasons=("clipped",))] * bad
    assert (verdict(windows, META).label is not Label.UNSURE) is judged


def test_a_window_at_the_limit_of_quality_is_good() -> None:
    assert verdict([window(0.9, quality=GOOD)], META).label is Label.ABNORMAL
    assert verdict([window(0.9, quality=GOOD - 0.001)], META).label is Label.UNSURE


def test_what_was_wrong_with_half_the_windows_is_not_told_of_the_whole() -> None:
    """It is when it was wrong with more than half of them; who hears a good recording is not sent to look
    for a trouble that lay in the lesser part of it."""
    hum, clean = window(0.9, reasons=("mains hum",)), window(0.9)
    assert verdict([hum, hum, clean, clean], META).reasons == []
    assert verdict([hum, hum, hum, clean, clean], META).reasons == ["mains hum"]
    assert verdict([hum, clean, clean, clean], META).reasons == []


def test_no_window_at_all() -> None:
    found = verdict([], META)
    assert (found.label, found.probability, found.quality) == (Label.UNSURE, None, None)


def test_logits_to_probabilities_by_the_bundles_numbers() -> None:
    abnormal, murmur = screen.probabilities(np.array([2.0, -1.0]), META)
    assert abnormal == pytest.approx(1 / (1 + np.exp(-(0.25 * 2 - 0.75 + 0.1) / 2)))
    assert murmur == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert screen.probabilities(np.array([-9e9, -9e9]), META) == (0.0, 0.0)


def test_the_released_network_hears_the_murmur(normal_recording: Path, murmur_recording: Path) -> None:
    entry = bundle.load().model("classifier")
    without = screen_recording(read_working_rate(normal_recording)[0], entry)
    heard = screen_recording(read_working_rate(murmur_recording)[0], entry)
    assert heard.murmur is not None and without.murmur is not None
    assert heard.murmur > without.murmur + 0.2
    assert heard.label is Label.ABNORMAL


def test_the_released_network_gives_its_stored_answers() -> None:
    released = bundle.load()
    entry, vectors = released.model("classifier"), released.vectors()
    run = screen.Int8Network(entry)
    step = entry.meta["outputs"][0]["scale"]
    for x, logits in zip(vectors["classifier/x"], vectors["classifier/logits"], strict=True):
        assert np.abs(run(x) - logits).max() <= 4 * step
    for sound, told in zip(vectors["classifier/sound"], vectors["classifier/probability"], strict=True):
        found = screen_recording(sound.astype(np.float32) / 32768, entry)
        assert found.probability == pytest.approx(told, abs=0.05)


def test_the_command_prints_its_figures(murmur_recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures_screen.main([str(murmur_recording)]) == 0
    out = capsys.readouterr().out
    assert "chopped equals whole: yes" in out
    assert "ms a window" in out
    assert "does not diagnose" in out
