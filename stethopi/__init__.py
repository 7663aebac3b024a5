"""stethopi for notebooks and scripts: recordings, cleaning, screening and exams, as the stethoscope computes.

    import stethopi

    recording = stethopi.read("heart.wav")            # float32 at 2 kHz
    clean = stethopi.denoise(recording)               # what one would hear
    found = stethopi.screen(recording)                # found.label, found.probability, found.reasons
    table = stethopi.classify("recordings/")          # a row a file
    with stethopi.open_store("exams/") as store:      # what `stethopi serve` keeps
        exams = store.exams()

It screens; it does not diagnose, and it is no medical device. Every error is a `StethopiError` whose text
names the thing, the place and the remedy. The guide with examples: docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device import __version__
from device.errors import BadInput, SourceGone, StethopiError
from stethopi.exams import ExamStore, StoredExam, open_store
from stethopi.recordings import (
    Classified,
    Recording,
    classify,
    denoise,
    heart_rate,
    open_bundle,
    read,
    screen,
)

if TYPE_CHECKING:
    from device.inference.bundle import Bundle
    from device.screening.verdict import Findings, Label, Window

__all__ = [
    "BadInput",
    "Bundle",
    "Classified",
    "ExamStore",
    "Findings",
    "Label",
    "Recording",
    "SourceGone",
    "StethopiError",
    "StoredExam",
    "Window",
    "__version__",
    "classify",
    "denoise",
    "heart_rate",
    "open_bundle",
    "open_store",
    "read",
    "screen",
]

_LATER = {"Bundle": "device.inference.bundle"} | dict.fromkeys(
    ("Findings", "Label", "Window"), "device.screening.verdict"
)
"""Types that bring NumPy with them, so that they are imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
