"""ResNet-18 with a first layer of one channel (He, Zhang, Ren, Sun 2016), for the mel spectrogram.

The names of its parameters are those under which ImageNet weights are published for it (torchvision), so that
such a file loads: `adapted` sums the three channels of its first layer and leaves its last layer out. Eleven
million parameters: it is here to be compared with, not to run on the Pi.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from models.classifier import OUTPUTS

__all__ = ["ResNet18", "adapted"]


class _BasicBlock(nn.Module):
    def __init__(self, before: int, now: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, now, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(now)
        self.conv2 = nn.Conv2d(now, now, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(now)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != now:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, now, 1, stride, bias=False), nn.BatchNorm2d(now)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(found + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """`forward`: (batch, 1, 128, 99) as device.screening.baseline_features.Mel gives → logits (batch, 2), see
    OUTPUTS.
    """

    def __init__(self, width: int = 64) -> None:
        """width: channels of the first stage; 64 is ResNet-18, less is for trials."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = width
        for k in range(4):
            now = width << k
            stage = nn.Sequential(_BasicBlock(before, now, 1 if k == 0 else 2), _BasicBlock(now, now, 1))
            setattr(self, f"layer{k + 1}", stage)
            before = now
        self.fc = nn.Linear(before, len(OUTPUTS))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map before the mean, (batch, channels, height, width)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for k in range(4):
            x = getattr(self, f"layer{k + 1}")(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.features(x)
        # a pooling and not `mean`: after a sum the converter would transpose before it takes a mean
        mean = nn.functional.avg_pool2d(found, (int(found.shape[2]), int(found.shape[3])))
        return self.fc(mean.flatten(1))


def adapted(net: ResNet18, published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A published state dict made to fit `net`: first layer summed over its channels, last layer net's own.

    ValueError names the first parameter that is missing, or that has another shape.
    """
    made = {}
    for name, own in net.state_dict().items():
        if name.startswith("fc."):
            made[name] = own
            continue
        if name not in published:
            if name.endswith("num_batches_tracked"):
                made[name] = own
                continue
            raise ValueError(f"{name} is missing")
        value = published[name]
        if name == "conv1.weight" and value.ndim == 4:
            value = value.sum(1, keepdim=True)
        if value.shape != own.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(own.shape)}")
        made[name] = value.to(own.dtype)
    return made
