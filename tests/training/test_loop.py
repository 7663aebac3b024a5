"""The frame of a training: the same weights however often it was broken off, averaged where asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytestmark = pytest.mark.train


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from training.loop import Plan, learn

    def trained(plan: Plan, checkpoint: Path | None) -> list[list[float]]:
        torch.manual_seed(1)
        net, beside = nn.Linear(3, 1), nn.Parameter(torch.zeros(1))

        def loss_of(step: int) -> torch.Tensor:
            # the seed is set for each step, so that what is drawn inside belongs to the step
            x = torch.randn(8, 3)
            return ((net(x) + beside - x.sum(1, keepdim=True)) ** 2).mean()

        curve = learn(net, loss_of, plan, beside=[beside], checkpoint=checkpoint, key="k")
        assert not net.training
        return [p.flatten().tolist() for p in net.parameters()] + [[c["step"], c["loss"]] for c in curve]

    plan = Plan(steps=12, learning_rate=0.05, weight_decay=0.01, seed=4, every=4, average=0.9)
    whole = trained(plan, None)
    file = tmp_path / "resume.pt"
    trained(dataclasses.replace(plan, stop_at=8), file)
    assert trained(plan, file) == whole
    assert trained(dataclasses.replace(plan, average=None), None) != whole
    assert [point[0] for point in whole[2:]] == [4, 8, 12]
