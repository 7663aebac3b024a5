"""What a unit of the comparison has left: the scores of each record, and how they came about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.screening.protocols import Unit

__all__ = ["Scored", "unit_folder", "read_unit", "read_scores"]


@dataclass(frozen=True)
class Scored:
    """What a unit leaves behind."""

    unit: Unit
    meta: dict[str, Any]
    records: dict[str, list[str]]
    """`test` and `decide`, and `windows` of recordings trained on in leaky."""
    logits: dict[str, np.ndarray]
    """`test/float`, `decide/int8` …: (n, 2)."""

    @property
    def row(self) -> str:
        """Which of its logits count: `int8` where there are any, else `float`."""
        return "int8" if "test/int8" in self.logits else "float"


def unit_folder(cache: Path, unit: Unit) -> Path:
    """Where a unit leaves its scores, its checkpoint and its int8 file."""
    return Path(cache) / "screening" / unit.model / unit.protocol / unit.part


def read_unit(cache: Path, unit: Unit) -> Scored | None:
    """The scores of a unit that was trained before."""
    return read_scores(unit_folder(cache, unit), unit)


def read_scores(folder: Path, unit: Unit) -> Scored | None:
    """The scores that a unit has left in `folder`; None where there are none."""
    if not (folder / "unit.json").is_file() or not (folder / "scores.npz").is_file():
        return None
    meta = json.loads((folder / "unit.json").read_text("utf-8"))
    with np.load(folder / "scores.npz") as kept:
        arrays = dict(kept)
    records = {key.removeprefix("records/"): v.tolist() for key, v in arrays.items() if key[:8] == "records/"}
    return Scored(unit, meta, records, {k: v for k, v in arrays.items() if k[:8] != "records/"})
