"""The commands that train, prune, export, release and measure; `stethopi` shows them.

    stethopi train all                   from the data to models/released/<version>; goes on where it was
    stethopi train all --recipe smoke    the same way in a few minutes, with networks good for nothing
    stethopi train classifier            one step of it; likewise denoiser, prune, export, release
    stethopi benchmark classify          fold 0 → docs/results/classify.json

Nothing but the standard library is imported before a command runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from device.errors import BadInput, StethopiError
from training.core.recipe import find, read, shipped

__all__ = ["add_commands", "main"]

_MODELS = ("denoiser", "classifier")
"""What every bundle holds, and what is pruned."""
_ALL = (*_MODELS, "ecg-denoiser")
"""What `train all` trains."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


class _Recipes:
    """The recipes of one run. A file with a `[denoiser]` table (as all.toml and smoke.toml) changes the
    shipped denoiser recipe; any other file is a denoiser recipe itself. `[classifier]` changes the
    classifier's defaults, `[ecg]` the shipped ECG recipe.
    """

    def __init__(self, given: str | None, default: str = "all") -> None:
        self.path = find(given, default)
        self.table = read(self.path)

    def denoiser(self) -> dict[str, Any]:
        if "denoiser" in self.table or "classifier" in self.table:
            return _merged(read(shipped("denoiser")), self.table.get("denoiser", {}))
        return self.table

    def classifier(self) -> Any:
        from training.screening.recipe import load_recipe

        if "classifier" not in self.table:
            return load_recipe(None)
        defaults = read(shipped("classifier")).get("classifier", {})
        return load_recipe(None, **_merged(defaults, self.table["classifier"]))

    def ecg(self) -> dict[str, Any]:
        return _merged(read(shipped("ecg")), self.table.get("ecg", {}))

    def rival(self, name: str) -> dict[str, Any]:
        """Of a network that ours is measured against. A file for many networks changes the shipped one by its
        `[<name>]` table; any other file is that network's recipe itself."""
        if "denoiser" in self.table or "classifier" in self.table:
            return _merged(read(shipped(name)), self.table.get(name, {}))
        for part in ("seed", "mix", "train"):
            if part not in self.table:
                raise BadInput(f"{self.path}: {part} is missing; begin with a copy of {shipped(name)}")
        return self.table

    def quality(self) -> Any:
        from training.screening.quality import load_quality_recipe

        return load_quality_recipe(
            None if "quality" in self.table else self.path, **self.table.get("quality", {})
        )


