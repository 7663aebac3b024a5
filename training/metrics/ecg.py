"""Figures about ECG, of a clean signal and one that should be it: both (n,), the same unit and instant.

SSD, MAD and PRD as DeepFilter (Romero et al. 2021) defines them; SNR, plain and beyond volume, stands in
training.metrics.denoising.
"""

from __future__ import annotations

import numpy as np

__all__ = ["cosine", "mad", "prd", "ssd"]


def ssd(clean: np.ndarray, out: np.ndarray) -> float:
    """Sum of the squared differences, mV²."""
    d = out.astype(np.float64) - clean
    return float(d @ d)


def mad(clean: np.ndarray, out: np.ndarray) -> float:
    """Largest absolute difference, mV."""
    return float(np.max(np.abs(out.astype(np.float64) - clean)))


def prd(clean: np.ndarray, out: np.ndarray) -> float:
    """Root of the squared difference's share of the clean signal's energy about its mean, percent."""
    s = clean.astype(np.float64)
    d = out - s
    around = s - s.mean()
    return float(100 * np.sqrt((d @ d) / max(float(around @ around), 1e-30)))


def cosine(clean: np.ndarray, out: np.ndarray) -> float:
    """Cosine of the angle between the two; 0 when one of them is silent."""
    s, y = clean.astype(np.float64), out.astype(np.float64)
    size = float(np.sqrt((s @ s) * (y @ y)))
    return float(s @ y) / size if size > 0 else 0.0
