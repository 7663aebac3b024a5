"""A short soak: minutes of sound while the broker goes and comes. `python -m tests.soak.run` is longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soak.run import figures, soak, wrong


@pytest.mark.process
def test_minutes_of_exams_leak_nothing(tmp_path: Path) -> None:
    found = soak(3, tmp_path, toggle_s=2.0)
    assert found[-1]["minute"] >= 3 and found[-1]["exams"] >= 2
    told = figures(found)
    # memory needs hours to speak; threads, descriptors and lost sound do not
    assert wrong(told | {"written_besides_mb_a_day_of_exams": 0.0}, long=False) == []


def line(minute: int, **changes: Any) -> dict[str, Any]:
    made = {
        "minute": minute,
        "resident": 60_000_000,
        "threads": 8,
        "descriptors": 12,
        "exams": minute,
        "backlog": 0,
        "dropped_blocks": 0,
        "written": minute * 1_010_000,
        "recorded": minute * 1_000_000,
        "toggles": 3,
    }
    return made | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (lambda n: {"resident": 60_000_000 + 1000 * n}, "memory grows by 1.44 MB a day"),
        (lambda n: {"threads": 8 + n // 20}, "threads grow"),
        (lambda n: {"descriptors": 12 + n // 20}, "descriptors grow"),
        (lambda n: {"dropped_blocks": int(n > 100)}, "1 blocks or windows were dropped"),
        (lambda n: {"written": n * 1_050_000}, "72.0 MB a day written besides recordings"),
        (lambda n: {}, None),
    ],
)
def test_what_would_grow_with_the_weeks_is_found(changes: Any, says: str | None) -> None:
    lines = wrong(figures([line(n, **changes(n)) for n in range(1, 481)]))
    assert len(lines) == (says is not None)
    assert says is None or says in lines[0]


def test_a_single_step_is_no_slope() -> None:
    """The allocator takes a block more once in a while; that is no leak."""
    told = figures([line(n, resident=60_000_000 + 500_000 * (n > 300)) for n in range(1, 481)])
    assert abs(told["resident_slope_mb_a_day"]) < 1.0
