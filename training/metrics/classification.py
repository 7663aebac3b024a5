"""Figures of screening: what a score is worth against the label, with intervals over subjects.

All take arrays of one row a recording (or a patient): probability float (n,), 0 to 1; positive bool (n,).
What is not defined (a class is missing) is nan inside and None where it is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from training.metrics.resampling import resampled

__all__ = [
    "FEWEST",
    "MURMUR_WEIGHTS",
    "PREVALENCES",
    "RESAMPLES",
    "auc",
    "bootstrap",
    "calibrated",
    "calibration_error",
    "chance_error",
    "confusion",
    "fit_bias",
    "fit_classes",
    "fit_platt",
    "macc",
    "rates",
    "referrals",
    "referrals_of",
    "reliability",
    "scores",
    "sigmoid",
    "weighted_accuracy",
]

RESAMPLES = 1000

FEWEST = 4
"""Subjects that a class needs for an interval: fewer, resampled, look surer than they are (63 of a's
normals in fold 0 are of one session)."""

PREVALENCES = (0.01, 0.05, 0.20)

MURMUR_WEIGHTS: Mapping[str, int] = {"present": 5, "unknown": 3, "absent": 1}
"""Weight of a patient by the expert's word (George B. Moody PhysioNet Challenge 2022, Reyna et al. 2023)."""


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve, ties at half; nan unless both classes are there (Hanley & McNeil 1982)."""
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def rates(probability: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    """(sensitivity, specificity) of calling everything from `threshold` up; nan without that class."""
    called = probability >= threshold
    sensitivity = float(called[positive].mean()) if positive.any() else float("nan")
    specificity = float((~called[~positive]).mean()) if (~positive).any() else float("nan")
    return sensitivity, specificity


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logits → probabilities."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


def macc(probability: np.ndarray, positive: np.ndarray, threshold: float) -> float:
    """Mean of sensitivity and specificity, the Challenge 2016's MAcc; nan unless both classes are there."""
    return float(np.mean(rates(probability, positive, threshold)))


def confusion(probability: np.ndarray, positive: np.ndarray, threshold: float) -> dict[str, int]:
    """How many were called rightly and wrongly."""
    called = probability >= threshold
    return {
        "true_positive": int((called & positive).sum()),
        "false_negative": int((~called & positive).sum()),
        "false_positive": int((called & ~positive).sum()),
        "true_negative": int((~called & ~positive).sum()),
    }


def _of_confusion(counts: Mapping[str, int]) -> dict[str, float | None]:
    tp, fn = counts["true_positive"], counts["false_negative"]
    fp, tn = counts["false_positive"], counts["true_negative"]

    def share(part: int, whole: int) -> float | None:
        return round(part / whole, 4) if whole else None

    return {
        "accuracy": share(tp + tn, tp + tn + fp + fn),
        "precision": share(tp, tp + fp),
        "f1": share(2 * tp, 2 * tp + fp + fn),
    }


