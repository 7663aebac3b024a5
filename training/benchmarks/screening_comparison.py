"""The screening models side by side: from the scores that their units left to figures.

`assemble` turns what is there into figures and names what is not; training.benchmarks.screening_units trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmarks.murmur_by_patient import murmur_by_patient
from training.benchmarks.screening_noise import noise_figures
from training.benchmarks.screening_units import deciding_of, unit_point
from training.data.recordings import DATABASES, Recording, loudest_positions
from training.metrics.classification import (
    RESAMPLES,
    auc,
    bootstrap,
    calibrated,
    calibration_error,
    chance_error,
    fit_bias,
    fit_platt,
    macc,
    referrals_of,
    reliability,
    scores,
    sigmoid,
)
from training.screening import protocols
from training.screening.scores import Scored, read_unit

__all__ = ["assemble", "source_scaled"]


@dataclass(frozen=True)
class _Called:
    """Judged recordings of one source, over one or more units of a protocol."""

    recordings: list[Recording]
    positive: np.ndarray
    abnormal: np.ndarray
    """Probability with the units' own scaling, and so moved that each unit's threshold lies at 0.5."""
    murmur: np.ndarray
    scaled: np.ndarray
    """Probability of abnormal after the source's own scaling (see `source_scaled`)."""
    scaled_known: np.ndarray


def source_scaled(
    own_score: np.ndarray,
    own_positive: np.ndarray,
    all_score: np.ndarray,
    all_positive: np.ndarray,
    *,
    bias_only: bool = False,
) -> Callable[[np.ndarray], np.ndarray]:
    """Score → probability by temperature and bias of a source: what a place does that has looked at a few
    dozen of its own, labelled.

    Fitted to the source's recordings (`own_…`) and, each weighing little, those of all sources, so that a
    dozen recordings do not make a rule of their own. bias_only: the temperature is that of all sources.
    """
    score = np.concatenate([own_score, all_score])
    positive = np.concatenate([own_positive, all_positive]).astype(float)
    weight = np.concatenate([np.ones(len(own_score)), np.full(len(all_score), 10.0 / len(all_score))])
    if bias_only:
        _, temperature = fit_platt(all_score, all_positive.astype(float), np.ones(len(all_score)))
        bias = fit_bias(score, positive, weight, temperature)
    else:
        bias, temperature = fit_platt(score, positive, weight)
    return lambda score: sigmoid((score + bias) / temperature)


@dataclass(frozen=True)
class _Read:
    """A unit's scores by its own operating point."""

    judged: list[Recording]
    abnormal: np.ndarray
    """Scaled logit of abnormal of the judged recordings."""
    murmur: np.ndarray
    at: float
    """Scaled logit at which the unit's threshold lies."""
    deciding: list[Recording]
    deciding_abnormal: np.ndarray


def _read(one: Scored, recordings: Sequence[Recording], row: str) -> _Read:
    by_record = {r.record: r for r in recordings}
    deciding = deciding_of(one, recordings)
    point = unit_point(one, recordings, row)
    share = point["combine"]

    def scaled(logits: np.ndarray) -> np.ndarray:
        score = share["murmur"] * logits[:, 0] + share["abnormal"] * logits[:, 1]
        return (score + point["bias"]) / point["temperature"]

    test = np.nan_to_num(one.logits[f"test/{row}"], nan=-20.0)
    threshold = min(max(point["threshold"], 1e-4), 1 - 1e-4)
    return _Read(
        [by_record[r] for r in one.records["test"]],
        scaled(test),
        (test[:, 0] + point["murmur_bias"]) / point["murmur_temperature"],
        float(np.log(threshold / (1 - threshold))),
        deciding,
        scaled(np.nan_to_num(one.logits[f"decide/{row}"], nan=0.0)),
    )


def _ill(recordings: Sequence[Recording]) -> np.ndarray:
    return np.array([r.label == "abnormal" for r in recordings], bool)


