"""The field's protocol, mark by mark: what is right, wrong, missed, and what does not count."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.train

SPANS = [
    (0.0, 0.2, "diastole"),
    (0.2, 0.3, "S1"),
    (0.3, 0.5, "systole"),
    (0.5, 0.6, "S2"),
    (0.6, 1.0, "diastole"),
    (1.0, 1.1, "S1"),
    (1.1, 2.0, "noise"),
    (2.0, 2.3, "diastole"),
    (2.3, 2.4, "S1"),
    (2.4, 2.6, "systole"),
]


def counted(s1: list[float], s2: list[float], tolerance: float = 0.1) -> list[int]:
    from training.rhythm.measure import counts, marks_of

    marks = marks_of(SPANS, 2.6)
    return counts({"S1": np.array(s1), "S2": np.array(s2)}, marks, tolerance).tolist()


def test_right_where_the_middles_lie_within_the_tolerance() -> None:
    assert counted([0.25, 2.35], [0.55]) == [3, 0, 0]
    assert counted([0.33, 2.35], [0.55]) == [3, 0, 0]
    assert counted([0.33, 2.35], [0.55], 0.06) == [2, 1, 1]


def test_a_mark_is_matched_once_and_by_its_own_kind() -> None:
    assert counted([0.22, 0.28, 2.35], [0.55]) == [3, 1, 0]
    assert counted([0.55, 2.35], [0.25]) == [1, 2, 2]


def test_nothing_counts_where_nobody_marked() -> None:
    # the S1 at 1.05 is cut by the noise: finding it is neither right nor wrong
    assert counted([0.25, 1.05, 1.5, 2.35], [0.55, 1.8]) == [3, 0, 0]
    assert counted([], []) == [0, 0, 3]


def test_f1_and_the_marked_rate() -> None:
    from training.rhythm.measure import f1, marked_rate

    assert f1(np.array([3, 1, 2])) == pytest.approx(6 / 9)
    assert np.isnan(f1(np.zeros(3)))
    beats = [(0.8 * k, 0.8 * k + 0.1, "S1") for k in range(5)]
    assert marked_rate(beats) == pytest.approx(75.0)
    assert marked_rate(beats[:3]) is None
    # a stretch without marks is no long beat
    assert marked_rate([*beats, *((a + 10.0, b + 10.0, s) for a, b, s in beats)]) == pytest.approx(75.0)
