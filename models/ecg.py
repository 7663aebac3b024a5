"""The streaming ECG denoiser: what the network is. How it is used stands in device/denoise/stream.py.

Per hop of 9 samples (25 ms at 360 Hz) the net hears the lead at a steady level three times: less its slowest
part coarse and less coarse, and without slow waves fine. It answers for the hop that lies 125 ms behind: how
far the baseline is off, an estimate of the clean signal, and in 0 … 1 how much of the estimate to take.

    360 Hz  wave (3) ── conv 9/3 ── 120 Hz ── blocks ── conv 6/3 ── 40 Hz ─┬─ dilated blocks ─┬─ head
                                                                          └────── skip ──────┘

The blocks are those of the heart sound's net (models/streaming.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from device.arrays import Samples
from device.rates import ECG_RATE_HZ
from models.streaming import LookBack, ResidualBlock

__all__ = ["HOP", "LOOK_AHEAD", "ECG_RATE_HZ", "EcgDenoiser", "EcgShape", "lead_tables"]

HOP = 9
LOOK_AHEAD = 45
SHARES = 3
"""Points of the share in a hop."""
BASELINES = 1


@dataclass(frozen=True)
class EcgShape:
    """Sizes of the net. `fast` dilations run at 120 Hz, `dilations` at 40 Hz; `again` are those of a second
    pass through the same 1x1 convolutions with filters over time of its own: twice the depth for few
    parameters.
    """

    front: int = 32
    trunk: int = 64
    head: int = 64
    fast: tuple[int, ...] = (1, 2, 4)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 1, 2, 4, 8)
    again: tuple[int, ...] = ()
    """At most as many as `dilations`."""


class EcgDenoiser(nn.Module):
    """wave (B, 3, 1, 9 T), states → estimate (B, 9, 1, T), share (B, 3, 1, T), baseline (B, 1, 1, T), new
    states.
    """

    def __init__(self, shape: EcgShape) -> None:
        super().__init__()
        self.sizes = shape
        self.front = LookBack(3, shape.front, 9, stride=3)
        self.fast = nn.ModuleList(ResidualBlock(shape.front, d) for d in shape.fast)
        self.down = LookBack(shape.front, shape.trunk, 6, stride=3)
        self.blocks = nn.ModuleList(ResidualBlock(shape.trunk, d) for d in shape.dilations)
        self.again = nn.ModuleList(ResidualBlock.over_time(shape.trunk, d) for d in shape.again)
        self.head = nn.Conv2d(2 * shape.trunk, shape.head, 1)
        self.estimate = nn.Conv2d(shape.head, HOP, 1)
        self.share = nn.Conv2d(shape.head, SHARES, 1)
        self.baseline = nn.Conv2d(shape.head, BASELINES, 1)
        with torch.no_grad():
            self.share.weight.mul_(0.3)
            self.share.bias.fill_(0.0)
            self.baseline.weight.mul_(0.1)

    def forward(self, wave: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        past = iter(states)
        new = []
        x, s = self.front(wave, next(past))
        new.append(s)
        x = torch.relu(x)
        for block in self.fast:
            x, s = block(x, next(past))
            new.append(s)
        x, s = self.down(x, next(past))
        new.append(s)
        skip = x = torch.relu(x)
        for block in self.blocks:
            x, s = block(x, next(past))
            new.append(s)
        for time, block in zip(self.again, self.blocks, strict=False):
            x, s = time(x, next(past))
            new.append(s)
            x = torch.relu(block.mix(x))
        x = torch.relu(self.head(torch.cat([x, skip], 1)))
        return (
            self.estimate(x).float(),
            torch.sigmoid(self.share(x).float()),
            self.baseline(x).float(),
            *new,
        )

    def looking_back(self) -> list[LookBack]:
        """The layers with a state, in the order of the states."""
        fast, slow = ([b.time for b in blocks] for blocks in (self.fast, self.blocks))
        return [self.front, *fast, self.down, *slow, *self.again]

    def initial_states(self, batch: int = 1) -> tuple[torch.Tensor, ...]:
        return tuple(torch.zeros(batch, m.conv.in_channels, 1, m.context) for m in self.looking_back())

    def examples(self) -> dict[str, torch.Tensor]:
        """Inputs of one streamed hop by name, in the order of `forward`."""
        states = {f"state_{k:02d}": s for k, s in enumerate(self.initial_states())}
        return {"wave": torch.zeros(1, 3, 1, HOP), **states}

    def output_names(self) -> list[str]:
        return ["estimate", "share", "baseline", *(f"new_{k:02d}" for k in range(len(self.looking_back())))]

    def layout(self) -> dict[str, Any]:
        """What `from_layout` needs."""
        return {"shape": asdict(self.sizes)}

    @classmethod
    def from_layout(cls, layout: dict[str, Any]) -> EcgDenoiser:
        """An untrained net of that layout."""
        shape: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list | tuple) else v for k, v in layout["shape"].items()
        }
        return cls(EcgShape(**shape))


def lead_tables() -> dict[str, Samples]:
    """The float coefficients around the net: straight lines between points, (9, points + 1), from the last
    point of the hop before.
    """
    return {"of_share": _lines(SHARES), "of_baseline": _lines(BASELINES)}


def _lines(points: int) -> Samples:
    found = np.zeros((HOP, points + 1), dtype=np.float32)
    part = HOP // points
    for i in range(HOP):
        k, u = divmod(i, part)
        found[i, k] = 1 - (u + 1) / part
        found[i, k + 1] = (u + 1) / part
    return found
