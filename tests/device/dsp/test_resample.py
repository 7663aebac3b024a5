"""Rates: alignment, response, chopping. What a stage gives must not depend on how the sound came in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.dsp.resample import (
    Decimator,
    Interpolator,
    Resampler,
    resample,
    response,
    to_working,
    upsample,
    working_length,
)
from device.errors import BadInput
from device.rates import HOP, WORKING_RATE_HZ, check_rate
from device.sources.files import write_sound

MICROPHONES = [8000, 16000, 44100, 48000, 96000]
RATES = [
    2000,
    2001,
    2003,
    2500,
    3999,
    4000,
    *MICROPHONES[:3],
    11025,
    22027,
    *MICROPHONES[3:],
    191_999,
    192_000,
]


def tone(hz: float, rate_hz: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)


def whole(stage: Decimator | Interpolator | Resampler, x: np.ndarray) -> np.ndarray:
    return np.concatenate([stage.process(x), stage.flush()])


def chopped(stage: Decimator | Interpolator | Resampler, x: np.ndarray, cuts: list[int]) -> np.ndarray:
    edges = [0, *sorted(c % (len(x) + 1) for c in cuts), len(x)]
    pieces = [stage.process(x[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    return np.concatenate([*pieces, stage.flush()])


def db(x: np.ndarray, of: float = 1.0) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(x, dtype=np.float64))) / of + 1e-15))


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_comes_out_where_it_was(rate: int) -> None:
    """Sample n of the output is the sound at n / 2000 s: no shift, no change of level, up to 700 Hz."""
    for hz in (20.0, 333.3, 700.0):
        y = whole(Decimator(rate), tone(hz, rate))
        assert len(y) == WORKING_RATE_HZ
        error = (y - tone(hz, WORKING_RATE_HZ))[100:-100]
        assert db(error, 0.7) < -75


@pytest.mark.parametrize("rate", [r for r in RATES if r > 2000])
def test_nothing_folds_back(rate: int) -> None:
    """80 dB are taken from every tone between 1,000 Hz and half the rate."""
    for hz in (1000.5, 1100.0, 1999.0, 2900.0, rate / 2 - 1):
        if 1000 <= hz < rate / 2:
            assert db(whole(Decimator(rate), tone(hz, rate))[100:-100], 0.707) < -79.5, hz


@pytest.mark.parametrize("rate", [r for r in RATES if r > 2000])
def test_the_filter_keeps_its_promises(rate: int) -> None:
    ripple, stop = response(rate)
    assert ripple <= 0.1 and stop <= -80
    assert 0.011 < Decimator(rate).delay_s <= 0.0125


def test_the_delay_is_what_the_stage_waits_for() -> None:
    """A hop comes out as soon as its last sample has `delay_s` of sound behind it, and not before."""
    for rate in (4000, 44100, 48000):
        stage = Decimator(rate)
        needed = int((HOP - 1) * rate / WORKING_RATE_HZ) + round(stage.delay_s * rate) + 1
        assert len(stage.process(np.zeros(needed - 1))) == 0
        assert len(stage.process(np.zeros(1))) == HOP


def test_the_pi_can_afford_it() -> None:
    assert Decimator(48000).mac_per_s <= 3_000_000
    assert Decimator(2000).mac_per_s == 0
    assert Interpolator(48000, sharp=False).mac_per_s <= 2_000_000


def test_the_working_rate_passes_untouched() -> None:
    x = np.random.default_rng(3).uniform(-1, 1, 1003).astype(np.float32)
    stage = Decimator(WORKING_RATE_HZ)
    first = stage.process(x)
    assert len(first) == 992 and np.array_equal(np.concatenate([first, stage.flush()]), x)
    assert stage.delay_s == 0


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n", [0, 1, 15, 1000, 2477])
def test_the_length_is_the_ceiling_of_the_ratio(rate: int, n: int) -> None:
    x = np.ones(n, np.float32)
    assert len(whole(Decimator(rate), x)) == working_length(n, rate) == -(-n * 2000 // rate)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.one_of(st.sampled_from(RATES), st.integers(2000, 192_000)),
    n=st.integers(0, 9000),
    cuts=st.lists(st.integers(0, 9000), max_size=30),
    seed=st.integers(0, 9),
)
def test_any_chopping_gives_the_same_bits(rate: int, n: int, cuts: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    assert np.array_equal(whole(Decimator(rate), x), chopped(Decimator(rate), x, cuts))


@settings(max_examples=40, deadline=None)
@given(
    rate=st.one_of(st.sampled_from(RATES), st.integers(2000, 192_000)),
    n=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 400), max_size=30),
    sharp=st.booleans(),
)
def test_any_chopping_gives_the_same_bits_on_the_way_back(
    rate: int, n: int, cuts: list[int], sharp: bool
) -> None:
    x = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    one, other = Interpolator(rate, sharp=sharp), Interpolator(rate, sharp=sharp)
    assert np.array_equal(whole(one, x), chopped(other, x, cuts))


@settings(max_examples=30, deadline=None)
@given(
    rate=st.one_of(st.sampled_from(RATES), st.integers(2000, 192_000)),
    hz=st.lists(st.floats(5, 750), min_size=1, max_size=4),
    extra=st.integers(0, 999),
)
def test_down_and_up_again_is_the_same_sound(rate: int, hz: list[float], extra: int) -> None:
    n = rate // 2 + extra
    x = sum(np.sin(2 * np.pi * f * np.arange(n) / rate + f) for f in hz) / len(hz)
    back = upsample(whole(Decimator(rate), x), rate, n)
    assert back.shape == (n,) and back.dtype == np.float32
    edge = int(0.06 * rate)
    assert db((back - x)[edge:-edge]) < db(x[edge:-edge]) - 60


def test_phases_between_the_tables_are_as_good_as_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prime rate has 2,000 phases; above a size they are interpolated. Both must give the same sound."""
    x = np.random.default_rng(5).uniform(-1, 1, 48017)
    interpolated = Decimator(48017)
    monkeypatch.setattr("device.dsp.resample._EXACT", 1 << 30)
    exact = Decimator(48017)
    assert exact._phases is not None and interpolated._phases is not None
    assert exact._phases.exact and not interpolated._phases.exact
    assert db(whole(exact, x) - whole(interpolated, x)) < db(x) - 100


