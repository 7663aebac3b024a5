"""CNNs on a mel spectrogram of 5 s: a plain one of half a million parameters, a light one, one with
attention.

After the "mel spectrogram" classifiers: 128 mel bands, an image classifier on them. `MelCnn` is convolutions
with BatchNorm and max pooling and two linear layers; `MelCnnLight` has depthwise-separable ones (Howard et
al. 2017); `MelCnnAttention` asks at each place of the last map how much it counts (Bahdanau et al. 2015, as
pooling: Ilse et al. 2018), and its logits are the sum over the places so weighted: where it looked can be
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.classifier import OUTPUTS

__all__ = ["MelCnn", "MelCnnAttention", "MelCnnLight"]


def _conv(before: int, now: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, now, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(now),
        nn.ReLU(),
    ]


def _separable(before: int, now: int, stride: int = 1) -> list[nn.Module]:
    return [*_conv(before, before, 3, stride, groups=before), *_conv(before, now, 1)]


class MelCnn(nn.Module):
    """`forward`: (batch, 1, 128, 99) as device.screening.baseline_features.Mel gives → logits (batch, 2), see
    OUTPUTS.
    """

    def __init__(
        self, channels: Sequence[int] = (32, 64, 128, 256), hidden: int = 256, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"channels: 4 numbers are needed, not {len(channels)}")
        layers = _conv(1, channels[0], 5, 2)
        for before, now in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.MaxPool2d(2), *_conv(before, now)]
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels[-1], hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, len(OUTPUTS))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map before the mean, (batch, channels, height, width)."""
        return self.body(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.dropout(self.features(x).mean((2, 3)))
        return self.head(self.dropout(torch.relu(self.hidden(mean))))


class MelCnnLight(nn.Module):
    """`forward`: (batch, 1, 128, 99) → logits (batch, 2). Some twenty thousand parameters."""

    def __init__(self, channels: Sequence[int] = (16, 32, 48, 64, 96), dropout: float = 0.2) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError("channels: at least 2 numbers are needed")
        layers = _conv(1, channels[0], 5, 2)
        for before, now in zip(channels[:-1], channels[1:], strict=True):
            layers += _separable(before, now, 2)
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], len(OUTPUTS))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map before the mean, (batch, channels, height, width)."""
        return self.body(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(x).mean((2, 3))))


class MelCnnAttention(nn.Module):
    """`forward`: (batch, 1, 128, 99) → logits (batch, 2); `attention` gives the weights of the places.

    The weight of a place is that of its band times that of its time, each of sum 1: eight and twelve weights,
    which int8 holds finely; of ninety-six in one softmax most would be one or two steps of a 256th.
    """

    def __init__(self, channels: Sequence[int] = (24, 48, 64, 96), dropout: float = 0.2) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"channels: 4 numbers are needed, not {len(channels)}")
        layers = _conv(1, channels[0], 5, 2)
        for k, (before, now) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            pool = (2, 1) if k == 2 else (2, 2)
            layers += [nn.MaxPool2d(pool), *_separable(before, now), *_separable(now, now)]
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(channels[-1], 2, 1)
        self.head = nn.Conv2d(channels[-1], len(OUTPUTS), 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map, (batch, channels, 8, 12)."""
        return self.body(x)

    def _weights(self, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, 1, 8, 1) of the bands and (batch, 1, 1, 12) of the times."""
        score = self.score(found)
        height, width = score.shape[2:]
        bands = torch.softmax(score[:, :1].mean(3).reshape(-1, height), 1).reshape(-1, 1, height, 1)
        times = torch.softmax(score[:, 1:].mean(2).reshape(-1, width), 1).reshape(-1, 1, 1, width)
        return bands, times

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """How much each place of the last map counts, (batch, 8, 12), of sum 1."""
        bands, times = self._weights(self.features(x))
        return (bands * times)[:, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.features(x)
        bands, times = self._weights(found)
        logits = (self.head(self.dropout(found)) * bands).sum(2, keepdim=True)
        return (logits * times).sum((2, 3))
