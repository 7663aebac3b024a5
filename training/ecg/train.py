"""Train the ECG's denoisers.

    stethopi train ecg-denoiser --model ours          the streaming network of the bundle (about 20 minutes)
    stethopi train ecg-denoiser --model autoencoder   cnn, diffusion, deepfilter, fcn-dae, tcdae likewise
    stethopi export ecg-denoiser                      ours to int8, gates, the bundle's part
    python -m training.reports.ecg_plots --out RUN   loss curves, before and after in time and frequency

All of it is in the recipe (training/recipes/ecg.toml); a batch is a function of (seed, step), so a run can be
stopped, resumed (--resume) and repeated exactly on the same machine. Part train teaches, dev decides, test is
for `stethopi benchmark ecg` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.core import loop
from training.core.muon import Muon
from training.core.recipe import known_keys, merged, settings
from training.core.schedules import Schedule
from training.data.ecg import EcgMixSettings, Mixtures, NoiseTracks, Piece, load_pieces
from training.ecg.loss import EcgLoss
from training.ecg.systems import checkpoint_path, load_system, system, tables_of_model
from training.ecg.validation import EcgValidation, ecg_headline

__all__ = ["train_ecg"]

ECG_TRAIN_KEYS = (
    *("steps", "rate", "warm_up", "validate_every", "validate_on", "optimizer", "factor", "weight_decay"),
    *("average", "bfloat16", "clip"),
)


def train_ecg(
    recipe: Mapping[str, Any],
    model: str,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    pieces: Sequence[Piece] | None = None,
) -> Path:
    """Train one model; writes out/ecg-<model>.pt (checkpoint and result) and returns its path.

    With a [<model>.polish] in the recipe a second training follows, from the average of the first
    (out/ecg-<model>-first.pt), under the tables that it changes.
    """
    of = tables_of_model(recipe, model)
    pieces = pieces if pieces is not None else load_pieces(data, ("train",))
    path = checkpoint_path(out, model)
    polish = recipe.get(model, {}).get("polish")
    if not polish:
        _fit(of, data, path, resume, pieces)
        return path
    first = checkpoint_path(out, f"{model}-first")
    _fit(of, data, first, resume, pieces)
    again = {
        **of,
        **{k: merged(of[k], polish.get(k, {})) for k in ("net", "mix", "train", "loss")},
        "polish": True,
    }
    _fit(again, data, path, resume, pieces, first)
    return path


def _fit(
    of: dict[str, Any],
    data: Path,
    path: Path,
    resume: bool,
    pieces: Sequence[Piece],
    start_from: Path | None = None,
) -> None:
    """One training by the tables of a model, kept in `path`."""
    loop.repeatable()
    table, seed = of["train"], of["seed"]
    known_keys(table, ECG_TRAIN_KEYS, "train")
    first = load_system(checkpoint_path(path.parent, "ours")) if of["model"] == "diffusion" else None
    if first:
        of["first"] = first[1]["of"]
    torch.manual_seed(seed)
    made, judged = system(of), system(of)
    net = made.net
    if first:
        net.first.load_state_dict(first[0].net.state_dict())  # type: ignore[union-attr, operator]
    if start_from:
        net.load_state_dict(load_system(start_from)[0].net.state_dict())
    mixer = Mixtures(
        pieces,
        NoiseTracks(data, "train"),
        settings(EcgMixSettings, of["mix"], "mix"),
        seed + 1000 if start_from else seed,
    )
    measure_loss = EcgLoss(of["loss"])
    half = bool(table.get("bfloat16", False))

    def loss_of(batch: tuple[np.ndarray, np.ndarray], step: int) -> torch.Tensor:
        clean, noisy = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y, wanted = made.both(noisy, clean)
        loss: torch.Tensor = measure_loss(y.float(), wanted)
        return loss

    validation = EcgValidation(data, seed, int(table.get("validate_on", 64)))

    def validate(weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        judged.net.load_state_dict(weights)
        judged.net.eval()
        return validation(judged.whole)

    parameters, macs = made.parameters_and_macs()
    print(f"{of['model']}: {parameters} parameters, {macs / 1e6:.2f} MMAC/s", flush=True)
    steps, rate = int(table["steps"]), float(table.get("rate", 1e-3))
    loop.learn(
        net,
        mixer.batch,
        loss_of,
        _optimizer([p for p in net.parameters() if p.requires_grad], rate, table),
        _falling(rate, int(table.get("warm_up", 100)), steps),
        loop.TrainingPlan(
            steps,
            seed,
            validate_every=int(table.get("validate_every", 1000)),
            save_after_s=120.0,
            clip=float(table.get("clip", 3.0)),
            average=float(table.get("average", 0.995)),
        ),
        checkpoint=loop.Checkpoint(
            path, json.loads(json.dumps(of)), resume, more=lambda progress: {"of": of}
        ),
        validate=validate,
        describe=lambda found: f"dev: {ecg_headline(found)}",
        files=lambda: mixer.drawn,
        say=lambda text: print(text, flush=True),
    )


def _optimizer(taught: Sequence[torch.nn.Parameter], rate: float, table: Mapping[str, Any]) -> Any:
    decay = float(table.get("weight_decay", 1e-4))
    if table.get("optimizer", "adamw") == "muon":
        return Muon(taught, rate, weight_decay=decay, factor=float(table.get("factor", 5.0)))
    return torch.optim.AdamW(taught, lr=rate, weight_decay=decay, betas=(0.9, 0.98))


def _falling(highest: float, warm_up: int, steps: int) -> Schedule:
    """A half cosine over all steps, its beginning damped, down to a fiftieth."""

    def at(step: int) -> dict[str, Any]:
        falling = 0.5 * (1 + np.cos(np.pi * step / steps))
        return {"lr": float(highest * min(1.0, (step + 1) / warm_up) * max(falling, 0.02))}

    return at
