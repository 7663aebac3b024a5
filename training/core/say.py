"""Words to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["Say", "say"]

Say = Callable[[str], None]
"""Where a line for the person at the terminal goes."""


def say(text: str) -> None:
    """A line at once, beside what a program prints."""
    print(text, file=sys.stderr, flush=True)
