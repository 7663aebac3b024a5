"""Layers that stream: each convolution that looks back takes its past as an input and gives the new one.

The same `forward` trains on whole recordings (zero states, many hops at once) and streams (one hop a call).
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ResidualBlock", "LookBack"]


class LookBack(nn.Module):
    """A convolution over time with its past as explicit state: (B, C, 1, T), (B, C, 1, ctx) → output, new
    state.
    """

    def __init__(
        self, cin: int, cout: int, taps: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, (1, taps), (1, stride), 0, (1, dilation), groups)

    @property
    def context(self) -> int:
        return int((self.conv.kernel_size[1] - 1) * self.conv.dilation[1] + 1 - self.conv.stride[1])

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.cat([state, x], -1)
        return self._apply_conv(z, x.shape[-1]), z[..., -self.context :]

    def _apply_conv(self, z: torch.Tensor, length: int) -> torch.Tensor:
        if self.conv.groups == 1 or length == 1:
            return self.conv(z)
        # many hops at once: three shifted products are faster than the library's dilated depthwise
        # convolution
        d = self.conv.dilation[1]
        w = self.conv.weight[:, 0, 0, :, None, None]
        y = z[..., :length] * w[:, 0]
        for k in range(1, w.shape[1]):
            y = y + z[..., k * d : k * d + length] * w[:, k]
        assert self.conv.bias is not None
        return y + self.conv.bias[:, None, None]


class ResidualBlock(nn.Module):
    """A dilated block: a depthwise convolution that starts as "pass on", a 1x1 that starts as the identity.

    A residual net without the addition (as DiracNet, Zagoruyko and Komodakis 2017): the exported graph has
    no Add, quantises without a shortcut's second scale, and each layer can be pruned.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.time = self.over_time(width, dilation)
        self.mix = nn.Conv2d(width, width, 1)
        with torch.no_grad():
            self.mix.weight.mul_(0.2).add_(torch.eye(width)[:, :, None, None])
            self.mix.bias.zero_()

    @staticmethod
    def over_time(width: int, dilation: int) -> LookBack:
        """The depthwise convolution, passing on what it hears."""
        time = LookBack(width, width, 3, dilation=dilation, groups=width)
        with torch.no_grad():
            w = time.conv.weight
            w.mul_(0.1)
            w[..., -1] += 1.0
            time.conv.bias.zero_()
        return time

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, state = self.time(x, state)
        return torch.relu(self.mix(y)), state
