"""ECG denoisers beside ours: the two seeds' networks, three from papers, and the offline refiner.

All take windows (B, 1, n) of mean 0 and deviation 1 and give (B, 1, n); n a multiple of 64. Written anew
after the papers' descriptions; where a detail is not told, the plainest choice was taken.

    autoencoder   symmetric convolutional encoder and decoder
    cnn           a fast plain network of six convolutions
    deepfilter    linear and non-linear filters side by side, every second module dilated (Romero et al. 2021)
    fcn-dae       fully convolutional autoencoder (Chiang et al. 2019)
    tcdae         gated convolutions around a transformer (Chen et al. 2024)
    refiner       ours, offline: looks both ways, and goes over the streaming net's answer in a few steps
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Autoencoder", "Cnn", "DeepFilter", "FcnDae", "Refiner", "Tcdae", "build_ecg_baseline"]


def build_ecg_baseline(model: str, net: Mapping[str, Any]) -> nn.Module:
    """The network of that name; `net` are its sizes from the recipe."""
    kinds: dict[str, type[nn.Module]] = {
        "autoencoder": Autoencoder,
        "cnn": Cnn,
        "cnn-spectral": Cnn,
        "deepfilter": DeepFilter,
        "fcn-dae": FcnDae,
        "tcdae": Tcdae,
    }
    return kinds[model](**net)


class Autoencoder(nn.Module):
    """Four convolutions of stride 2 and their mirror image."""

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 64), taps: int = 9) -> None:
        super().__init__()
        sizes = [1, *channels]
        down, up = [], []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            down += [nn.Conv1d(a, b, taps, 2, taps // 2), nn.ReLU()]
        for b, a in zip(sizes[:0:-1], sizes[-2::-1], strict=True):
            up += [nn.ConvTranspose1d(b, a, taps, 2, taps // 2, output_padding=1), nn.ReLU()]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.decoder(self.encoder(x))
        return y


class Cnn(nn.Module):
    """Six convolutions at the full rate."""

    def __init__(self, width: int = 32, taps: int = 15) -> None:
        super().__init__()
        sizes = [1, width, width, width, width, width]
        layers: list[nn.Module] = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Conv1d(a, b, taps, padding=taps // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv1d(width, 1, taps, padding=taps // 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y


class _Filters(nn.Module):
    """Filters of four lengths side by side, linear and non-linear."""

    def __init__(self, cin: int, cout: int, dilation: int) -> None:
        super().__init__()
        lengths: tuple[int, ...] = (5, 9, 15) if dilation > 1 else (3, 5, 9, 15)
        each = cout // (2 * len(lengths))
        rest = cout - each * (2 * len(lengths) - 1)
        sizes = [each] * (2 * len(lengths) - 1) + [rest]
        self.branches = nn.ModuleList(
            nn.Conv1d(cin, size, taps, padding=(taps - 1) * dilation // 2, dilation=dilation)
            for taps, size in zip(lengths * 2, sizes, strict=True)
        )
        self.linear = len(lengths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [b(x) for b in self.branches]
        return torch.cat([y if k < self.linear else torch.relu(y) for k, y in enumerate(found)], 1)


class DeepFilter(nn.Module):
    """Six modules of 64, 64, 32, 32, 16, 16 filters, every second one dilated by 3, then one filter of 9."""

    def __init__(self, widths: Sequence[int] = (64, 64, 32, 32, 16, 16), dropout: float = 0.4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for k, width in enumerate(widths):
            layers.append(_Filters(before, width, 3 if k % 2 else 1))
            if k % 2 and k < len(widths) - 1:
                layers.append(nn.Dropout(dropout))
            layers.append(nn.BatchNorm1d(width))
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv1d(before, 1, 9, padding=4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y


class FcnDae(nn.Module):
    """Convolutions of 16 taps: 40, 20, 20, 20, 40 of stride 2 and one of a single channel, and the mirror."""

    def __init__(self, widths: Sequence[int] = (40, 20, 20, 20, 40), taps: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in widths:
            layers += [nn.Conv1d(before, width, taps, 2, taps // 2 - 1), nn.ELU(), nn.BatchNorm1d(width)]
            before = width
        layers += [nn.Conv1d(before, 1, taps - 1, 1, taps // 2 - 1), nn.ELU(), nn.BatchNorm1d(1)]
        layers += [nn.ConvTranspose1d(1, 1, taps - 1, 1, taps // 2 - 1), nn.ELU(), nn.BatchNorm1d(1)]
        before = 1
        for width in widths[::-1]:
            layers += [
                nn.ConvTranspose1d(before, width, taps, 2, taps // 2 - 1),
                nn.ELU(),
                nn.BatchNorm1d(width),
            ]
            before = width
        layers.append(nn.ConvTranspose1d(before, 1, taps - 1, 1, taps // 2 - 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y


class _Gated(nn.Module):
    def __init__(self, cin: int, cout: int, taps: int, up: bool = False) -> None:
        super().__init__()

        def conv() -> nn.Module:
            if up:
                return nn.ConvTranspose1d(cin, cout, taps, 2, taps // 2, output_padding=1)
            return nn.Conv1d(cin, cout, taps, 2, taps // 2)

        self.value, self.gate = conv(), conv()
        self.norm = nn.BatchNorm1d(cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.value(x) * torch.sigmoid(self.gate(x)))
        return y


class Tcdae(nn.Module):
    """Three gated convolutions of stride 2, a transformer, and three back, with shortcuts."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), blocks: int = 6, heads: int = 8) -> None:
        super().__init__()
        a, b, c = widths
        self.down = nn.ModuleList([_Gated(1, a, 13), _Gated(a, b, 7), _Gated(b, c, 7)])
        layer = nn.TransformerEncoderLayer(c, heads, 4 * c, 0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.up = nn.ModuleList([_Gated(c, b, 7, True), _Gated(b, a, 7, True), _Gated(a, a, 13, True)])
        self.last = nn.Conv1d(a, 1, 13, padding=6)

    @staticmethod
    def _places(n: int, width: int) -> torch.Tensor:
        at = torch.arange(n)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
        return torch.stack([at.sin(), at.cos()], -1).reshape(n, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        z = x.transpose(1, 2)
        z = self.blocks(z + self._places(z.shape[1], z.shape[2]))
        x = z.transpose(1, 2) + kept[2]
        x = self.up[0](x) + kept[1]
        x = self.up[1](x) + kept[0]
        y: torch.Tensor = self.last(self.up[2](x))
        return y


class _Both(nn.Module):
    """Looks both ways: depthwise convolution, then two 1x1 with a non-linearity, added."""

    def __init__(self, width: int, dilation: int, dropout: float = 0.0, taps: int = 5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.time = nn.Conv1d(
            width, width, taps, padding=dilation * (taps // 2), dilation=dilation, groups=width
        )
        self.norm = nn.GroupNorm(1, width)
        self.mix = nn.Conv1d(width, 2 * width, 1)
        self.back = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.back.weight)
        self.taps, self.dilation = taps, dilation

    def _past_and_future(self, x: torch.Tensor) -> torch.Tensor:
        # shifted products are faster than the library's dilated depthwise convolution
        d, n = self.dilation, x.shape[-1]
        z = functional.pad(x, (d * (self.taps // 2),) * 2)
        w = self.time.weight[:, 0]
        y = z[..., :n] * w[:, :1]
        for k in range(1, self.taps):
            y = y + z[..., k * d : k * d + n] * w[:, k : k + 1]
        assert self.time.bias is not None
        return y + self.time.bias[:, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.mix(self.norm(self._past_and_future(x))).chunk(2, 1)
        y: torch.Tensor = x + self.back(self.dropout(torch.relu(value) * torch.sigmoid(gate)))
        return y


class _Among(nn.Module):
    """Attention over the whole window at half the rate, added: what looks alike, as one beat does the other,
    is compared.
    """

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.ask = nn.Conv1d(width, 3 * width, 1)
        self.back = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.back.weight)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, n = x.shape[0], x.shape[1], x.shape[2] // 2
        asked = self.ask(functional.avg_pool1d(self.norm(x), 2)).reshape(
            batch, 3, self.heads, width // self.heads, n
        )
        query, key, value = asked.transpose(-1, -2).unbind(1)
        found = functional.scaled_dot_product_attention(query, key, value)
        answer = self.back(found.transpose(-1, -2).reshape(batch, width, n))
        return x + functional.interpolate(answer, size=x.shape[2], mode="linear")


class Refiner(nn.Module):
    """Offline: goes over an answer in few steps, each time looking at the noisy window and at the answer
    before, both ways in time.

    Like a conditional diffusion model of few steps; it starts from the streaming net's answer (`first`)
    instead of noise, so it gives one answer, not samples. The answer is held within twelve deviations of the
    window, without which iterating networks may run away on long signals. After the blocks named in `among`
    each instant looks at all others of the window.
    """

    def __init__(
        self,
        first: nn.Module,
        width: int = 64,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16),
        steps: int = 2,
        among: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = first.requires_grad_(False)
        self.steps = steps
        self.front = nn.Conv1d(2, width, 15, 4, 6)
        layers: list[nn.Module] = []
        for k, dilation in enumerate(dilations):
            layers += [_Both(width, dilation, dropout)] + ([_Among(width)] if k in among else [])
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Conv1d(2 * width, width, 1)
        self.answer = nn.ConvTranspose1d(width, 2, 12, 4, 4)
        with torch.no_grad():
            self.answer.weight.mul_(0.3)

    def step(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """(B, 1, n) both → the next answer: a share of the one before, the rest anew."""
        skip = z = torch.relu(self.front(torch.cat([x, before], 1)))
        for block in self.blocks:
            z = block(z)
        estimate, share = self.answer(torch.relu(self.head(torch.cat([z, skip], 1)))).chunk(2, 1)
        share = torch.sigmoid(share)
        return (before + share * (estimate - before)).clamp(-12, 12)

    def forward(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        for _ in range(self.steps):
            before = self.step(x, before)
        return before
