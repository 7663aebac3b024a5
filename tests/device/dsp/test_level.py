"""The level tracker: scale, start, silence, knocks, one and many."""

from __future__ import annotations

import numpy as np
import pytest

from device.denoise.front_end import Level
from device.dsp.level import hop_high_pass, levels


def track(rms: np.ndarray) -> np.ndarray:
    tracker = Level()
    return np.array([tracker.step(float(r)) for r in rms])


def test_the_level_scales_with_the_sound() -> None:
    rms = np.random.default_rng(0).gamma(1.0, 1.0, 500)
    assert np.allclose(track(rms * 1e-3), track(rms) * 1e-3, rtol=1e-9)


def test_it_is_the_mean_at_first_and_follows_later() -> None:
    rms = np.random.default_rng(1).uniform(0.5, 1.5, 50)
    assert np.allclose(track(rms), np.cumsum(rms) / np.arange(1, 51))
    jump = track(np.concatenate([np.full(1000, 1.0), np.full(250, 2.0)]))
    assert jump[-1] == pytest.approx(2 - np.exp(-1), abs=0.01)  # one time constant after the step


def test_a_knock_does_not_deafen_it() -> None:
    rms = np.full(1000, 0.01)
    rms[500:503] = 10.0
    assert track(rms)[505] < 0.012


def test_silence_counts_nothing() -> None:
    rms = np.concatenate([np.zeros(100), np.full(10, 0.3), np.zeros(100), np.full(10, 0.3)])
    found = track(rms)
    assert found[99] == 0.0
    assert np.allclose(found[100:], 0.3)


def test_many_at_once_equal_one_by_one() -> None:
    rms = np.random.default_rng(2).gamma(0.5, 1.0, (3, 400))
    rms[1, :50] = 0.0
    assert np.allclose(levels(rms), np.stack([track(r) for r in rms]), rtol=1e-6)


def test_the_high_pass_takes_an_offset_away() -> None:
    m, z = hop_high_pass(), np.zeros(18, dtype=np.float32)
    for _ in range(200):
        z[2:] = 1.0
        y = m @ z
        z[0], z[1] = y[-1], 1.0
    assert abs(y[-1]) < 1e-6


def test_a_hop_counts_as_eight_times_the_level_at_most() -> None:
    """As training hears it: a net that was taught with another limit hears another level after a knock."""
    before = np.full(1000, 0.01)
    seven, eight, nine, knock = (track(np.append(before, 0.01 * k))[-1] for k in (7, 8, 9, 1000))
    assert seven < eight == pytest.approx(nine) == pytest.approx(knock)


def test_the_high_pass_has_its_corner_at_15_hz() -> None:
    """Lower a hand's drift is loudness, higher the heart is not."""
    m, z = hop_high_pass(), np.zeros(18, dtype=np.float32)
    x = np.sin(2 * np.pi * 15 * np.arange(4000) / 2000).astype(np.float32)
    parts = []
    for hop in x.reshape(-1, 16):
        z[2:] = hop
        y = m @ z
        z[0], z[1] = y[-1], hop[-1]
        parts.append(y)
    passed = np.concatenate(parts)[2000:]
    assert np.sqrt(np.mean(passed**2) / np.mean(x[2000:] ** 2)) == pytest.approx(np.sqrt(0.5), abs=0.02)
