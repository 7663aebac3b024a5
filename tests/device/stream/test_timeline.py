"""Two clocks that differ, told late and unevenly: which samples belong together, and how fast each goes."""

from __future__ import annotations

import numpy as np
import pytest

from device.stream.timeline import Nominal, Timeline


def fed(rate_hz: int, ppm: float, seconds: float, *, start_s: float, block: int, jitter_s: float, seed: int):
    """A timeline that has heard a source whose crystal is wrong by `ppm` and whose blocks are told late."""
    random = np.random.default_rng(seed)
    line = Timeline(rate_hz)
    true = rate_hz * (1 + ppm * 1e-6)
    end = 0
    while end / true < seconds:
        end += block
        late = random.exponential(jitter_s) + (0.15 if random.random() < 0.01 else 0.0)
        line.note(end, start_s + (end - 1) / true + late)
    return line, true


@pytest.mark.parametrize("sound_ppm", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("ecg_ppm", [-200.0, 200.0])
@pytest.mark.parametrize("seconds", [6.0, 30.0, 600.0])
def test_the_right_samples_belong_together(sound_ppm: float, ecg_ppm: float, seconds: float) -> None:
    sound, sound_rate = fed(48000, sound_ppm, seconds, start_s=100.0, block=240, jitter_s=0.002, seed=1)
    ecg, ecg_rate = fed(360, ecg_ppm, seconds, start_s=100.73, block=8, jitter_s=0.003, seed=2)
    for at_s in (0.8, seconds / 2, seconds - 0.2):
        sample = at_s * sound_rate  # heard at 100 + at_s
        when = sound.at(sample)
        assert when is not None
        found = ecg.index_at(when)
        truth = (at_s - 0.73) * ecg_rate
        if seconds == 600.0 and at_s < 300:
            continue  # long ago: the line follows the last minutes
        assert found is not None and abs(found - truth) / 360 < 0.004, "within 4 ms"


@pytest.mark.parametrize("ppm", [-200.0, -20.0, 0.0, 75.0, 200.0])
def test_the_drift_is_measured(ppm: float) -> None:
    line, true = fed(2000, ppm, 120.0, start_s=5.0, block=40, jitter_s=0.002, seed=3)
    assert line.line is not None
    assert abs(line.line.true_rate_hz / true - 1) < 5e-6, "within 5 ppm after two minutes"
    assert line.line.spread_s is not None and line.line.spread_s < 0.002


def test_a_hole_begins_a_new_line_and_the_old_one_stays() -> None:
    line = Timeline(2000)
    for end in range(40, 40001, 40):
        line.note(end, 10.0 + (end - 1) / 2000)
    # the microphone was away for a while, and guessed wrongly by 100 ms how long
    for end in range(50040, 90001, 40):
        line.note(end, 10.1 + (end - 1) / 2000, broken=end == 50040)
    before, after = line.at(20000), line.at(70000)
    assert before == pytest.approx(20.0, abs=1e-4) and after == pytest.approx(45.1, abs=1e-4)
    assert line.index_at(20.0) == pytest.approx(20000, abs=1)
    assert line.index_at(45.1) == pytest.approx(70000, abs=1)


def test_nothing_is_known_before_anything_came() -> None:
    line = Timeline(360)
    assert line.at(0) is None and line.index_at(0.0) is None and line.line is None
    assert Nominal(360).index_at(2.0) == 720 and Nominal(360).at(720) == 2.0
