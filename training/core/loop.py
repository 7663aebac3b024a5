"""The one loop of every training: batches, rates, averaged weights, checkpoints, the curve, what goes wrong.

What is learned from is the caller's: `draw` gives the batch of a step, `loss_of` its loss, `validate` the
figures by which the training is followed. A batch is a function of (seed, step), so a run that is stopped and
resumed gives the same weights as one that was not.

    loop.repeatable()
    done = loop.learn(net, drawer.batch, loss_of, optimizer, warm_cosine(1e-3, 100, 4000), plan,
                      checkpoint=Checkpoint(out / "net.pt", because=recipe), validate=figures)
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from device.errors import StethopiError
from training.core import checkpoint as checkpoints
from training.core.say import Say
from training.core.schedules import Schedule

__all__ = ["Checkpoint", "Progress", "TrainingPlan", "layout_for", "learn", "repeatable"]

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainingPlan:
    """How far, and what happens on the way."""

    steps: int
    seed: int | None
    """What a network draws itself (dropout) is a function of (seed, step). None: it draws on from where torch
    stands, so that such a training cannot be resumed."""
    every: int = 100
    """Steps from one point of the curve, and line said, to the next."""
    validate_every: int = 0
    """Steps from one validation to the next; 0: after the last step only."""
    save_after_s: float = 0.0
    """A checkpoint is written with a point of the curve, when the one before is so old."""
    first_draw: int = 0
    """Number of the first step's batch, so that each of several trainings draws its own."""
    clip: float = math.inf
    """Longest gradient, over all parameters of the net."""
    average: float | None = None
    """Decay of the running mean of the weights, which is what is kept; None: the last weights are."""
    interpolated: bool = True
    """The mean moves by one interpolation; False: by two products, which differs in rounding alone. A recipe
    keeps to the one its released weights were made by."""
    stop_at: int | None = None
    """Break off after this step, with a checkpoint (for tests)."""


@dataclass
class Progress:
    """Where a training stands, beside the weights."""

    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the point before)."""
    validations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Since the last point of the curve."""

    @property
    def validation(self) -> dict[str, float]:
        """The last one; empty where none was made."""
        return self.validations[-1][1] if self.validations else {}


@dataclass(frozen=True)
class Checkpoint:
    """Where a training is kept, and whether it goes on from there."""

    path: Path
    because: Any
    """All that decides the weights, as plain values: a checkpoint of other causes is not gone on with."""
    resume: bool = True
    more: Callable[[Progress], Mapping[str, Any]] = lambda progress: {}
    """What else is kept beside net, average, optimizer, step, steps, seconds, curve, validations."""
    take_up: Callable[[Mapping[str, Any]], None] = lambda kept: None
    """Told what a checkpoint holds that is gone on with."""


