"""The rate of learning as a function of the step alone, so that a checkpoint holds nothing of it; and the
optimiser of the screening networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["Schedule", "adamw", "one_cycle", "warm_cosine"]

Schedule = Callable[[int], dict[str, Any]]
"""Step → what every group of the optimiser is set to before it: `lr`, and `betas` where they move, too."""


def one_cycle(
    highest: float,
    steps: int,
    *,
    rising: float = 0.3,
    below_first: float = 25.0,
    below_last: float = 1e4,
    beta_2: float = 0.999,
) -> Schedule:
    """One cycle up and down by cosines (Smith & Topin 2018), the first beta against it, 0.95 to 0.85; what
    torch.optim.lr_scheduler.OneCycleLR sets, to the bit.

    rising: share of the steps on the way up. below_first: the highest over the first rate; below_last: the
    first over the last.
    """
    first = highest / below_first
    top, end = float(rising * steps) - 1, steps - 1

    def between(one: float, other: float, share: float) -> float:
        return other + (one - other) / 2.0 * (math.cos(math.pi * share) + 1)

    def at(step: int) -> dict[str, Any]:
        if step <= top:
            share = step / top
            rate, beta = between(first, highest, share), between(0.95, 0.85, share)
        else:
            share = (step - top) / (end - top)
            rate, beta = between(highest, first / below_last, share), between(0.85, 0.95, share)
        return {"lr": rate, "betas": (beta, beta_2)}

    return at


def warm_cosine(highest: float, warm_up: int, steps: int) -> Schedule:
    """Straight up over `warm_up` steps, then down a half cosine to a hundredth."""

    def at(step: int) -> dict[str, Any]:
        if step < warm_up:
            return {"lr": highest * (step + 1) / warm_up}
        fall = 0.5 * (1 + float(np.cos(np.pi * (step - warm_up) / max(1, steps - warm_up))))
        return {"lr": highest * (0.01 + 0.99 * fall)}

    return at


def adamw(
    net: nn.Module, rate: float, weight_decay: float, beside: Sequence[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """AdamW without weight decay of biases and norms, and of the parameters `beside` the net."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [*(p for p in net.parameters() if p.ndim <= 1), *beside], "weight_decay": 0.0},
        ],
        lr=rate,
    )
