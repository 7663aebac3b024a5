"""Band powers on an absolute grid, and an input that knows neither level nor microphone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.rates import WINDOW, WINDOW_EVERY
from device.screening import features


def sound(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 2000)) / 2000
    beat = np.exp(-(((t % 0.8) - 0.1) ** 2) / 0.001) * np.sin(2 * np.pi * 60 * t)
    return (0.3 * beat + 0.002 * rng.standard_normal(len(t))).astype(np.float32)


def test_a_window_is_248_whole_frames_and_windows_are_50_apart() -> None:
    assert (features.FRAMES - 1) * features.FRAME_HOP + features.FRAME == WINDOW
    assert features.FRAMES_EVERY * features.FRAME_HOP == WINDOW_EVERY


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 13_000))
def test_any_chopping_gives_the_same_bits(sizes: list[int], length: int) -> None:
    x = sound(6.5)[:length]
    whole = features.screening_frames_of(x)
    stream, got, start = features.ScreeningFrames(), [], 0
    for size in [*sizes, length]:
        got.append(stream.process(x[start : start + size]))
        start = min(start + size, length)
    chopped = np.concatenate([*got, stream.flush()])
    assert chopped.shape == whole.shape
    assert (chopped == whole).all()


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (119, 0), (120, 1), (159, 1), (160, 2), (10_000, 248)]
)
def test_only_whole_frames_are_given(samples: int, frames: int) -> None:
    assert features.screening_frames_of(np.ones(samples, np.float32)).shape == (frames, features.BANDS)


def test_a_tone_lies_in_the_band_of_its_frequency() -> None:
    centres = (features.mel_filters() * np.fft.rfftfreq(256, 1 / 2000)[:, None]).sum(axis=0)
    for hertz in (60.0, 150.0, 400.0, 700.0):
        x = np.sin(2 * np.pi * hertz * np.arange(4000) / 2000).astype(np.float32)
        loudest = features.screening_frames_of(x).mean(axis=0).argmax()
        assert abs(centres[loudest] - hertz) < 25


def test_the_filters_have_unit_sum() -> None:
    assert np.allclose(features.mel_filters().sum(axis=0), 1.0)


@pytest.mark.parametrize("gain", [0.005, 0.1, 3.0])
def test_the_level_leaves_no_trace(gain: float) -> None:
    x = sound(5.0)
    loud = features.network_input(features.screening_frames_of(x))
    other = features.network_input(features.screening_frames_of((x * np.float32(gain)).astype(np.float32)))
    assert np.abs(loud - other).max() < 1e-3


def test_a_fixed_filter_leaves_no_trace() -> None:
    power = features.screening_frames_of(sound(5.0))
    colour = np.linspace(0.2, 4.0, features.BANDS).astype(np.float32)
    difference = features.network_input(power) - features.network_input(power * colour)
    assert np.abs(difference).mean() < 0.01


def test_the_input_is_bounded_and_has_the_networks_shape() -> None:
    x = sound(5.0)
    x[4000:6000] = 0.0
    got = features.network_input(features.screening_frames_of(x))
    assert got.shape == (features.BANDS, features.FRAMES)
    assert got.dtype == np.float32
    assert np.abs(got).max() <= 2.0


def test_silence_gives_zeros_not_nan() -> None:
    got = features.network_input(np.zeros((features.FRAMES, features.BANDS), np.float32))
    assert np.abs(got).max() < 1e-3


def test_a_short_recording_is_repeated_to_a_window() -> None:
    x = np.arange(4000, dtype=np.float32)
    repeated = features.at_least_a_window(x)
    assert len(repeated) == WINDOW
    assert (repeated[4000:8000] == x).all()
    assert features.at_least_a_window(np.zeros(12_000, np.float32)).shape == (12_000,)


def test_what_lies_far_under_the_loud_frames_is_not_told_apart() -> None:
    rng = np.random.default_rng(4)
    power = np.full((features.FRAMES, features.BANDS), 1e-6, np.float32)
    power[::6] = 1.0
    quieter, louder = power.copy(), power.copy()
    pause = np.arange(features.FRAMES) % 6 != 0
    quieter[pause] *= rng.uniform(0.01, 1.0, (int(pause.sum()), features.BANDS)).astype(np.float32)
    louder[pause] = 0.1
    view = features.View(range_db=22.0)
    plain, floored = features.network_input(power), features.network_input(power, view)
    assert np.abs(features.network_input(quieter, view) - floored).max() < 0.01
    assert np.abs(features.network_input(quieter) - plain).max() > 0.1
    assert np.abs(features.network_input(louder, view) - floored).max() > 0.1
    # with the level and the colour gone, too
    assert np.abs(features.network_input(7.0 * power, view) - floored).max() < 1e-4


def test_the_bundle_says_what_is_seen() -> None:
    assert features.View.of({}) == features.WHOLE
    view = features.View.of({"bands": 20, "range_db": 22})
    power = np.random.default_rng(5).random((features.FRAMES, features.BANDS)).astype(np.float32)
    got = features.network_input(power, view)
    assert got.shape == (20, features.FRAMES) and got.flags["C_CONTIGUOUS"]
    # what is above is not looked at
    power[:, 20:] *= 100.0
    assert (features.network_input(power, view) == got).all()
