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
import time
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
from training.core.recipe import settings
from training.data.mixing import Mixer, MixSettings, NoisePool, references
from training.denoise.apply import HELD_BACK, MaskLayer, denoise_whole, inputs_of, shape_of, tables_of
from training.denoise.int8 import sounds_for_ranges
from training.denoise.loss import Loss
from training.denoise.validation import Validation, headline
from training.export.fake_int8 import FakeInt8

__all__ = ["train_denoiser"]


# ── the float part, for whole sounds ────────────────────────────────────────────────────────────────────────


# ── loss ────────────────────────────────────────────────────────────────────────────────────────────────────


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────────


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────


def cause_of(recipe: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """All that decides a fit, as plain values: a checkpoint of another recipe is not gone on with."""
    shared = {k: recipe.get(k) for k in ("seed", "net", "mix", "references", "loss")}
    train = {k: v for k, v in recipe["train"].items() if k not in ("steps", "rate", "warm_up")}
    found: dict[str, Any] = json.loads(json.dumps({**shared, "train": train, "table": table}))
    return found


def kept_checkpoint(path: Path, because: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint at `path` if there is one of this very recipe."""
    if not path.is_file():
        return None
    kept: dict[str, Any] = loop.load(path)
    if kept.get("because", because) != because:
        print(f"{path.name}: of another recipe; beginning anew", flush=True)
        return None
    return kept


def fit_denoiser(
    net: DenoiserNet,
    recipe: dict[str, Any],
    table: dict[str, Any],
    data: Path,
    cache: Path,
    path: Path,
    resume: bool,
    offset: int,
    note: dict[str, Any],
    removal: nn.Module | None = None,
    int8: bool = False,
) -> dict[str, float]:
    """Train `net` by `table` (steps, rate …) and keep it in `path`; returns the last validation of the
    average. removal: what makes sound of the net's answer, instead of `Removal`. int8: from the table's step
    `rounded_from` on the net is trained as int8 computes it."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe["seed"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    seed = int(recipe["seed"])
    mixed = settings(MixSettings, recipe["mix"] | table.get("mix", {}), "mix")
    coefficients = tables_of(recipe)
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK)
    mixer = Mixer(refs, pool, mixed, seed)
    removal = removal or MaskLayer(coefficients)
    loss_of = Loss(mixed.samples - 2 * LOOK_AHEAD, recipe.get("loss", {}) | table.get("loss", {}))
    steps, rate = int(table["steps"]), float(table["rate"])
    validate_every = int(table.get("validate_every", recipe["train"].get("validate_every", 1000)))
    half = bool(recipe["train"].get("bfloat16", False))
    average_by = float(recipe["train"].get("average", 0.999))
    optimizer = _optimizer(str(table.get("optimizer", "adamw")), net, rate, recipe["train"])
    warm = int(table.get("warm_up", recipe["train"].get("warm_up", 100)))

    def rate_at(step: int) -> float:
        if step < warm:
            return rate * (step + 1) / warm
        return rate * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm)))))

    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    start, curve, seconds = 0, [], 0.0
    because = cause_of(recipe, table)
    kept = kept_checkpoint(path, because) if resume else None
    if kept:
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        average, start, curve, seconds = kept["average"], kept["step"], kept["curve"], kept["seconds"]
    fake, rounded_from = None, int(table.get("rounded_from", 0))
    if int8:
        fake = FakeInt8(net, sounds_for_ranges(recipe, data, cache), coefficients["window"])
        if kept:
            fake.ranges = kept["ranges"]
    validation = Validation(data, cache, seed)
    print(
        f"{len(refs)} references, {sum(len(r.sound) for r in refs) / WORKING_RATE_HZ / 60:.0f} min; "
        f"{sum(p.numel() for p in net.parameters())} parameters; steps {start} to {steps}; "
        f"{len(validation.items)} for validation",
        flush=True,
    )
    eye = DenoiserNet.from_layout(net.layout()).eval()
    begun, saved, sums = time.monotonic() - seconds, time.monotonic(), []
    last: dict[str, float] = {}

    def checkpoint(step: int) -> None:
        loop.save(
            path,
            {
                "net": net.state_dict(),
                "average": average,
                "optimizer": optimizer.state_dict(),
                "step": step,
                "curve": curve,
                "seconds": time.monotonic() - begun,
                "layout": net.layout(),
                "recipe": recipe,
                "steps": steps,
                "because": because,
                **({"ranges": fake.ranges} if fake else {}),
                **note,
            },
        )

    for step in range(start, steps):
        clean, noisy = mixer.batch(offset + step)
        inputs = inputs_of(noisy, coefficients["window"])
        net.train()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        hearer: DenoiserNet | FakeInt8 = fake if fake and step >= rounded_from else net
        if fake and (step - rounded_from) % 100 == 0:
            fake.measure()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            shares = hearer(*inputs.values(), *net.initial_states(len(noisy)))[0]
        y = removal(torch.from_numpy(noisy), shares.float())
        inner = slice(LOOK_AHEAD, -LOOK_AHEAD)
        quiet = torch.from_numpy((clean == noisy).all(1))
        loss = loss_of(y[:, inner], torch.from_numpy(clean)[:, inner], quiet)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), float(table.get("clip", 3.0)))
        optimizer.step()
        blend = min(average_by, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in net.state_dict().items():
                average[k].lerp_(v, 1 - blend)
        sums.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1:6d}  loss {np.mean(sums):8.3f}  {(time.monotonic() - begun) / 60:6.1f} min",
                flush=True,
            )
            curve.append((step + 1, float(np.mean(sums))))
            sums = []
        if (step + 1) % validate_every == 0 or step + 1 == steps:
            eye.load_state_dict(average)
            last = validation(lambda x: denoise_whole(eye, removal, coefficients, x))
            print(f"step {step + 1:6d}  fold 1: {headline(last)}", flush=True)
            note["validation"] = last
        if time.monotonic() - saved > 180 or step + 1 == steps:
            checkpoint(step + 1)
            saved = time.monotonic()
    return last


def _optimizer(name: str, net: nn.Module, rate: float, train: dict[str, Any]) -> Any:
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


# ── export ──────────────────────────────────────────────────────────────────────────────────────────────────
