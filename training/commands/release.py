"""`stethopi release`: the exported networks together become a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.common import command_typed, guarded

__all__ = ["add", "product_version"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    release.set_defaults(func=guarded(_release))


def _release(options: argparse.Namespace) -> int:
    from training.core.provenance import RELEASED
    from training.release.release import release

    out = Path(options.out)
    parts = {"denoiser": Path(options.denoiser or out / "denoiser")}
    parts["classifier"] = Path(options.classifier or out / "classifier")
    if options.ecg or (out / "ecg" / "ecg.json").is_file():
        parts["ecg"] = Path(options.ecg or out / "ecg")
    target = release(
        parts,
        options.version or product_version(),
        out=Path(options.released) if options.released else RELEASED,
        command=command_typed(),
    )
    print(target)
    return 0


def product_version() -> str:
    from device import __version__

    return __version__
