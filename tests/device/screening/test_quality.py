"""Bad sound is told apart from good, with the reason in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.checks.figures import quality as figures_quality
from device.screening import features, quality
from device.sources.files import read_working_rate
from device.spans import Gap


@pytest.fixture(scope="module")
def good(request: pytest.FixtureRequest) -> np.ndarray:
    path = Path(__file__).resolve().parent.parent.parent / "data" / "circor" / "49853_MV.flac"
    return read_working_rate(path)[0][:10_000]


def test_a_real_recording_is_good(good: np.ndarray) -> None:
    found = quality.assess(good)
    assert found.good
    assert 0.0 < found.score <= 1.0


def test_its_powers_may_be_handed_over(good: np.ndarray) -> None:
    assert quality.assess(good) == quality.assess(good, power=features.screening_frames_of(good))


def test_silence(good: np.ndarray) -> None:
    assert quality.assess(np.zeros(10_000, np.float32)) == quality.Quality(0.0, ("silence",))
    # a constant offset is silence too
    assert quality.assess(np.full(10_000, 0.3, np.float32)).reasons == ("silence",)


def test_too_quiet(good: np.ndarray) -> None:
    found = quality.assess(good * np.float32(0.001 / np.abs(good).max()))
    assert not found.good
    assert found.reasons[0] == "too quiet"


@pytest.mark.parametrize("peak", [0.005, 0.05, 0.9])
def test_the_level_does_not_matter_in_the_useful_range(good: np.ndarray, peak: float) -> None:
    scaled = quality.assess((good * (peak / np.abs(good).max())).astype(np.float32))
    assert scaled.score == pytest.approx(quality.assess(good).score, abs=0.02)


def test_clipped(good: np.ndarray) -> None:
    limit = np.percentile(np.abs(good), 92)
    assert "clipped" in quality.assess(np.clip(good, -limit, limit)).reasons


def test_gaps_count_by_their_share_and_only_inside(good: np.ndarray) -> None:
    assert "gaps" in quality.assess(good, [Gap(2000, 4000)]).reasons
    assert "gaps" in quality.assess(good, [(2000, 4000)]).reasons
    assert quality.assess(good, [(-5000, 0), (10_000, 20_000), (500, 510)]) == quality.assess(good)


def test_dropouts_nobody_marked(good: np.ndarray) -> None:
    x = good.copy()
    x[3000:4500] = 0.0
    assert "dropouts" in quality.assess(x).reasons


def test_knocks(good: np.ndarray) -> None:
    x = good * np.float32(0.02)
    x[5000:5040] += np.hanning(40).astype(np.float32)
    assert "rubbing or knocks" in quality.assess(x).reasons


def test_noise_has_no_heart_beat() -> None:
    rng = np.random.default_rng(3)
    found = quality.assess((0.1 * rng.standard_normal(10_000)).astype(np.float32))
    assert not found.good
    assert {"no heart beat found", "too noisy"} & set(found.reasons)


def test_a_whistle_above_400_hz(good: np.ndarray) -> None:
    t = np.arange(10_000) / 2000
    x = good + (2 * np.abs(good).max() * np.sin(2 * np.pi * 600 * t)).astype(np.float32)
    assert "voices or noise above 400 Hz" in quality.assess(x).reasons


def test_one_second_is_enough_to_see_bad_contact(good: np.ndarray) -> None:
    assert quality.assess(np.zeros(2000, np.float32)).reasons == ("silence",)
    # and too little to look for a beat
    assert "no heart beat found" not in quality.assess(good[:2000]).reasons


class Says:
    """A judge that always says the same."""

    def __init__(self, trusted: float, **causes: float) -> None:
        named = {name.split()[0]: name for name in quality.CAUSES}
        self.said = np.zeros(1 + len(quality.CAUSES))
        self.said[0] = trusted
        for word, chance in causes.items():
            self.said[1 + quality.CAUSES.index(named[word])] = chance

    def __call__(self, x: np.ndarray, power: np.ndarray) -> np.ndarray:
        return self.said


def test_the_judge_decides_and_says_why(good: np.ndarray) -> None:
    assert quality.assess(good, judge=Says(0.9)) == quality.Quality(pytest.approx(0.9), ())
    found = quality.assess(good, judge=Says(0.1, voices=0.7, rubbing=0.95))
    assert not found.good
    assert found.reasons == ("rubbing or knocks", "voices")
    # a window that does not count has a reason in any case
    assert quality.assess(good, judge=Says(0.1)).reasons == ("too noisy",)


def test_no_judge_makes_silence_clipping_or_a_gap_good(good: np.ndarray) -> None:
    sure = Says(1.0)
    assert quality.assess(np.zeros(10_000, np.float32), judge=sure).reasons == ("silence",)
    assert not quality.assess(good * np.float32(0.001 / np.abs(good).max()), judge=sure).good
    assert not quality.assess(good, [(0, 4000)], judge=sure).good


@pytest.mark.parametrize(("missing", "score"), [(0, 1.0), (200, 1.0), (1350, 0.5), (2500, 0.0), (4000, 0.0)])
def test_what_gaps_cost(good: np.ndarray, missing: int, score: float) -> None:
    """Up to a fiftieth of a window nothing, a quarter of it everything, in between by share."""
    found = quality.assess(good, [(3000, 3000 + missing)], judge=Says(1.0))
    assert found.score == pytest.approx(score)
    assert score == 0.5 or ("gaps" in found.reasons) is (score < 0.5)


@pytest.mark.parametrize(("clipped", "score"), [(0, 1.0), (50, 1.0), (275, 0.5), (500, 0.0)])
def test_what_clipping_costs(good: np.ndarray, clipped: int, score: float) -> None:
    """Up to one sample of two hundred nothing, a twentieth everything; at either end of the scale."""
    power, x = features.screening_frames_of(good), good.copy()
    top = np.float32(2 * np.abs(good).max())
    for n in range(clipped // 5):
        x[20 * n : 20 * n + 5] = top if n % 2 else -top
    found = quality.assess(x, power=power, judge=Says(1.0))
    assert found.score == pytest.approx(score, abs=1e-6)
    assert score == 0.5 or ("clipped" in found.reasons) is (score < 0.5)


def test_two_samples_at_the_peak_are_no_clipping(good: np.ndarray) -> None:
    """A wave that is sampled about its top has two of one height; cut flat it has more."""
    power, x = features.screening_frames_of(good), good.copy()
    for n in range(400):
        x[20 * n : 20 * n + 2] = 2 * np.abs(good).max()
    assert quality.assess(x, power=power, judge=Says(1.0)).score == 1.0


def test_silence_ends_where_a_16_bit_recording_begins_to_have_steps() -> None:
    """An open input is told as silence; a very faint heart as too quiet, which more gain may mend."""
    x = np.sin(2 * np.pi * 50 * np.arange(10_000) / 2000)
    assert quality.assess((0.9e-4 * x).astype(np.float32)).reasons == ("silence",)
    assert quality.assess((1.2e-4 * x).astype(np.float32)).reasons[0] == "too quiet"


def test_a_cause_is_told_when_it_is_likelier_than_not(good: np.ndarray) -> None:
    assert quality.assess(good, judge=Says(0.9, voices=0.55)).reasons == ("voices",)
    assert quality.assess(good, judge=Says(0.9, voices=0.45)).reasons == ()


def test_the_limit_of_good_is_good() -> None:
    assert quality.Quality(quality.GOOD).good and not quality.Quality(quality.GOOD - 1e-6).good


def test_a_judge_is_milder_with_less_than_a_window(good: np.ndarray) -> None:
    """The light looks at a second or two; one that cries wolf is not looked at."""
    shapes = {"mean": 89, "scale": 89, "w1": (89, 5), "b1": 5, "w2": (5, 7), "b2": 7}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    judge = quality.QualityJudge(arrays | {"lift": np.array([2.0], np.float32)})
    window, short = (judge(x, features.screening_frames_of(x)) for x in (good, good[:9_999]))
    assert window == pytest.approx(0.5)
    assert short[0] == pytest.approx(1 / (1 + np.exp(-2.0))) and short[1:] == pytest.approx(0.5)


@pytest.mark.parametrize("n", [2000, 2333, 6000, 10_000, 31_000])
def test_measures_have_one_shape_for_any_length(good: np.ndarray, n: int) -> None:
    x = np.resize(good, n)
    found = quality.measures(x, features.screening_frames_of(x))
    assert found.shape == (89,)
    assert np.isfinite(found).all()
    assert np.isfinite(
        quality.measures(np.zeros(n, np.float32), features.screening_frames_of(np.zeros(n)))
    ).all()


def test_a_judge_comes_back_from_a_bundles_arrays() -> None:
    rng = np.random.default_rng(1)
    shapes = {"mean": 89, "scale": 89, "w1": (89, 5), "b1": 5, "w2": (5, 7), "b2": 7, "lift": 1}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    judge = quality.QualityJudge.of(quality.QualityJudge.named(arrays))
    x = rng.standard_normal(4000).astype(np.float32)
    power = features.screening_frames_of(x)
    assert judge is not None
    assert (judge(x, power) == quality.QualityJudge(arrays)(x, power)).all()
    assert ((judge(x, power) >= 0) & (judge(x, power) <= 1)).all()
    assert quality.QualityJudge.of({}) is None


def test_troubles_say_where() -> None:
    # a knock in second 6 of twelve spoils every window about it
    windows = [(2000 * k, ("rubbing or knocks",) if k <= 6 <= k + 4 else ()) for k in range(8)]
    assert [str(t) for t in quality.troubles(windows)] == ["rubbing or knocks at 6–7 s"]
    assert quality.troubles([(0, ("voices",))]) == [quality.Trouble("voices", 0, 5)]
    assert quality.troubles([(0, ()), (2000, ())]) == []
    assert quality.troubles([]) == []


def test_troubles_are_apart_in_time_and_by_reason() -> None:
    windows = [(2000 * k, ("hiss",) if k < 3 or k > 15 else ()) for k in range(20)]
    assert [str(t) for t in quality.troubles(windows)] == ["hiss at 0–3 s", "hiss at 20–24 s"]
    # a second that no window heard is not blamed
    assert [str(t) for t in quality.troubles([(0, ("hiss",)), (12_000, ("hiss",))])] == [
        "hiss at 0–5 s",
        "hiss at 6–11 s",
    ]


def test_the_command_has_a_line_a_second(normal_recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures_quality.main([str(normal_recording)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert figures_quality.main([str(normal_recording.with_name("none.wav"))]) == 2
