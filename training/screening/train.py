"""Train the screening network: recordings of many sources → a checkpoint.

    stethopi train classifier --data ../shared/data --out runs/classifier
    python -m training.screening.trial --recipe my.toml --hold-out a    how it does on a source it never heard

A healthy run of the shipped recipe ends near a loss of 0.9, one thread, and prints fold 1 by database at
the end; the figures to expect stand in docs/screening.md. Every draw is a function of (seed, step): a run
that is stopped and resumed, or repeated, gives the same weights on the same machine.

What keeps the net from learning the microphone: the input has no level and no fixed colour
(device.screening.features); windows are drawn evenly over label and source; noise, noise floors, filters,
stretches of time and shifts of frequency are put in at random; each source has its own bias in training, so
that "which source" says nothing about the label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.errors import BadInput
from device.screening import features
from models.classifier import Classifier
from training.core import checkpoint as checkpoints
from training.core import loop
from training.core.results import write_json
from training.core.say import Say
from training.core.schedules import Schedule, adamw, one_cycle
from training.screening.augment import Drawer
from training.screening.corpus import UNKNOWN, Corpus
from training.screening.recipe import Recipe

__all__ = [
    "CLIP",
    "curve_points",
    "finetune",
    "load_checkpoint",
    "prune_classifier",
    "save_curve",
    "screening_cycle",
    "train",
]


def _loss(
    logits: torch.Tensor,
    states: torch.Tensor | None,
    labels: torch.Tensor,
    state: torch.Tensor,
    recipe: Recipe,
) -> torch.Tensor:
    smooth = recipe.label_smoothing
    total = logits.new_zeros(())
    for column, factor in ((0, recipe.murmur_weight), (1, recipe.abnormal_weight)):
        target = labels[:, 2 * column] * (1 - 2 * smooth) + smooth
        weight = labels[:, 2 * column + 1]
        each = nn.functional.binary_cross_entropy_with_logits(logits[:, column], target, reduction="none")
        total = total + factor * (each * weight).sum() / weight.sum().clamp(min=1.0)
    if states is not None and recipe.state_weight:
        known = state != UNKNOWN
        if known.any():
            total = total + recipe.state_weight * nn.functional.cross_entropy(
                states.transpose(1, 2)[known], state[known]
            )
    return total


CLIP = 2.0
"""Longest gradient of a screening network's training."""


def screening_cycle(highest: float, steps: int) -> Schedule:
    """The schedule of all screening networks, ours and the baselines."""
    steps = max(5, steps)
    return one_cycle(highest, steps, rising=max(0.1, 2.5 / steps), below_first=10, below_last=100)


def curve_points(done: loop.Progress) -> list[dict[str, float]]:
    """The curve with what was validated at its points: step, loss, and the validation's figures."""
    found = dict(done.validations)
    return [{"step": step, "loss": loss, **found.get(step, {})} for step, loss in done.curve]


