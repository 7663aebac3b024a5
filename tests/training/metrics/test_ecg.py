"""Figures on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.train


def test_differences_by_hand() -> None:
    from training.metrics.ecg import cosine, mad, prd, ssd

    clean, out = np.array([0.0, 1.0, 0.0, -1.0]), np.array([0.0, 1.5, 0.5, -1.0])
    assert ssd(clean, out) == pytest.approx(0.5)
    assert mad(clean, out) == pytest.approx(0.5)
    assert prd(clean, out) == pytest.approx(100 * np.sqrt(0.5 / 2))
    assert cosine(clean, clean) == pytest.approx(1)
    assert cosine(clean, -3 * clean) == pytest.approx(-1)
    assert cosine(clean, np.zeros(4)) == 0.0


def test_f1_by_hand() -> None:
    from training.benchmarks.ecg import matched_f1

    wanted = np.array([100.0, 200, 300, 400])
    assert matched_f1(wanted + 5, wanted, 10) == 1.0
    assert matched_f1(np.array([100.0, 105, 200, 300]), wanted, 10) == pytest.approx(2 * 3 / 8)
    assert matched_f1(np.zeros(0), wanted, 10) == 0.0
    assert matched_f1(wanted + 11, wanted, 10) == 0.0
    assert matched_f1(np.zeros(0), np.zeros(0), 10) == 1.0


def test_width_and_st_level_follow_the_signal() -> None:
    from training.benchmarks.ecg import qrs_edges, st_level

    n = np.arange(720)
    narrow = np.exp(-0.5 * ((n - 360) / 5) ** 2)
    wide = np.exp(-0.5 * ((n - 360) / 10) ** 2)
    a, b = qrs_edges(narrow, 360), qrs_edges(wide, 360)
    assert a[0] < 360 < a[1]
    assert 1.5 < (b[1] - b[0]) / (a[1] - a[0]) < 2.2
    raised = narrow + 0.3 * (n > 375)
    assert st_level(raised, *a) - st_level(narrow, *a) == pytest.approx(0.3, abs=0.01)
