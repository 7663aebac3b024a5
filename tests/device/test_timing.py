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
