"""The U-Net of "Heart Sound Denoising using 1D U-Net", written anew: 5-s windows at 22.05 kHz.

    (B, 1, 1, 110250) ── conv 16 ──────────────────────── skip ── cat ── conv 16 ── conv 1 ── sound
                          pool 2 ── conv 32 ── skip ── cat ── conv 32 ── up 2
                                     pool 2 ── conv 64 ── up 2

All convolutions have 3 taps, the last one has 1: 19,425 parameters, 205 million multiply-accumulates a
second. What one output sample hears is about a millisecond. Where a window's length does not divide by
four, what comes up from below is shorter than the skip; `MatchLength` mends it.

It is here to be measured beside ours (docs/denoiser.md). Convolutions have height 1, so that the same
module becomes TFLite.
"""

from __future__ import annotations

import torch
from torch import nn

from device.denoise.baseline import CLASSIC_RATE_HZ as RATE_HZ
from device.denoise.baseline import CLASSIC_WINDOW as WINDOW

__all__ = ["RATE_HZ", "WINDOW", "MatchLength", "UNetClassic"]


class MatchLength(nn.Module):
    """x (B, C, 1, T) with as many samples as `like` has: cut at the end, or zeros added there."""

    def forward(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        missing = like.shape[-1] - x.shape[-1]
        if missing < 0:
            return x[..., : like.shape[-1]]
        return nn.functional.pad(x, (0, missing)) if missing else x


def _conv(cin: int, cout: int) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, (1, 3), padding=(0, 1))


class UNetClassic(nn.Module):
    """Sound (B, 1, 1, T) → sound (B, 1, 1, T), any T of 4 or more, peak about 1.

    widths: channels of the three levels; the published ones by default.
    """

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        a, b, c = widths
        self.widths = widths
        self.down_1, self.down_2, self.bottom = _conv(1, a), _conv(a, b), _conv(b, c)
        self.up_2, self.up_1 = _conv(c + b, b), _conv(b + a, a)
        self.last = nn.Conv2d(a, 1, 1)
        self.pool = nn.MaxPool2d((1, 2))
        self.twice = nn.Upsample(scale_factor=(1.0, 2.0), mode="nearest")
        self.match = MatchLength()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.down_1(x))
        second = torch.relu(self.down_2(self.pool(first)))
        y = torch.relu(self.bottom(self.pool(second)))
        y = torch.cat([self.match(self.twice(y), second), second], 1)
        y = torch.relu(self.up_2(y))
        y = torch.cat([self.match(self.twice(y), first), first], 1)
        return self.last(torch.relu(self.up_1(y)))
