"""The task of the PhysioNet Challenge 2022: a murmur present, unknown or absent in a patient of CirCor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.benchmarks.screening_units import deciding_of, unit_point
from training.data.recordings import Recording
from training.metrics.classification import (
    MURMUR_WEIGHTS,
    bootstrap,
    fit_classes,
    referrals_of,
    scores,
    sigmoid,
    weighted_accuracy,
)
from training.screening.scores import Scored

__all__ = ["murmur_by_patient", "murmur_limits", "say_murmurs"]


@dataclass(frozen=True)
class _Patient:
    name: str
    group: str
    truth: str
    positions: dict[str, float]
    """Scaled logit of a murmur at each position, the surest recording of it."""
    quality: float
    """Mean over the recordings."""

    @property
    def surest(self) -> float:
        return max(self.positions.values())

    @property
    def heard(self) -> tuple[float, float, float]:
        """What the word about the patient is made of: the surest position, the mean position, the quality."""
        return self.surest, float(np.mean(list(self.positions.values()))), self.quality


def _patients(
    recordings: Sequence[Recording], murmur: np.ndarray, quality: Mapping[str, float]
) -> list[_Patient]:
    found: dict[str, list[tuple[Recording, float]]] = {}
    for recording, logit in zip(recordings, murmur, strict=True):
        if recording.meta.get("murmur") in MURMUR_WEIGHTS:
            found.setdefault(recording.meta["patient"], []).append((recording, float(logit)))
    patients = []
    for name, rows in sorted(found.items()):
        positions: dict[str, float] = {}
        for recording, logit in rows:
            where = recording.meta.get("position", "")
            positions[where] = max(logit, positions.get(where, -np.inf))
        first = rows[0][0]
        mean = float(np.mean([quality.get(r.record, 1.0) for r, _ in rows]))
        patients.append(_Patient(name, first.group, first.meta["murmur"], positions, mean))
    return patients


def murmur_limits(surest: np.ndarray, truth: Sequence[str]) -> tuple[float, float]:
    """(low, high): below `low` a murmur is called absent, from `high` up present, unknown between. The pair
    of the best weighted accuracy on these patients, on a grid; of equal ones the narrowest.
    """
    grid = np.unique(np.quantile(surest, np.linspace(0.02, 0.98, 49)))
    best, pair = -1.0, (0.5, 0.5)
    for low in grid:
        for high in grid[grid >= low]:
            said = say_murmurs(surest, float(low), float(high))
            value = weighted_accuracy(said, truth)
            if value > best + 1e-9 or (abs(value - best) <= 1e-9 and high - low < pair[1] - pair[0]):
                best, pair = value, (float(low), float(high))
    return pair


def say_murmurs(surest: np.ndarray, low: float, high: float) -> list[str]:
    """present, unknown or absent by how sure the surest position is."""
    return ["present" if p >= high else "absent" if p < low else "unknown" for p in surest]


def _by_limits(judged: Sequence[_Patient], learned: Sequence[_Patient]) -> list[str]:
    low, high = murmur_limits(np.array([p.surest for p in learned]), [p.truth for p in learned])
    return say_murmurs(np.array([p.surest for p in judged]), low, high)


def _by_chances(judged: Sequence[_Patient], learned: Sequence[_Patient], of: int) -> list[str]:
    """The likeliest word, each patient weighing as the challenge weighs it, from the first `of` of
    `_Patient.heard`.
    """
    words = list(MURMUR_WEIGHTS)
    truth = np.array([words.index(p.truth) for p in learned])
    weights = np.array([MURMUR_WEIGHTS[p.truth] for p in learned], float)
    known = np.clip([p.heard[:of] for p in learned], -8.0, 8.0)
    chances = fit_classes(known, truth, weights, len(words))
    found = chances(np.clip([p.heard[:of] for p in judged], -8.0, 8.0))
    return [words[k] for k in found.argmax(axis=1)]


def _patients_by_fold(
    scored: Sequence[Scored], recordings: Sequence[Recording], quality: Mapping[str, float]
) -> list[tuple[list[_Patient], list[_Patient]]]:
    """Of each unit the patients judged, and those of its deciding fold, by its own operating point."""
    by_record = {r.record: r for r in recordings}
    folds: list[tuple[list[_Patient], list[_Patient]]] = []
    for one in scored:
        row = one.row
        point = unit_point(one, recordings, row)

        def scaled(
            logits: np.ndarray, bias: float = point["murmur_bias"], t: float = point["murmur_temperature"]
        ) -> np.ndarray:
            return (np.nan_to_num(logits[:, 0], nan=-20.0) + bias) / t

        learned = _patients(deciding_of(one, recordings), scaled(one.logits[f"decide/{row}"]), quality)
        judged = _patients(
            [by_record[r] for r in one.records["test"]], scaled(one.logits[f"test/{row}"]), quality
        )
        if learned and judged:
            folds.append((judged, learned))
    return folds


def _loudest_position(
    patients: Sequence[_Patient], loudest: Mapping[str, str], seed: int, resamples: int
) -> dict[str, Any] | None:
    """Whether the position of the surest murmur is where the annotators heard it loudest."""
    placed = [
        p
        for p in patients
        if p.truth == "present" and loudest.get(p.name) in p.positions and len(p.positions) > 1
    ]
    if not placed:
        return None
    right = np.array([max(p.positions, key=p.positions.__getitem__) == loudest[p.name] for p in placed])
    return {
        "patients": len(placed),
        "right": bootstrap(
            lambda rows: float(right[rows].mean()), [p.group for p in placed], seed, resamples
        ),
        "by_chance": round(float(np.mean([1 / len(p.positions) for p in placed])), 4),
    }


def murmur_by_patient(
    scored: Sequence[Scored],
    recordings: Sequence[Recording],
    loudest: Mapping[str, str],
    quality: Mapping[str, float],
    seed: int,
    resamples: int,
) -> dict[str, Any] | None:
    """The 2022 task on the folds that are there. What decides present, unknown or absent is fitted to the
    patients of the other folds, each heard by the network that had not learned from them; where there is one
    fold only, to those of its deciding fold. `other_ways`: the same with other rules.
    """
    folds = _patients_by_fold(scored, recordings, quality)
    if not folds:
        return None
    patients = [p for judged, _ in folds for p in judged]
    said: list[str] = []
    ways: dict[str, list[str]] = {
        "limits of the surest position, fitted to the deciding fold": [],
        "limits of the surest position, fitted to the other folds": [],
        "chances by the surest and the mean position": [],
    }
    for k, (judged, decided) in enumerate(folds):
        others = [p for j, (known, _) in enumerate(folds) if j != k for p in known] or decided
        said += _by_chances(judged, others, 3)
        for words, more in zip(
            ways.values(),
            (_by_limits(judged, decided), _by_limits(judged, others), _by_chances(judged, others, 2)),
            strict=True,
        ):
            words += more
    truth = [p.truth for p in patients]
    groups = [p.group for p in patients]
    known = [k for k, p in enumerate(patients) if p.truth != "unknown"]
    surest = sigmoid(np.array([patients[k].surest for k in known]))
    present = np.array([patients[k].truth == "present" for k in known])

    def weighted(words: Sequence[str]) -> dict[str, float | None]:
        return bootstrap(
            lambda rows: weighted_accuracy([words[k] for k in rows], [truth[k] for k in rows]),
            groups,
            seed,
            resamples,
        )

    found: dict[str, Any] = {
        "patients": len(patients),
        "truth": dict(Counter(truth)),
        "weighted_accuracy": weighted(said),
        "other_ways": {name: weighted(words) for name, words in ways.items()},
        "always_present": round(weighted_accuracy(["present"] * len(truth), truth), 4),
        "said_by_truth": {
            t: {s: sum(a == t and b == s for a, b in zip(truth, said, strict=True)) for s in MURMUR_WEIGHTS}
            for t in MURMUR_WEIGHTS
        },
        **scores(surest, present, [groups[k] for k in known], 0.5, seed, resamples),
    }
    found["referrals"] = referrals_of(found)
    placed = _loudest_position(patients, loudest, seed, resamples)
    if placed is not None:
        found["loudest_position"] = placed
    return found
