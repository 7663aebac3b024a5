"""Train the rhythm network.

    stethopi train rhythm --data ../shared/data --out runs [--resume]

The loss is the cross-entropy of both answers over the marked frames; what is not marked is passed over.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.rhythm import RhythmNet, RhythmShape
from training.core.loop import TrainingPlan, learn, load, save
from training.core.provenance import commit_id
from training.core.recipe import settings
from training.data.recordings import data_hashes
from training.rhythm.corpus import Drawer, MixSettings, noise_bank
from training.screening.corpus import UNKNOWN, Corpus

__all__ = ["checkpoint_path", "load_rhythm", "train_rhythm"]

FOLDS = (2, 3, 4)


@dataclass(frozen=True)
class TrainSettings:
    """`[train]` of the recipe."""

    steps: int
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
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """The path of the trained network. BadInput for a recipe's unknown key or a folder without marks."""
    seed = int(recipe.get("seed", 1))
    net_table, mix_table = dict(recipe.get("net", {})), dict(recipe.get("mix", {}))
    mix_table["shares"] = list(dict(mix_table.get("shares", {})).items())
    shape = settings(RhythmShape, net_table, "net")
    mix = settings(MixSettings, mix_table, "mix")
    train = settings(TrainSettings, recipe.get("train", {}), "train")
    hashes = data_hashes(data)
    key = hashlib.sha256(json.dumps([recipe, hashes], sort_keys=True).encode()).hexdigest()

    corpus = Corpus(data, cache, say)
    bank = noise_bank(data, cache, draws=train.noise_draws, seconds=train.noise_seconds, seed=seed)
    drawer = Drawer(corpus, bank, mix, FOLDS, seed)
    torch.manual_seed(seed)
    net = RhythmNet(shape)

    def loss_of(step: int) -> torch.Tensor:
        bands, codes = drawer.batch(step)
        return _loss(net, torch.from_numpy(bands), torch.from_numpy(codes), train.late_weight)

    target = checkpoint_path(out)
    checkpoint = target.with_name("rhythm-resume.pt")
    if not resume:
        checkpoint.unlink(missing_ok=True)
    plan = TrainingPlan(
        steps=train.steps,
        learning_rate=train.rate,
        weight_decay=train.weight_decay,
        seed=seed,
        every=train.every,
        average=train.average,
    )
    started = time.monotonic()
    curve = learn(net, loss_of, plan, checkpoint=checkpoint, key=key, name="rhythm", say=say)
    save(
        target,
        {
            "layout": net.layout(),
            "net": net.state_dict(),
            "recipe": dict(recipe),
            "seed": seed,
            "commit": commit_id(),
            "data": hashes,
            "minutes": (time.monotonic() - started) / 60,
            "curve": curve,
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
