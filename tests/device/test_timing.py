"""Stage times: quantiles within a per cent, missed budgets counted, memory constant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.timing import StageTimer


@given(st.lists(st.floats(2e-6, 50.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.99, 0.999]))
def test_a_quantile_is_within_a_per_cent(times: list[float], share: float) -> None:
    timer = StageTimer("stage", budget_s=1.0)
    for seconds in times:
        timer.add(seconds)
    true = np.quantile(times, share, method="inverted_cdf")
    assert timer.quantile(share) == pytest.approx(true, rel=0.0102)


def test_missed_is_over_the_budget_only() -> None:
    timer = StageTimer("stage", budget_s=0.002)
    for seconds in (0.001, 0.002, 0.0021, 5.0):
        timer.add(seconds)
    figures = timer.figures
    assert (figures.count, figures.missed, figures.worst) == (4, 2, 5.0)


def test_nothing_seen_is_unknown_and_not_zero() -> None:
    figures = StageTimer("stage", budget_s=0.002).figures
    assert (figures.p50, figures.p99, figures.worst) == (None, None, None)
    assert figures.count == 0


def test_with_counts_one_step_even_when_it_fails() -> None:
    timer = StageTimer("stage", budget_s=10.0)
    with pytest.raises(RuntimeError), timer:
        raise RuntimeError
    assert timer.count == 1
    assert timer.p50 is not None and timer.p50 > 0


def test_extremes_stay_inside_the_table() -> None:
    timer = StageTimer("stage", budget_s=1.0)
    for seconds in (0.0, 1e-9, 1e6):
        timer.add(seconds)
    assert timer.quantile(1.0) == pytest.approx(100.0, rel=0.03)
    timer.reset()
    assert timer.p50 is None and timer.missed == 0


@given(st.lists(st.floats(1e-5, 1.0), max_size=50), st.lists(st.floats(1e-5, 1.0), max_size=50))
def test_since_is_what_came_after_the_copy(before: list[float], after: list[float]) -> None:
    timer, only_after = StageTimer("stage", budget_s=0.1), StageTimer("stage", budget_s=0.1)
    for seconds in before:
        timer.add(seconds)
    earlier = timer.copy()
    for seconds in after:
        timer.add(seconds)
        only_after.add(seconds)
    rest, expected = timer.since(earlier).figures, only_after.figures
    assert (rest.count, rest.missed) == (expected.count, expected.missed)
    assert rest.total_s == pytest.approx(expected.total_s, abs=1e-9)
    for found, right in ((rest.p50, expected.p50), (rest.p99, expected.p99), (rest.worst, expected.worst)):
        assert found == (right if right is None else pytest.approx(right, rel=0.021))
    assert earlier.count == len(before)
