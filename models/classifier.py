"""The screening network: 5 s of log-mel → how likely a murmur is heard, how likely the heart is abnormal.

A depthwise-separable 2-D CNN with BatchNorm, bands as height and time as width, a mean over both, one
linear layer (Chollet 2017; Howard et al. 2017). No residuals and no attention: it becomes int8 TFLite as it
stands. In training a second head also says S1, systole, S2 or diastole every 80 ms, so that the features
below know the heart's timing; it is dropped before pruning and export.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from device.screening.features import FRAMES, WHOLE, View

__all__ = ["OUTPUTS", "STATES", "Classifier"]

OUTPUTS = ("murmur", "abnormal")
"""What the two logits stand for."""

STATES = ("S1", "systole", "S2", "diastole")

_STRIDES = ((1, 2), (2, 1), (1, 1), (2, 2), (1, 1), (1, 1))
"""(band, time) stride of each block; the first convolution has (2, 2)."""

STATE_BLOCKS = 3
"""Blocks below the state head: there a step is 4 frames, 80 ms."""


class _Block(nn.Sequential):
    def __init__(
        self, channels_in: int, channels: int, stride: tuple[int, int], kernel: tuple[int, int]
    ) -> None:
        # an uneven stride stands on the pointwise half (the same function): TensorFlow has no uneven
        # depthwise
        # stride, and the converter would make a full convolution of it
        even = stride[0] == stride[1]
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(
            nn.Conv2d(
                channels_in,
                channels_in,
                kernel,
                stride if even else 1,
                padding,
                groups=channels_in,
                bias=False,
            ),
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Conv2d(channels_in, channels, 1, 1 if even else stride, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )


class Classifier(nn.Module):
    """`forward`: (batch, 1, bands, 248) as device.screening.features.network_input gives → logits (batch, 2),
    see OUTPUTS.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 24, 32, 32, 48, 64, 64),
        dropout: float = 0.2,
        view: View = WHOLE,
    ) -> None:
        super().__init__()
        if len(channels) != 1 + len(_STRIDES):
            raise ValueError(f"channels: {1 + len(_STRIDES)} numbers are needed, not {len(channels)}")
        first = channels[0]
        self.channels = tuple(int(c) for c in channels)
        self.view = view
        self.stem = nn.Sequential(
            nn.Conv2d(1, first, (5, 5), (2, 2), (2, 2), bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        kernels = [(3, 3), (3, 3), (3, 3), (3, 5), (3, 5), (3, 5)]
        self.blocks = nn.ModuleList(
            _Block(a, b, stride, kernel)
            for a, b, stride, kernel in zip(channels[:-1], channels[1:], _STRIDES, kernels, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], len(OUTPUTS))
        self.state_head: nn.Module | None = nn.Conv2d(
            channels[STATE_BLOCKS], len(STATES), (-(-view.bands // 4), 3), padding=(0, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(x.mean((2, 3))))

    def forward_with_states(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (batch, 2) and state logits (batch, 4, FRAMES // 4), for training."""
        assert self.state_head is not None
        x = self.stem(x)
        for block in self.blocks[:STATE_BLOCKS]:
            x = block(x)
        states = self.state_head(x)[:, :, 0]
        for block in self.blocks[STATE_BLOCKS:]:
            x = block(x)
        return self.head(self.dropout(x.mean((2, 3)))), states

    def example(self) -> torch.Tensor:
        return torch.zeros(1, 1, self.view.bands, FRAMES)
