"""What the networks beside ours hear: a band, a grid of windows, no level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from device.dsp import mel
from device.dsp.iir import band_pass_sections
from device.screening.baseline_features import FRONT_ENDS, FrontEnd, band_pass
from tests.device.screening.test_features import sound


@pytest.fixture(params=sorted(FRONT_ENDS))
def front(request: pytest.FixtureRequest) -> FrontEnd:
    return FRONT_ENDS[request.param]


@pytest.mark.parametrize("order", [2, 3, 5])
def test_the_band_pass_is_the_butterworth_filter_of_scipy(order: int) -> None:
    x = np.random.default_rng(0).standard_normal(6000)
    theirs = signal.butter(order, [25.0, 400.0], "bandpass", fs=2000, output="sos")
    ours = band_pass_sections(order, 25.0, 400.0, 2000)
    assert ours.shape == (order, 6)
    assert np.abs(signal.sosfilt(ours, x) - signal.sosfilt(theirs, x)).max() < 1e-10


def test_a_narrow_band_has_no_real_poles_and_is_right_too() -> None:
    x = np.random.default_rng(0).standard_normal(3000)
    theirs = signal.butter(5, [100.0, 140.0], "bandpass", fs=2000, output="sos")
    difference = signal.sosfilt(band_pass_sections(5, 100.0, 140.0, 2000), x) - signal.sosfilt(theirs, x)
    assert np.abs(difference).max() < 1e-10


def test_a_recording_goes_through_order_five() -> None:
    x = sound(3.0)
    theirs = signal.butter(5, [25.0, 400.0], "bandpass", fs=2000, output="sos")
    assert np.abs(band_pass(x) - signal.sosfilt(theirs, x)).max() < 1e-6


def test_windows_lie_on_the_grid(front: FrontEnd) -> None:
    for extra, count in ((0, 1), (front.every - 2, 1), (front.every, 2), (3 * front.every, 4)):
        windows = front.windows(sound(30.0)[: front.length + extra])
        assert windows.shape == (count, *front.shape)
        assert windows.dtype == np.float32


def test_mel_windows_overlap_by_half_and_segments_do_not() -> None:
    assert 2 * FRONT_ENDS["mel"].every == FRONT_ENDS["mel"].length
    assert FRONT_ENDS["segments"].every == FRONT_ENDS["segments"].length


def test_a_window_is_cut_out_of_what_all_share(front: FrontEnd) -> None:
    whole = front.whole(sound(13.0))
    windows = front.windows(sound(13.0))
    assert front.count(whole) == len(windows)
    assert all((front.window(whole, k) == w).all() for k, w in enumerate(windows))


def test_the_level_leaves_no_trace(front: FrontEnd) -> None:
    x = sound(10.0)
    difference = front.windows(x) - front.windows(x * np.float32(0.02))
    assert np.abs(difference).max() < 0.03


def test_every_window_has_mean_0_and_spread_1(front: FrontEnd) -> None:
    for window in front.windows(sound(12.0)):
        assert abs(window.mean()) < 0.05
        assert 0.8 < window.std() < 1.01


@pytest.mark.parametrize("samples", [0, 100, 4000])
def test_what_is_short_is_repeated_and_silence_is_finite(front: FrontEnd, samples: int) -> None:
    assert front.windows(sound(2.5)[:samples]).shape == (1, *front.shape)
    assert np.isfinite(front.windows(np.zeros(samples, np.float32))).all()


def test_a_tone_lies_in_its_band_and_moves_up_with_it() -> None:
    grid = FRONT_ENDS["mel"].grid  # type: ignore[attr-defined]
    centres = (grid.filters * np.fft.rfftfreq(grid.fft, 1 / 2000)[:, None]).sum(axis=0)
    assert (np.diff(centres) > 0).all()
    for hertz in (50.0, 120.0, 300.0):
        x = np.sin(2 * np.pi * hertz * np.arange(10_000) / 2000).astype(np.float32)
        assert abs(centres[mel.frames_of(x, grid).mean(axis=0).argmax()] - hertz) < 8


def test_nothing_folds_back_into_the_segments() -> None:
    t = np.arange(20_000) / 2000
    loud = {}
    for hertz in (200.0, 750.0):
        half = FRONT_ENDS["segments"]._half  # type: ignore[attr-defined]
        loud[hertz] = np.convolve(band_pass(np.sin(2 * np.pi * hertz * t)), half, "same")[2000:-100:2].std()
    assert loud[750.0] < 1e-4 * loud[200.0]


def test_any_chopping_gives_the_same_bands() -> None:
    grid = mel.MelGrid(frame=200, hop=100, fft=512, bands=20, lowest_hz=25.0, highest_hz=400.0)
    x = sound(4.03)
    stream, got = mel.MelFrames(grid), []
    for start in range(0, len(x), 317):
        got.append(stream.process(x[start : start + 317]))
    chopped = np.concatenate([*got, stream.flush()])
    assert len(chopped) == grid.frames(len(x)) == 79
    assert (chopped == mel.frames_of(x, grid)).all()
