"""An optimiser for short trainings: the update of each weight matrix is brought to singular values near 1.

Muon (Jordan et al. 2024): momentum, then five Newton-Schulz steps, for weights that mix channels; everything
else (biases, depthwise filters, small layers) goes to AdamW. In trials on the ECG's net it needed half
the steps for the same loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["Muon"]

_STEPS = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of the paper's quintic iteration."""


class Muon:
    """Like a torch optimiser: `lr` of its groups is AdamW's; matrices move by `factor` times it."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        weight_decay: float = 1e-4,
        factor: float = 5.0,
        momentum: float = 0.95,
        least: int = 16,
    ) -> None:
        every = list(parameters)
        self.matrices = [p for p in every if p.ndim >= 2 and p.shape[0] >= least and p[0].numel() >= least]
        taken = {id(p) for p in self.matrices}
        rest = [p for p in every if id(p) not in taken]
        self.adam = torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.98))
        self.param_groups = self.adam.param_groups
        self.factor, self.momentum = factor, momentum
        self.means = [torch.zeros_like(p) for p in self.matrices]

    @torch.no_grad()
    def step(self) -> None:
        """One update of all weights by their gradients; each matrix must have one."""
        self.adam.step()
        rate = self.param_groups[0]["lr"] * self.factor
        for p, mean in zip(self.matrices, self.means, strict=True):
            assert p.grad is not None
            mean.lerp_(p.grad, 1 - self.momentum)
            u = _orthogonal(p.grad.lerp(mean, self.momentum).reshape(p.shape[0], -1))
            tall = max(1.0, u.shape[0] / u.shape[1]) ** 0.5
            p.mul_(1 - 0.01 * rate).add_(u.reshape(p.shape), alpha=-rate * tall)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; those of the matrices become None, whatever `set_to_none` says."""
        for p in self.matrices:
            p.grad = None
        self.adam.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state and the matrices' running means, for a checkpoint."""
        return {"adam": self.adam.state_dict(), "means": self.means}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave of the same parameters, in the same order."""
        self.adam.load_state_dict(kept["adam"])
        self.param_groups = self.adam.param_groups
        for mean, value in zip(self.means, kept["means"], strict=True):
            mean.copy_(value)


def _orthogonal(u: torch.Tensor) -> torch.Tensor:
    """The nearest matrix whose singular values are about 1."""
    turned = u.shape[0] > u.shape[1]
    x = u.T if turned else u
    x = x / (x.norm() + 1e-7)
    for a, b, c in _STEPS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if turned else x