_Known = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scores, truths, and whether of the source."""


def _own_scaling(read: Sequence[_Read], k: int, database: str, score: np.ndarray) -> np.ndarray | None:
    """Scores of unit k by the source's own scaling; None where nothing of the source is there to fit it to.

    Fitted to the source's recordings in the other units, each scored by a network that had not learned from
    it; whether the bias alone or the temperature, too, is the source's own is chosen among these units in
    turn, by the likelihood of what was left out. Where there is one unit only, fitted to its deciding fold.
    """

    def seen(chosen: Sequence[Recording], scores: np.ndarray) -> _Known:
        return scores, _ill(chosen), np.array([r.database == database for r in chosen], bool)

    known = [seen(one.judged, one.abnormal) for j, one in enumerate(read) if j != k]
    known = known or [seen(read[k].deciding, read[k].deciding_abnormal)]

    def fitted(parts: Sequence[_Known], bias_only: bool) -> Callable[[np.ndarray], np.ndarray]:
        scores, truth, there = (np.concatenate([part[j] for part in parts]) for j in range(3))
        return source_scaled(scores[there], truth[there], scores, truth, bias_only=bias_only)

    if not any(there.any() for _, _, there in known):
        return None
    unlikely = {False: 0.0, True: 0.0}
    if len(known) > 2:
        for j, (scores, truth, there) in enumerate(known):
            others = [part for i, part in enumerate(known) if i != j]
            if not any(part[2].any() for part in others):
                continue
            for bias_only in unlikely:
                told = np.clip(fitted(others, bias_only)(scores[there]), 1e-4, 1 - 1e-4)
                unlikely[bias_only] -= float(np.log(np.where(truth[there], told, 1 - told)).sum())
    return fitted(known, unlikely[True] < unlikely[False])(score)


def _called(scored: Sequence[Scored], recordings: Sequence[Recording], row: str) -> dict[str, _Called]:
    """Judged recordings by source, each unit with the operating point of its own deciding fold."""
    read = [_read(one, recordings, row) for one in scored]
    found: dict[str, list[_Called]] = {}
    for k, one in enumerate(read):
        for database in sorted({r.database for r in one.judged}):
            rows = np.array([i for i, r in enumerate(one.judged) if r.database == database])
            own = _own_scaling(read, k, database, one.abnormal[rows])
            chosen = [one.judged[i] for i in rows]
            found.setdefault(database, []).append(
                _Called(
                    chosen,
                    _ill(chosen),
                    sigmoid(one.abnormal[rows] - one.at),
                    sigmoid(one.murmur[rows]),
                    np.full(len(rows), np.nan) if own is None else own,
                    np.full(len(rows), own is not None),
                )
            )
    return {
        name: _Called(
            [r for part in parts for r in part.recordings],
            *(
                np.concatenate([getattr(part, key) for part in parts])
                for key in ("positive", "abnormal", "murmur", "scaled", "scaled_known")
            ),
        )
        for name, parts in sorted(found.items(), key=lambda item: DATABASES.index(item[0]))
    }


def _by_subject(
    recordings: Sequence[Recording], probability: np.ndarray, positive: np.ndarray, seed: int, resamples: int
) -> dict[str, Any]:
    """As an exam goes: the mean logit over a subject's recordings, ill where any of them is called so."""
    rows: dict[str, list[int]] = {}
    for k, r in enumerate(recordings):
        rows.setdefault(r.group, []).append(k)
    groups = sorted(rows)
    clipped = np.clip(probability, 1e-9, 1 - 1e-9)
    logit = np.log(clipped / (1 - clipped))
    mean = sigmoid(np.array([logit[rows[g]].mean() for g in groups]))
    ill = np.array([positive[rows[g]].any() for g in groups], bool)
    return {
        "n": len(groups),
        "positive": int(ill.sum()),
        "auc": bootstrap(lambda k: auc(mean[k], ill[k]), groups, seed, resamples),
        "macc": bootstrap(lambda k: macc(mean[k], ill[k], 0.5), groups, seed, resamples),
    }


def _source(one: _Called, seed: int, resamples: int) -> dict[str, Any]:
    groups = [r.group for r in one.recordings]
    entry = {
        "n": len(groups),
        "positive": int(one.positive.sum()),
        "groups": len(set(groups)),
        **scores(one.abnormal, one.positive, groups, 0.5, seed, resamples),
        "macc_at_best_threshold": _best_macc(one.abnormal, one.positive),
        **calibrated(one.abnormal, one.positive),
        "by_subject": _by_subject(one.recordings, one.abnormal, one.positive, seed, resamples),
    }
    entry["referrals"] = referrals_of(entry)
    if one.scaled_known.all():
        scaled = {
            "calibration_error": round(calibration_error(one.scaled, one.positive), 4),
            "by_chance": round(chance_error(one.scaled, seed), 4),
            "reliability": reliability(one.scaled, one.positive),
        }
        entry["after_scaling"] = scaled
    return entry


def _best_macc(probability: np.ndarray, positive: np.ndarray) -> float | None:
    best = [macc(probability, positive, t) for t in np.unique(probability)]
    return None if not best or np.isnan(best[0]) else round(float(max(best)), 4)


