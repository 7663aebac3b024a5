"""The frame of a training: the same weights however often it was broken off, averaged where asked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.errors import StethopiError

pytestmark = pytest.mark.train


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from training.core.loop import TrainingPlan, learn

    def trained(plan: TrainingPlan, checkpoint: Path | None) -> list[list[float]]:
        torch.manual_seed(1)
        net, beside = nn.Linear(3, 1), nn.Parameter(torch.zeros(1))

        def loss_of(step: int) -> torch.Tensor:
            # the seed is set for each step, so that what is drawn inside belongs to the step
            x = torch.randn(8, 3)
            return ((net(x) + beside - x.sum(1, keepdim=True)) ** 2).mean()

        curve = learn(net, loss_of, plan, beside=[beside], checkpoint=checkpoint, key="k")
        assert not net.training
        return [p.flatten().tolist() for p in net.parameters()] + [[c["step"], c["loss"]] for c in curve]

    plan = TrainingPlan(steps=12, learning_rate=0.05, weight_decay=0.01, seed=4, every=4, average=0.9)
    whole = trained(plan, None)
    file = tmp_path / "resume.pt"
    trained(dataclasses.replace(plan, stop_at=8), file)
    assert trained(plan, file) == whole
    assert trained(dataclasses.replace(plan, average=None), None) != whole
    assert [point[0] for point in whole[2:]] == [4, 8, 12]


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
    from training.denoise import apply
    from training.denoise import baselines as rivals
    from training.denoise import train as denoiser
    from training.ecg import train as ecg
    from training.screening import baselines as screeners
    from training.screening import train as classifier

    return {
        "denoiser": apply.load_net,
        "denoiser, resumed": lambda path: denoiser.kept_checkpoint(path, {}),
        "rival": rivals.load_baseline,
        "ecg": ecg.load_system,
        "classifier": classifier.load_checkpoint,
        "screener": screeners.load_screener_net,
    }


NAMES = ("denoiser", "denoiser, resumed", "rival", "ecg", "classifier", "screener")


@pytest.mark.parametrize("name", NAMES)
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

    from training.core.loop import load, save

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