def repeatable() -> None:
    """One thread, and torch's algorithms that give the same bits every time."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)


def layout_for(channels: Sequence[int]) -> torch.memory_format:
    """The order in memory for a net whose convolutions have so many channels.

    channels_last is twice as fast on a CPU; but torch 2.13 writes beyond its memory in the backward pass of a
    strided pointwise convolution of twelve channels or fewer.
    """
    return torch.channels_last if min(channels) >= 16 else torch.contiguous_format


def learn(
    net: nn.Module,
    draw: Callable[[int], Batch],
    loss_of: Callable[[Batch, int], torch.Tensor],
    optimizer: Any,
    schedule: Schedule,
    plan: TrainingPlan,
    *,
    checkpoint: Checkpoint | None = None,
    validate: Callable[[Mapping[str, torch.Tensor]], dict[str, float]] | None = None,
    describe: Callable[[Mapping[str, float]], str] | None = None,
    files: Callable[[], Sequence[str]] = tuple,
    name: str = "step",
    say: Say = lambda text: None,
) -> Progress:
    """Train `net` in place; then it has the averaged weights, where there are such, and is in eval mode.

    draw: number of a batch, from `plan.first_draw` → batch. loss_of: batch, step from 0 → loss.
    validate: weights to judge (averaged, where there are such) → figures, which `describe` puts in words.
    files: the names of the recordings in the batch drawn last.

    StethopiError when a loss or gradient is not finite: it names step and files, and nothing is written.
    Ctrl-C ends the step, writes the checkpoint and raises KeyboardInterrupt; a second one does not wait.
    """
    torch.set_num_threads(1)
    state = _State(net, optimizer, plan, checkpoint, name, say)
    state.resume()
    progress, begin = state.progress, state.progress.step
    begun = saved = time.monotonic()
    before_s = progress.seconds
    with _interruptible() as interrupted:
        for step in range(begin, plan.steps):
            batch = draw(plan.first_draw + step)
            if plan.seed is not None:
                torch.manual_seed(plan.seed * 1_000_003 + plan.first_draw + step)
            net.train()
            for group in optimizer.param_groups:
                group.update(schedule(step))
            loss = loss_of(batch, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), plan.clip)
            for what, value in (("loss", float(loss.detach())), ("gradient", float(norm))):
                if not math.isfinite(value):
                    raise _not_finite(name, step + 1, plan.steps, what, value, files())
            optimizer.step()
            state.average_in(step)
            done = progress.step = step + 1
            progress.seconds = before_s + time.monotonic() - begun
            progress.losses.append(float(loss.detach()))
            last = done in (plan.steps, plan.stop_at)
            marked = last or done % plan.every == 0
            if marked:
                state.mark((time.monotonic() - begun) / (done - begin))
            if validate is not None and (last or (plan.validate_every and done % plan.validate_every == 0)):
                state.validated(validate(state.weights), describe or _in_words)
            if last or interrupted() or (marked and time.monotonic() - saved >= plan.save_after_s):
                state.save()
                saved = time.monotonic()
            if interrupted():
                if checkpoint is not None:
                    say(f"{name} {done}/{plan.steps}  broken off; kept in {checkpoint.path}")
                raise KeyboardInterrupt
            if done == plan.stop_at:
                break
    if plan.average is not None:
        net.load_state_dict(state.weights)
    net.eval()
    return progress


class _State:
    """A training as it goes: what a checkpoint holds, taken up and put down."""

    def __init__(
        self,
        net: nn.Module,
        optimizer: Any,
        plan: TrainingPlan,
        checkpoint: Checkpoint | None,
        name: str,
        say: Say,
    ) -> None:
        self.net, self.optimizer, self.plan = net, optimizer, plan
        self.checkpoint, self.name, self.say = checkpoint, name, say
        self.progress = Progress()
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Those that are kept in the end."""
        return self.average if self.plan.average is not None else self.net.state_dict()

    def resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.resume:
            return
        kept = checkpoints.of_recipe(self.checkpoint.path, self.checkpoint.because, self.say)
        if kept is None:
            return
        self.net.load_state_dict(kept["net"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.average = kept.get("average", self.average)
        self.progress = Progress(
            kept["step"],
            kept["seconds"],
            list(kept["curve"]),
            list(kept.get("validations", ())),
            list(kept.get("losses", ())),
        )
        self.checkpoint.take_up(kept)
        self.say(f"{self._prefix}resumed at step {self.progress.step} of {self.plan.steps}")

    @property
    def _prefix(self) -> str:
        return "" if self.name == "step" else f"{self.name}: "

    def average_in(self, step: int) -> None:
        if self.plan.average is None:
            return
        decay = min(self.plan.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in self.net.state_dict().items():
                if not value.is_floating_point():
                    self.average[key].copy_(value)
                elif self.plan.interpolated:
                    self.average[key].lerp_(value, 1 - decay)
                else:
                    self.average[key].mul_(decay).add_(value, alpha=1 - decay)

    def mark(self, pace_s: float) -> None:
        """A point of the curve."""
        progress = self.progress
        loss = sum(progress.losses) / len(progress.losses)
        progress.curve.append((progress.step, loss))
        progress.losses.clear()
        self.say(
            f"{self.name} {progress.step}/{self.plan.steps}  loss {loss:.4f}"
            f"  {progress.seconds / 60:.1f} min, {pace_s * 1e3:.0f} ms a step"
        )

    def validated(self, found: dict[str, float], describe: Callable[[Mapping[str, float]], str]) -> None:
        if found:
            self.progress.validations.append((self.progress.step, found))
            self.say(f"{self.name} {self.progress.step}/{self.plan.steps}  {describe(found)}")

    def save(self) -> None:
        if self.checkpoint is None:
            return
        progress = self.progress
        checkpoints.save(
            self.checkpoint.path,
            {
                "because": self.checkpoint.because,
                "net": self.net.state_dict(),
                **({"average": self.average} if self.plan.average is not None else {}),
                "optimizer": self.optimizer.state_dict(),
                "step": progress.step,
                "steps": self.plan.steps,
                "seconds": progress.seconds,
                "curve": progress.curve,
                "validations": progress.validations,
                "losses": progress.losses,
                **self.checkpoint.more(progress),
            },
        )


def _in_words(found: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {value:.3f}" for key, value in found.items())


def _not_finite(
    name: str, step: int, steps: int, what: str, value: float, files: Sequence[str]
) -> StethopiError:
    heard = f"; its batch: {', '.join(dict.fromkeys(files))}" if files else ""
    return StethopiError(
        f"{name} {step}/{steps}: the {what} is {value}, not a number to learn from, and nothing of this step"
        f" was kept{heard}; mend the recordings, or lower the rate in the recipe"
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is only noted, once, so that the step at hand is finished; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def note(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
