"""The commands that train, prune, export, release and measure; `stethopi` shows them.

    stethopi train all                   from the data to models/released/<version>; goes on where it was
    stethopi train all --recipe smoke    the same way in a few minutes, with networks good for nothing
    stethopi train classifier            one step of it; likewise denoiser, prune, export, release
    stethopi benchmark classify          fold 0 → docs/results/classify.json

Nothing but the standard library is imported before a command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from device.errors import StethopiError
from training.commands import benchmark, plot, release, train

__all__ = ["add_commands", "main"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add train, prune, export, plot, release and benchmark to the command line."""
    for group in (train, plot, release, benchmark):
        group.add(commands)


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
