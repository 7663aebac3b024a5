"""How a stage runs alone: `python -I -m device.STAGE FILE` prints its own figures on a recording.

An error is one line on stderr, as in every command; 2 is the exit code of wrong usage.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from device.errors import StethopiError

__all__ = ["of_a_file", "one_line_errors"]

P = ParamSpec("P")


def one_line_errors(work: Callable[P, int]) -> Callable[P, int]:
    """What it returns is the exit code; a StethopiError is told in one line and has its own."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return work(*args, **kwargs)
        except StethopiError as error:
            print(f"stethopi: {error}", file=sys.stderr)
            return error.exit_code

    return run


def of_a_file(stage: str) -> Callable[[Callable[[str], int]], Callable[..., int]]:
    """Make a `main(argv=None)` of a function that takes the one argument, a recording's path."""

    def decorate(work: Callable[[str], int]) -> Callable[..., int]:
        @one_line_errors
        def main(argv: list[str] | None = None) -> int:
            arguments = sys.argv[1:] if argv is None else argv
            if len(arguments) != 1:
                print(f"usage: python -I -m device.{stage} FILE", file=sys.stderr)
                return 2
            return work(arguments[0])

        return main

    return decorate
