"""The rhythm network: what it is. Its input and what is made of its answer stand in
device/screening/segmentation.py.

Every 20 ms it hears one more frame of levelled band powers and says how likely that frame was S1, systole, S2
or diastole which lies `EARLY` frames back, and once more, knowing more of what came after, the one `LATE`
frames back. The first answer is for the stream, the second for a whole recording.

    bands (20) ── conv 5 ── dilated depthwise-separable blocks ── 1x1 ── 8 logits

The blocks are those of the heart sound's denoiser (models/streaming.py): no addition, states as tensors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from device.screening.segmentation import BANDS, EARLY, LATE, STATES
from models.streaming import LookBack, ResidualBlock

__all__ = ["RhythmNet", "RhythmShape"]


@dataclass(frozen=True)
class RhythmShape:
    """`[net]` of the recipe."""

    width: int = 64
    stem_taps: int = 5
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 1, 2, 4)


class RhythmNet(nn.Module):
    """bands (B, 20, 1, T), states → logits of the early answer (B, 4, 1, T), of the late one (B, 4, 1, T),
    new states. Position t speaks of frame t - EARLY, and of frame t - LATE.
    """

    def __init__(self, shape: RhythmShape) -> None:
        super().__init__()
        self.sizes = shape
        self.stem = LookBack(BANDS, shape.width, shape.stem_taps)
        self.blocks = nn.ModuleList(ResidualBlock(shape.width, d) for d in shape.dilations)
        self.early = nn.Conv2d(shape.width, len(STATES), 1)
        self.late = nn.Conv2d(shape.width, len(STATES), 1)

    def forward(self, bands: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, first = self.stem(bands, states[0])
        x = torch.relu(x)
        new = [first]
        for block, state in zip(self.blocks, states[1:], strict=True):
            x, state = block(x, state)
            new.append(state)
        return self.early(x), self.late(x), *new

    def whole(self, bands: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both answers to whole recordings (B, 20, T), each for the frame at its own place: logits (B, 4, T).

        After the end the net hears what it hears of a steady sound, zeros.
        """
        padded = nn.functional.pad(bands, (0, LATE))[:, :, None]
        early, late, *_ = self(padded, *self.initial_states(len(bands)))
        frames = bands.shape[-1]
        return early[:, :, 0, EARLY : EARLY + frames], late[:, :, 0, LATE : LATE + frames]

    def looking_back(self) -> list[LookBack]:
        """The layers with a state, in the order of the states."""
        return [self.stem, *(block.time for block in self.blocks)]

    def initial_states(self, batch: int = 1) -> tuple[torch.Tensor, ...]:
        return tuple(torch.zeros(batch, m.conv.in_channels, 1, m.context) for m in self.looking_back())

    def examples(self) -> dict[str, torch.Tensor]:
        """Inputs of one streamed frame by name, in the order of `forward`."""
        states = {f"state_{k:02d}": s for k, s in enumerate(self.initial_states())}
        return {"bands": torch.zeros(1, BANDS, 1, 1), **states}

    def output_names(self) -> list[str]:
        return ["early", "late", *(f"new_{k:02d}" for k in range(len(self.looking_back())))]

    def macs_per_frame(self) -> int:
        """Multiplications for one frame: each weight of a convolution is used once."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Conv2d))

    def layout(self) -> dict[str, Any]:
        """What `from_layout` needs."""
        return {"shape": asdict(self.sizes)}

    @classmethod
    def from_layout(cls, layout: dict[str, Any]) -> RhythmNet:
        """An untrained net of that layout."""
        shape: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list | tuple) else v for k, v in layout["shape"].items()
        }
        return cls(RhythmShape(**shape))
