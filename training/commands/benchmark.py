"""`stethopi benchmark`: the released models on recordings they never saw."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training.commands.common import command_typed, common_options, guarded, one_thread, say

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    benchmark = commands.add_parser(
        "benchmark",
        help="measure the released models on recordings they never saw",
        description="Measure the bundle on fold 0 and write docs/results/*.json, for the tables.",
    )
    benchmark.add_argument("model", choices=("denoise", "classify", "quality", "ecg"))
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
        "--baselines", metavar="DIR", help="denoise: checkpoints of unet-classic and lu-net (default: --out)"
    )
    benchmark.add_argument("--rivals", dest="baselines", help=argparse.SUPPRESS)  # its name up to 0.3.0
    benchmark.add_argument(
        "--processes", type=int, metavar="N", help="denoise: how many at once (default: one a core)"
    )
    common_options(benchmark)
    benchmark.set_defaults(func=guarded(_benchmark))


def _benchmark(options: argparse.Namespace) -> int:
    measure = {"classify": _classify, "ecg": _ecg, "quality": _quality, "denoise": _denoise}[options.model]
    return measure(options) or 0


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "bundle": Path(options.bundle) if options.bundle else None,
        "results": Path(options.results) if options.results else None,
        "seed": options.seed,
        "limit": options.limit,
        "command": command_typed(),
        "say": say,
    }


def _classify(options: argparse.Namespace) -> None:
    from training.benchmarks.classify import benchmark_classify

    benchmark_classify(
        Path(options.data),
        Path(options.cache).expanduser(),
        checkpoints=Path(options.out),
        train=options.train,
        train_only=options.train_only,
        minutes=options.minutes,
        noise=not options.no_noise,
        only_models=options.only_models,
        **_shared(options),
    )


def _ecg(options: argparse.Namespace) -> None:
    from training.benchmarks.ecg import benchmark_ecg

    one_thread()
    cache, checkpoints = Path(options.cache).expanduser(), Path(options.out)
    benchmark_ecg(Path(options.data), cache, checkpoints=checkpoints, **_shared(options))


def _quality(options: argparse.Namespace) -> None:
    from training.benchmarks.quality import benchmark_quality

    benchmark_quality(Path(options.data), cache=Path(options.cache).expanduser(), **_shared(options))


def _denoise(options: argparse.Namespace) -> int:
    from training.benchmarks import denoise

    arguments = []
    for name in ("data", "out", "cache", "seed", "limit", "baselines", "processes", "bundle", "results"):
        value = getattr(options, name)
        if value is not None:
            arguments += [f"--{name}", str(value)]
    return denoise.main(arguments)
