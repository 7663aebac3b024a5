"""Short, equal trials of the denoiser on fold 1: pruning ratios, training from scratch, other designs.

    python -m training.benchmarks.denoise_trials run --data ../shared/data --out RUN [NAME ...]
        writes RUN/trials/NAME.pt
    python -m training.benchmarks.denoise_trials figures --out RUN
        writes docs/results/denoiser-tuned.json and denoiser-designs.json
                                                            and -int8.json
    python -m training.benchmarks.denoise_trials designs --out RUN    only the second; int8: only the third

The trials stand in recipes/denoiser-trials.toml, each with its own steps and rate; all else is the shipped
recipe's. Each is repeatable and goes on from its checkpoint with --resume, like any training here. Kinds:

- pruned: RUN/denoiser-full.pt less `ratio` of its channels, fine-tuned (the recipe's [prune] otherwise);
- scratch: the shape of RUN/denoiser-pruned-first.pt (or denoiser-pruned.pt), anew: `before` steps by the
  recipe's [train], as the full net had them, the same batches, too; then tuned as a pruned one is;
- further: RUN/denoiser-pruned-blend.pt by the recipe's [quantised], shorter, all of it as int8 computes it;
- design: a net anew, with what is in [NAME.net], [NAME.mix] and [NAME.loss] instead of the recipe's, or
  another `seed`. `ahead`: its shares wait so many hops more than on the device (a teacher). output =
  "sound": it gives out the sound itself instead of what to remove.

`like`: a trial further up; what is not said is as there, and its figures are the ones compared with.
Fold 0 is not looked at here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise.stream import LOOK_AHEAD
from device.dsp.level import SILENCE, hop_high_pass, levels
from device.errors import BadInput, StethopiError
from device.rates import HOP, WORKING_RATE_HZ
from models.denoiser import DenoiserNet, Shape
from training.benchmarks.denoise_designs import (
    Deciding,
    FoundDesign,
    against,
    by_database,
    figures_of,
    found_by,
    subjects,
)
from training.core import checkpoint
from training.core.provenance import RESULTS, commit_id
from training.core.recipe import known_keys, read, settings, shipped
from training.core.results import write_json
from training.data import recordings as data_room
from training.data.mixing import MixSettings
from training.denoise.__main__ import RECIPE
from training.denoise.apply import MaskLayer, denoise_whole, load_net, shape_of, tables_of
from training.denoise.int8 import for_int8, sounds_for_ranges
from training.denoise.loss import Loss
from training.denoise.prune import STAGES_FROM, prune_denoiser
from training.denoise.train import cause_of, fit_denoiser, said
from training.denoise.validation import Validation
from training.export.export import count_macs
from training.export.fake_int8 import FakeInt8
from training.metrics.denoising import band, bootstrap_values, improvement
from training.reports.denoiser_note import beside_scratch

__all__ = [
    "Ahead",
    "Direct",
    "begin_anew",
    "compare_nets",
    "designs",
    "int8",
    "main",
    "read_trials",
    "run_trial",
    "tuned",
]

TRIALS = shipped("denoiser-trials")
STAGES = (
    ("full", "full"),
    ("shipped", "pruned-first"),
    ("polished", "pruned-polish"),
    ("settled", "pruned-settle"),
    ("blended", "pruned-blend"),
    ("released", "pruned"),
)
"""The released chain's own nets: kind of row, and which checkpoint."""
COMPARED = 660
"""Mixtures of fold 1 that a pruned net and one from scratch are compared on: ten times a validation's."""
TRIAL_KINDS = ("pruned", "scratch", "further", "design")
_FITTED = ("steps", "rate", "warm_up", "optimizer")
_KEYS = {
    "kind": "pruned, scratch, further or design",
    "steps": "a number",
    "rate": "a number",
    "warm_up": "a number",
    "before": "a number",
    "optimizer": '"adamw" or "muon"',
    "ratio": "a share",
    "ahead": "hops",
    "output": '"shares" or "sound"',
    "seed": "a number",
    "net": "a table",
    "mix": "a table",
    "loss": "a table",
    "like": "a trial further up",
    "about": "words",
}
_OF_RECIPE = ("net", "mix", "loss")
"""Tables of the recipe that a design may overrule."""
EACH = 3
"""Mixtures of each kind and SNR that designs are compared on."""


