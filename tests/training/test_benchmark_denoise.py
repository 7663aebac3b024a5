"""The denoiser's benchmark: classical rows, mixtures, and that the lab note tells what the files say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.benchmark_denoise import (
    CLASSICAL,
    Noises,
    band_pass,
    nothing,
    spectral_gating,
    volume,
    wavelet,
    write_note,
)
from training.metrics import band, improvement, snr_db
from training.mixing import NoisePool

ROOT = Path(__file__).resolve().parent.parent.parent


def beats_and_noise(level_db: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    n = 12000
    t = np.arange(n) / 2000
    clean = np.sin(2 * np.pi * 60 * t) * np.exp(-((t % 0.8) / 0.04))
    noise = np.random.default_rng(0).standard_normal(n)
    gain = np.std(band(clean)) / np.std(band(noise)) * 10 ** (-level_db / 20)
    return clean.astype(np.float32), (clean + gain * noise).astype(np.float32)


def noises() -> Noises:
    made = Noises.__new__(Noises)
    made.pool = NoisePool({"hospital": [np.sin(np.arange(9000) * 0.5).astype(np.float32)]})
    made.kinds = ["hospital", "taps", "hum", "white", "pink"]
    return made


@pytest.mark.train
@pytest.mark.parametrize("name", list(CLASSICAL))
def test_every_classical_row_keeps_the_length(name: str) -> None:
    clean, noisy = beats_and_noise()
    out = CLASSICAL[name](noisy, clean)
    assert out.shape == noisy.shape
    assert np.isfinite(out).all()


@pytest.mark.train
def test_classical_rows_do_what_their_names_say() -> None:
    clean, noisy = beats_and_noise()
    assert np.array_equal(nothing(noisy, clean), noisy)
    plain, beyond = improvement(band(clean), band(noisy), band(volume(noisy, clean)))
    assert plain == pytest.approx(3.0, abs=0.3)  # at 0 dB the best gain is a half
    assert beyond == pytest.approx(0.0, abs=0.05)
    assert snr_db(clean, band_pass(noisy, clean)) > snr_db(clean, noisy) + 3  # most of white lies outside
    for way in (wavelet, spectral_gating):
        assert improvement(band(clean), band(noisy), band(way(noisy, clean)))[0] > 1.0


@pytest.mark.parametrize("kind", ["hospital", "taps", "hum", "white", "pink"])
def test_mixtures_stand_at_their_snr(kind: str) -> None:
    clean, _ = beats_and_noise()
    noisy = noises().mix(np.random.default_rng(1), clean, kind, 3.0)
    assert snr_db(band(clean), band(clean) + band(noisy - clean)) == pytest.approx(3.0, abs=0.01)


def test_the_lab_note_tells_what_the_results_say() -> None:
    note = ROOT / "docs" / "denoiser.md"
    assert note.read_text("utf-8") == write_note(note, ROOT / "docs" / "results"), (
        "run: python -m training.benchmark_denoise --note docs/denoiser.md"
    )
