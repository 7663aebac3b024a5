"""Who learns from whom and who is judged: the ways in which screening models are compared.

    folds/K        subject-wise: fold K is judged, fold K+1 decides, the other three teach
    left-out/S     source S is judged; folds 2 to 4 of the other sources teach, their fold 1 decides
    shuffled/0     as folds/0, but labels and murmurs are dealt out at random within each source's teaching
                   and deciding folds: what is above chance here comes from elsewhere than the heart
    leaky/0        fold 0 is judged by who has learned from all folds, fold 0 among them: what is reported
                   where copies or pieces of the training recordings are the test

A unit is one training: a model, a protocol and its part, `ours/left-out/f`. `presented` gives the recordings
as the teacher of a unit shall see them, in the folds that every teacher of this project keeps to: 2 to 4
teach, 1 decides, 0 is out of sight. So no teacher needs to know of protocols.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from device.errors import BadInput
from training.data.recordings import DATABASES, Recording

__all__ = ["PROTOCOLS", "Unit", "deciding", "judged", "matching", "presented", "units"]

FOLDS = 5

PROTOCOLS = ("leaky", "folds", "left-out", "shuffled")


@dataclass(frozen=True)
class Unit:
    """One training and what it is judged on."""

    model: str
    protocol: str
    part: str
    """The fold, or the source left out."""

    @property
    def name(self) -> str:
        """MODEL/PROTOCOL/PART, as `benchmark --train` takes it."""
        return f"{self.model}/{self.protocol}/{self.part}"


def units(models: Iterable[str], databases: Iterable[str]) -> list[Unit]:
    """All units of some models, the most telling first."""
    sources = [d for d in DATABASES if d in set(databases) and d not in ("c", "d")]
    parts: list[tuple[str, str]] = [("folds", "0")]
    parts += [("left-out", s) for s in ("a", "f", "circor") if s in sources]
    parts += [("shuffled", "0"), ("leaky", "0")]
    parts += [("folds", str(k)) for k in range(1, FOLDS)]
    parts += [("left-out", s) for s in sources if s not in ("a", "f", "circor")]
    return [Unit(model, protocol, part) for model in models for protocol, part in parts]


def matching(patterns: Sequence[str], everything: Sequence[Unit]) -> list[Unit]:
    """The units that a pattern names, such as `ours/left-out/*`, `*/folds/0` or `all`.

    A pattern may end early: `ours` is `ours/*`. BadInput names one that fits none.
    """
    chosen = []
    for pattern in patterns:
        wide = "*" if pattern == "all" else pattern
        found = [
            u
            for u in everything
            if fnmatch.fnmatchcase(u.name, wide) or fnmatch.fnmatchcase(u.name, f"{wide}/*")
        ]
        if not found:
            names = ", ".join(dict.fromkeys(u.model for u in everything))
            raise BadInput(
                f"--train {pattern}: fits no unit; write MODEL/PROTOCOL/PART, models {names},"
                f" protocols {', '.join(PROTOCOLS)}, such as ours/left-out/f"
            )
        chosen += found
    return [u for u in everything if u in chosen]


def _fold(unit: Unit, recording: Recording) -> int:
    """The fold in which a teacher sees a recording: 2 teaches, 1 decides, 0 is out of sight."""
    if unit.protocol == "leaky":
        return 2
    if unit.protocol == "left-out":
        if recording.database == unit.part:
            return 0
        return min(recording.fold, 2)
    turned = (recording.fold - int(unit.part)) % FOLDS
    return min(turned, 2)


def presented(unit: Unit, recordings: Sequence[Recording], seed: int = 1) -> list[Recording]:
    """All recordings in their order, in the folds (and, shuffled, with the labels) that the unit's teacher
    shall see.
    """
    shown = [dataclasses.replace(r, fold=_fold(unit, r)) for r in recordings]
    if unit.protocol != "shuffled":
        return shown
    rng = np.random.default_rng([seed, 4242])
    for database in sorted({r.database for r in shown}):
        for teaching in (True, False):
            rows = [
                k
                for k, r in enumerate(shown)
                if r.database == database and r.fold and (r.fold > 1) == teaching
            ]
            dealt = rng.permutation(rows)
            labels = [(shown[k].label, shown[k].murmur_here) for k in dealt]
            for k, (label, murmur) in zip(rows, labels, strict=True):
                shown[k] = dataclasses.replace(shown[k], label=label, murmur_here=murmur)
    return shown


def judged(unit: Unit, recordings: Sequence[Recording]) -> list[Recording]:
    """The recordings whose scores count, as they are: never those whose subject is unknown."""
    usable = (r for r in recordings if r.reportable and r.label is not None)
    if unit.protocol == "left-out":
        return [r for r in usable if r.database == unit.part]
    return [r for r in usable if r.fold == int(unit.part)]


def deciding(unit: Unit, recordings: Sequence[Recording], seed: int = 1) -> list[Recording]:
    """The recordings on which a unit's operating point is fitted, as its teacher saw them."""
    where = 2 if unit.protocol == "leaky" else 1
    shown = [
        (r, s) for r, s in zip(recordings, presented(unit, recordings, seed), strict=True) if s.fold == where
    ]
    if unit.protocol == "leaky":
        shown = [(r, s) for r, s in shown if r.fold == 1]
    return [s for _, s in shown if s.reportable and s.label is not None]
