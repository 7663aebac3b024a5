"""Train the denoiser, prune it, export it, and write its part of a bundle.

    python -m training.denoise train   --data ../shared/data --out RUN   about an hour, one core
    python -m training.denoise curve   --data ../shared/data --out RUN   what each pruning ratio would cost
    python -m training.denoise prune   --data ../shared/data --out RUN   prune RUN's net, fine-tune
    python -m training.denoise export  --data ../shared/data --out RUN   int8, parity gates, bundle part
    python -m training.denoise validate --data ../shared/data --out RUN  fold 1 anew for each of its nets
    python -m training.denoise figures --out RUN                         what the run has shown

All of it is in the recipe (TOML); a batch is a function of (seed, step), so a run can be stopped, resumed
(--resume) and repeated exactly on the same machine. A healthy run improves fold 1 by more than 9 dB in band
and leaves clean sound above 25 dB; both are printed while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise.stream import LOOK_AHEAD
from device.errors import BadInput
from device.rates import WORKING_RATE_HZ
from models.denoiser import DenoiserNet
from training.core import loop
from training.core.muon import Muon
from training.core.recipe import known_keys, settings
from training.core.schedules import warm_cosine
from training.data.mixing import Mixer, MixSettings, NoisePool, references
from training.denoise.apply import HELD_BACK, MaskLayer, denoise_whole, inputs_of, shape_of, tables_of
from training.denoise.int8 import sounds_for_ranges
from training.denoise.loss import Loss
from training.denoise.validation import Validation, headline
from training.export.fake_int8 import FakeInt8

__all__ = ["cause_of", "fit_denoiser", "said", "train_denoiser"]


TRAIN_KEYS = (
    *("steps", "rate", "warm_up", "validate_every", "optimizer", "clip"),
    *("weight_decay", "average", "bfloat16"),
)
"""Of `[train]`: what holds for all rounds, and the first of them."""
FIT_KEYS = (*TRAIN_KEYS, "mix", "loss", "rounded_from", "ratio", "most")
"""Of a round's own table, as `[prune]` and `[polish]`."""


