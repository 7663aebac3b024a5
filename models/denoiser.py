"""The streaming heart-sound denoiser: what the network is. How it is used stands in device/denoise/stream.py.

Per hop of 16 samples (8 ms at 2 kHz) the net hears the sound at a steady level, twice (coarse, and fine with
the beats clipped, so that int8 still resolves a quiet diastole), and the log spectrum of the last 64 ms. It
answers with shares to remove, 0 to 1: of each frequency band of the frame that ends here, and of each 2 ms
of the finished hop.

    2 kHz  wave (2) ── conv 16/4 ── 500 Hz ── conv 8/4 ── 125 Hz ─┬─────────────────────────┐ skip
                       spectrum (64), 125 Hz ── 1x1 ──────────────┴─ mix ── dilated blocks ─┴─ head ── shares

A dilated block is a depthwise convolution over time (3 taps, 1 … 64 hops apart) that starts as "pass on" and
a 1x1 convolution that starts as the identity: a residual net without the addition (as DiracNet, Zagoruyko
and Komodakis 2017), so the exported graph has no Add, quantises without a shortcut's second scale, and each
layer can be pruned.

Every convolution that looks back takes its context as an input and returns it as an output. The same
`forward` trains on whole recordings (zero states, many hops at once) and streams (one hop a call).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from device.arrays import Samples
from device.rates import HOP
from models.streaming import LookBack, ResidualBlock

__all__ = ["BANDS", "FRAME", "SYNTHESIS", "TIMES", "DenoiserNet", "Shape", "tables"]


@dataclass(frozen=True)
class Shape:
    """Sizes of the net. `shares` = bands + shares in time a hop."""

    front: int = 32
    trunk: int = 128
    spectrum: int = 64
    spectrum_width: int = 32
    head: int = 96
    shares: int = 35
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 1, 2, 4, 8, 16, 32, 64)


class DenoiserNet(nn.Module):
    """wave (B, 2, 1, 16 T), spectrum (B, 64, 1, T), states → shares in 0 … 1 (B, shares, 1, T), new
    states.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.sizes = shape
        self.front = LookBack(2, shape.front, 16, stride=4)
        self.down = LookBack(shape.front, shape.trunk, 8, stride=4)
        self.spectrum = nn.Conv2d(shape.spectrum, shape.spectrum_width, 1)
        self.mix = nn.Conv2d(shape.trunk + shape.spectrum_width, shape.trunk, 1)
        self.blocks = nn.ModuleList(ResidualBlock(shape.trunk, d) for d in shape.dilations)
        self.head = nn.Conv2d(2 * shape.trunk, shape.head, 1)
        self.shares = nn.Conv2d(shape.head, shape.shares, 1)
        with torch.no_grad():
            self.shares.weight.mul_(0.3)
            self.shares.bias.fill_(-2.0)

    def forward(
        self, wave: torch.Tensor, spectrum: torch.Tensor, *states: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        new = []
        x, s = self.front(wave, states[0])
        new.append(s)
        x, s = self.down(torch.relu(x), states[1])
        new.append(s)
        skip = torch.relu(x)
        x = torch.relu(self.mix(torch.cat([skip, torch.relu(self.spectrum(spectrum))], 1)))
        for block, state in zip(self.blocks, states[2:], strict=True):
            x, s = block(x, state)
            new.append(s)
        x = torch.relu(self.head(torch.cat([x, skip], 1)))
        return (torch.sigmoid(self.shares(x).float()), *new)

    def looking_back(self) -> list[LookBack]:
        """The layers with a state, in the order of the states."""
        return [self.front, self.down, *(b.time for b in self.blocks)]

    def initial_states(self, batch: int = 1) -> tuple[torch.Tensor, ...]:
        """Zero states, shapes taken from the layers, so that they stay right after pruning."""
        return tuple(torch.zeros(batch, m.conv.in_channels, 1, m.context) for m in self.looking_back())

    def examples(self) -> dict[str, torch.Tensor]:
        """Inputs of one streamed hop by name, in the order of `forward`."""
        states = {f"state_{k:02d}": s for k, s in enumerate(self.initial_states())}
        spectrum = self.spectrum.in_channels
        return {"wave": torch.zeros(1, 2, 1, HOP), "spectrum": torch.zeros(1, spectrum, 1, 1), **states}

    def output_names(self) -> list[str]:
        return ["shares", *(f"new_{k:02d}" for k in range(len(self.looking_back())))]

    def layout(self) -> dict[str, Any]:
        """Channel counts of every layer, so that a pruned net can be rebuilt: see `from_layout`."""
        convs = {
            n: [m.in_channels, m.out_channels, m.groups]
            for n, m in self.named_modules()
            if isinstance(m, nn.Conv2d)
        }
        return {"shape": asdict(self.sizes), "convolutions": convs}

    @classmethod
    def from_layout(cls, layout: dict[str, Any]) -> DenoiserNet:
        """An untrained net of that layout."""
        shape: dict[str, Any] = {
            k: tuple(v) if isinstance(v, Sequence) else v for k, v in layout["shape"].items()
        }
        net = cls(Shape(**shape))
        modules = dict(net.named_modules())
        for name, (cin, cout, groups) in layout["convolutions"].items():
            old = modules[name]
            assert isinstance(old, nn.Conv2d)
            if (old.in_channels, old.out_channels) == (cin, cout):
                continue
            parent_name, _, leaf = name.rpartition(".")
            _, taps = old.kernel_size
            new = nn.Conv2d(cin, cout, (1, taps), (1, old.stride[1]), 0, (1, old.dilation[1]), groups)
            setattr(modules[parent_name] if parent_name else net, leaf, new)
        return net


# ── the fixed part around the net ───────────────────────────────────────────────────────────────────────────

FRAME = 96
"""Samples of the analysed frame, 48 ms, ending at the newest sample."""

SYNTHESIS = 48
"""Samples that a frame's removal reaches: the hop that is finished and the two behind it."""

BANDS = 31
TIMES = 4


def tables(frame: int = FRAME) -> dict[str, Samples]:
    """The float coefficients around the net, float32; they ship in the bundle beside the .tflite.

    analysis (K, frame), synthesis (48, K): a real Fourier basis under windows of low delay (Mauler and
    Martin 2007: a long rise, a short fall), whose overlap-add of hop 16 is exactly the sound when nothing is
    weighted.
    spread (K, bands): bands of one bin below 500 Hz, wider above. interpolation (16, 5): shares in time,
    from the last point of the hop before and four of this one. window (128,): of the net's spectrum, scaled
    to power.
    """
    half = SYNTHESIS // 2
    rise = np.sin(0.5 * np.pi * (np.arange(frame - half) + 0.5) / (frame - half))
    fall = np.cos(0.5 * np.pi * (np.arange(half) + 0.5) / half)
    analysis_window = np.concatenate([rise, fall])
    whole = np.sin(np.pi * (np.arange(SYNTHESIS) + 0.5) / SYNTHESIS) ** 2 / (SYNTHESIS / HOP / 2)
    synthesis_window = whole / analysis_window[-SYNTHESIS:]
    n = np.arange(frame)
    rows, bins = [], []
    for k in range(frame // 2 + 1):
        scale = np.sqrt((1.0 if k in (0, frame // 2) else 2.0) / frame)
        rows.append(scale * np.cos(2 * np.pi * k * n / frame))
        bins.append(k)
        if k not in (0, frame // 2):
            rows.append(scale * np.sin(2 * np.pi * k * n / frame))
            bins.append(k)
    basis = np.stack(rows)
    band_of = [_band_of(k, frame) for k in bins]
    spread = np.zeros((len(bins), max(band_of) + 1))
    spread[np.arange(len(bins)), band_of] = 1.0
    interpolation = np.zeros((HOP, TIMES + 1))
    part = HOP // TIMES
    for i in range(HOP):
        k, u = divmod(i, part)
        interpolation[i, k] = 1 - (u + 1) / part
        interpolation[i, k + 1] = (u + 1) / part
    rise = np.sin(0.5 * np.pi * (np.arange(104) + 0.5) / 104) ** 2
    fall = np.cos(0.5 * np.pi * (np.arange(24) + 0.5) / 24) ** 2
    window = np.concatenate([rise, fall])
    found = {
        "analysis": basis * analysis_window,
        "synthesis": (basis[:, -SYNTHESIS:] * synthesis_window).T,
        "spread": spread,
        "interpolation": interpolation,
        "window": window / np.sqrt(np.sum(window**2)),
    }
    return {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in found.items()}


def _band_of(k: int, frame: int) -> int:
    """Bands of one bin below 500 Hz, above of about 83 Hz."""
    fine = frame // 4
    if k <= fine:
        return k
    wide = max(1, round(frame / 24))
    return fine + 1 + min((k - fine - 1) // wide, (frame // 2 - fine) // wide - 1)
