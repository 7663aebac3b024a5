"""Which channels can go, and their going."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.errors import BadInput
from device.rates import HOP, WORKING_RATE_HZ
from models.denoiser import DenoiserNet
from training.core import checkpoint
from training.core.provenance import commit_id
from training.data import recordings as data_room
from training.denoise.apply import MaskLayer, denoise_whole, load_net, shares_of, tables_of
from training.denoise.int8 import equalise, real_sounds
from training.denoise.train import cause_of, fit_denoiser, said
from training.denoise.validation import Validation, headline
from training.export.export import count_macs

__all__ = ["prune_denoiser"]


STAGES_FROM = (10_000_000, 15_000_000, 17_000_000, 18_000_000)
"""Step numbers at which the stages after pruning begin, so that each draws its own batches."""


def contributions(net: DenoiserNet, sounds: np.ndarray, window: np.ndarray) -> dict[nn.Module, torch.Tensor]:
    """What each output channel of each layer brings to the layers that hear it, on real sound (batch, n).

    The deviation of the channel times the norm of the weights that take it up, squared, as a share of all
    that the taking layer hears; summed over the takers. A dead channel scores 0.
    """
    width = net.down.conv.out_channels
    last = net.blocks[-1].mix.out_channels  # type: ignore[union-attr]
    mixes = [net.mix, *(b.mix for b in net.blocks)]  # type: ignore[union-attr]
    takers: list[tuple[nn.Module, list[tuple[nn.Module, slice]]]] = [
        (net.down.conv, [(net.front.conv, slice(None))]),
        (net.mix, [(net.down.conv, slice(0, width)), (net.spectrum, slice(width, None))]),
        *((b, [(a, slice(None))]) for a, b in zip(mixes[:-1], mixes[1:], strict=True)),
        (net.head, [(mixes[-1], slice(0, last)), (net.down.conv, slice(last, None))]),
        (net.shares, [(net.head, slice(None))]),
    ]
    heard: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        heard[module] = args[0].std((0, 2, 3))

    hooks = [taker.register_forward_pre_hook(note) for taker, _ in takers]
    try:
        with torch.no_grad():
            shares_of(net, sounds, window)
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[nn.Module, torch.Tensor] = {}
    for taker, makers in takers:
        weight = taker.weight.detach()
        worth = (heard[taker] ** 2) * weight.square().sum((0, 2, 3))
        worth = worth / worth.sum()
        for maker, where in makers:
            found[maker] = found.get(maker, torch.zeros(())) + worth[where]
    return found


def prune_denoiser(
    recipe: dict[str, Any],
    data: Path,
    out: Path,
    cache: Path,
    *,
    resume: bool = False,
    ratio: float | None = None,
    steps: int | None = None,
    source: Path | None = None,
    name: str = "denoiser-pruned",
) -> Path:
    """Prune the channels of out/denoiser-full.pt and fine-tune; writes out/<name>.pt and returns its path.

    With a [polish] table in the recipe a second round of fine-tuning follows, from the average of the first
    (out/<name>-first.pt), and with [settle] another (out/<name>-polish.pt). [blend] settle: the result's
    weights lie that share of the way from the round before to the last (out/<name>-settle.pt). With
    [quantised] a last round follows in which the net computes as int8 does (before it: out/<name>-blend.pt).
    """
    from training.export.prune import prune

    net, full = load_net(source or out / "denoiser-full.pt")
    table = dict(recipe["prune"])
    table["ratio"] = table["ratio"] if ratio is None else ratio
    table["steps"] = table["steps"] if steps is None else steps
    torch.manual_seed(recipe["seed"])
    sounds = real_sounds(recipe, data, cache)
    report = prune(
        net,
        tuple(net.examples().values()),
        float(table["ratio"]),
        keep=[net.shares],
        renew=lambda: tuple(net.examples().values()),
        scores=contributions(net, sounds, tables_of(recipe)["window"]),
        globally=True,
        most=float(table.get("most", 0.75)),
    )
    rebuilt = DenoiserNet.from_layout(net.layout())
    rebuilt.load_state_dict(net.state_dict())
    print(f"pruned: {report['before']} to {report['after']}", flush=True)
    about = {"kind": "pruned", "pruning": report, "full_validation": full.get("validation")}
    # each stage of fine-tuning goes on from the average of the one before; the last has the plain name
    stages = [("first", table), *((k, recipe[k]) for k in ("polish", "settle") if k in recipe)]
    final = out / f"{name}.pt"
    path = out / f"{name}-blend.pt" if "quantised" in recipe else final
    share = float(recipe.get("blend", {}).get("settle", 1.0)) if "settle" in recipe else 1.0
    if not 0.0 <= share <= 1.0:
        raise BadInput(f"recipe: [blend] settle = {share}: not in 0 to 1")
    for k, (stage, fit) in enumerate(stages):
        last = k + 1 == len(stages) and share == 1.0
        here = path if last else out / f"{name}-{stage}.pt"
        kept = checkpoint.of_recipe(here, cause_of(recipe, fit), said) if resume and not last else None
        if not (kept and kept["step"] >= int(fit["steps"])):
            fit_denoiser(rebuilt, recipe, fit, data, cache, here, resume, STAGES_FROM[k], dict(about))
        if not last:
            rebuilt, _ = load_net(here)
    if share != 1.0:
        before = out / f"{name}-{stages[-2][0]}.pt"
        _blend(recipe, before, out / f"{name}-settle.pt", share, data, cache, path)
    if path != final:
        net, _ = load_net(path)
        equalise(
            net, sounds, tables_of(recipe)["window"], float(recipe.get("export", {}).get("equalise", 0.75))
        )
        about["int8_aware"] = True
        fit_denoiser(
            net, recipe, recipe["quantised"], data, cache, final, resume, STAGES_FROM[3], about, int8=True
        )
    return final


def _blend(
    recipe: dict[str, Any], before: Path, after: Path, share: float, data: Path, cache: Path, path: Path
) -> None:
    """The net whose weights lie between two of one training, kept in `path` with its own validation.

    A short fine-tuning for a rare case costs a little elsewhere; between the two there is most of the gain
    for a part of the cost (Wortsman et al. 2022, robust fine-tuning).
    """
    one, two = load_net(before)[1], load_net(after)[1]
    average = {k: torch.lerp(v, two["average"][k], share) for k, v in one["average"].items()}
    net = DenoiserNet.from_layout(two["layout"]).eval()
    net.load_state_dict(average)
    coefficients = tables_of(recipe)
    found = Validation(data, cache, int(recipe["seed"]))(
        partial(denoise_whole, net, MaskLayer(coefficients), coefficients)
    )
    print(f"{path.name}: {share:g} of the way, fold 1: {headline(found)}", flush=True)
    checkpoint.save(path, {**two, "average": average, "recipe": recipe, "validation": found, "blend": share})


def pruning_curve(
    recipe: dict[str, Any],
    source: Path,
    data: Path,
    cache: Path,
    ratios: Sequence[float] = (0.2, 0.32, 0.42, 0.5, 0.6),
) -> dict[str, Any]:
    """Fold 1 right after pruning, before any fine-tuning, by what channels bring and by magnitude of
    weights."""
    from training.export.prune import prune

    sounds = real_sounds(recipe, data, cache)
    validation = Validation(data, cache, int(recipe["seed"]))
    coefficients = tables_of(recipe)
    removal = MaskLayer(coefficients)
    rows = []
    for way in ("full", "contribution", "magnitude"):
        for ratio in (0.0,) if way == "full" else ratios:
            net, kept = load_net(source)
            if way != "full":
                prune(
                    net,
                    tuple(net.examples().values()),
                    ratio,
                    keep=[net.shares],
                    renew=lambda net=net: tuple(net.examples().values()),  # type: ignore[misc]
                    scores=contributions(net, sounds, coefficients["window"])
                    if way == "contribution"
                    else None,
                    globally=way == "contribution",
                    most=float(recipe["prune"].get("most", 0.75)) if way == "contribution" else 1.0,
                )
            found = validation(partial(denoise_whole, net, removal, coefficients))
            macs = count_macs(net, tuple(net.examples().values())) * (WORKING_RATE_HZ // HOP)
            parameters = int(sum(p.numel() for p in net.parameters()))
            rows.append(
                {"by": way, "ratio": ratio, "parameters": parameters, "mac_per_s": macs, "fold_1": found}
            )
            print(f"{way} {ratio}: {macs / 1e6:.1f} MMAC/s, {headline(found)}", file=sys.stderr, flush=True)
    return {
        "what": "pruned, before fine-tuning, fold 1",
        "steps": kept["step"],
        "seed": recipe["seed"],
        "commit": commit_id(),
        "data": data_room.data_hashes(data),
        "rows": rows,
    }
