"""Figures about sound, on sounds whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics.denoising import (
    band,
    beat_shifts_ms,
    bootstrap_values,
    correlation,
    improvement,
    kept_db,
    murmur_excess_db,
    paired_bootstrap,
    snr_db,
)

N = 20000
T = np.arange(N) / 2000


def test_band_passes_the_middle_and_stops_the_rest() -> None:
    inner = slice(1000, -1000)
    for hz, passes in ((10, 0.0), (60, 1.0), (380, 1.0), (460, 0.0)):
        x = np.sin(2 * np.pi * hz * T)
        assert np.std(band(x)[inner]) / np.std(x) == pytest.approx(passes, abs=0.01)


def test_snr_of_known_noise() -> None:
    rng = np.random.default_rng(0)
    s, n = rng.standard_normal(N), rng.standard_normal(N)
    n -= s * (n @ s) / (s @ s)
    n *= np.sqrt((s @ s) / (n @ n)) * 10 ** (-6 / 20)
    assert snr_db(s, s + n) == pytest.approx(6.0, abs=1e-6)
    assert snr_db(s, s) == 100.0
    assert np.isnan(snr_db(np.zeros(N), n))
    # at best gain an orthogonal noise leaves 1 + snr in power
    assert snr_db(s, s + n, best_volume=True) == pytest.approx(10 * np.log10(1 + 10**0.6), abs=1e-6)
    assert snr_db(s, 0.1 * s, best_volume=True) == 100.0


def test_turning_the_volume_down_is_no_improvement_beyond_volume() -> None:
    rng = np.random.default_rng(1)
    s = rng.standard_normal(N)
    x = s + rng.standard_normal(N)
    plain, beyond = improvement(s, x, 0.5 * x)
    assert plain > 2.0
    assert beyond == pytest.approx(0.0, abs=1e-9)


def test_murmur_excess_of_known_power() -> None:
    spans, x = [], np.zeros(N)
    rng = np.random.default_rng(2)
    noise = band(rng.standard_normal(N), 120, 350)
    for k in range(10):
        t = k * 1.0
        spans += [
            (t, t + 0.1, "S1"),
            (t + 0.1, t + 0.4, "systole"),
            (t + 0.4, t + 0.5, "S2"),
            (t + 0.5, t + 1.0, "diastole"),
        ]
        x[int((t + 0.1) * 2000) : int((t + 0.4) * 2000)] = 1.0
    murmur = noise * np.where(x > 0, 10.0, 1.0)
    assert murmur_excess_db(murmur, spans) == pytest.approx(20.0, abs=1.5)
    assert murmur_excess_db(noise, spans) == pytest.approx(0.0, abs=1.5)
    assert np.isnan(murmur_excess_db(murmur, spans[:6]))


def test_bootstrap_draws_subjects_not_recordings() -> None:
    values = [0.0] * 50 + [1.0] * 50
    as_one_each = bootstrap_values(values, [str(k) for k in range(100)])
    two_subjects = bootstrap_values(values, ["a"] * 50 + ["b"] * 50)
    assert as_one_each["high"] - as_one_each["low"] < 0.25
    assert (two_subjects["low"], two_subjects["high"]) == (0.0, 1.0)
    assert bootstrap_values([float("nan")], ["a"])["n"] == 0


def heart() -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    x, spans = np.zeros(N), []
    for k in range(10):
        for state, at, hz in (("S1", 1.0 * k + 0.05, 45), ("S2", 1.0 * k + 0.4, 70)):
            t = np.arange(160) / 2000
            x[int(at * 2000) : int(at * 2000) + 160] += np.sin(2 * np.pi * hz * t) * np.hanning(160)
            spans.append((at, at + 0.08, state))
    return x, spans


@pytest.mark.parametrize("samples", [0, 1, -7, 24])
def test_the_shift_of_a_shifted_sound_is_found(samples: int) -> None:
    x, spans = heart()
    x = x + 1e-4 * np.random.default_rng(3).standard_normal(N)
    found = beat_shifts_ms(x, 0.3 * np.roll(x, samples), spans)
    assert len(found["S1"]) >= 8
    for beat in ("S1", "S2"):
        np.testing.assert_allclose(found[beat], samples / 2, atol=0.1)


def test_of_one_beat_alone_the_shift_is_told_apart() -> None:
    x, spans = heart()
    y = x + 1e-4 * np.random.default_rng(4).standard_normal(N)
    for start, _, state in spans:
        if state == "S2":
            i = int(start * 2000)
            y[i - 20 : i + 200] = np.roll(y[i - 20 : i + 200], 10)
    found = beat_shifts_ms(x + 1e-4, y, spans)
    assert np.median(found["S1"]) == pytest.approx(0.0, abs=0.2)
    assert np.median(found["S2"]) == pytest.approx(5.0, abs=0.7)


def test_what_is_kept_of_a_part_is_told_whatever_else_comes_out() -> None:
    rng = np.random.default_rng(5)
    part, rest, noise = rng.standard_normal((3, N))
    assert kept_db(part, rest, part + rest) == pytest.approx(0.0, abs=1e-9)
    assert kept_db(part, rest, 0.1 * part + 0.7 * rest) == pytest.approx(-20.0, abs=1e-9)
    assert kept_db(part, rest, 0.5 * part + rest + noise) == pytest.approx(-6.0, abs=0.5)
    assert kept_db(part, rest, rest) == -60.0
    assert np.isnan(kept_db(np.zeros(N), rest, rest))


def test_correlation_knows_no_volume() -> None:
    x = np.random.default_rng(6).standard_normal(N)
    assert correlation(x, 3 * x + 1) == pytest.approx(1.0)
    assert correlation(x, -x) == pytest.approx(-1.0)
    assert np.isnan(correlation(x, np.zeros(N)))


def test_pairs_are_surer_than_each_alone() -> None:
    rng = np.random.default_rng(7)
    hard = rng.normal(0, 3, 60)  # what both find hard
    one, other = hard + 0.5 + rng.normal(0, 0.1, 60), hard + rng.normal(0, 0.1, 60)
    found = paired_bootstrap(lambda v, k: float(v[k].mean()), one, other, [str(k) for k in range(60)])
    low, high = found["difference"]["low"], found["difference"]["high"]
    assert low is not None
    assert high is not None
    assert 0.4 < low < 0.5 < high < 0.6
    alone = found["one"]
    assert alone["high"] - alone["low"] > 5 * (high - low)  # type: ignore[operator]
