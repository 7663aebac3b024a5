"""The heart rate is right, or it is unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.checks.figures import rhythm as figures_rhythm
from device.screening import rhythm
from device.sources.files import read_working_rate


def heart(bpm: float, seconds: float = 8.0, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """S1 and a weaker, higher S2 a third of a beat later."""
    t = np.arange(int(seconds * 2000)) / 2000
    period = 60.0 / bpm
    x = np.zeros_like(t)
    systole = min(0.33, 0.4 * period)
    for start in np.arange(0.1, seconds, period):
        for offset, gain, hertz in ((0.0, 1.0, 50.0), (systole, 0.6, 70.0)):
            x += (
                gain * np.exp(-(((t - start - offset) / 0.02) ** 2)) * np.sin(2 * np.pi * hertz * (t - start))
            )
    x += noise * np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * x).astype(np.float32)


@pytest.mark.parametrize("bpm", [45, 60, 72, 95, 130, 165])
def test_the_rate_of_a_synthetic_heart(bpm: float) -> None:
    found = rhythm.heart_rate(heart(bpm))
    assert found is not None
    assert abs(found - bpm) / bpm < 0.03


def test_noise_has_no_rate() -> None:
    rng = np.random.default_rng(1)
    assert rhythm.heart_rate((0.1 * rng.standard_normal(16_000)).astype(np.float32)) is None


@pytest.mark.parametrize("samples", [0, 100, 2000, 5000])
def test_too_little_sound_has_no_rate(samples: int) -> None:
    assert rhythm.heart_rate(heart(70)[:samples]) is None


def test_silence_has_no_rate() -> None:
    assert rhythm.heart_rate(np.zeros(16_000, np.float32)) is None


def test_real_recordings_against_their_marked_beats(normal_recording: Path, murmur_recording: Path) -> None:
    states = [
        line.split(",") for line in (normal_recording.parent / "states.csv").read_text().splitlines()[1:]
    ]
    for path in (normal_recording, murmur_recording):
        starts = [float(row[1]) for row in states if row[0] == path.stem and row[3] == "S1"]
        marked = 60.0 / float(np.median(np.diff(starts)))
        found = rhythm.heart_rate(read_working_rate(path)[0])
        assert found is not None
        assert abs(found - marked) / marked < 0.06


def test_the_command_tells_the_rate(normal_recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures_rhythm.main([str(normal_recording)]) == 0
    assert "beats/min" in capsys.readouterr().out


def test_just_the_shortest_sound_has_a_rate() -> None:
    x = heart(90, seconds=rhythm.TWO_BEATS_S)
    rate = rhythm.heart_rate(x)
    assert rate is not None and abs(rate - 90) < 6
    assert rhythm.heart_rate(x[:-200]) is None
