"""Denoising without learning, to be measured beside the networks: filters that anybody has, and an oracle.

Each takes the noisy and the clean sound at 2 kHz, float (n,), and gives float32 (n,). Only `volume` and
`oracle_wiener` look at the clean one: they are what one gain, and what one filter, could do at best.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import signal

from device.rates import WORKING_RATE_HZ
from training.metrics.denoising import BAND_HZ, band

__all__ = [
    "CLASSICAL",
    "ORACLES",
    "WholeDenoiser",
    "heart_band_pass",
    "untouched",
    "oracle_wiener",
    "spectral_gating",
    "volume",
    "wavelet",
]

WholeDenoiser = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(noisy, clean) → cleaned."""


def untouched(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    return noisy


def volume(noisy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The one gain that brings the in-band sound nearest to the truth."""
    x, s = band(noisy), band(clean)
    return (noisy * (float(x @ s) / max(float(x @ x), 1e-30))).astype(np.float32)


_SOS = signal.butter(4, BAND_HZ, "bandpass", fs=WORKING_RATE_HZ, output="sos")


def heart_band_pass(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    """25 to 400 Hz, Butterworth, forth and back, so without a delay."""
    return signal.sosfiltfilt(_SOS, noisy).astype(np.float32)


def wavelet(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    """Coiflet 5, soft threshold sigma * sqrt(2 ln n), sigma of each level by its median (Donoho 1995)."""
    import pywt

    levels = min(6, pywt.dwt_max_level(len(noisy), "coif5"))
    found = pywt.wavedec(noisy, "coif5", level=levels)
    kept = [found[0]]
    for d in found[1:]:
        sigma = float(np.median(np.abs(d))) / 0.6745
        kept.append(pywt.threshold(d, sigma * np.sqrt(2 * np.log(len(noisy))), "soft"))
    return pywt.waverec(kept, "coif5")[: len(noisy)].astype(np.float32)


def spectral_gating(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    """The library noisereduce (Sainburg 2019), with the settings that did best of fifteen on fold 1.

    A stationary gate, 64-ms frames, its mask smoothed over 40 Hz and 50 ms, four fifths taken away. Its own
    defaults, made for speech, gain next to nothing here.
    """
    import noisereduce

    found = noisereduce.reduce_noise(
        noisy,
        WORKING_RATE_HZ,
        stationary=True,
        n_fft=128,
        prop_decrease=0.8,
        freq_mask_smooth_hz=40,
        time_mask_smooth_ms=50,
        n_jobs=1,
    )
    return np.asarray(found, dtype=np.float32)


def oracle_wiener(noisy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The Wiener gain |S|² / (|S|² + |N|²) of each bin of 64-ms frames, from the true sound and noise.

    What a filter of gains could do that knew both, so a ceiling for nets that give gains. Of 16 to 128 ms
    these frames are the best.
    """
    size, step = 128, 32
    parts = [signal.stft(x, WORKING_RATE_HZ, nperseg=size, noverlap=size - step)[2] for x in (clean, noisy)]
    s, x = parts
    wanted, other = np.abs(s) ** 2, np.abs(x - s) ** 2
    gain = wanted / np.maximum(wanted + other, 1e-30)
    _, y = signal.istft(x * gain, WORKING_RATE_HZ, nperseg=size, noverlap=size - step)
    return y[: len(noisy)].astype(np.float32)


CLASSICAL: dict[str, WholeDenoiser] = {
    "nothing": untouched,
    "volume": volume,
    "band-pass": heart_band_pass,
    "wavelet": wavelet,
    "spectral gating": spectral_gating,
    "oracle": oracle_wiener,
}

ORACLES = ("volume", "oracle")
"""Those that know the truth."""