def _heard(one: _Called, by: str, seed: int, resamples: int) -> dict[str, Any] | None:
    """CirCor against the murmur at that position, by the murmur's or the abnormal probability."""
    known = np.array([r.murmur_here in ("yes", "no") for r in one.recordings])
    if not known.any():
        return None
    chosen = [r for r, k in zip(one.recordings, known, strict=True) if k]
    positive = np.array([r.murmur_here == "yes" for r in chosen])
    probability = getattr(one, by)[known]
    return {
        "n": len(chosen),
        "positive": int(positive.sum()),
        **scores(probability, positive, [r.group for r in chosen], 0.5, seed, resamples),
        "macc_at_best_threshold": _best_macc(probability, positive),
        **calibrated(probability, positive),
        "by_subject": _by_subject(chosen, probability, positive, seed, resamples),
    }


def _protocol(
    protocol: str, scored: Sequence[Scored], recordings: Sequence[Recording], seed: int, resamples: int
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for row in ("float", "int8"):
        with_row = [one for one in scored if f"test/{row}" in one.logits]
        if not with_row:
            continue
        called = _called(with_row, recordings, row)
        databases = {name: _source(one, seed, resamples) for name, one in called.items()}
        entry: dict[str, Any] = {"databases": databases}
        if "circor" in called and protocol != "leaky":
            entry["murmur"] = {
                "by_murmur": _heard(called["circor"], "murmur", seed, resamples),
                "by_abnormal": _heard(called["circor"], "abnormal", seed, resamples),
            }
        told = [d["auc"]["value"] for d in databases.values() if d["auc"]["value"] is not None]
        entry["mean_within_source_auc"] = round(float(np.mean(told)), 4) if told else None
        if protocol in ("folds", "leaky", "shuffled"):
            probability = np.concatenate([one.abnormal for one in called.values()])
            positive = np.concatenate([one.positive for one in called.values()])
            groups = [r.group for one in called.values() for r in one.recordings]
            entry["pooled"] = scores(probability, positive, groups, 0.5, seed, resamples)
        rows[row] = entry
    found: dict[str, Any] = {
        "units": {
            one.unit.part: {
                key: one.meta[key] for key in ("steps", "training_minutes", "minutes", "commit", "cost")
            }
            for one in scored
        },
        "rows": rows,
    }
    for one in scored:
        if "noisy" in one.records:
            by_record = {r.record: r for r in recordings}
            heard = {key[6:]: rows for key, rows in one.logits.items() if key.startswith("noisy ")}
            point = unit_point(one, recordings, "float")
            found["noise"] = noise_figures([by_record[r] for r in one.records["noisy"]], heard, point)
    windows = [one for one in scored if "windows/float" in one.logits]
    if windows:
        one = windows[0]
        by_record = {r.record: r for r in recordings}
        positive = np.array([by_record[r].label == "abnormal" for r in one.records["windows"]])
        probability = sigmoid(one.logits["windows/float"][:, 1])
        groups = [by_record[r].group for r in one.records["windows"]]
        found["windows_of_recordings_trained_on"] = {
            "n": len(groups),
            **scores(probability, positive, groups, 0.5, seed, min(200, resamples)),
        }
    return found


# ── together ──


def assemble(
    data: Path,
    cache: Path,
    recordings: Sequence[Recording],
    seed: int,
    models: Sequence[str],
    resamples: int = RESAMPLES,
    quality: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The comparison from the units that are there; `missing` names the others.

    quality: of recordings, 0 to 1; those not named count as good.
    """
    loudest = loudest_positions(data)
    table: dict[str, Any] = {}
    for model in models:
        everything = protocols.units([model], {r.database for r in recordings})
        scored = {unit: one for unit in everything if (one := read_unit(cache, unit)) is not None}
        if not scored:
            table[model] = {"missing": [unit.name for unit in everything]}
            continue
        entry: dict[str, Any] = {}
        for protocol in protocols.PROTOCOLS:
            own = [one for unit, one in scored.items() if unit.protocol == protocol]
            if not own:
                continue
            entry[protocol] = _protocol(protocol, own, recordings, seed, resamples)
            if protocol == "folds":
                entry["murmur_by_patient"] = murmur_by_patient(
                    own, recordings, loudest, quality or {}, seed, resamples
                )
        entry["missing"] = [unit.name for unit in everything if unit not in scored]
        table[model] = entry
    return table
