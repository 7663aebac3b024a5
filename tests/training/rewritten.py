"""The same programs in other words: what a rename, a move or a better comment does to their text."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest


def rewrite(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on, whoever asks for the text of a module of ours, of a class or function gets another one.

    Every module that is loaded is meant, under whatever name: one that computes a figure is loaded by then.
    """
    text = folder / "rewritten.py"
    text.write_text('"""In other words."""\n')
    ours = [
        module
        for name, module in sys.modules.items()
        if name.split(".")[0] in ("device", "models", "training") and getattr(module, "__file__", None)
    ]
    assert len(ours) > 20, "the programs whose text is asked for are not loaded"
    for module in ours:
        patch.setattr(module, "__file__", str(text))
    patch.setattr(inspect, "getsource", lambda thing: text.read_text())
    patch.setattr(inspect, "getfile", lambda thing: str(text))
