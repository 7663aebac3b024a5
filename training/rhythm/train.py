"""Train the rhythm network.

    stethopi train rhythm --data ../shared/data --out runs [--resume]

The loss is the cross-entropy of both answers over the marked frames; what is not marked is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from device.arrays import Indices, Samples
from models.rhythm import RhythmNet, RhythmShape
from training.core import loop
from training.core.checkpoint import load, save
from training.core.provenance import commit_id
from training.core.recipe import known_keys, settings
from training.core.say import Say
from training.core.schedules import adamw
from training.data.recordings import DATABASES, data_hashes
from training.rhythm.corpus import Drawer, MixSettings, noise_bank
from training.screening.corpus import UNKNOWN, Corpus
from training.screening.train import CLIP, curve_points, screening_cycle

__all__ = ["checkpoint_path", "load_rhythm", "train_rhythm"]

FOLDS = (2, 3, 4)


@dataclass(frozen=True)
class TrainSettings:
    """`[train]` of the recipe."""

    steps: int = 8000
    rate: float = 4e-3
    weight_decay: float = 1e-3
    average: float = 0.998
    every: int = 250
    late_weight: float = 1.0
    noise_draws: int = 600
    noise_seconds: float = 8.0


def checkpoint_path(out: Path) -> Path:
    """Where the trained network lies under the run's folder."""
    return Path(out) / "rhythm.pt"


def _loss(net: RhythmNet, bands: torch.Tensor, codes: torch.Tensor, late_weight: float) -> torch.Tensor:
    early, late = net.whole(bands)
    ce = nn.functional.cross_entropy
    return ce(early, codes, ignore_index=UNKNOWN) + late_weight * ce(late, codes, ignore_index=UNKNOWN)


def train_rhythm(
    recipe: Mapping[str, Any],
    data: Path,
    out: Path,
    cache: Path,
    *,
    resume: bool = False,
    say: Say = lambda text: None,
) -> Path:
    """The path of the trained network. BadInput for a recipe's unknown key or a folder without marks."""
    source = getattr(recipe, "source", None)
    known_keys(recipe, ("seed", "net", "mix", "train"), source=source)
    seed = int(recipe.get("seed", 1))
    mix_table = dict(recipe.get("mix", {}))
    shares = mix_table.pop("shares", {})
    known_keys(shares, DATABASES, "mix.shares", source)
    shape = settings(RhythmShape, recipe.get("net", {}), "net", source)
    mix = replace(settings(MixSettings, mix_table, "mix", source), shares=tuple(shares.items()))
    train = settings(TrainSettings, recipe.get("train", {}), "train", source)
    hashes = data_hashes(data)

    corpus = Corpus(data, cache, say)
    bank = noise_bank(data, cache, draws=train.noise_draws, seconds=train.noise_seconds, seed=seed)
    drawer = Drawer(corpus, bank, mix, FOLDS, seed)
    torch.manual_seed(seed)
    net = RhythmNet(shape)

    def loss_of(batch: tuple[Samples, Indices], step: int) -> torch.Tensor:
        bands, codes = batch
        return _loss(net, torch.from_numpy(bands), torch.from_numpy(codes), train.late_weight)

    target = checkpoint_path(out)
    checkpoint = target.with_name("rhythm-resume.pt")
    done = loop.learn(
        net,
        drawer.batch,
        loss_of,
        adamw(net, train.rate, train.weight_decay),
        screening_cycle(train.rate, train.steps),
        loop.TrainingPlan(
            train.steps, seed, train.every, clip=CLIP, average=train.average, interpolated=False
        ),
        checkpoint=loop.Checkpoint(checkpoint, json.loads(json.dumps([recipe, hashes])), resume),
        files=lambda: drawer.drawn,
        name="rhythm",
        say=say,
    )
    save(
        target,
        {
            "layout": net.layout(),
            "net": net.state_dict(),
            "recipe": recipe,
            "seed": seed,
            "commit": commit_id(),
            "data": hashes,
            "minutes": done.seconds / 60,
            "curve": curve_points(done),
        },
    )
    checkpoint.unlink(missing_ok=True)
    return target


def load_rhythm(path: Path) -> tuple[RhythmNet, dict[str, Any]]:
    """A trained network and what was kept beside it. FileNotFoundError when there is none."""
    kept = load(path)
    net = RhythmNet.from_layout(kept["layout"])
    net.load_state_dict(kept["net"])
    net.eval()
    return net, kept
