"""Train or export a network that ours is measured against, for `--model NAME`."""

from __future__ import annotations

import argparse
from pathlib import Path

from device.errors import BadInput
from training.commands.common import one_thread, say
from training.commands.recipes import RunRecipes
from training.core.recipe import find, read

__all__ = ["baseline", "ecg_model"]


def baseline(options: argparse.Namespace, work: str) -> Path:
    """Of the denoiser or the classifier."""
    if options.model == "classifier":
        return _screening_baseline(options, work)
    from training.denoise import baselines

    if options.model != "denoiser":
        raise BadInput(f"--model {options.net}: is for one network; leave it out, or name the network")
    if options.net not in baselines.DENOISING_BASELINES:
        raise BadInput(
            f"--model {options.net}: no such network; there are {', '.join(baselines.DENOISING_BASELINES)}"
        )
    recipe = RunRecipes(options.recipe, options.net).baseline(options.net)
    out, data, cache = Path(options.out), Path(options.data), Path(options.cache).expanduser()
    one_thread()
    if work == "train":
        return baselines.train_baseline(options.net, recipe, data, out, cache, resume=options.resume)
    if options.net != "unet-classic":
        raise BadInput(f"--model {options.net}: is measured in float only and is not exported")
    baselines.export_classic(recipe, out / f"{options.net}.pt", data, cache, out / options.net)
    return out / options.net


def _screening_baseline(options: argparse.Namespace, work: str) -> Path:
    """Train or export a network that our classifier is measured against."""
    from training.screening import baselines, evaluate
    from training.screening.baseline_inputs import Inputs
    from training.screening.baseline_recipe import front_end_name, load_baseline_recipe, rotated

    path = find(options.recipe, options.net) if options.recipe else None
    recipe = rotated(load_baseline_recipe(options.net, path), options.fold)
    folder = Path(options.out) / "baselines" / f"{options.net}-fold{options.fold}"
    cache = Path(options.cache).expanduser()
    one_thread()
    inputs = Inputs(Path(options.data), cache, front_end_name(options.net), say)
    if work == "export":
        small = baselines.load_screening_baseline(folder / f"{options.net}.pt", inputs).int8(folder)
        say(f"int8: {small.cost['kilobytes']:.0f} kB, logits {small.cost['int8_db']:.1f} dB above error")
        return folder / f"{options.net}.tflite"
    inputs.into_memory()
    if not options.resume:
        (folder / "resume.pt").unlink(missing_ok=True)
    chosen = [r for r in inputs.recordings if r.fold in recipe.folds]
    watch = [r for r in inputs.recordings if r.fold == recipe.decide and r.reportable]
    weights = Path(options.weights) if options.weights else None
    trained = baselines.train_screening_baseline(
        recipe, inputs, chosen, out=folder, watch=watch, weights=weights, say=say, every=100
    )
    say(
        f"fold {recipe.decide}, which decides:\n"
        f"{evaluate.describe(baselines.evaluate_screening_baseline(trained, watch))}"
    )
    return folder / f"{options.net}.pt"


def ecg_model(options: argparse.Namespace, work: str) -> Path:
    """Train one of the ECG's denoisers, or export ours."""
    from training.ecg.export import export_ecg
    from training.ecg.systems import checkpoint_path
    from training.ecg.train import train_ecg

    model = options.net or "ours"
    recipe = read(find(options.recipe, "ecg"))
    out, data = Path(options.out), Path(options.data)
    one_thread()
    if work == "train":
        return train_ecg(recipe, model, data, out, resume=options.resume)
    export_ecg(recipe, checkpoint_path(out, model), data, out / "ecg")
    return out / "ecg"
