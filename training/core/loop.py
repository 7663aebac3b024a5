"""The frame of a training: optimiser, schedule, averaged weights, checkpoints, the curve.

What is learned from is the caller's: a function of the step gives the loss. A run that is stopped and resumed
gives the same weights as one that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.errors import StethopiError

__all__ = ["TrainingPlan", "layout_for", "learn", "load", "save"]


@dataclass(frozen=True)
class TrainingPlan:
    """How far and how fast."""

    steps: int
    learning_rate: float
    """The highest of a one-cycle schedule (Smith & Topin 2018)."""
    weight_decay: float
    """Of all parameters but biases and norms."""
    seed: int
    every: int
    """Steps from one checkpoint, and line said, to the next."""
    first_draw: int = 0
    average: float | None = None
    """Decay of the running mean of the weights, which is what is kept; None: the last weights are."""
    stop_at: int | None = None
    """Break off after this step, with a checkpoint (for tests)."""


def layout_for(channels: Sequence[int]) -> torch.memory_format:
    """The order in memory for a net whose convolutions have so many channels.

    channels_last is twice as fast on a CPU; but torch 2.13 writes beyond its memory in the backward pass of a
    strided pointwise convolution of twelve channels or fewer.
    """
    return torch.channels_last if min(channels) >= 16 else torch.contiguous_format


def save(path: Path, content: dict[str, Any]) -> None:
    """torch.save that appears whole, of tensors and plain values alone, so that `load` takes it up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    torch.save(_plain(content), temporary)
    os.replace(temporary, path)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of `save`. FileNotFoundError when there is none, StethopiError when it holds more than
    tensors and plain values: such a file could run any code while it is read, and is not."""
    try:
        kept = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever torch's reader says of a file that is none
        why = (
            f"cannot be read ({error.strerror})"
            if isinstance(error, OSError)
            else "not tensors and plain values"
        )
        raise StethopiError(
            f"{path}: {why}; a checkpoint of stethopi 0.3.0 or older, or none: delete it and train again"
        ) from None
    if not isinstance(kept, dict):
        raise StethopiError(f"{path}: not a checkpoint; delete it and train again")
    return kept


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, paths as text; TypeError for what `load` would refuse."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor | str | bool | int | float | None):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        made = {_plain(k): _plain(v) for k, v in value.items()}
        # a state dict stays what it is: its order and its marks are torch's
        return value if all(made[k] is v for k, v in value.items()) else made
    if isinstance(value, list | tuple):
        items = [_plain(v) for v in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def learn(
    net: nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    plan: TrainingPlan,
    *,
    beside: Sequence[nn.Parameter] = (),
    checkpoint: Path | None = None,
    key: str = "",
    told: Callable[[dict[str, float]], dict[str, float]] = lambda point: point,
    name: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, float]]:
    """Train `net`, in its layout already, in place; gives the curve: every `every` steps `step` and the mean
    `loss` since the last.

    loss_of: step, counted from the plan's first draw → loss.
    beside: parameters that are learned too, without weight decay, and are dropped afterwards.
    checkpoint: taken up when it is of the same key.
    told: may add to a point of the curve.
    """
    torch.set_num_threads(1)
    steps = plan.steps
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [*(p for p in net.parameters() if p.ndim <= 1), *beside], "weight_decay": 0.0},
        ],
        lr=plan.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        plan.learning_rate,
        total_steps=max(5, steps),
        pct_start=max(0.1, 2.5 / max(5, steps)),
        div_factor=10,
        final_div_factor=100,
    )
    averaged = {name: value.detach().clone() for name, value in net.state_dict().items()}
    curve: list[dict[str, float]] = []
    begin = 0
    if checkpoint is not None and checkpoint.is_file():
        kept = load(checkpoint)
        if kept["key"] == key and "beside" in kept:
            net.load_state_dict(kept["net"])
            optimizer.load_state_dict(kept["optimizer"])
            schedule.load_state_dict(kept["schedule"])
            averaged, begin, curve = kept["averaged"], kept["step"], kept["curve"]
            with torch.no_grad():
                for parameter, value in zip(beside, kept["beside"], strict=True):
                    parameter.copy_(value)
            say(f"{name + ': ' if name else ''}resumed at step {begin} of {steps}")
    started, losses = time.monotonic(), []
    net.train()
    for step in range(begin, steps):
        torch.manual_seed(plan.seed * 1_000_003 + plan.first_draw + step)
        loss = loss_of(plan.first_draw + step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        if plan.average is not None:
            _into(averaged, net, min(plan.average, (1 + step) / (10 + step)))
        losses.append(float(loss.detach()))
        done = step + 1
        if done % plan.every == 0 or done in (steps, plan.stop_at):
            pace = (time.monotonic() - started) / (done - begin)
            point = told({"step": done, "loss": sum(losses) / len(losses)})
            losses = []
            curve.append(point)
            more = "".join(f"  {k} {v:.3f}" for k, v in point.items() if k != "step")
            say(f"{name or 'step'} {done}/{steps}{more}  {pace * 1e3:.0f} ms a step")
            if checkpoint is not None and done < steps:
                save(
                    checkpoint,
                    {
                        "key": key,
                        "step": done,
                        "net": net.state_dict(),
                        "averaged": averaged,
                        "beside": [parameter.detach().clone() for parameter in beside],
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "curve": curve,
                    },
                )
        if done == plan.stop_at:
            break
    if plan.average is not None:
        net.load_state_dict(averaged)
    net.eval()
    return curve


def _into(averaged: dict[str, torch.Tensor], net: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                averaged[name].mul_(decay).add_(value, alpha=1 - decay)
            else:
                averaged[name].copy_(value)
