"""The loop of every training: the same weights however often broken off; no step gone wrong is kept."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.errors import StethopiError

pytestmark = pytest.mark.train


Line = tuple[np.ndarray, np.ndarray]


class Task:
    """A line to be fitted: a net, batches that know their files, and what the loop takes."""

    def __init__(self) -> None:
        import torch

        torch.manual_seed(1)
        self.net = torch.nn.Linear(3, 1)
        self.drawn: list[str] = []
        self.spoilt: dict[int, float] = {}

    def draw(self, step: int) -> Line:
        self.drawn = [f"record-{step}", "record-0"]
        x = np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32)
        return x * np.float32(self.spoilt.get(step, 1.0)), x.sum(1, keepdims=True)

    def loss_of(self, batch: Line, step: int) -> Any:
        import torch

        x, wanted = map(torch.from_numpy, batch)
        # the seed is set for each step, so that what is drawn inside belongs to the step
        return ((self.net(x + 0.1 * torch.randn(8, 3)) - wanted) ** 2).mean()

    def learn(self, plan: Any, path: Path | None = None, because: Any = "k", **more: Any) -> Any:
        import torch

        from training.core.loop import Checkpoint, learn
        from training.core.schedules import warm_cosine

        optimizer = torch.optim.AdamW(self.net.parameters(), 0.05)
        kept = Checkpoint(path, because) if path else None
        schedule = warm_cosine(0.05, 2, plan.steps)
        return learn(
            self.net, self.draw, self.loss_of, optimizer, schedule, plan,
            checkpoint=kept, files=lambda: self.drawn, **more,
        )  # fmt: skip

    def weights(self) -> list[list[float]]:
        return [p.flatten().tolist() for p in self.net.parameters()]


def plan_of(**changes: Any) -> Any:
    from training.core.loop import TrainingPlan

    return dataclasses.replace(TrainingPlan(steps=12, seed=4, every=4, average=0.9), **changes)


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    whole, file = Task(), tmp_path / "resume.pt"
    curve = whole.learn(plan_of()).curve
    assert [step for step, _ in curve] == [4, 8, 12]
    Task().learn(plan_of(stop_at=6), file)
    said: list[str] = []
    resumed = Task()
    done = resumed.learn(plan_of(), file, say=said.append)
    assert said[0] == "resumed at step 6 of 12"
    assert resumed.weights() == whole.weights() and not resumed.net.training
    assert done.curve[-1] == curve[-1]
    anew = Task()
    anew.learn(plan_of(), file, because="another", say=said.append)
    assert "resume.pt: of another recipe; beginning anew" in said
    last = Task()
    last.learn(plan_of(average=None))
    assert last.weights() != whole.weights() == anew.weights()


def test_ctrl_c_ends_the_step_and_the_training_goes_on_from_there(tmp_path: Path) -> None:
    whole, broken, resumed = Task(), Task(), Task()
    whole.learn(plan_of())
    file = tmp_path / "resume.pt"
    draw = broken.draw

    def interrupted(step: int) -> Line:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(step)

    broken.draw = interrupted  # type: ignore[method-assign]
    before, said = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt):
        broken.learn(plan_of(), file, say=said.append)
    assert signal.getsignal(signal.SIGINT) is before
    assert said[-1] == f"step 5/12  broken off; kept in {file}"
    assert resumed.learn(plan_of(), file, say=said.append).step == 12
    assert "resumed at step 5 of 12" in said and resumed.weights() == whole.weights()


@pytest.mark.parametrize(("spoilt", "what"), [(float("nan"), "loss is nan"), (1e30, "loss is inf")])
def test_a_loss_that_is_no_number_ends_the_training_and_leaves_nothing(
    tmp_path: Path, spoilt: float, what: str
) -> None:
    task, file = Task(), tmp_path / "resume.pt"
    task.spoilt = {2: spoilt}
    with pytest.raises(StethopiError, match=rf"^step 3/12: the {what}.*: record-2, record-0; ") as told:
        task.learn(plan_of(every=1, save_after_s=600.0), file)
    assert told.value.exit_code == 1 and "\n" not in str(told.value)
    assert not file.exists()
    # what was kept before it stays, and is sound
    with pytest.raises(StethopiError):
        task.learn(plan_of(every=1), file)
    assert load_step(file) == 2


def test_a_gradient_that_is_no_number_never_reaches_the_weights(tmp_path: Path) -> None:
    task = Task()
    plain = task.loss_of

    def steep(batch: Line, step: int) -> Any:
        loss = plain(batch, step)
        return loss if step < 2 else (loss - loss.detach()).sqrt()  # 0, and infinitely steep

    task.loss_of = steep  # type: ignore[method-assign]
    with pytest.raises(StethopiError, match="step 3/12: the gradient is"):
        task.learn(plan_of(every=1), tmp_path / "resume.pt")
    assert np.isfinite(task.weights()[0]).all()


def load_step(path: Path) -> int:
    from training.core.checkpoint import load

    return int(load(path)["step"])


def test_it_is_validated_in_between_and_at_the_end_by_the_averaged_weights() -> None:
    task, seen, said = Task(), [], []

    def validate(weights: Any) -> dict[str, float]:
        seen.append(weights["weight"].clone())
        return {"error": 1.0}

    done = task.learn(plan_of(validate_every=5), validate=validate, say=said.append)
    assert [step for step, _ in done.validations] == [5, 10, 12] and done.validation == {"error": 1.0}
    assert seen[-1].tolist() == task.net.weight.tolist()
    assert "step 10/12  error 1.000" in said


@pytest.mark.parametrize("steps", [5, 30, 121, 4000])
def test_one_cycle_is_torchs_to_the_bit(steps: int) -> None:
    import torch

    from training.core.schedules import one_cycle

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 3e-3)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=steps, pct_start=0.5, div_factor=10, final_div_factor=100
    )
    ours = one_cycle(3e-3, steps, rising=0.5, below_first=10, below_last=100)
    for step in range(steps):
        group = optimizer.param_groups[0]
        assert ours(step) == {"lr": group["lr"], "betas": group["betas"]}
        optimizer.step()
        if step + 1 < steps:
            theirs.step()
