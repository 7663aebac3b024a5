"""The errors that a person may see. Each is one line: what, where, the remedy.

StethopiError            ran and failed            exit code 1
├── BadInput             bad input or usage        exit code 2
└── SourceGone           the sound source vanished (unplugged); the caller may try again
"""

from __future__ import annotations

__all__ = ["BadInput", "SourceGone", "StethopiError"]


class StethopiError(Exception):
    """Something went wrong that the program can name. `exit_code` is what the command ends with."""

    exit_code = 1


class BadInput(StethopiError):
    """The user's file, option or setting cannot be used; the text says which and what to do."""

    exit_code = 2


class SourceGone(StethopiError):
    """The sound source stopped delivering (unplugged, device lost)."""
