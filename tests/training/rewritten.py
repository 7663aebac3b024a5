"""The same programs in other words: what a rename, a move or a better comment does to their text."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

MODULES = (
    *(
        "device.screening.features",
        "device.screening.baseline_features",
        "device.dsp.mel",
        "device.listening.presets",
        "device.screening.quality",
    ),
    *(
        "device.screening.screen",
        "models.ecg",
        "models.ecg_rivals",
        "training.benchmarks.ecg",
        "training.denoise.classical",
    ),
    *("training.data.recordings", "training.ecg.train", "training.metrics.denoising", "training.data.mixing"),
)


def rewrite(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on, whoever asks for the text of a module, class or function gets another one."""
    text = folder / "rewritten.py"
    text.write_text('"""In other words."""\n')
    # those that are loaded: some need the training environment
    for name in MODULES:
        if name in sys.modules:
            patch.setattr(sys.modules[name], "__file__", str(text))
    patch.setattr(inspect, "getsource", lambda thing: text.read_text())
    patch.setattr(inspect, "getfile", lambda thing: str(text))
