"""The denoiser's stages by themselves, and its training figures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from device.errors import StethopiError
from training.core import checkpoint
from training.core.provenance import commit_id
from training.core.recipe import read, shipped
from training.denoise.apply import MaskLayer, denoise_whole, load_net, tables_of
from training.denoise.export import export_denoiser
from training.denoise.prune import prune_denoiser, pruning_curve
from training.denoise.train import train_denoiser
from training.denoise.validation import Validation, headline

RECIPE = shipped("denoiser")


_CHECKPOINTS = ("full", "pruned-first", "pruned-polish", "pruned-settle", "pruned-blend", "pruned")


def validate_anew(out: Path, data: Path, cache: Path) -> None:
    """Fold 1 once more for every net in `out`, kept in its checkpoint: for figures it was born without."""
    for name in _CHECKPOINTS:
        path = out / f"denoiser-{name}.pt"
        if path.is_file():
            net, kept = load_net(path)
            coefficients = tables_of(kept["recipe"])
            validation = Validation(data, cache, int(kept["recipe"]["seed"]))
            kept["validation"] = validation(
                partial(denoise_whole, net, MaskLayer(coefficients), coefficients)
            )
            print(f"{path.name}: {headline(kept['validation'])}", flush=True)
            checkpoint.save(path, kept)


def training_figures(out: Path) -> dict[str, Any]:
    """What the run in `out` has shown: curve, validation on fold 1, minutes; full, pruned, exported."""
    found: dict[str, Any] = {"what": "training of the denoiser; fold 1 decides", "commit": commit_id()}
    for name in _CHECKPOINTS:
        path = out / f"denoiser-{name}.pt"
        if path.is_file():
            _, kept = load_net(path)
            found[name] = {
                "steps": kept["step"],
                "minutes": round(kept["seconds"] / 60, 1),
                "curve": [[step, round(loss, 3)] for step, loss in kept["curve"][4::5]],
                "fold_1": kept.get("validation"),
                "pruning": kept.get("pruning"),
                "blend": kept.get("blend"),
                "recipe": kept["recipe"],
            }
    part = out / "denoiser" / "denoiser.json"
    if part.is_file():
        found["export"] = json.loads(part.read_text("utf-8"))["export"]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.denoise", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "prune", "export", "curve", "validate", "figures"))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/denoiser"))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stethopi")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument(
        "--ratio", type=float, help="prune: share of channels to take, instead of the recipe's"
    )
    parser.add_argument("--steps", type=int, help="steps, instead of the recipe's")
    parser.add_argument("--net", type=Path, help="checkpoint to prune or export, instead of that in --out")
    parser.add_argument(
        "--name", help="name of the result, instead of denoiser-pruned or the folder denoiser"
    )
    options = parser.parse_args(argv)
    try:
        recipe = read(options.recipe)
        if options.what == "train":
            if options.steps:
                recipe["train"]["steps"] = options.steps
            train_denoiser(recipe, options.data, options.out, options.cache, resume=options.resume)
        elif options.what == "prune":
            prune_denoiser(
                recipe,
                options.data,
                options.out,
                options.cache,
                resume=options.resume,
                ratio=options.ratio,
                steps=options.steps,
                source=options.net,
                name=options.name or "denoiser-pruned",
            )
        elif options.what == "curve":
            curve = pruning_curve(
                recipe, options.net or options.out / "denoiser-full.pt", options.data, options.cache
            )
            print(json.dumps(curve, indent=1))
        elif options.what == "validate":
            validate_anew(options.out, options.data, options.cache)
        elif options.what == "figures":
            print(json.dumps(training_figures(options.out), indent=1))
        else:
            net = options.net or options.out / "denoiser-pruned.pt"
            report = export_denoiser(
                recipe, net, options.data, options.cache, options.out / (options.name or "denoiser")
            )
            print(json.dumps(report, indent=1))
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
