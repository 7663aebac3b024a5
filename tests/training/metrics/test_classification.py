"""Figures of screening against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics.classification import (
    calibration_error,
    chance_error,
    confusion,
    fit_bias,
    fit_classes,
    referrals,
    reliability,
    scores,
    weighted_accuracy,
)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        # truth: 2 present, 1 unknown, 3 absent: weights 10 + 3 + 3 = 16
        (["present", "present", "unknown", "absent", "absent", "absent"], 1.0),
        (["present", "absent", "unknown", "absent", "absent", "absent"], 11 / 16),
        (["present", "present", "absent", "present", "absent", "absent"], 12 / 16),
        (["absent"] * 6, 3 / 16),
        (["unknown"] * 6, 3 / 16),
        (["present"] * 6, 10 / 16),
    ],
)
def test_weighted_accuracy_counted_by_hand(said: list[str], value: float) -> None:
    truth = ["present", "present", "unknown", "absent", "absent", "absent"]
    assert weighted_accuracy(said, truth) == pytest.approx(value)


def test_weighted_accuracy_of_nobody_is_unknown() -> None:
    assert np.isnan(weighted_accuracy([], []))


def test_perfectly_calibrated_scores_have_almost_no_error() -> None:
    rng = np.random.default_rng(5)
    told = rng.random(20_000)
    happened = rng.random(20_000) < told
    assert calibration_error(told, happened) < 0.015
    bins = reliability(told, happened)
    assert sum(b["n"] for b in bins) == 20_000 and all(abs(b["told"] - b["found"]) < 0.04 for b in bins)


def test_calls_are_counted_and_shared_out() -> None:
    probability = np.array([0.9, 0.6, 0.2, 0.7, 0.1, 0.3])
    positive = np.array([True, True, True, False, False, False])
    assert confusion(probability, positive, 0.5) == {
        "true_positive": 2,
        "false_negative": 1,
        "false_positive": 1,
        "true_negative": 2,
    }
    found = scores(probability, positive, list("abcdef"), 0.5, 1, 20)
    assert found["accuracy"] == found["precision"] == found["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["sensitivity"]["value"] == found["specificity"]["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_what_nobody_was_called_has_no_precision() -> None:
    found = scores(np.array([0.1, 0.2]), np.array([True, False]), ["a", "b"], 0.5, 1, 20)
    assert found["precision"] is None and found["f1"] == 0.0


def test_referrals_counted_by_hand() -> None:
    rows = referrals(0.8, 0.9)
    assert [row["prevalence"] for row in rows] == [0.01, 0.05, 0.2]
    # of 100 people 20 are ill: 16 found, 4 missed; of the 80 others 8 are sent on
    assert rows[2]["referred_per_100"] == 24.0 and rows[2]["found_per_100"] == 16.0
    assert rows[2]["missed_per_100"] == 4.0 and rows[2]["ill_of_referred"] == 0.667


def test_what_chance_leaves_of_the_calibration_error() -> None:
    rng = np.random.default_rng(6)
    told = rng.random(100)
    found = [calibration_error(told, rng.random(100) < told) for _ in range(300)]
    assert chance_error(told, 1) == pytest.approx(np.mean(found), abs=0.01)
    assert chance_error(rng.random(10_000), 1) < 0.02


def test_a_bias_makes_as_many_told_as_found() -> None:
    rng = np.random.default_rng(7)
    score, weight = rng.standard_normal(400), rng.random(400)
    positive = (rng.random(400) < 0.2).astype(float)
    told = 1 / (1 + np.exp(-(score + fit_bias(score, positive, weight, 2.0)) / 2.0))
    assert (weight * told).sum() == pytest.approx((weight * positive).sum(), rel=1e-6)


def test_chances_of_three_classes_follow_what_is_known_and_the_weights() -> None:
    rng = np.random.default_rng(8)
    of = rng.integers(3, size=3000)
    x = rng.standard_normal((3000, 2)) + 3.0 * np.eye(3)[of][:, :2]
    even = fit_classes(x, of, np.ones(3000), 3, ridge=1e-6)
    assert (even(x).argmax(axis=1) == of).mean() > 0.88
    assert even(x).mean(axis=0) == pytest.approx(np.bincount(of) / 3000, abs=1e-4)
    twice = fit_classes(x, of, np.where(of == 2, 5.0, 1.0), 3, ridge=1e-6)
    assert (twice(x).argmax(axis=1) == 2).sum() > (even(x).argmax(axis=1) == 2).sum()
    assert fit_classes(x, of, np.ones(3000), 3, ridge=1e3)(x) == pytest.approx(
        np.tile(np.bincount(of) / 3000, (3000, 1)), abs=1e-2
    )
