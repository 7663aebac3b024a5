"""What the process tests send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def long_recording(tmp_path: Path) -> Path:
    """Noise that FLAC cannot make small, so that its sound is delivered in several chunks."""
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, 2000 * 28).astype(np.float32)
    path = tmp_path / "noise.flac"
    soundfile.write(path, noise, 2000, subtype="PCM_24")
    return path