class _Steps:
    """Steps that leave a stamp when they are done, and are skipped when nothing that decides them has
    changed.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def run(self, name: str, because: Any, output: Path, work: Callable[[], object]) -> bool:
        """Run `work` unless `output` is there with a stamp of the same `because`. True when it ran."""
        key = hashlib.sha256(json.dumps(because, sort_keys=True, default=str).encode()).hexdigest()
        stamp = self.out / f".{name}.done"
        if output.exists() and stamp.is_file() and stamp.read_text().strip() == key:
            _say(f"{name}: done before, nothing has changed")
            return False
        stamp.unlink(missing_ok=True)
        started = time.monotonic()
        _say(f"{name}: started")
        work()
        if not output.exists():
            raise StethopiError(f"{name}: ended without {output}")
        self.out.mkdir(parents=True, exist_ok=True)
        temporary = stamp.with_name(stamp.name + ".tmp")
        temporary.write_text(key + "\n")
        os.replace(temporary, stamp)
        _say(f"{name}: done in {(time.monotonic() - started) / 60:.1f} min")
        return True


def _quiet_threads() -> None:
    import torch

    torch.set_num_threads(1)


class _Path:
    """The way of the models in one run folder: what each step needs and leaves."""

    def __init__(self, options: argparse.Namespace, recipes: _Recipes) -> None:
        self.options, self.recipes = options, recipes
        self.out, self.data, self.cache = (
            Path(options.out),
            Path(options.data),
            Path(options.cache).expanduser(),
        )
        self.resume = bool(getattr(options, "resume", False))
        self._corpus: Any = None
        _quiet_threads()

    @property
    def corpus(self) -> Any:
        from training.screening.corpus import Corpus

        if self._corpus is None:
            self._corpus = Corpus(self.data, self.cache, _say)
            self._corpus.into_memory()
        return self._corpus

    def train(self, model: str, resume: bool | None = None) -> Path:
        resume = self.resume if resume is None else resume
        if model == "quality":
            from training.screening.quality import train_quality

            train_quality(self.recipes.quality(), self.data, self.out / "classifier", _say, resume=resume)
            return self.out / "classifier" / "classifier.npz"
        if model == "denoiser":
            from training.denoise.train import train_denoiser

            return train_denoiser(self.recipes.denoiser(), self.data, self.out, self.cache, resume=resume)
        from training.screening.train import train

        if not resume:
            (self.out / "classifier-resume.pt").unlink(missing_ok=True)
        train(self.corpus, self.recipes.classifier(), self.out, _say)
        return self.out / "classifier-full.pt"

    def prune(self, model: str, resume: bool | None = None) -> Path:
        resume = self.resume if resume is None else resume
        if model == "denoiser":
            from training.denoise.prune import prune_denoiser

            return prune_denoiser(self.recipes.denoiser(), self.data, self.out, self.cache, resume=resume)
        from training.screening.train import prune_classifier

        if not resume:
            (self.out / "classifier-resume-pruned.pt").unlink(missing_ok=True)
        source = self.out / "classifier-full.pt"
        prune_classifier(self.recipes.classifier(), source, self.corpus, self.out, _say)
        return self.out / "classifier-pruned.pt"

    def export(self, model: str) -> Path:
        part = self.out / model
        if model == "denoiser":
            from training.denoise.export import export_denoiser

            source = self.out / "denoiser-pruned.pt"
            export_denoiser(self.recipes.denoiser(), source, self.data, self.cache, part)
        else:
            from training.screening.export import export_classifier

            source = self.out / "classifier-pruned.pt"
            export_classifier(self.recipes.classifier(), source, self.corpus, part, _say)
        return part


def _rival(options: argparse.Namespace, work: str) -> Path:
    """Train or export a network that ours is measured against, for `--model` of the denoiser."""
    if options.model == "classifier":
        return _screener(options, work)
    from training.denoise import baselines as rivals

    if options.model != "denoiser":
        raise BadInput(f"--model {options.net}: is for one network; leave it out, or name the network")
    if options.net not in rivals.RIVALS:
        raise BadInput(f"--model {options.net}: no such network; there are {', '.join(rivals.RIVALS)}")
    recipe = _Recipes(options.recipe, options.net).rival(options.net)
    out, data, cache = Path(options.out), Path(options.data), Path(options.cache).expanduser()
    _quiet_threads()
    if work == "train":
        return rivals.train_baseline(options.net, recipe, data, out, cache, resume=options.resume)
    if options.net != "unet-classic":
        raise BadInput(f"--model {options.net}: is measured in float only and is not exported")
    rivals.export_classic(recipe, out / f"{options.net}.pt", data, cache, out / options.net)
    return out / options.net


def _screener(options: argparse.Namespace, work: str) -> Path:
    """Train or export a network that our classifier is measured against."""
    from training.screening import baselines as screeners
    from training.screening import evaluate

    path = find(options.recipe, options.net) if options.recipe else None
    recipe = screeners.rotated(screeners.load_baseline_recipe(options.net, path), options.fold)
    folder = Path(options.out) / "screeners" / f"{options.net}-fold{options.fold}"
    cache = Path(options.cache).expanduser()
    _quiet_threads()
    inputs = screeners.Inputs(Path(options.data), cache, screeners.front_end_name(options.net), _say)
    if work == "export":
        small = screeners.load_screener(folder / f"{options.net}.pt", inputs).int8(folder)
        _say(f"int8: {small.cost['kilobytes']:.0f} kB, logits {small.cost['int8_db']:.1f} dB above error")
        return folder / f"{options.net}.tflite"
    inputs.into_memory()
    if not options.resume:
        (folder / "resume.pt").unlink(missing_ok=True)
    chosen = [r for r in inputs.recordings if r.fold in recipe.folds]
    watch = [r for r in inputs.recordings if r.fold == recipe.decide and r.reportable]
    weights = Path(options.weights) if options.weights else None
    trained = screeners.train_screener(
        recipe, inputs, chosen, out=folder, watch=watch, weights=weights, say=_say, every=100
    )
    _say(
        f"fold {recipe.decide}, which decides:\n"
        f"{evaluate.describe(screeners.evaluate_screener(trained, watch))}"
    )
    return folder / f"{options.net}.pt"


def _ecg(options: argparse.Namespace, work: str) -> Path:
    """Train one of the ECG's denoisers, or export ours."""
    from training.ecg import train as ecg

    model = options.net or "ours"
    recipe = read(find(options.recipe, "ecg"))
    out, data = Path(options.out), Path(options.data)
    _quiet_threads()
    if work == "train":
        return ecg.train_ecg(recipe, model, data, out, resume=options.resume)
    ecg.export_ecg(recipe, ecg.checkpoint_path(out, model), data, out / "ecg")
    return out / "ecg"