def save_curve(path: Path, curve: Sequence[Mapping[str, float]]) -> None:
    """A training curve: steps and losses, for `stethopi plot`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, list(curve))


def _run(
    net: Classifier,
    drawer: Drawer,
    recipe: Recipe,
    *,
    steps: int,
    learning_rate: float,
    first_draw: int,
    checkpoint: Path | None,
    key: str,
    say: Say,
    every: int = 500,
    curve_file: Path | None = None,
) -> Classifier:
    """Train `net` for `steps`; resumes from `checkpoint` when that is of the same key. Gives the averaged
    net; the loss every `every` steps goes into `curve_file`.
    """
    layout = loop.layout_for(_channels_of(net))
    net = net.to(memory_format=layout)  # type: ignore[call-overload]
    bias = nn.Parameter(torch.zeros(len(drawer.databases), 2))

    def loss_of(batch: tuple[np.ndarray, ...], step: int) -> torch.Tensor:
        x, labels, database, state = map(torch.from_numpy, batch)
        x = x.contiguous(memory_format=layout)
        states = None
        if net.state_head is not None:
            logits, states = net.forward_with_states(x)
        else:
            logits = net(x)
        return _loss(logits + bias[database], states, labels, state, recipe)

    def take_up(kept: Mapping[str, Any]) -> None:
        with torch.no_grad():
            bias.copy_(kept["bias"])

    done = loop.learn(
        net,
        drawer.batch,
        loss_of,
        adamw(net, learning_rate, recipe.weight_decay, [bias]),
        screening_cycle(learning_rate, steps),
        loop.TrainingPlan(
            steps,
            recipe.seed,
            every,
            first_draw=first_draw,
            clip=CLIP,
            average=recipe.average,
            interpolated=False,
        ),
        checkpoint=loop.Checkpoint(
            checkpoint, key, more=lambda progress: {"bias": bias.detach().clone()}, take_up=take_up
        )
        if checkpoint
        else None,
        files=lambda: drawer.drawn,
        say=say,
    )
    if curve_file is not None:
        save_curve(curve_file, curve_points(done))
    return net


def train(
    corpus: Corpus,
    recipe: Recipe,
    out: Path | None = None,
    say: Say = lambda text: None,
    every: int = 500,
    taught: np.ndarray | None = None,
) -> Classifier:
    """Train from scratch, or on from `out`/classifier-resume.pt; writes `out`/classifier-full.pt when done.

    Gives the averaged net in eval mode. every: steps from one checkpoint, and line said, to the next.
    taught: a teacher's probabilities (recordings, 2) of murmur and abnormal, for what has no label.
    """
    drawer = Drawer(corpus, recipe, recipe.folds, taught)
    torch.manual_seed(recipe.seed)
    net = Classifier(recipe.channels, recipe.dropout, recipe.view)
    net = _run(
        net,
        drawer,
        recipe,
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        first_draw=0,
        checkpoint=out / "classifier-resume.pt" if out else None,
        key=recipe.digest(),
        say=say,
        every=every,
        curve_file=out / "curve.json" if out else None,
    )
    if out is not None:
        save_checkpoint(out / "classifier-full.pt", net, recipe, corpus)
        (out / "classifier-resume.pt").unlink(missing_ok=True)
    return net


def finetune(
    net: Classifier,
    corpus: Corpus,
    recipe: Recipe,
    out: Path | None = None,
    say: Say = lambda text: None,
) -> Classifier:
    """Train a pruned net (without its state head) on; writes `out`/classifier-pruned.pt."""
    drawer = Drawer(corpus, recipe, recipe.folds)
    net = _run(
        net,
        drawer,
        recipe,
        steps=recipe.finetune_steps,
        learning_rate=recipe.finetune_learning_rate,
        first_draw=10_000_000,
        checkpoint=out / "classifier-resume-pruned.pt" if out else None,
        key=recipe.digest() + "-pruned",
        say=say,
    )
    if out is not None:
        save_checkpoint(out / "classifier-pruned.pt", net, recipe, corpus)
        (out / "classifier-resume-pruned.pt").unlink(missing_ok=True)
    return net


def prune_classifier(
    recipe: Recipe,
    source: Path,
    corpus: Corpus,
    out: Path | None,
    say: Say = lambda text: None,
) -> Classifier:
    """Take the share `prune_ratio` of the channels of a trained net away and train on; writes
    `out`/classifier-pruned.pt.
    """
    from training.export.prune import prune

    net, _ = load_checkpoint(source)
    net.state_head = None
    report = prune(net, (net.example(),), recipe.prune_ratio, keep=[net.head], round_to=4)
    say(f"pruned: {report['before']} to {report['after']}")
    return finetune(net, corpus, recipe, out, say)


def _channels_of(net: Classifier) -> list[int]:
    return [net.stem[0].out_channels, *(block[3].out_channels for block in net.blocks)]  # type: ignore[union-attr]


def save_checkpoint(path: Path, net: Classifier, recipe: Recipe, corpus: Corpus) -> None:
    """Weights with what is needed to build the net and to know where it came from."""
    checkpoints.save(
        path,
        {
            "channels": _channels_of(net),
            "dropout": recipe.dropout,
            "bands": recipe.bands,
            "range_db": recipe.range_db,
            "has_states": net.state_head is not None,
            "net": net.state_dict(),
            "recipe": recipe.digest(),
            "seed": recipe.seed,
            "data": corpus.hashes,
        },
    )


def load_checkpoint(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """The net of a checkpoint, in eval mode, and what stands beside the weights. BadInput when there is
    none.
    """
    try:
        kept = checkpoints.load(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; run `stethopi train classifier` first") from None
    net = Classifier(kept["channels"], kept["dropout"], features.View.of(kept))
    if not kept["has_states"]:
        net.state_head = None
    net.load_state_dict(kept.pop("net"))
    return net.eval(), kept
