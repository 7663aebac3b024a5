"""What the commands share: words to the terminal, options, a line where the training environment is missing.

Nothing but the standard library is imported before a command runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from device.errors import BadInput
from training.core.say import say

__all__ = [
    "EVERY_MODEL",
    "MODELS_TO_PRUNE",
    "command_typed",
    "common_options",
    "guarded",
    "one_thread",
    "say",
]

MODELS_TO_PRUNE = ("denoiser", "classifier")
"""What every bundle holds, and what is pruned."""
EVERY_MODEL = (*MODELS_TO_PRUNE, "ecg-denoiser")
"""What `train all` trains."""


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def command_typed() -> str:
    """What was typed, without the folder of the program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def guarded(work: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """One line and exit code 2 where the training environment is missing."""

    def run(options: argparse.Namespace) -> int:
        try:
            return work(options)
        except KeyboardInterrupt:
            say("stethopi: stopped; a command with --resume goes on from what is kept")
            return 130
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package in ("device", "host", "models", "training"):
                raise
            raise BadInput(f"this command needs {package}; run: pip install 'stethopi[train]'") from None

    return run


def common_options(
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