def _train(options: argparse.Namespace) -> int:
    if options.model == "ecg-denoiser":
        _say(f"written: {_ecg(options, 'train')}")
        return 0
    if options.model == "rhythm":
        from training.rhythm.train import train_rhythm

        _quiet_threads()
        recipe = read(find(options.recipe, "rhythm"))
        cache = Path(options.cache).expanduser()
        path = train_rhythm(
            recipe, Path(options.data), Path(options.out), cache, resume=options.resume, say=_say
        )
        _say(f"written: {path}")
        return 0
    if options.weights and options.net != "resnet18":
        raise BadInput(f"--weights {options.weights}: only resnet18 takes them; add --model resnet18")
    if options.net and (options.model, options.net) != ("classifier", "ours"):
        _say(f"written: {_rival(options, 'train')}")
        return 0
    recipes = _Recipes(options.recipe, "all" if options.model == "all" else options.model)
    way = _Path(options, recipes)
    if options.model != "all":
        _say(f"written: {way.train(options.model)}")
        return 0
    return _train_all(options, recipes, way)


def _train_all(options: argparse.Namespace, recipes: _Recipes, way: _Path) -> int:
    """Every step from the data to the bundle; finished ones are skipped, a broken-off one goes on."""
    import dataclasses

    from training.data.recordings import data_hashes
    from training.release.release import RELEASED, release

    steps = _Steps(way.out)
    wanted = options.only or _ALL
    parts = {model: way.out / model for model in _MODELS}
    hashes = data_hashes(way.data)
    ran = False
    for model in [m for m in _MODELS if m in wanted]:
        recipe: Any = recipes.denoiser() if model == "denoiser" else recipes.classifier()
        because = [recipe if isinstance(recipe, dict) else dataclasses.asdict(recipe), hashes]
        full, pruned = way.out / f"{model}-full.pt", way.out / f"{model}-pruned.pt"
        part = parts[model] / f"{model}.json"
        ran |= steps.run(f"{model}-train", because, full, partial(way.train, model, resume=True))
        ran |= steps.run(f"{model}-prune", because, pruned, partial(way.prune, model, resume=True))
        ran |= steps.run(f"{model}-export", because, part, partial(way.export, model))
        if model == "classifier":
            judge = [*because, dataclasses.asdict(recipes.quality())]
            ran |= steps.run("quality", judge, part.with_suffix(".npz"), partial(way.train, "quality"))
    if "ecg-denoiser" in wanted and not options.only and not (way.data / "ecg").is_dir():
        _say(f"ecg: there is no {way.data / 'ecg'}, so the bundle will clean no ECG")
    elif "ecg-denoiser" in wanted:
        parts["ecg"] = way.out / "ecg"
        ran |= _ecg_steps(steps, recipes.ecg(), way)
    if options.only:
        return 0
    version = options.version or recipes.table.get("release", {}).get("version") or _product_version()
    released = Path(options.released) if options.released else RELEASED
    target = released / version
    if not ran and (target / "bundle.json").is_file():
        _say(f"release: {target} is the newest already")
        return 0
    release(parts, version, out=released, command=_command())
    _say(f"released: {target}")
    return 0


