"""Structured pruning: whole channels go, so that the pruned net is a smaller dense one (torch-pruning).

    from training.export.prune import prune
    report = prune(model, (x, *states), ratio=0.4, keep=[model.head])

Prune the training form of a net (before anything is folded for export) and fine-tune afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from device.errors import StethopiError
from training.export.export import count_macs

__all__ = ["prune"]


def prune(
    model: nn.Module,
    examples: Sequence[torch.Tensor],
    ratio: float,
    *,
    keep: Sequence[nn.Module] = (),
    round_to: int = 4,
    per_layer: dict[nn.Module, float] | None = None,
    globally: bool = False,
    scores: Mapping[nn.Module, torch.Tensor] | None = None,
    most: float = 1.0,
    steps: int = 1,
    between: Callable[[int], None] | None = None,
    renew: Callable[[], Sequence[torch.Tensor]] | None = None,
) -> dict[str, Any]:
    """Take away about the share `ratio` of the channels of `model`, in place, those of least magnitude first.

    keep: layers whose outputs must stay as they are (heads). per_layer: other ratios for single layers.
    scores: what each output channel of a layer is worth, instead of the magnitude of its weights. most: at
    most this share of one layer. globally: compare channels over all layers instead of inside each. steps:
    prune in so many rounds; `between` is called after each but the last with its number (fine-tune there).
    renew: gives the examples anew when pruning has changed their shapes (states of a streaming net).
    Returns parameters and MACs of one call before and after. StethopiError when the pruned net no longer
    runs.
    """
    import torch_pruning as tp

    examples = tuple(examples)
    model.eval()
    before = {
        "parameters": int(sum(p.numel() for p in model.parameters())),
        "macs": count_macs(model, examples),
    }
    pruner = tp.pruner.MagnitudePruner(
        model,
        examples,
        importance=_given(scores) if scores else tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        pruning_ratio_dict=per_layer,
        ignored_layers=list(keep),
        round_to=round_to,
        global_pruning=globally,
        max_pruning_ratio=most,
        iterative_steps=steps,
    )
    for k in range(steps):
        pruner.step()
        if between is not None and k + 1 < steps:
            between(k)
    model.eval()
    try:
        macs = count_macs(model, tuple(renew()) if renew else examples)
    except RuntimeError as problem:
        raise StethopiError(
            f"prune: the pruned net no longer runs ({str(problem).splitlines()[0]}); prune before "
            "folding, and take shapes of states from the layers"
        ) from problem
    after = {"parameters": int(sum(p.numel() for p in model.parameters())), "macs": macs}
    return {"ratio": ratio, "before": before, "after": after}


def _given(scores: Mapping[nn.Module, torch.Tensor]) -> Callable[[Any], torch.Tensor | None]:
    """An importance for torch-pruning: the scores of the first layer of a group that has any."""

    def importance(group: Any, *_rest: Any, **_options: Any) -> torch.Tensor | None:
        for dependency, _indices in group:
            if dependency.target.module in scores and "out_channels" in dependency.handler.__name__:
                return scores[dependency.target.module]
        return None

    return importance
