"""`stethopi train`, `prune` and `export`: one network, or all on the way to a released bundle."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from device.errors import BadInput
from training.commands.baselines import baseline, ecg_model
from training.commands.common import (
    EVERY_MODEL,
    MODELS_TO_PRUNE,
    command_typed,
    common_options,
    guarded,
    say,
)
from training.commands.recipes import RunRecipes
from training.commands.release import product_version
from training.commands.run_folder import RunFolder
from training.commands.steps import Steps

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        help="train a network, or all on the way to a released bundle",
        description="Train a network. `all` goes the whole way: train, prune, fine-tune, export to int8,"
        " release; steps that are done are skipped.",
    )
    train.add_argument("model", choices=(*EVERY_MODEL, "quality", "all"))
    train.add_argument(
        "--model",
        dest="net",
        metavar="NAME",
        help="instead of ours, denoiser: unet-classic, lu-net; ecg-denoiser: autoencoder, cnn, diffusion,"
        " deepfilter, fcn-dae, tcdae; classifier: cnn1d, melcnn, melcnn-light, melcnn-attention, resnet18",
    )
    train.add_argument(
        "--fold", type=int, default=0, metavar="N", help="of those classifiers: the fold that is reported"
    )
    train.add_argument(
        "--weights", metavar="FILE", help="resnet18: start from published ImageNet weights (a state dict)"
    )
    train.add_argument("--recipe", metavar="TOML", help="a file, or the name of a shipped one (smoke)")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument(
        "--only", choices=EVERY_MODEL, nargs="+", help="with all: only this model, and no release"
    )
    train.add_argument("--version", help="with all: version of the bundle (default: the product's)")
    train.add_argument(
        "--released", metavar="DIR", help="with all: where bundles go (default: models/released)"
    )
    common_options(train)
    train.set_defaults(func=guarded(_train))

    for name, work, text in (
        ("prune", _prune, "prune a trained network's channels and fine-tune it"),
        ("export", _export, "convert a pruned network to int8, checked by two gates"),
    ):
        parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        parser.add_argument("model", choices=MODELS_TO_PRUNE if name == "prune" else EVERY_MODEL)
        parser.add_argument("--recipe", metavar="TOML", help="a file, or the name of a shipped one (smoke)")
        if name == "export":
            parser.add_argument(
                "--model",
                dest="net",
                metavar="NAME",
                help="instead of ours, denoiser: unet-classic; classifier: cnn1d and so on, as in train",
            )
            parser.add_argument(
                "--fold", type=int, default=0, metavar="N", help="of those classifiers: as in train"
            )
        if name == "prune":
            parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
        common_options(parser)
        parser.set_defaults(func=guarded(work))


def _train(options: argparse.Namespace) -> int:
    if options.model == "ecg-denoiser":
        say(f"written: {ecg_model(options, 'train')}")
        return 0
    if options.weights and options.net != "resnet18":
        raise BadInput(f"--weights {options.weights}: only resnet18 takes them; add --model resnet18")
    if options.net and (options.model, options.net) != ("classifier", "ours"):
        say(f"written: {baseline(options, 'train')}")
        return 0
    recipes = RunRecipes(options.recipe, "all" if options.model == "all" else options.model)
    run = RunFolder(options, recipes)
    if options.model != "all":
        say(f"written: {run.train(options.model)}")
        return 0
    return _train_all(options, recipes, run)


def _train_all(options: argparse.Namespace, recipes: RunRecipes, run: RunFolder) -> int:
    """Every step from the data to the bundle; finished ones are skipped, a broken-off one goes on."""
    from training.core.provenance import RELEASED
    from training.data.recordings import data_hashes
    from training.release.release import release

    steps = Steps(run.out)
    wanted = options.only or EVERY_MODEL
    parts = {model: run.out / model for model in MODELS_TO_PRUNE}
    hashes = data_hashes(run.data)
    ran = False
    for model in [m for m in MODELS_TO_PRUNE if m in wanted]:
        recipe: Any = recipes.denoiser() if model == "denoiser" else recipes.classifier()
        because = [recipe if isinstance(recipe, dict) else dataclasses.asdict(recipe), hashes]
        full, pruned = run.out / f"{model}-full.pt", run.out / f"{model}-pruned.pt"
        part = parts[model] / f"{model}.json"
        ran |= steps.run(f"{model}-train", because, full, partial(run.train, model, resume=True))
        ran |= steps.run(f"{model}-prune", because, pruned, partial(run.prune, model, resume=True))
        ran |= steps.run(f"{model}-export", because, part, partial(run.export, model))
        if model == "classifier":
            judge = [*because, dataclasses.asdict(recipes.quality())]
            ran |= steps.run("quality", judge, part.with_suffix(".npz"), partial(run.train, "quality"))
    if "ecg-denoiser" in wanted and not options.only and not (run.data / "ecg").is_dir():
        say(f"ecg: there is no {run.data / 'ecg'}, so the bundle will clean no ECG")
    elif "ecg-denoiser" in wanted:
        parts["ecg"] = run.out / "ecg"
        ran |= _ecg_steps(steps, recipes.ecg(), run)
    if options.only:
        return 0
    version = options.version or recipes.table.get("release", {}).get("version") or product_version()
    released = Path(options.released) if options.released else RELEASED
    target = released / version
    if not ran and (target / "bundle.json").is_file():
        say(f"release: {target} is the newest already")
        return 0
    release(parts, version, out=released, command=command_typed())
    say(f"released: {target}")
    return 0


def _ecg_steps(steps: Steps, recipe: dict[str, Any], run: RunFolder) -> bool:
    from training.data.ecg import ecg_hashes
    from training.ecg.export import export_ecg
    from training.ecg.systems import checkpoint_path
    from training.ecg.train import train_ecg

    because = [recipe, ecg_hashes(run.data)]
    trained, part = checkpoint_path(run.out, "ours"), run.out / "ecg"
    learn = partial(train_ecg, recipe, "ours", run.data, run.out, resume=True)
    ran = steps.run("ecg-train", because, trained, learn)
    convert = partial(export_ecg, recipe, trained, run.data, part)
    return steps.run("ecg-export", because, part / "ecg.json", convert) or ran


def _prune(options: argparse.Namespace) -> int:
    run = RunFolder(options, RunRecipes(options.recipe, options.model))
    say(f"written: {run.prune(options.model)}")
    return 0


def _export(options: argparse.Namespace) -> int:
    if options.model == "ecg-denoiser":
        say(f"written: {ecg_model(options, 'export')}")
        return 0
    if options.net and (options.model, options.net) != ("classifier", "ours"):
        say(f"written: {baseline(options, 'export')}")
        return 0
    run = RunFolder(options, RunRecipes(options.recipe, options.model))
    say(f"written: {run.export(options.model)}")
    return 0
