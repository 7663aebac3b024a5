"""Networks that take windows, on sounds of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.denoise.baseline import (
    CLASSIC_WINDOW,
    WindowedFile,
    classic_file,
    denoise_windowed,
    in_windows,
    match_length,
)
from device.errors import BadInput


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 500), window=st.integers(8, 90), part=st.integers(0, 7))
def test_a_net_that_changes_nothing_changes_nothing_at_any_length(n: int, window: int, part: int) -> None:
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    y = in_windows(lambda w: w, x, window, window * part // 8)
    assert y.shape == x.shape
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, x, atol=1e-5)


def test_windows_go_in_at_a_peak_of_one_and_silence_stays_silent() -> None:
    peaks: list[float] = []

    def run(windows: np.ndarray) -> np.ndarray:
        peaks.extend(np.max(np.abs(windows), axis=1).tolist())
        return windows + 0.1

    x = np.zeros(300, dtype=np.float32)
    x[:50] = 0.001
    y = in_windows(run, x, 100, 0)
    assert peaks == pytest.approx([1.0, 0.0, 0.0])
    np.testing.assert_allclose(y[:50], 0.0011, atol=1e-7)
    assert not y[100:].any()


@pytest.mark.parametrize("length", [0, 1, 7, 12, 20])
def test_length_is_matched_by_cutting_or_zeros(length: int) -> None:
    x = np.arange(1.0, 13.0)
    y = match_length(x, length)
    assert y.shape == (length,)
    np.testing.assert_array_equal(y[:12], x[:length])
    assert not y[12:].any()


@pytest.mark.parametrize("n", [1, 999, 10_000, 12_345])
def test_through_another_rate_and_back_the_beats_stay_where_they_were(n: int) -> None:
    t = np.arange(n) / 2000
    x = (np.sin(2 * np.pi * 70 * t) * np.hanning(n + 2)[1:-1]).astype(np.float32)
    y = denoise_windowed(lambda w: w, x, 22_050, CLASSIC_WINDOW, 1000)
    assert y.shape == x.shape
    np.testing.assert_allclose(y, x, atol=2e-3)


def test_the_shipped_int8_net_runs_on_any_length() -> None:
    clean_up = WindowedFile(classic_file("unet-classic"))
    t = np.arange(3001) / 2000
    x = (0.2 * np.sin(2 * np.pi * 60 * t) * np.exp(-((t % 0.7) / 0.05))).astype(np.float32)
    y = clean_up(x)
    assert y.shape == x.shape
    assert np.corrcoef(x, y)[0, 1] > 0.9
    louder = clean_up(8 * x)
    np.testing.assert_allclose(louder, 8 * y, atol=0.02)


def test_a_missing_or_other_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file.*stethopi export denoiser --model unet-classic"):
        WindowedFile(tmp_path / "none.tflite")
    with pytest.raises(BadInput, match="--model lunet: no such network; there is unet-classic"):
        classic_file("lunet")
    from device.inference import bundle

    with pytest.raises(BadInput, match="not windows of 110250 samples"):
        WindowedFile(bundle.load().model("classifier").tflite)
    assert classic_file("unet-classic:/somewhere/net.tflite") == Path("/somewhere/net.tflite")


@pytest.mark.parametrize("more", [-2, -1, 0, 1, 2])
def test_a_sound_gets_just_the_length_that_is_asked_for(more: int) -> None:
    x = np.arange(1, 9, dtype=np.float32)
    found = match_length(x, 8 + more)
    assert len(found) == 8 + more
    assert (found[: 8 + min(more, 0)] == x[: 8 + min(more, 0)]).all() and not found[8:].any()
