"""What the ECG's denoisers are taught to make small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from training.core.recipe import known_keys

__all__ = ["EcgLoss"]


class EcgLoss(nn.Module):
    """`mse`: mean squared error; else the error's share of the signal in dB, capped at `cap_db`, in time, of
    what lies above 2 Hz, and of two spectrograms' square-root magnitudes. `spectral` weighs those in both
    ways."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__()
        usual = {"kind": "db", "time": 1.0, "fast": 0.4, "spectral": 0.3, "cap_db": 28.0}
        known_keys(table, usual, "loss")
        self.w: dict[str, Any] = {**usual, **table}
        self.cap = 10 ** (-self.w["cap_db"] / 10)

    def forward(self, y: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        w = self.w
        if w["kind"] == "mse":
            loss = (y - clean).square().mean()
            if w["spectral"]:
                for size in (64, 256):
                    a, b = _magnitude(clean, size), _magnitude(y, size)
                    loss = loss + w["spectral"] * (a - b).square().mean()
            return loss
        loss = w["time"] * self._ratio((y - clean).square().sum(-1), clean.square().sum(-1))
        if w["fast"]:
            a, b = _fast(clean), _fast(y)
            loss = loss + w["fast"] * self._ratio((a - b).square().sum(-1), a.square().sum(-1))
        if w["spectral"]:
            for size in (64, 256):
                a, b = _magnitude(clean, size), _magnitude(y, size)
                loss = loss + w["spectral"] * self._ratio(
                    (a - b).square().sum((1, 2)), a.square().sum((1, 2))
                )
        return loss.mean()

    def _ratio(self, error: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        return 10 * torch.log10(error / signal.clamp_min(1e-9) + self.cap)


def _fast(x: torch.Tensor) -> torch.Tensor:
    """Less its mean over half a second: what is above about 2 Hz."""
    mean = nn.functional.avg_pool1d(x[:, None], 181, 1, 90, count_include_pad=False)[:, 0]
    return x - mean


def _magnitude(x: torch.Tensor, size: int) -> torch.Tensor:
    z = torch.stft(x, size, size // 4, window=torch.hann_window(size), return_complex=True)
    return (z.real**2 + z.imag**2 + 1e-5).pow(0.25)
