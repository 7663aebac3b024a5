"""A 1-D CNN on the waveform: 2.5 s at 1 kHz → how likely a murmur is heard, how likely the heart is abnormal.

After the classifiers that take short segments of a band-passed recording and learn from the mean over a
recording's segments (training.screening.baselines, `group`). Five convolutions with BatchNorm, each but the
first followed by a pooling over time, a mean over what is left, one linear layer. Height-1 Conv2d throughout:
the converter then keeps every layer as one operator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.classifier import OUTPUTS

__all__ = ["Cnn1d"]

_KERNELS = (15, 9, 7, 5, 5)


class Cnn1d(nn.Module):
    """`forward`: (batch, 1, 1, 2500) as device.screening.baseline_features.Segments gives → logits (batch,
    2), see OUTPUTS.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 96, 128), dropout: float = 0.3) -> None:
        super().__init__()
        if len(channels) != len(_KERNELS):
            raise ValueError(f"channels: {len(_KERNELS)} numbers are needed, not {len(channels)}")
        layers: list[nn.Module] = []
        before = 1
        for k, (now, kernel) in enumerate(zip(channels, _KERNELS, strict=True)):
            stride = 4 if k == 0 else 1
            layers += [
                nn.Conv2d(before, now, (1, kernel), (1, stride), (0, kernel // 2), bias=False),
                nn.BatchNorm2d(now),
                nn.ReLU(),
            ]
            if k:
                layers.append(nn.MaxPool2d((1, 2)))
            before = now
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(before, len(OUTPUTS))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map before the mean, (batch, channels, 1, time)."""
        return self.body(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(x).mean((2, 3))))
