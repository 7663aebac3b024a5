"""Readying the denoiser for int8: equalised ranges, and sounds to take them from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.denoiser import DenoiserNet
from training.core.recipe import settings
from training.data.mixing import Mixer, MixSettings, NoisePool, references
from training.denoise.apply import HELD_BACK, shares_of, tables_of

__all__ = ["sounds_for_ranges", "for_int8"]


def real_sounds(recipe: dict[str, Any], data: Path, cache: Path, **mix: float) -> np.ndarray:
    """Forty training mixtures of 6 s that no step ever sees, (40, 12288): for scores, ranges and
    calibration. mix: other settings of MixSettings, as the share that begins softer (`jump`).
    """
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK)
    mixed = settings(MixSettings, {"batch": 40, "samples": 12288, "low_db": -8.0, **mix}, "mix")
    return Mixer(refs, pool, mixed, int(recipe["seed"])).batch(20_000_000)[1]


def sounds_for_ranges(recipe: dict[str, Any], data: Path, cache: Path, **mix: float) -> np.ndarray:
    """What int8 ranges are taken from: clean and noisy. Loud and quiet is one, as the net hears all at a
    steady level: only a jump differs. mix: other settings, to see what they are worth.
    """
    jump = float(recipe.get("settle", {}).get("mix", {}).get("jump", 0.0))
    return real_sounds(recipe, data, cache, **{"jump": jump, **mix})


def equalise(net: DenoiserNet, sounds: np.ndarray, window: np.ndarray, power: float = 0.75) -> None:
    """Scale the trunk's channels to like ranges, in place; the net computes the same (ReLU passes a factor
    on).

    One int8 scale serves all channels of an activation, so a single loud channel would coarsen the others.
    Each channel's range on real sound, to the `power`, goes over into the weights of the layer that hears it.
    After Nagel et al. 2019, with measured ranges instead of weights.
    """
    blocks = list(net.blocks)
    heard: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        heard[module] = args[0].abs().amax((0, 2, 3))

    hooks = [b.mix.register_forward_pre_hook(note) for b in blocks]  # type: ignore[union-attr]
    try:
        with torch.no_grad():
            shares_of(net, sounds, window)
    finally:
        for hook in hooks:
            hook.remove()
    maker = net.mix
    with torch.no_grad():
        for block in blocks:
            most = heard[block.mix].clamp_min(1e-3)  # type: ignore[index]
            scale = ((most / most.median()) ** power).clamp(1 / 16, 16)
            maker.weight.div_(scale[:, None, None, None])
            maker.bias.div_(scale)  # type: ignore[union-attr]
            block.time.conv.bias.div_(scale)  # type: ignore[union-attr]
            block.mix.weight.mul_(scale[None, :, None, None])  # type: ignore[union-attr]
            maker = block.mix  # type: ignore[assignment]


def equalise_head(net: DenoiserNet, sounds: np.ndarray, window: np.ndarray, power: float = 0.75) -> None:
    """The same for what the head hears from the trunk, against what comes past it, in place.

    Both are joined before the head, and the file gives one scale to what is joined: with a trunk of ten times
    the range, what comes past it (and goes into the trunk, too) would have a tenth of its steps left.
    """
    heard: list[torch.Tensor] = []
    hook = net.head.register_forward_pre_hook(
        lambda _module, args: heard.append(args[0].abs().amax((0, 2, 3)))
    )
    try:
        with torch.no_grad():
            shares_of(net, sounds, window)
    finally:
        hook.remove()
    last = net.blocks[-1].mix
    most = heard[0].clamp_min(1e-3)
    with torch.no_grad():
        count = last.out_channels  # type: ignore[union-attr]
        scale = ((most[:count] / most.median()) ** power).clamp(1 / 16, 16)
        last.weight.div_(scale[:, None, None, None])  # type: ignore[union-attr]
        last.bias.div_(scale)  # type: ignore[union-attr]
        net.head.weight[:, :count].mul_(scale[None, :, None, None])


def for_int8(net: DenoiserNet, recipe: dict[str, Any], data: Path, cache: Path) -> None:
    """Even out the trunk's channels, in place, as the recipe's [export] says."""
    power = float(recipe.get("export", {}).get("equalise", 0.75))
    equalise(net, sounds_for_ranges(recipe, data, cache), tables_of(recipe)["window"], power)