def test_a_prime_rate_needs_little_memory() -> None:
    phases = Decimator(191_999)._phases
    assert phases is not None and phases.table.nbytes < 8_000_000


def test_a_constant_keeps_its_level_at_every_phase() -> None:
    for rate in (2003, 22050, 44100, 191_999):
        y = whole(Decimator(rate), np.full(rate // 5, 0.5, np.float32))
        assert np.abs(y[50:-50] - 0.5).max() < 1e-5


@pytest.mark.parametrize("rate", [0, 1999, 192_001, 4000.5])
def test_other_rates_are_refused(rate: float) -> None:
    with pytest.raises(BadInput, match=r"Hz: not from 2000 to 192000 Hz; resample it"):
        check_rate(rate)  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        Decimator(rate)  # type: ignore[arg-type]


def test_only_one_channel_at_a_time() -> None:
    with pytest.raises(ValueError, match="shape"):
        Decimator(8000).process(np.zeros((5, 2)))


def test_spans_at_the_working_rate_cover_what_they_stand_for() -> None:
    assert to_working(0, 1, 48000) == (0, 1)
    assert to_working(47, 49, 48000) == (1, 3)
    assert to_working(5, 9, 2000) == (5, 9)


def test_the_program_prints_its_figures(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.wav", tone(100, 44100, 0.5) * 0.5, 44100)
    run = subprocess.run(
        [sys.executable, "-m", "device.checks.figures.resample", path], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    for text in (
        "44100 Hz, 0.500 s → 2000 Hz, 1000 samples",
        "max difference 0 (limit 0)",
        "delay 12.27 ms (limit 12.5)",
        "ripple 0.0077 dB (limit 0.1)   from 1000 Hz: -81.0 dB (limit -80)",
        "2.16 MMAC/s",
    ):
        assert text in run.stdout
    run = subprocess.run(
        [sys.executable, "-m", "device.checks.figures.resample", tmp_path], capture_output=True, text=True
    )
    assert run.returncode == 2 and run.stderr.startswith("stethopi: ") and run.stderr.count("\n") == 1


# ---- any two rates


@pytest.mark.parametrize("rate_hz", [100, 128, 250, 257, 360, 500, 1000])
def test_an_ecg_comes_back_where_it_was(rate_hz: int) -> None:
    rng = np.random.default_rng(1)
    n = 20 * rate_hz + 7
    t = np.arange(n) / rate_hz
    highest = 0.8 * min(rate_hz, 360) / 2
    tones = sum(np.sin(2 * np.pi * (hz * t + rng.random())) for hz in np.linspace(1, highest, 9))
    x = (tones * 0.1 - 0.4).astype(np.float32)
    there = resample(x, rate_hz, 360)
    assert len(there) == -(-n * 360 // rate_hz)
    back = resample(there, 360, rate_hz, n)
    assert len(back) == n
    inside = slice(rate_hz, -rate_hz)
    assert db(back[inside] - x[inside], float(np.std(x))) < -60
    assert np.abs(back - x)[: rate_hz // 2].max() < 0.6, "an offset does not ring at the edges"
    # aligned: sample m of the other rate is what the tones are at m / 360 s
    m = np.arange(len(there)) / 360
    rng = np.random.default_rng(1)
    truth = 0.1 * sum(np.sin(2 * np.pi * (hz * m + rng.random())) for hz in np.linspace(1, highest, 9)) - 0.4
    assert db((there - truth)[360:-360], float(np.std(truth))) < -60


def test_a_constant_stays_one_from_the_first_sample_to_the_last() -> None:
    for there, back in ((500, 360), (100, 360), (1000, 360)):
        assert np.abs(resample(np.full(3 * there, 0.7, np.float32), there, back) - 0.7).max() < 1e-5


@given(st.lists(st.integers(0, 3000), max_size=6), st.sampled_from([250, 500, 997]))
@settings(max_examples=15, deadline=None)
def test_any_chopping_gives_the_same_at_any_rate(cuts: list[int], rate_hz: int) -> None:
    x = np.random.default_rng(2).standard_normal(1500).astype(np.float32)
    np.testing.assert_array_equal(
        chopped(Resampler(rate_hz, 360), x, cuts), whole(Resampler(rate_hz, 360), x)
    )


def test_what_would_fold_back_is_stopped() -> None:
    x = tone(200, 1000, 4.0).astype(np.float32)
    assert db(resample(x, 1000, 360)[360:-360], 0.707) < -78