def cause_of(recipe: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides a fit, as plain values: a checkpoint of another recipe is not gone on with."""
    shared = {k: recipe.get(k) for k in ("seed", "net", "mix", "references", "loss")}
    train = {k: v for k, v in recipe["train"].items() if k not in ("steps", "rate", "warm_up")}
    found: dict[str, Any] = json.loads(json.dumps({**shared, "train": train, "table": table}))
    return found


def said(text: str) -> None:
    """A line of a training, at once."""
    print(text, flush=True)


class _Learner:
    """The net in training: from a batch of mixtures to the loss, in float or as int8 computes it."""

    def __init__(
        self,
        net: DenoiserNet,
        removal: nn.Module,
        loss: Loss,
        window: np.ndarray,
        half: bool,
        fake: FakeInt8 | None,
        rounded_from: int,
    ) -> None:
        self.net, self.removal, self.loss, self.window, self.half = net, removal, loss, window, half
        self.fake, self.rounded_from = fake, rounded_from

    def __call__(self, batch: tuple[np.ndarray, np.ndarray], step: int) -> torch.Tensor:
        clean, noisy = batch
        inputs = inputs_of(noisy, self.window)
        hearer: DenoiserNet | FakeInt8 = self.fake if self.fake and step >= self.rounded_from else self.net
        if self.fake and (step - self.rounded_from) % 100 == 0:
            self.fake.measure()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            shares = hearer(*inputs.values(), *self.net.initial_states(len(noisy)))[0]
        y = self.removal(torch.from_numpy(noisy), shares.float())
        inner = slice(LOOK_AHEAD, -LOOK_AHEAD)
        quiet = torch.from_numpy((clean == noisy).all(1))
        loss: torch.Tensor = self.loss(y[:, inner], torch.from_numpy(clean)[:, inner], quiet)
        return loss

    def ranges(self) -> dict[str, Any]:
        return {"ranges": self.fake.ranges} if self.fake else {}

    def take_up(self, kept: Mapping[str, Any]) -> None:
        if self.fake:
            self.fake.ranges = kept["ranges"]


def fit_denoiser(
    net: DenoiserNet,
    recipe: dict[str, Any],
    table: Mapping[str, Any],
    data: Path,
    cache: Path,
    path: Path,
    resume: bool,
    first_draw: int,
    note: Mapping[str, Any],
    removal: nn.Module | None = None,
    int8: bool = False,
) -> None:
    """Train `net` by `table` (steps, rate …) and keep it in `path`, with `note`. removal: what makes sound of
    the net's answer, instead of `MaskLayer`. int8: from the table's step `rounded_from` on the net is trained
    as int8 computes it."""
    loop.repeatable()
    known_keys(recipe["train"], TRAIN_KEYS, "train")
    known_keys(table, FIT_KEYS, source=getattr(table, "source", getattr(recipe, "source", None)))
    torch.manual_seed(recipe["seed"])
    seed, general = int(recipe["seed"]), recipe["train"]
    mixed = settings(MixSettings, recipe["mix"] | table.get("mix", {}), "mix")
    coefficients = tables_of(recipe)
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    mixer = Mixer(refs, NoisePool.load(data, "train", free_only=True, every=HELD_BACK), mixed, seed)
    removal = removal or MaskLayer(coefficients)
    learner = _Learner(
        net,
        removal,
        Loss(mixed.samples - 2 * LOOK_AHEAD, recipe.get("loss", {}) | table.get("loss", {})),
        coefficients["window"],
        bool(general.get("bfloat16", False)),
        FakeInt8(net, sounds_for_ranges(recipe, data, cache), coefficients["window"]) if int8 else None,
        int(table.get("rounded_from", 0)),
    )
    validation = Validation(data, cache, seed)
    judged = DenoiserNet.from_layout(net.layout()).eval()

    def validate(weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        judged.load_state_dict(weights)
        return validation(lambda x: denoise_whole(judged, removal, coefficients, x))

    def more(progress: loop.Progress) -> dict[str, Any]:
        last = {"validation": progress.validation} if progress.validations else {}
        return {"layout": net.layout(), "recipe": recipe, **learner.ranges(), **note, **last}

    steps, rate = int(table["steps"]), float(table["rate"])
    said(
        f"{len(refs)} references, {sum(len(r.sound) for r in refs) / WORKING_RATE_HZ / 60:.0f} min; "
        f"{sum(p.numel() for p in net.parameters())} parameters; {steps} steps; "
        f"{len(validation.items)} for validation"
    )
    loop.learn(
        net,
        mixer.batch,
        learner,
        _optimizer(str(table.get("optimizer", "adamw")), net, rate, general),
        warm_cosine(rate, int(table.get("warm_up", general.get("warm_up", 100))), steps),
        loop.TrainingPlan(
            steps,
            seed,
            validate_every=int(table.get("validate_every", general.get("validate_every", 1000))),
            save_after_s=180.0,
            first_draw=first_draw,
            clip=float(table.get("clip", 3.0)),
            average=float(general.get("average", 0.999)),
        ),
        checkpoint=loop.Checkpoint(path, cause_of(recipe, table), resume, more, learner.take_up),
        validate=validate,
        describe=lambda found: f"fold 1: {headline(found)}",
        files=lambda: mixer.drawn,
        say=said,
    )


def _optimizer(name: str, net: nn.Module, rate: float, train: Mapping[str, Any]) -> Any:
    decay = float(train.get("weight_decay", 0.0))
    if name == "muon":
        return Muon(net.parameters(), rate, weight_decay=decay)
    if name != "adamw":
        raise BadInput(f"recipe: optimizer {name}: no such one; there are adamw, muon")
    return torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=decay)


def train_denoiser(
    recipe: dict[str, Any], data: Path, out: Path, cache: Path, *, resume: bool = False
) -> Path:
    """Train the full net; writes out/denoiser-full.pt (checkpoint and result) and returns its path."""
    torch.manual_seed(recipe["seed"])
    net = DenoiserNet(shape_of(recipe))
    path = out / "denoiser-full.pt"
    fit_denoiser(net, recipe, recipe["train"], data, cache, path, resume, 0, {"kind": "full"})
    return path
