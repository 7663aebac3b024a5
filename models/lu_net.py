"""A net like LU-Net (Ali et al., IEEE Access 2023), of its published size, written anew.

Not causal, float only. Windows of 0.8 s at 1 kHz, sound in, sound out. An encoder of strided convolutions
(31 taps), a decoder of convolutions and doublings, and in every skip a two-way LSTM:

    16 ─ BiLSTM ───────────────────────────────────────────────┐
    └ 32 /2 ─ BiLSTM ────────────────────────────────────┐     cat ─ 1 ─ tanh
      └ 32 /2 ─ BiLSTM ────────────────────────┐         cat ─ 32 ×2
        └ 64 /2 ─ BiLSTM ────────────┐         cat ─ 32 ×2
          └ 64 /2 ─ BiLSTM ─┐        cat ─ 32 ×2
            └ 128 /2 ─ 64 ×2 cat ─ 64 ×2

It is here to be measured beside ours (docs/denoiser.md).
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["LU_NET_RATE_HZ", "LU_NET_WINDOW", "LUNet"]

LU_NET_RATE_HZ = 1000
LU_NET_WINDOW = 800
"""Samples of one window: 0.8 s, about a beat."""

TAPS = 31


def _conv(cin: int, cout: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(cin, cout, TAPS, stride, TAPS // 2)


class LUNet(nn.Module):
    """Sound (B, 1, T) → sound (B, 1, T) between -1 and 1; T a multiple of 2 ** (levels - 1).

    widths: channels of the encoder from the top; the published ones by default.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 32, 64, 64, 128)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        skips = self.widths[:-1]
        self.encoder = nn.ModuleList(
            _conv(cin, cout, 1 if k == 0 else 2)
            for k, (cin, cout) in enumerate(zip((1, *skips), self.widths, strict=True))
        )
        self.skips = nn.ModuleList(nn.LSTM(w, w // 2, batch_first=True, bidirectional=True) for w in skips)
        outs = [skips[max(k - 1, 1)] for k in range(len(skips), 0, -1)]  # 64, 64, 32, 32, 32
        self.decoder = nn.ModuleList()
        cin = self.widths[-1]
        for cout, skip in zip(outs, reversed(skips), strict=True):
            self.decoder.append(_conv(cin, cout))
            cin = cout + skip
        self.last = _conv(cin, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for k, layer in enumerate(self.encoder):
            x = torch.relu(layer(x))
            if k < len(self.skips):
                kept.append(self.skips[k](x.transpose(1, 2))[0].transpose(1, 2))
        for layer, skip in zip(self.decoder, reversed(kept), strict=True):
            x = torch.relu(layer(x)).repeat_interleave(2, -1)
            x = torch.cat([skip, x], 1)
        return torch.tanh(self.last(x))
