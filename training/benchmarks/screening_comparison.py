"""The screening models side by side: units are trained once, leave their scores, and become figures here.

A unit (training.screening.protocols) leaves the logits of every judged and every deciding recording in the
cache, `screening/<model>/<protocol>/<part>`. `assemble` turns what is there into figures and names what is
not. Every unit's operating point is fitted on its own deciding fold, by the rule of the release.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmarks.screening_noise import NoisyRecordings, noise_figures
from training.core.provenance import commit_id
from training.core.results import write_arrays, write_json, write_text
from training.data.recordings import DATABASES, Recording, loudest_positions
from training.metrics.classification import (
    MURMUR_WEIGHTS,
    RESAMPLES,
    auc,
    bootstrap,
    calibrated,
    calibration_error,
    chance_error,
    fit_bias,
    fit_classes,
    fit_platt,
    macc,
    referrals_of,
    reliability,
    scores,
    weighted_accuracy,
)
from training.screening import protocols
from training.screening.candidates import Candidate
from training.screening.operating_point import operating_point
from training.screening.protocols import Unit
from training.screening.recipe import load_recipe
from training.screening.scores import Scored, read_unit, unit_folder

__all__ = ["assemble", "murmur_limits", "run_unit", "say_murmurs", "source_scaled", "unit_point"]

Say = Callable[[str], None]


# ── units ───────────────────────────────────────────────────────────────────────────────────────────────────


def _key(model: Candidate, unit: Unit, hashes: Mapping[str, str], seed: int) -> str:
    said = [unit.name, model.key(unit), dict(hashes), seed]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def run_unit(
    unit: Unit,
    model: Candidate,
    recordings: Sequence[Recording],
    hashes: Mapping[str, str],
    cache: Path,
    *,
    seed: int = 1,
    int8: bool = True,
    noisy: NoisyRecordings | None = None,
    say: Say = lambda text: None,
) -> Scored:
    """Train and score a unit, or read what an earlier run left; broken off, it goes on from its checkpoint.

    noisy: recordings with noise, which the units that report fold 0 hear, too.
    """
    key = _key(model, unit, hashes, seed)
    before = read_unit(cache, unit)
    if before is not None and before.meta["key"] == key:
        say(f"{unit.name}: there already")
        return before
    folder = unit_folder(cache, unit)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("unit.json", "scores.npz"):
        (folder / name).unlink(missing_ok=True)
    if not (folder / "key").is_file() or (folder / "key").read_text("utf-8") != key:
        for stale in folder.glob("*"):
            stale.unlink()
        write_text(folder / "key", key)
    say(f"{unit.name}: training")
    started = time.monotonic()
    shown = protocols.presented(unit, recordings, seed)
    with_int8 = int8 and unit.protocol in ("folds", "left-out")
    learned = model.learn(unit, shown, folder, with_int8, lambda text: say(f"  {text}"))
    trained = time.monotonic()
    parts = {
        "test": protocols.judged(unit, recordings),
        "decide": protocols.deciding(unit, recordings, seed),
    }
    arrays: dict[str, np.ndarray] = {}
    for part, chosen in parts.items():
        arrays[f"records/{part}"] = np.array([r.record for r in chosen])
        for row, scorer in learned.rows.items():
            arrays[f"{part}/{row}"] = scorer(chosen)
    if noisy is not None and (unit.protocol, unit.part) == ("folds", "0") and learned.sound is not None:
        arrays["records/noisy"] = np.array([r.record for r in noisy.recordings])
        for name, rows in noisy.logits(learned.sound).items():
            arrays[f"noisy {name}"] = rows
    if learned.leaky is not None:
        arrays["records/windows"] = np.array(learned.leaky[0])
        arrays["windows/float"] = learned.leaky[1]
    meta = {
        "key": key,
        "seed": seed,
        "commit": commit_id(),
        "steps": learned.steps,
        "cost": learned.cost,
        "training_minutes": round((trained - started) / 60, 1),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    write_arrays(folder / "scores.npz", arrays)
    write_json(folder / "unit.json", meta)
    found = read_unit(cache, unit)
    assert found is not None
    return found


# ── from scores to figures ──────────────────────────────────────────────────────────────────────────────────


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


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
    return lambda score: _sigmoid((score + bias) / temperature)


def _deciding(one: Scored, recordings: Sequence[Recording]) -> list[Recording]:
    """As the unit's teacher saw them: with the dealt labels, where they were dealt."""
    seen = {r.record: r for r in protocols.deciding(one.unit, recordings, one.meta["seed"])}
    return [seen[record] for record in one.records["decide"]]


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


def unit_point(one: Scored, recordings: Sequence[Recording], row: str) -> dict[str, Any]:
    """The operating point that the unit's deciding fold gives, by the rule of the release."""
    return operating_point(one.logits[f"decide/{row}"], _deciding(one, recordings), load_recipe(None))


def _read(one: Scored, recordings: Sequence[Recording], row: str) -> _Read:
    by_record = {r.record: r for r in recordings}
    deciding = _deciding(one, recordings)
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
                    _sigmoid(one.abnormal[rows] - one.at),
                    _sigmoid(one.murmur[rows]),
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
    mean = _sigmoid(np.array([logit[rows[g]].mean() for g in groups]))
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
        probability = _sigmoid(one.logits["windows/float"][:, 1])
        groups = [by_record[r].group for r in one.records["windows"]]
        found["windows_of_recordings_trained_on"] = {
            "n": len(groups),
            **scores(probability, positive, groups, 0.5, seed, min(200, resamples)),
        }
    return found


# ── murmurs by patient ──────────────────────────────────────────────────────────────────────────────────────


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


def _by_patient(
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
    by_record = {r.record: r for r in recordings}
    folds: list[tuple[list[_Patient], list[_Patient]]] = []
    for one in scored:
        row = one.row
        point = unit_point(one, recordings, row)

        def scaled(
            logits: np.ndarray, bias: float = point["murmur_bias"], t: float = point["murmur_temperature"]
        ) -> np.ndarray:
            return (np.nan_to_num(logits[:, 0], nan=-20.0) + bias) / t

        learned = _patients(_deciding(one, recordings), scaled(one.logits[f"decide/{row}"]), quality)
        judged = _patients(
            [by_record[r] for r in one.records["test"]], scaled(one.logits[f"test/{row}"]), quality
        )
        if learned and judged:
            folds.append((judged, learned))
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
    surest = _sigmoid(np.array([patients[k].surest for k in known]))
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
    placed = [
        p
        for p in patients
        if p.truth == "present" and loudest.get(p.name) in p.positions and len(p.positions) > 1
    ]
    if placed:
        right = np.array([max(p.positions, key=p.positions.__getitem__) == loudest[p.name] for p in placed])
        found["loudest_position"] = {
            "patients": len(placed),
            "right": bootstrap(
                lambda rows: float(right[rows].mean()), [p.group for p in placed], seed, resamples
            ),
            "by_chance": round(float(np.mean([1 / len(p.positions) for p in placed])), 4),
        }
    return found


# ── together ────────────────────────────────────────────────────────────────────────────────────────────────


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
                entry["murmur_by_patient"] = _by_patient(
                    own, recordings, loudest, quality or {}, seed, resamples
                )
        entry["missing"] = [unit.name for unit in everything if unit not in scored]
        table[model] = entry
    return table