# ── other designs ───────────────────────────────────────────────────────────────────────────────────────────


class Ahead(nn.Module):
    """A removal that is given shares of `hops` later: the net may hear that much more (not on the device)."""

    def __init__(self, removal: MaskLayer, hops: int) -> None:
        super().__init__()
        self.removal, self.hops = removal, hops

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        last = shares[..., -1:].expand(*shares.shape[:-1], self.hops)
        return self.removal(x, torch.cat([shares[..., self.hops :], last], -1))


class Direct(nn.Module):
    """The answer is the sound itself, 16 samples a hop of the hop two before, at the tracked level.

    x (B, n), answer (B, 16, 1, n / 16) in 0 … 1 → (B, n). Same delay and level tracking as the shares; an
    answer of 0 or 1 means `MOST` times the level.
    """

    MOST = 12.0

    def forward(self, x: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        batch, n = x.shape
        level = torch.from_numpy(_tracked(x.numpy())).float()  # (B, T)
        behind = LOOK_AHEAD // HOP
        sound = (2.0 * answer[:, :, 0].transpose(1, 2) - 1.0) * self.MOST * level[:, :, None]
        grid = x.view(batch, n // HOP, HOP)
        return torch.cat([sound[:, behind:], grid[:, -behind:]], 1).reshape(batch, n)


def _tracked(x: np.ndarray) -> np.ndarray:
    """The level that the net's input is divided by, (B, n) → (B, n / 16), as device.denoise.stream.hear has
    it.
    """
    step = hop_high_pass().T
    grid = x.reshape(len(x), -1, HOP)
    z = np.zeros((len(x), HOP + 2), dtype=np.float32)
    rms = np.empty(grid.shape[:2])
    for t in range(grid.shape[1]):
        z[:, 2:] = grid[:, t]
        y = z @ step
        rms[:, t] = np.sqrt(np.mean(y.astype(np.float64) ** 2, -1))
        z[:, 0], z[:, 1] = y[:, -1], grid[:, t, -1]
    return np.maximum(levels(rms), SILENCE)


def begin_anew(net: DenoiserNet) -> DenoiserNet:
    """First weights as an unpruned net has them, also where a layer is no longer square: pass on, mostly."""
    with torch.no_grad():
        for block in net.blocks:
            time, mix = block.time.conv, block.mix  # type: ignore[union-attr]
            nn.init.kaiming_uniform_(time.weight, a=5**0.5)
            time.weight.mul_(0.1)
            time.weight[..., -1] += 1.0
            time.bias.zero_()
            nn.init.kaiming_uniform_(mix.weight, a=5**0.5)
            mix.weight.mul_(0.2).add_(torch.eye(*mix.weight.shape[:2])[:, :, None, None])
            mix.bias.zero_()
        nn.init.kaiming_uniform_(net.shares.weight, a=5**0.5)
        net.shares.weight.mul_(0.3)
        net.shares.bias.fill_(-2.0)  # type: ignore[union-attr]
    return net


# ── trials ──────────────────────────────────────────────────────────────────────────────────────────────────


def read_trials(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """The trials by name, each with all its keys. BadInput for a wrong key or kind."""
    found = read(path or TRIALS)
    above: dict[str, dict[str, Any]] = {}
    for name, table in found.items():
        if isinstance(table, dict) and "like" in table:
            if table["like"] not in above:
                raise BadInput(f"{path or TRIALS}: [{name}] like = {table['like']}: no such trial above it")
            model = above[table["like"]]
            nested = {k: {**model[k], **table.get(k, {})} for k in _OF_RECIPE if k in model}
            table = found[name] = {**model, **table, **nested}
        if not isinstance(table, dict) or table.get("kind") not in TRIAL_KINDS:
            raise BadInput(f"{path or TRIALS}: [{name}] kind: wanted is {', '.join(TRIAL_KINDS)}")
        above[name] = table
        source = path or TRIALS
        known_keys(table, _KEYS, name, source)
        net = {k: v for k, v in table.get("net", {}).items() if k != "frame"}
        settings(Shape, net, f"{name}.net", source)
        settings(MixSettings, table.get("mix", {}), f"{name}.mix", source)
        Loss(256, table.get("loss", {}), f"{name}.loss", source)
        for key in ("steps", "rate", *(["ratio"] if table["kind"] == "pruned" else [])):
            if not isinstance(table.get(key), (int, float)) or table[key] <= 0:
                raise BadInput(f"{path or TRIALS}: [{name}] {key}: wanted is a number above 0")
        if table.get("output", "shares") not in ("shares", "sound"):
            raise BadInput(f'{path or TRIALS}: [{name}] output: wanted is "shares" or "sound"')
    return found


def _first_pruned(out: Path) -> Path:
    """The pruned net after its first fine-tuning, whether or not a second has followed."""
    first = out / "denoiser-pruned-first.pt"
    return first if first.is_file() else out / "denoiser-pruned.pt"


def _removal(table: Mapping[str, Any], recipe: Mapping[str, Any]) -> nn.Module:
    """What makes sound of a design's answer."""
    if table.get("output") == "sound":
        return Direct()
    removal = MaskLayer(tables_of(dict(recipe)))
    return Ahead(removal, int(table["ahead"])) if table.get("ahead") else removal


def run_trial(
    name: str,
    table: Mapping[str, Any],
    recipe: Mapping[str, Any],
    data: Path,
    cache: Path,
    out: Path,
    *,
    resume: bool = False,
) -> Path:
    """Train one trial; writes out/trials/<name>.pt and returns its path."""
    folder = out / "trials"
    whole = dict(recipe)
    recipe = {k: v for k, v in recipe.items() if k not in ("polish", "settle", "blend", "quantised")}
    if table["kind"] == "pruned":
        recipe["prune"] = {**recipe["prune"], **{k: table[k] for k in ("rate", "warm_up") if k in table}}
        return prune_denoiser(
            recipe,
            data,
            folder,
            cache,
            resume=resume,
            ratio=float(table["ratio"]),
            steps=int(table["steps"]),
            source=out / "denoiser-full.pt",
            name=name,
        )
    if table["kind"] == "design":
        recipe.update({k: {**recipe[k], **table.get(k, {})} for k in _OF_RECIPE})
        recipe["seed"] = int(table.get("seed", recipe["seed"]))
    torch.manual_seed(recipe["seed"])
    removal: nn.Module | None = None
    path, offset = folder / f"{name}.pt", 30_000_000
    about = {"kind": table["kind"], "trial": dict(table)}
    if table["kind"] == "further":
        fit = {**whole["quantised"], **{k: table[k] for k in _FITTED if k in table}, "rounded_from": 0}
        net = load_net(out / "denoiser-pruned-blend.pt")[0]
        for_int8(net, whole, data, cache)
        about["int8_aware"] = True
        fit_denoiser(net, whole, fit, data, cache, path, resume, STAGES_FROM[3], about, int8=True)
        return path
    if table["kind"] == "scratch":
        # what a pruned net has behind it, and was fine-tuned on, is what this one learns from, in that order
        fit = {**recipe["prune"], **{k: table[k] for k in ("steps", "rate", "warm_up") if k in table}}
        net = begin_anew(DenoiserNet.from_layout(load_net(_first_pruned(out))[1]["layout"]))
        if table.get("before"):
            first = {**recipe["train"], "steps": int(table["before"])}
            here = folder / f"{name}-before.pt"
            kept = checkpoint.of_recipe(here, cause_of(recipe, first), said) if resume else None
            if not (kept and kept["step"] >= first["steps"]):
                fit_denoiser(net, recipe, first, data, cache, here, resume, 0, {"kind": "scratch"})
            net, offset = load_net(here)[0], STAGES_FROM[0]
    else:
        fit = {k: table[k] for k in ("steps", "rate", "warm_up") if k in table}
        shape = shape_of(recipe)
        if table.get("output") == "sound":
            shape = settings(Shape, {**vars(shape), "shares": HOP}, f"{name}.net")
        net = DenoiserNet(shape)
        if table.get("output") == "sound":
            nn.init.zeros_(net.shares.bias)  # type: ignore[arg-type]  # silence, not the lowest sound
        removal = _removal(table, recipe)
    fit["validate_every"] = int(table["steps"])
    fit_denoiser(net, recipe, fit, data, cache, path, resume, offset, about, removal=removal)
    return path


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────


def _row(name: str, path: Path) -> dict[str, Any]:
    net, kept = load_net(path)
    before = path.with_name(f"{path.stem}-before.pt")
    seconds = kept["seconds"] + (load_net(before)[1]["seconds"] if before.is_file() else 0.0)
    return {
        "name": name,
        "parameters": int(sum(p.numel() for p in net.parameters())),
        "mac_per_s": count_macs(net, tuple(net.examples().values())) * (WORKING_RATE_HZ // HOP),
        "steps": kept["step"] + int(kept.get("trial", {}).get("before", 0)),
        "minutes": round(seconds / 60, 1),
        "fold_1": kept["validation"],
    }


def _rounded(
    path: Path, data: Path, cache: Path, *, even: bool = True, whole: bool = False, **mix: float
) -> dict[str, float]:
    """Fold 1 of a checkpoint's net as int8 computes it (training.export.fake_int8).

    even: with the trunk's channels evened out before. whole: murmurs and jumps, too. mix: of the sounds that
    the ranges are taken from.
    """
    net, kept = load_net(path)
    recipe = read(RECIPE)
    if even and not kept.get("int8_aware"):
        for_int8(net, recipe, data, cache)
    coefficients = tables_of(recipe)
    fake = FakeInt8(net, sounds_for_ranges(recipe, data, cache, **mix), coefficients["window"])
    some = {} if whole else {"murmurs": 0, "jumps": 0}
    validation = Validation(data, cache, int(recipe["seed"]), **some)
    return validation(partial(denoise_whole, fake, MaskLayer(coefficients), coefficients))


CALIBRATED_ON = {
    "clean sound alone": {"clean": 1.0, "jump": 0.0},
    "noisy sound alone": {"clean": 0.0, "jump": 0.0},
    "clean and noisy": {"jump": 0.0},
    "clean and noisy, a third of it quiet, then loud (as shipped)": {},
}


def int8(_trials: Mapping[str, Any], out: Path, data: Path, cache: Path) -> dict[str, Any]:
    """What each step towards int8 costs on fold 1, and what the ranges are taken from: the net in float
    before and after it learned to be rounded, rounded in several ways, and the exported file."""
    rows = []
    for name, file in (("before", "pruned-blend"), ("released", "pruned")):
        path = out / f"denoiser-{file}.pt"
        ways: dict[str, dict[str, Any]] = {"released": CALIBRATED_ON}.get(
            name, {"as it is": {"even": False}, "channels evened out": {}}
        )
        rows.append({"net": name, "way": "float", "fold_1": load_net(path)[1]["validation"]})
        for way, options in ways.items():
            found = _rounded(path, data, cache, whole=True, **options)
            rows.append({"net": name, "way": way, "fold_1": found})
            print(f"{name}, {way}: {found}", file=sys.stderr, flush=True)
    part = out / "denoiser" / "denoiser.json"
    if part.is_file():
        exported = json.loads(part.read_text("utf-8"))["export"]["fold_1_int8"]
        rows.append({"net": "released", "way": "file", "fold_1": exported})
    return {"what": "steps towards int8, fold 1", **_about(data), "rows": rows}


def compare_nets(one: Path, other: Path, data: Path, cache: Path, mixtures: int = COMPARED) -> dict[str, Any]:
    """What the net of checkpoint `one` gains more than that of `other` on the same mixtures of fold 1, −6…6
    dB: plain and beyond volume, with intervals over subjects."""
    nets = []
    for path in (one, other):
        net, kept = load_net(path)
        coefficients = tables_of(kept["recipe"])
        nets.append(partial(denoise_whole, net, MaskLayer(coefficients), coefficients))
    seed = int(kept["recipe"]["seed"])
    differences, groups = [], []
    for _kind, level, r, noisy in Validation(data, cache, seed, noisy=mixtures, murmurs=0, jumps=0).items:
        if np.isfinite(level):
            s, x = band(r.sound[: len(noisy)]), band(noisy)
            ours, theirs = (improvement(s, x, band(clean_up(noisy))) for clean_up in nets)
            differences.append([a - b for a, b in zip(ours, theirs, strict=True)])
            groups.append(r.group)
    found = {
        name: bootstrap_values([d[k] for d in differences], groups, seed=seed)
        for k, name in enumerate(("plain", "beyond_volume"))
    }
    return {k: {a: round(b, 4) for a, b in v.items()} for k, v in found.items()}


def tuned(trials: Mapping[str, Mapping[str, Any]], out: Path, data: Path, cache: Path) -> dict[str, Any]:
    """What the trials in `out` of the shipped chain have shown: pruned, from scratch, further.

    Trials that were not run are left out. The unpruned net and the released chain's own steps stand beside.
    """
    rows: list[dict[str, Any]] = []
    for name, file in STAGES:
        path = out / f"denoiser-{file}.pt"
        if path.is_file():
            rounded = _rounded(path, data, cache)
            rows.append({**_row(name, path), "kind": name, "fold_1_rounded": rounded})
    for name, table, path in _ended(trials, out, ("pruned", "scratch", "further")):
        row = {**_row(name, path), "kind": table["kind"], "about": table.get("about", "")}
        if table["kind"] == "pruned":
            row["ratio"] = table["ratio"]
        rows.append({**row, "fold_1_rounded": _rounded(path, data, cache)})
    beside: dict[str, Any] = {}
    if pair := beside_scratch(rows):
        pruned, scratch = (out / "trials" / f"{row['name']}.pt" for row in pair[1:])
        beside["beside_scratch"] = {
            "pruned": pruned.stem,
            "scratch": scratch.stem,
            **compare_nets(pruned, scratch, data, cache),
        }
    what = "pruned and fine-tuned equally long, and the like; fold 1"
    return {"what": what, **_about(data), **beside, "rows": rows}


def designs(trials: Mapping[str, Mapping[str, Any]], out: Path, data: Path, cache: Path) -> dict[str, Any]:
    """What the designs in `out` have shown, each beside the trial that it is like. Those not run are left
    out."""
    torch.set_num_threads(1)
    seed = int(read(RECIPE)["seed"])
    material = Deciding(data, cache, EACH, seed)
    found: dict[str, FoundDesign] = {}
    rows = []
    for name, table, path in _ended(trials, out, ("design",)):
        net, kept = load_net(path)
        coefficients, removal = tables_of(kept["recipe"]), _removal(table, kept["recipe"])
        found[name] = found_by(material, partial(denoise_whole, net, removal, coefficients))
        row = {**_row(name, path), "kind": "design", "about": table.get("about", "")}
        row |= {"fold_1": figures_of(found[name]), "by_database": by_database(found[name])}
        if table.get("like") in found:
            row |= {"like": table["like"], "minus": against(found[name], found[table["like"]], seed)}
        rows.append(row)
        print(f"{name}: {row['fold_1']}", file=sys.stderr, flush=True)
    counts = {
        "mixtures": len(found[rows[0]["name"]]["all beyond"]) if rows else 0,
        "subjects": subjects(found[rows[0]["name"]]) if rows else {},
    }
    return {"what": "short trials of designs; fold 1", **_about(data), "counts": counts, "rows": rows}


def _about(data: Path) -> dict[str, Any]:
    return {"seed": read(RECIPE)["seed"], "commit": commit_id(), "data": data_room.data_hashes(data)}


def _ended(
    trials: Mapping[str, Mapping[str, Any]], out: Path, kinds: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any], Path]]:
    """The trials of these kinds that were run to their end: name, table and checkpoint."""
    for name, table in trials.items():
        if table["kind"] not in kinds:
            continue
        path = out / "trials" / f"{name}.pt"
        if path.is_file() and load_net(path)[1]["step"] >= int(table["steps"]):
            yield name, table, path
        else:
            print(f"{name}: not run to its end, left out", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.denoise_trials", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=("run", "figures", "designs", "int8"))
    parser.add_argument("names", nargs="*", help="run: only these trials")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--trials", type=Path, default=TRIALS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/denoiser"))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stethopi")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="go on from a trial's checkpoint")
    options = parser.parse_intermixed_args(sys.argv[1:] if argv is None else list(argv))
    try:
        trials = read_trials(options.trials)
        for name in options.names:
            if name not in trials:
                raise BadInput(f"{options.trials}: no trial {name}; there are {', '.join(trials)}")
        if options.what == "run":
            recipe = read(options.recipe)
            for name in options.names or trials:
                print(f"== {name}", flush=True)
                run_trial(
                    name,
                    trials[name],
                    recipe,
                    options.data,
                    options.cache,
                    options.out,
                    resume=options.resume,
                )
        else:
            makers = {"designs": (designs,), "int8": (int8,)}
            for made in makers.get(options.what, (tuned, designs, int8)):
                content = made(trials, options.out, options.data, options.cache)
                write_json(options.results / f"denoiser-{made.__name__}.json", content)
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
