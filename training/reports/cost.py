"""The tables of docs/cost.md, from what `make bench-arm64` counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["TABLES", "counts_table", "energy_table", "step_table"]

_CLOCK_HZ = 1e9
"""A Pi Zero 2 W's."""
_INSTRUCTIONS_A_CYCLE = 0.7
"""Assumed: an in-order core that seldom waits for memory."""
_IDLE_MA = 100.0
_ACTIVE_MA = 350.0
"""All four cores; the maker's typical figure for the bare board. A core is taken as a quarter of the rise."""
_EXAMS_A_DAY, _EXAM_S = 60, 48.0


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def counts_table(result: Mapping[str, Any]) -> str:
    """Million instructions for a second of sound, by stage and interpreter; start-up."""
    found = list(result["counts"].values())
    head = ["million arm64 instructions for a second of sound", *(one["interpreter"] for one in found)]
    rows = [
        [name, *(f"{one['second'][name] / 1e6:.1f}" for one in found)]
        for name in found[0]["second"]
        if name != "mel"
    ]
    rows.append(["of classify: mel", *(f"{one['second']['mel'] / 1e6:.1f}" for one in found)])
    rows.append(["**all, less the ECG**", *(f"**{one['whole'] / 1e6:.1f}**" for one in found)])
    rows.append(
        [
            "start to the first sample heard, once",
            *(f"{one['start']['first sample'] / 1e6:,.0f}" for one in found),
        ]
    )
    return _table(head, rows)


def step_table(result: Mapping[str, Any]) -> str:
    """A step of 8 ms by its parts."""
    found = list(result["counts"].values())
    head = ["arm64 instructions a step of 8 ms", *(one["interpreter"] for one in found)]
    rows = [[name, *(f"{one['step'][name]:,}" for one in found)] for name in found[0]["step"]]
    return _table(head, rows)


def energy_table(result: Mapping[str, Any]) -> str:
    """mAh of a day, an estimate."""
    found = list(result["counts"].values())
    hours = _EXAMS_A_DAY * _EXAM_S / 3600
    rows = []
    for name, value in (
        ("share of one core", lambda one: f"{100 * _share(one):.0f} %"),
        ("mA above idle while it listens", lambda one: f"{_share(one) * _core_ma():.0f}"),
        (
            f"mAh for {_EXAMS_A_DAY} exams of {_EXAM_S:.0f} s, computing",
            lambda one: f"{_share(one) * _core_ma() * hours:.0f}",
        ),
        ("mAh of the idle board in these minutes", lambda one: f"{_IDLE_MA * hours:.0f}"),
        ("mAh of the idle board in 8 hours", lambda one: f"{_IDLE_MA * 8:.0f}"),
    ):
        rows.append([name, *(value(one) for one in found)])
    return _table(["estimate, Pi Zero 2 W at 5 V", *(one["interpreter"] for one in found)], rows)


def _share(one: Mapping[str, Any]) -> float:
    return float(one["whole"]) / (_CLOCK_HZ * _INSTRUCTIONS_A_CYCLE)


def _core_ma() -> float:
    return (_ACTIVE_MA - _IDLE_MA) / 4


TABLES = (("arm64-stages", counts_table), ("arm64-step", step_table), ("arm64-energy", energy_table))
"""(marker in docs/cost.md, what makes the table)."""
