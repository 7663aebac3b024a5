"""Where S1, systole, S2 and diastole lie in a recording, from a CSV file beside it.

    record,start_s,end_s,state          one row a state, or
    record,start_s,state                each lasts until the next one of the same recording begins

`record` is the recording's file name without its ending; seconds count from its start.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from pathlib import Path

from device.errors import BadInput
from device.text import read_text

__all__ = ["NAME", "HeartState", "read_states"]

NAME = "states.csv"
"""The file that is looked for beside a recording."""

_REMEDY = "columns are record,start_s,end_s,state or record,start_s,state"


@dataclass(frozen=True)
class HeartState:
    """One state of the heart cycle, seconds from the start of the recording. `end_s` is inf where the last
    one has no end."""

    start_s: float
    end_s: float
    state: str


@lru_cache(maxsize=4)
def read_states(path: Path) -> dict[str, list[HeartState]]:
    """Record → its states in the order of time. BadInput, with the line, for a file that holds none."""
    try:
        text = read_text(path)
    except OSError as error:
        raise BadInput(
            f"{path}: the states cannot be read ({error.strerror}); give another --states file"
        ) from None
    return _parse(path, csv.DictReader(io.StringIO(text)))


def _parse(path: Path, rows: csv.DictReader[str]) -> dict[str, list[HeartState]]:
    if not {"record", "start_s", "state"} <= set(rows.fieldnames or ()):
        raise BadInput(f"{path}: no table of states; its {_REMEDY}")
    found: dict[str, list[HeartState]] = {}
    for row in rows:
        try:
            start_s = float(row["start_s"])
            end_s = float(row["end_s"]) if row.get("end_s") else inf
        except (TypeError, ValueError):
            start_s, end_s = inf, inf
        if not isfinite(start_s) or not 0 <= start_s <= end_s or not row["record"] or not row["state"]:
            raise BadInput(f"{path}, line {rows.line_num}: no state of a recording; {_REMEDY}")
        found.setdefault(row["record"], []).append(HeartState(start_s, end_s, row["state"]))
    for record, states in found.items():
        states.sort(key=lambda state: state.start_s)
        after = [state.start_s for state in states[1:]] + [inf]
        found[record] = [
            HeartState(state.start_s, min(state.end_s, until), state.state)
            for state, until in zip(states, after, strict=True)
        ]
    return found