def _bins(probability: np.ndarray, bins: int) -> list[np.ndarray]:
    order = np.argsort(probability, kind="stable")
    return [part for part in np.array_split(order, min(bins, max(1, len(order) // 10))) if len(part)]


def calibration_error(probability: np.ndarray, positive: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of told from found frequency, over equally filled bins of
    ten recordings or more (Naeini et al. 2015; equally filled, for rare positives).
    """
    found = sum(
        len(part) * abs(probability[part].mean() - positive[part].mean()) for part in _bins(probability, bins)
    )
    return float(found / max(1, len(probability)))


def chance_error(probability: np.ndarray, seed: int, draws: int = 200) -> float:
    """Mean `calibration_error` of these probabilities where they are true: what so few recordings leave to
    chance.
    """
    rng = np.random.default_rng(seed)
    return float(
        np.mean(
            [calibration_error(probability, rng.random(len(probability)) < probability) for _ in range(draws)]
        )
    )


def reliability(probability: np.ndarray, positive: np.ndarray, bins: int = 10) -> list[dict[str, Any]]:
    """The bins of `calibration_error`: how many, what was told, what was found."""
    return [
        {
            "n": len(part),
            "told": round(float(probability[part].mean()), 4),
            "found": round(float(positive[part].mean()), 4),
        }
        for part in _bins(probability, bins)
    ]


def calibrated(probability: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
    """`calibration_error` and its bins."""
    return {
        "calibration_error": round(calibration_error(probability, positive), 4),
        "reliability": reliability(probability, positive),
    }


def fit_platt(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """(bias, temperature) of p = sigmoid((score + bias) / temperature) by weighted maximum likelihood
    (Platt 1999).
    """
    a, b = 1.0, 0.0
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(a * scores + b, -60.0, 60.0)))
        gradient = design.T @ (weights * (p - positive)) + 1e-3 * np.array([a - 1.0, b])
        hessian = (design * (weights * p * (1 - p))[:, None]).T @ design + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        a, b = a - step[0], b - step[1]
        if np.abs(step).max() < 1e-9:
            break
    a = max(a, 0.05)
    return float(b / a), float(1.0 / a)


def fit_bias(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray, temperature: float) -> float:
    """bias of p = sigmoid((score + bias) / temperature): as many are told as are found."""
    low, high = -60.0, 60.0
    for _ in range(60):
        bias = (low + high) / 2.0
        p = 1.0 / (1.0 + np.exp(-np.clip((scores + bias) / temperature, -60.0, 60.0)))
        low, high = (low, bias) if (weights * (p - positive)).sum() > 0 else (bias, high)
    return float(low + high) / 2.0


def fit_classes(
    x: np.ndarray, of: np.ndarray, weights: np.ndarray, classes: int, ridge: float = 0.01
) -> Callable[[np.ndarray], np.ndarray]:
    """(n, k) → chances (n, classes) by weighted multinomial logistic regression on standardised columns.

    x: (n, k). of: the class of each row. ridge: weight of the squared coefficients, intercepts free.
    """
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)

    def design(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ones((len(rows), 1)), (rows - mean) / spread], axis=1)

    def chances(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    known, share = design(x), weights / weights.sum()
    wide = known.shape[1]
    truth = np.eye(classes)[of]
    held = np.full((wide, classes), 2.0 * ridge)
    held[0] = 1e-9
    w = np.zeros((wide, classes))
    for _ in range(50):
        p = chances(known @ w)
        gradient = known.T @ (share[:, None] * (p - truth)) + held * w
        # d²/dw dw' of the weighted likelihood, classes beside each other
        inner = share[:, None, None] * (p[:, :, None] * np.eye(classes) - p[:, :, None] * p[:, None, :])
        hessian = np.einsum("na,nb,ncd->acbd", known, known, inner).reshape(wide * classes, -1)
        hessian += np.diag(held.ravel()) + 1e-9 * np.eye(wide * classes)
        step = np.linalg.solve(hessian, gradient.ravel()).reshape(wide, classes)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    return lambda rows: chances(design(rows) @ w)


def bootstrap(
    figure: Callable[[np.ndarray], float], groups: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> dict[str, float | None]:
    """`figure` of row numbers on all rows, with its 95 % interval over resampled groups (Efron 1979,
    percentile).

    Resamples in which it is not defined (one class only) are drawn anew, up to ten times as many.
    """
    everything = np.arange(len(groups))
    value = figure(everything) if len(groups) else float("nan")
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    values: list[float] = []
    for rows in itertools.islice(resampled(groups, seed), 10 * resamples):
        one = figure(rows)
        if not np.isnan(one):
            values.append(one)
        if len(values) == resamples:
            break
    if len(set(groups)) < 3 or len(values) < resamples // 2:
        return {"value": round(value, 4), "low": None, "high": None}
    low, high = np.percentile(values, [2.5, 97.5])
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def scores(
    probability: np.ndarray,
    positive: np.ndarray,
    groups: Sequence[str],
    threshold: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """AUC, MAcc, sensitivity and specificity at `threshold`, with intervals over groups where both classes
    have people enough; accuracy, precision, F1 and the confusion matrix of the same calls.
    """
    people = [
        len({g for g, y in zip(groups, positive, strict=True) if y == label}) for label in (False, True)
    ]

    def resampled(
        figure: Callable[[np.ndarray, np.ndarray], float], classes: tuple[int, ...] = (0, 1)
    ) -> dict[str, float | None]:
        found = bootstrap(lambda rows: figure(probability[rows], positive[rows]), groups, seed, resamples)
        if any(people[k] < FEWEST for k in classes):
            found |= {"low": None, "high": None}
        return found

    counts = confusion(probability, positive, threshold)
    return {
        "auc": resampled(auc),
        "macc": resampled(lambda p, y: macc(p, y, threshold)),
        "sensitivity": resampled(lambda p, y: rates(p, y, threshold)[0], (1,)),
        "specificity": resampled(lambda p, y: rates(p, y, threshold)[1], (0,)),
        **_of_confusion(counts),
        "confusion": counts,
    }


def weighted_accuracy(said: Sequence[str], true: Sequence[str]) -> float:
    """The 2022 challenge's murmur score: the share of patients called rightly, present counting five times
    and unknown three times an absent one. nan for nobody.

    said, true: `present`, `unknown` or `absent`, one a patient.
    """
    whole = sum(MURMUR_WEIGHTS[t] for t in true)
    right = sum(MURMUR_WEIGHTS[t] for s, t in zip(said, true, strict=True) if s == t)
    return right / whole if whole else float("nan")


def referrals(sensitivity: float, specificity: float) -> list[dict[str, float | None]]:
    """Of 100 people screened, at some prevalences: how many are sent on, how many of the ill are among them,
    and what share of those sent on is ill.
    """
    rows: list[dict[str, float | None]] = []
    for prevalence in PREVALENCES:
        found = prevalence * sensitivity
        sent = found + (1 - prevalence) * (1 - specificity)
        rows.append(
            {
                "prevalence": prevalence,
                "referred_per_100": round(100 * sent, 1),
                "found_per_100": round(100 * found, 2),
                "missed_per_100": round(100 * (prevalence - found), 2),
                "ill_of_referred": round(found / sent, 3) if sent else None,
            }
        )
    return rows


def referrals_of(entry: Mapping[str, Any]) -> list[dict[str, float | None]] | None:
    """`referrals` at the sensitivity and specificity of an entry of `scores`; None where one is missing."""
    sensitivity, specificity = entry["sensitivity"]["value"], entry["specificity"]["value"]
    return None if sensitivity is None or specificity is None else referrals(sensitivity, specificity)
