"""What the denoiser is asked to make small."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from device.rates import WORKING_RATE_HZ
from training.core.recipe import known_keys


class Loss(nn.Module):
    """Mean over examples of: minus SNR in band, minus SNR 90–420 Hz, plus spectral errors, all as dB ratios.

    Each ratio is capped at `cap_db` (an error below the references' own noise teaches nothing). The
    spectral terms (two resolutions, square-root magnitudes up to 450 Hz) count what was taken away too much
    again `over_suppression` times: faint murmur weighs as much as beats there. `identity` weighs the mean
    change in dB of what came in without any noise, every cell of 128 ms and 8 Hz alike: there a quiet
    diastole must pass as a loud systole does, or a murmur's excess grows.
    """

    def __init__(
        self, samples: int, weights: Mapping[str, float], where: str = "loss", source: object = None
    ) -> None:
        super().__init__()
        f = torch.fft.rfftfreq(samples, 1 / WORKING_RATE_HZ)
        inside = ((f >= 25) & (f <= 400)).float()
        high = ((f >= 90) & (f <= 420)).float()
        outside = (f > 400).float()
        w = {
            "band": 1.0,
            "high_band": 0.5,
            "spectral": 0.3,
            "over_suppression": 1.0,
            "out_of_band": 0.1,
            "cap_db": 30.0,
            "identity": 0.0,
        }
        known_keys(weights, w, where, source)
        w.update(weights)
        self.weights = w
        self.cap = 10 ** (-w["cap_db"] / 10)
        self.register_buffer("inside", inside + w["out_of_band"] * outside)
        self.register_buffer("in_band", inside)
        self.register_buffer("high", high)
        for size in (64, 256):
            self.register_buffer(f"window_{size}", torch.hann_window(size))

    def forward(
        self, y: torch.Tensor, clean: torch.Tensor, quiet: torch.Tensor | None = None
    ) -> torch.Tensor:
        """y, clean: (B, samples). quiet: (B,) bool, the examples whose input was the clean sound itself."""
        s = torch.fft.rfft(clean)
        e = torch.fft.rfft(y - clean)
        s2, e2 = s.real**2 + s.imag**2, e.real**2 + e.imag**2
        loss = self.weights["band"] * _ratio_db(e2 @ self.inside, s2 @ self.in_band, self.cap)
        loss = loss + self.weights["high_band"] * _ratio_db(e2 @ self.high, s2 @ self.high, self.cap)
        for size in (64, 256):
            window = getattr(self, f"window_{size}")
            bins = round(450 / WORKING_RATE_HZ * size) + 1

            def magnitude(
                x: torch.Tensor, size: int = size, window: torch.Tensor = window, bins: int = bins
            ) -> torch.Tensor:
                z = torch.stft(x, size, size // 4, window=window, return_complex=True)[:, 1:bins]
                return (z.real**2 + z.imag**2 + 1e-4).pow(0.25)

            a, b = magnitude(clean), magnitude(y)
            d = a - b
            over = d.square() * (1 + self.weights["over_suppression"] * (d > 0))
            loss = loss + self.weights["spectral"] * _ratio_db(
                over.sum((1, 2)), a.square().sum((1, 2)), self.cap
            )
        total = loss.mean()
        if self.weights["identity"] and quiet is not None and bool(quiet.any()):
            changed = _cell_db(y[quiet], self.window_256) - _cell_db(clean[quiet], self.window_256)
            total = total + self.weights["identity"] * changed.abs().mean((1, 2)).sum() / len(y)
        return total


def _cell_db(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Power up to 450 Hz in dB, (B, samples) → (B, bins, frames), with a floor some 80 dB below the beats."""
    size = len(window)
    z = torch.stft(x, size, size // 4, window=window, return_complex=True)
    z = z[:, 1 : round(450 / WORKING_RATE_HZ * size) + 1]
    return 10 * torch.log10(z.real**2 + z.imag**2 + 1e-6)


def _ratio_db(error: torch.Tensor, signal: torch.Tensor, cap: float) -> torch.Tensor:
    return 10 * torch.log10(error / signal.clamp_min(1e-12) + cap)
