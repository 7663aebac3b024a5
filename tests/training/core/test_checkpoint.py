"""Checkpoints: plain values alone, and a file that is none is told and never run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.errors import StethopiError

pytestmark = pytest.mark.train


class Bomb:
    """What a pickle may do to who reads it: here, leave a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def old_format(mark: Path) -> Any:
    """As 0.3.0 may have written it: NumPy's numbers among plain ones."""
    return {"step": 7, "curve": [(1, np.float64(0.5))]}


def readers() -> dict[str, Callable[[Path], object]]:
    from training.core import checkpoint
    from training.denoise import apply
    from training.denoise import baselines as denoising_baselines
    from training.ecg import systems
    from training.screening import baselines as screening_baselines
    from training.screening import train as classifier

    return {
        "denoiser": apply.load_net,
        "resumed": lambda path: checkpoint.of_recipe(path, {}, print),
        "denoising baseline": denoising_baselines.load_baseline,
        "ecg": systems.load_system,
        "classifier": classifier.load_checkpoint,
        "screening baseline": screening_baselines.load_screening_baseline_net,
    }


READERS = ("denoiser", "resumed", "denoising baseline", "ecg", "classifier", "screening baseline")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [Bomb, old_format, lambda mark: [1, 2], lambda mark: None])
def test_a_file_that_is_no_checkpoint_is_one_line_and_never_run(
    name: str, content: Callable[[Path], Any], tmp_path: Path
) -> None:
    import torch

    path, mark = tmp_path / "lu-net.pt", tmp_path / "mark"
    torch.save(content(mark), path)
    if content(mark) is None:
        path.write_bytes(b"no such thing")
    with pytest.raises(StethopiError, match=r"lu-net\.pt: .*delete it and train again") as told:
        readers()[name](path)
    assert "\n" not in str(told.value) and not mark.exists()


def test_a_checkpoint_holds_plain_values_alone(tmp_path: Path) -> None:
    import torch

    from training.core.checkpoint import load, save

    net = torch.nn.BatchNorm1d(2)
    path = tmp_path / "kept.pt"
    curve = [(np.int64(3), np.float32(0.5))]
    save(path, {"net": net.state_dict(), "curve": curve, "from": tmp_path, "fine": np.bool_(True), 2: None})
    kept = load(path)
    assert kept["curve"] == [(3, 0.5)] and kept["from"] == str(tmp_path) and kept["fine"] is True
    assert kept[2] is None
    assert [type(value) for value in kept["curve"][0]] == [int, float]
    net.load_state_dict(kept["net"])
    with pytest.raises(TypeError, match="Bomb"):
        save(path, {"x": [Bomb(tmp_path / "mark")]})
    assert load(path)["fine"] is True, "the former one stays"
