"""The listening presets: the filters they claim to be, at once, the same however chopped, changed unheard."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from device.dsp.iir import Cascade, gain_db, group_delay_s
from device.listening import presets
from device.listening.presets import BANDS_HZ, PRESETS, Preset, sections
from device.settings.settings import Settings

RATES = (2000, 8000, 44100, 48000, 96000)
BANDS = sorted(BANDS_HZ)


def reference(preset: str, rate_hz: int) -> np.ndarray:
    low_hz, high_hz = BANDS_HZ[preset]
    return np.concatenate(
        [
            signal.butter(2, low_hz, "highpass", fs=rate_hz, output="sos"),
            signal.butter(4, high_hz, "lowpass", fs=rate_hz, output="sos"),
        ]
    )


def noise(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n).astype(np.float32)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("preset", BANDS)
def test_they_are_the_butterworth_filters_of_scipy(preset: str, rate_hz: int) -> None:
    x = noise(rate_hz // 2)
    y = Cascade(sections(preset, rate_hz)).process(x)
    assert np.abs(y - signal.sosfilt(reference(preset, rate_hz), x)).max() < 2e-7
    hz = np.linspace(5, min(1500, 0.45 * rate_hz), 50)
    _, found = signal.sosfreqz(reference(preset, rate_hz), hz, fs=rate_hz)
    assert np.allclose(
        gain_db(sections(preset, rate_hz), hz, rate_hz), 20 * np.log10(np.abs(found)), atol=1e-6
    )


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("preset", BANDS)
def test_the_band_is_the_one_that_is_named(preset: str, rate_hz: int) -> None:
    low_hz, high_hz = BANDS_HZ[preset]
    edges = gain_db(sections(preset, rate_hz), np.array([low_hz, high_hz]), rate_hz)
    assert np.allclose(edges, -3.01, atol=0.1)
    inside = gain_db(sections(preset, rate_hz), np.linspace(2 * low_hz, 0.6 * high_hz, 20), rate_hz)
    assert np.abs(inside).max() < 0.5
    assert gain_db(sections(preset, rate_hz), np.array([low_hz / 4]), rate_hz)[0] < -23
    if 2 * high_hz < rate_hz / 2:
        assert gain_db(sections(preset, rate_hz), np.array([2 * high_hz]), rate_hz)[0] < -23


@pytest.mark.parametrize("preset", BANDS)
def test_the_group_delay_is_the_one_that_is_told(preset: str) -> None:
    low_hz, high_hz = BANDS_HZ[preset]
    hz = np.array([low_hz, np.sqrt(low_hz * high_hz), high_hz])
    expected = sum(signal.group_delay((row[:3], row[3:]), hz, fs=2000)[1] for row in reference(preset, 2000))
    found = group_delay_s(sections(preset), hz, 2000)
    assert np.allclose(found, np.asarray(expected) / 2000, atol=1e-7)
    words = " ".join((presets.__doc__ or "").split())
    told = re.search(rf"([\d.]+) ms for {preset}", words)
    assert told and float(told[1]) == pytest.approx(found[1] * 1e3, abs=0.06)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 500),
    cuts=st.lists(st.integers(0, 500), max_size=10),
    preset=st.sampled_from(BANDS),
    rate_hz=st.sampled_from((2000, 44100)),
)
def test_any_chopping_gives_the_same_bits_at_once(n: int, cuts: list[int], preset: str, rate_hz: int) -> None:
    x = noise(n, seed=n)
    whole = Cascade(sections(preset, rate_hz)).process(x)
    assert whole.dtype == np.float32 and len(whole) == n
    cascade, edges = Cascade(sections(preset, rate_hz)), [0, *sorted(c % (n + 1) for c in cuts), n]
    pieces = [cascade.process(x[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    assert [len(p) for p in pieces] == [b - a for a, b in zip(edges, edges[1:], strict=False)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_state_and_pending_are_all_that_the_next_sample_depends_on() -> None:
    x = noise(1000)
    one, other = Cascade(sections("bell")), Cascade(sections("bell"))
    one.process(x[:333])
    other.state, other.pending = one.state.copy(), one.pending.copy()
    assert np.array_equal(one.process(x[333:]), other.process(x[333:]))


def test_what_is_not_a_number_is_silence_and_passes() -> None:
    x = noise(500)
    holed = x.copy()
    holed[100:103] = np.nan, np.inf, -np.inf
    x[100:103] = 0
    assert np.array_equal(Cascade(sections("bell")).process(holed), Cascade(sections("bell")).process(x))


def test_a_long_silence_after_a_knock_ends_in_silence() -> None:
    cascade = Cascade(sections("bell", 48000))
    cascade.process(np.ones(100, np.float32))
    assert np.abs(cascade.process(np.zeros(96000, np.float32))[-1000:]).max() < 1e-12


def test_none_touches_nothing() -> None:
    x = noise(100)
    assert np.array_equal(Preset("none").process(x), x) and sections("none").shape == (0, 6)


@pytest.mark.parametrize("before", PRESETS)
@pytest.mark.parametrize("after", PRESETS)
def test_a_change_does_not_click(before: str, after: str) -> None:
    """A tone and an offset, the worst that can be; what comes is a slope, not a step."""
    rate_hz = 2000
    at = np.arange(4000) / rate_hz
    x = (0.3 + 0.3 * np.sin(2 * np.pi * 70 * at)).astype(np.float32)
    preset = Preset(before, rate_hz)
    first = preset.process(x[:2001])
    preset.change(after)
    assert preset.name == after
    y = np.concatenate([first, preset.process(x[2001:])])
    steepest = 0.3 * 2 * np.pi * 70 / rate_hz
    assert np.abs(np.diff(y[1000:])).max() < 1.35 * steepest
    settled = Preset(after, rate_hz).process(x)
    assert np.abs(y[-1000:] - settled[-1000:]).max() < 0.002
    if before != after:
        assert np.array_equal(y[:2100], Preset(before, rate_hz).process(x)[:2100])


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 800), max_size=8), wish=st.integers(0, 300))
def test_a_change_is_the_same_however_chopped(cuts: list[int], wish: int) -> None:
    x = noise(800)

    def run(edges: list[int]) -> np.ndarray:
        preset, pieces = Preset("extended"), []
        for a, b in zip(edges, edges[1:], strict=False):
            if a == wish:
                preset.change("diaphragm")
            pieces.append(preset.process(x[a:b]))
        return np.concatenate(pieces)

    edges = sorted({0, wish, 800, *cuts})
    assert np.array_equal(run(edges), run(sorted({0, wish, 800})))


def test_wishes_while_one_fades_end_at_the_last_one() -> None:
    x = noise(2000)
    preset = Preset("bell")
    for name in ("diaphragm", "extended", "none", "extended"):
        preset.change(name)
        preset.process(x[:50])
    preset.process(x)
    y = preset.process(x)
    twice = Preset("extended").process(np.concatenate([x, x]))
    assert np.abs(y[500:] - twice[-1500:]).max() < 1e-3


def test_the_settings_offer_just_these_presets() -> None:
    for name in PRESETS:
        assert Settings.parse({"listen": {"preset": name}}).listen.preset == name
    with pytest.raises(KeyError):
        Preset().change("trumpet")
    with pytest.raises(ValueError, match="its band reaches up to 800 Hz"):
        sections("extended", 1600)


def test_the_program_prints_its_figures() -> None:
    run = subprocess.run([sys.executable, "-m", "device.listening.presets"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "bell       10 Hz -12.3 dB" in run.stdout and "200 Hz -3.0 dB 3.3 ms" in run.stdout
