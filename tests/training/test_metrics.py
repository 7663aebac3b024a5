"""Figures about sound, on sounds whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics import band, bootstrap, improvement, murmur_excess_db, snr_db

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
    as_one_each = bootstrap(values, [str(k) for k in range(100)])
    two_subjects = bootstrap(values, ["a"] * 50 + ["b"] * 50)
    assert as_one_each["high"] - as_one_each["low"] < 0.25
    assert (two_subjects["low"], two_subjects["high"]) == (0.0, 1.0)
    assert bootstrap([float("nan")], ["a"])["n"] == 0