def _ecg_steps(steps: _Steps, recipe: dict[str, Any], way: _Path) -> bool:
    from training.data.ecg import ecg_hashes
    from training.ecg.train import checkpoint_path, export_ecg, train_ecg

    because = [recipe, ecg_hashes(way.data)]
    trained, part = checkpoint_path(way.out, "ours"), way.out / "ecg"
    learn = partial(train_ecg, recipe, "ours", way.data, way.out, resume=True)
    ran = steps.run("ecg-train", because, trained, learn)
    convert = partial(export_ecg, recipe, trained, way.data, part)
    return steps.run("ecg-export", because, part / "ecg.json", convert) or ran


def _product_version() -> str:
    from device import __version__

    return __version__


def _command() -> str:
    """What was typed, without the folder of the program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _prune(options: argparse.Namespace) -> int:
    way = _Path(options, _Recipes(options.recipe, options.model))
    _say(f"written: {way.prune(options.model)}")
    return 0


def _export(options: argparse.Namespace) -> int:
    if options.model == "ecg-denoiser":
        _say(f"written: {_ecg(options, 'export')}")
        return 0
    if options.net and (options.model, options.net) != ("classifier", "ours"):
        _say(f"written: {_rival(options, 'export')}")
        return 0
    way = _Path(options, _Recipes(options.recipe, options.model))
    _say(f"written: {way.export(options.model)}")
    return 0


def _release(options: argparse.Namespace) -> int:
    from training.release.release import RELEASED, release

    out = Path(options.out)
    parts = {"denoiser": Path(options.denoiser or out / "denoiser")}
    parts["classifier"] = Path(options.classifier or out / "classifier")
    if options.ecg or (out / "ecg" / "ecg.json").is_file():
        parts["ecg"] = Path(options.ecg or out / "ecg")
    target = release(
        parts,
        options.version or _product_version(),
        out=Path(options.released) if options.released else RELEASED,
        command=_command(),
    )
    print(target)
    return 0


def _benchmark(options: argparse.Namespace) -> int:
    bundle = Path(options.bundle) if options.bundle else None
    results = Path(options.results) if options.results else None
    if options.model == "classify":
        from training.benchmarks.classify import benchmark

        benchmark(
            Path(options.data),
            Path(options.cache).expanduser(),
            bundle=bundle,
            results=results,
            checkpoints=Path(options.out),
            seed=options.seed,
            limit=options.limit,
            train=options.train,
            train_only=options.train_only,
            minutes=options.minutes,
            noise=not options.no_noise,
            only_models=options.only_models,
            command=_command(),
            say=_say,
        )
        return 0
    if options.model == "ecg":
        from training.benchmarks.ecg import benchmark as benchmark_ecg

        _quiet_threads()
        benchmark_ecg(
            Path(options.data),
            Path(options.cache).expanduser(),
            bundle=bundle,
            checkpoints=Path(options.out),
            results=results,
            limit=options.limit,
            seed=options.seed,
            command=_command(),
            say=_say,
        )
        return 0
    if options.model == "quality":
        from training.benchmarks.quality import benchmark_quality

        benchmark_quality(
            Path(options.data),
            cache=Path(options.cache).expanduser(),
            bundle=bundle,
            results=results,
            seed=options.seed,
            limit=options.limit,
            command=_command(),
            say=_say,
        )
        return 0
    if options.model == "rhythm":
        from training.benchmarks.rhythm import benchmark as benchmark_rhythm

        benchmark_rhythm(
            Path(options.data),
            checkpoints=Path(options.out),
            results=results,
            limit=options.limit,
            seed=options.seed,
            command=_command(),
            say=_say,
        )
        return 0
    from training.benchmarks import denoise as benchmark_denoise

    arguments = ["--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache)]
    arguments += ["--seed", str(options.seed)]
    if options.limit is not None:
        arguments += ["--limit", str(options.limit)]
    if options.rivals:
        arguments += ["--rivals", str(options.rivals)]
    if options.processes:
        arguments += ["--processes", str(options.processes)]
    if bundle:
        arguments += ["--bundle", str(bundle)]
    if results:
        arguments += ["--results", str(results)]
    return int(benchmark_denoise.main(arguments) or 0)


def _plot(options: argparse.Namespace) -> int:
    from training.core.provenance import RESULTS
    from training.reports import plots

    data, cache = Path(options.data), Path(options.cache).expanduser()
    if options.what == "classify":
        out = Path(options.out or "plots")
        results = Path(options.results) if options.results else RESULTS
        for path in plots.draw(data, cache, results, out, options.model or (), _say):
            _say(f"written: {path}")
        return 0
    if options.what == "positions":
        if not options.recording:
            raise BadInput("plot positions: whose? give --recording PATIENT, a number of CirCor's")
        plots.draw_positions(data, options.recording, Path(options.out or "positions.png"), say=_say)
        return 0
    if not options.recording or len(options.model or ()) != 1:
        raise BadInput("plot looked: which one? give --recording NAME and one --model NAME")
    (model,) = options.model
    usual = "runs/classifier-full.pt" if model == "ours" else f"runs/screeners/{model}-fold0/{model}.pt"
    checkpoint = Path(options.checkpoint or usual)
    out = Path(options.out or "looked.png")
    plots.draw_saliency(data, cache, checkpoint, model, options.recording, out, _say)
    return 0


def _guarded(work: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """One line and exit code 2 where the training environment is missing."""

    def run(options: argparse.Namespace) -> int:
        try:
            return work(options)
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package in ("device", "host", "models", "training"):
                raise
            raise BadInput(f"this command needs {package}; run: pip install 'stethopi[train]'") from None

    return run


def _common(
    parser: argparse.ArgumentParser, out: Path | None = Path("runs"), holds: str = "checkpoints and exports"
) -> None:
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), metavar="DIR", help="the recordings"
    )
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=holds)
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("~/.cache/stethopi"),
        metavar="DIR",
        help="features, kept between runs",
    )


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add train, prune, export, release and benchmark to the command line."""
    train = commands.add_parser(
        "train",
        help="train a network, or all on the way to a released bundle",
        description="Train a network. `all` goes the whole way: train, prune, fine-tune, export to int8,"
        " release; steps that are done are skipped.",
    )
    train.add_argument("model", choices=(*_ALL, "quality", "rhythm", "all"))
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
    train.add_argument("--only", choices=_ALL, nargs="+", help="with all: only this model, and no release")
    train.add_argument("--version", help="with all: version of the bundle (default: the product's)")
    train.add_argument(
        "--released", metavar="DIR", help="with all: where bundles go (default: models/released)"
    )
    _common(train)
    train.set_defaults(func=_guarded(_train))

    for name, work, text in (
        ("prune", _prune, "prune a trained network's channels and fine-tune it"),
        ("export", _export, "convert a pruned network to int8, checked by two gates"),
    ):
        parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        parser.add_argument("model", choices=_MODELS if name == "prune" else _ALL)
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
        _common(parser)
        parser.set_defaults(func=_guarded(work))

    plot = commands.add_parser(
        "plot",
        help="draw what the benchmark of screening models found, or where a model looked",
        description="classify: training curves, ROC, confusion and reliability of the models that were"
        " compared, as PNG. looked: what a model heard of a recording, and where it looked. positions: how"
        " sure the bundle is of a murmur at each position of a CirCor patient.",
        epilog="example: stethopi plot looked --model melcnn-attention --recording 68379_MV",
    )
    plot.add_argument("what", choices=("classify", "looked", "positions"))
    plot.add_argument("--model", nargs="+", metavar="NAME", help="these models (default: all)")
    plot.add_argument(
        "--recording",
        metavar="NAME",
        help="looked: a recording below DATA, or a sound file; positions: a patient's number",
    )
    plot.add_argument("--checkpoint", metavar="FILE", help="looked: default what train has left in runs")
    plot.add_argument("--results", metavar="DIR", help="where classify.json lies (default: docs/results)")
    _common(plot, out=None, holds="folder of the pictures, or the picture (default: plots, looked.png)")
    plot.set_defaults(func=_guarded(_plot))

    release = commands.add_parser(
        "release",
        help="put the exported networks together to a bundle",
        description="Check the exported networks and write models/released/VERSION at once or not at all.",
    )
    release.add_argument("--version", help="version of the bundle (default: the product's)")
    release.add_argument("--out", default="runs", metavar="DIR", help="the run folder with the exports")
    release.add_argument("--denoiser", metavar="DIR", help="its export (default: OUT/denoiser)")
    release.add_argument("--classifier", metavar="DIR", help="its export (default: OUT/classifier)")
    release.add_argument("--ecg", metavar="DIR", help="its export (default: OUT/ecg if there; else without)")
    release.add_argument("--released", metavar="DIR", help="where bundles go")
    release.set_defaults(func=_guarded(_release))

    benchmark = commands.add_parser(
        "benchmark",
        help="measure the released models on recordings they never saw",
        description="Measure the bundle on fold 0 and write docs/results/*.json, for the tables.",
    )
    benchmark.add_argument("model", choices=("denoise", "classify", "quality", "ecg", "rhythm"))
    benchmark.add_argument("--bundle", metavar="DIR", help="model bundle (default: the released one)")
    benchmark.add_argument("--results", metavar="DIR", help="where the JSON goes (default: docs/results)")
    benchmark.add_argument("--seed", type=int, default=1, help="of the bootstrap (default 1)")
    benchmark.add_argument(
        "--limit", type=int, metavar="N", help="to try: N recordings a source, or a kind and SNR"
    )
    benchmark.add_argument(
        "--train",
        nargs="+",
        default=[],
        metavar="UNIT",
        help="classify: train what is missing of MODEL/PROTOCOL/PART, such as ours, '*/left-out/f', all",
    )
    benchmark.add_argument(
        "--train-only", action="store_true", help="classify: train, and leave the figures to another run"
    )
    benchmark.add_argument(
        "--only-models",
        action="store_true",
        help="classify: put the comparison together anew; the bundle's figures stay as they were written",
    )
    benchmark.add_argument(
        "--no-noise", action="store_true", help="classify: leave out the recordings with noise put in"
    )
    benchmark.add_argument(
        "--minutes", type=float, metavar="M", help="classify: begin no training after M minutes; run again"
    )
    benchmark.add_argument(
        "--rivals", metavar="DIR", help="denoise: checkpoints of unet-classic and lu-net (default: --out)"
    )
    benchmark.add_argument(
        "--processes", type=int, metavar="N", help="denoise: how many at once (default: one a core)"
    )
    _common(benchmark)
    benchmark.set_defaults(func=_guarded(_benchmark))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.cli", description="Train and release the models."
    )
    add_commands(parser.add_subparsers(metavar="COMMAND", required=True))
    options = parser.parse_args(argv)
    try:
        return int(options.func(options) or 0)
    except StethopiError as error:
        if os.environ.get("DEBUG"):
            raise
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
