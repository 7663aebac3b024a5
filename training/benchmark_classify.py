"""Measure the screening model on fold 0, through device.screen itself, and write
docs/results/classify.json.

    stethopi benchmark classify --data ../shared/data --out runs

Rows: `int8` (the bundle, what the Pi runs), `pruned` and `float` (the checkpoints in --out, where they are
there). Each source apart, for label and database are tied: who knows only the source scores well when all
are pooled, and that floor stands beside. Intervals by bootstrap over subjects. The 87 recordings of e whose
subject is unknown stay out. `--left-out a f circor` also trains networks that never heard that source, the
hardest and most telling figure.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device import bundle as bundles
from device import rhythm, screen
from device.bundle import ModelEntry
from device.rates import WORKING_RATE_HZ
from device.runtime import runtime_name
from device.screen import Findings, Label
from training import data as training_data
from training.card import RESULTS
from training.classifier import (
    Corpus,
    load_checkpoint,
    load_recipe,
    operating_point,
    screen_logits,
    train,
)
from training.data import DATABASES, Recording
from training.figures import auc, macc
from training.release import commit_id

__all__ = ["benchmark", "bootstrap", "calibration_error"]

RESAMPLES = 1000
REPORTED = 0
FEWEST = 4
"""Subjects that a class needs for an interval: fewer, resampled, look surer than they are (63 of a's
normals in fold 0
are of one session)."""
LEFT_OUT_STEPS = 2500
"""Of a training without one source: half of a release's, for there are several."""


@dataclass(frozen=True)
class _Judged:
    recording: Recording
    found: Findings


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
    names = sorted(set(groups))
    rows = {name: np.flatnonzero(np.array(groups) == name) for name in names}
    rng = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(10 * resamples):
        drawn = rng.integers(len(names), size=len(names))
        one = figure(np.concatenate([rows[names[k]] for k in drawn]))
        if not np.isnan(one):
            values.append(one)
        if len(values) == resamples:
            break
    if len(names) < 3 or len(values) < resamples // 2:
        return {"value": round(value, 4), "low": None, "high": None}
    low, high = np.percentile(values, [2.5, 97.5])
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def calibration_error(probability: np.ndarray, positive: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of told from found frequency, over equally filled bins."""
    order = np.argsort(probability, kind="stable")
    error = 0.0
    for part in np.array_split(order, min(bins, max(1, len(order) // 10))):
        if len(part):
            error += len(part) * abs(probability[part].mean() - positive[part].mean())
    return float(error / max(1, len(order)))


def _rates(probability: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    called = probability >= threshold
    sensitivity = float(called[positive].mean()) if positive.any() else float("nan")
    specificity = float((~called[~positive]).mean()) if (~positive).any() else float("nan")
    return sensitivity, specificity


def _scores(
    probability: np.ndarray, positive: np.ndarray, groups: Sequence[str], threshold: float, seed: int
) -> dict[str, Any]:
    people = [
        len({g for g, y in zip(groups, positive, strict=True) if y == label}) for label in (False, True)
    ]

    def resampled(
        figure: Callable[[np.ndarray, np.ndarray], float], classes: tuple[int, ...] = (0, 1)
    ) -> dict[str, float | None]:
        found = bootstrap(lambda rows: figure(probability[rows], positive[rows]), groups, seed)
        if any(people[k] < FEWEST for k in classes):
            found |= {"low": None, "high": None}
        return found

    return {
        "auc": resampled(auc),
        "macc": resampled(lambda p, y: macc(p, y, threshold)),
        "sensitivity": resampled(lambda p, y: _rates(p, y, threshold)[0], (1,)),
        "specificity": resampled(lambda p, y: _rates(p, y, threshold)[1], (0,)),
    }


def _probability(found: Findings) -> float:
    # silence has none: neither called abnormal nor good for the ranking
    return 0.0 if found.probability is None else found.probability


def _database(judged: Sequence[_Judged], threshold: float, seed: int) -> dict[str, Any]:
    probability = np.array([_probability(j.found) for j in judged])
    positive = np.array([j.recording.label == "abnormal" for j in judged])
    decided = np.array([j.found.label is not Label.UNSURE for j in judged])
    called = np.array([j.found.label is Label.ABNORMAL for j in judged])
    entry: dict[str, Any] = {
        "n": len(judged),
        "abnormal": int(positive.sum()),
        "groups": len({j.recording.group for j in judged}),
        **_scores(probability, positive, [j.recording.group for j in judged], threshold, seed),
        "calibration_error": round(calibration_error(probability, positive), 4),
        "decided": round(float(decided.mean()), 4),
    }
    of_decided = macc(called[decided].astype(float), positive[decided], 0.5)
    entry["macc_of_decided"] = None if np.isnan(of_decided) else round(of_decided, 4)
    return entry


def _murmurs(judged: Sequence[_Judged], seed: int) -> dict[str, Any]:
    """CirCor's murmurs, by recording (heard at this position or not) and by patient (the most certain
    position).
    """
    known = [j for j in judged if j.recording.murmur_here in ("yes", "no")]
    by_recording = np.array([j.found.murmur or 0.0 for j in known])
    here = np.array([j.recording.murmur_here == "yes" for j in known])
    patients: dict[str, list[_Judged]] = {}
    for j in judged:
        if j.recording.meta.get("murmur") in ("present", "absent"):
            patients.setdefault(j.recording.meta["patient"], []).append(j)
    names = sorted(patients)
    by_patient = np.array([max(j.found.murmur or 0.0 for j in patients[n]) for n in names])
    present = np.array([patients[n][0].recording.meta["murmur"] == "present" for n in names])
    return {
        "recording": {
            "n": len(known),
            "present": int(here.sum()),
            **_scores(by_recording, here, [j.recording.group for j in known], 0.5, seed),
        },
        "patient": {
            "n": len(names),
            "present": int(present.sum()),
            **_scores(by_patient, present, [patients[n][0].recording.group for n in names], 0.5, seed),
        },
    }


def _row(
    chosen: Sequence[Recording],
    entry: ModelEntry,
    network: screen.Network,
    seed: int,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], list[_Judged]]:
    started = time.monotonic()
    judged, windows = [], 0
    for recording in chosen:
        found = screen.screen_recording(training_data.load(recording), entry, network=network)
        judged.append(_Judged(recording, found))
        windows += len(found.windows)
    seconds = time.monotonic() - started
    threshold = float(entry.meta["threshold"])
    table = {}
    for name in [d for d in DATABASES if any(r.database == d for r in chosen)]:
        table[name] = _database([j for j in judged if j.recording.database == name], threshold, seed)
        shown = table[name]
        say(f"  {name:<7} n {shown['n']:4d}  AUC {shown['auc']['value']}  MAcc {shown['macc']['value']}")
    probability = np.array([_probability(j.found) for j in judged])
    positive = np.array([j.recording.label == "abnormal" for j in judged])
    groups = [j.recording.group for j in judged]
    each = [entry["auc"]["value"] for entry in table.values() if entry["auc"]["value"] is not None]
    row: dict[str, Any] = {
        "databases": table,
        "mean_within_source_auc": round(float(np.mean(each)), 4) if each else None,
        "pooled": _scores(probability, positive, groups, threshold, seed),
        "windows": windows,
        "ms_per_window": round(1e3 * seconds / max(1, windows), 2),
    }
    heard = [j for j in judged if j.recording.murmur_here is not None]
    if heard:
        row["murmur"] = _murmurs(heard, seed)
        say(
            f"  murmur  AUC {row['murmur']['recording']['auc']['value']} by recording,"
            f" {row['murmur']['patient']['auc']['value']} by patient"
        )
    return row, judged


def torch_network(net: nn.Module) -> screen.Network:
    """A checkpoint's net as a network for device.screen."""

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(np.ascontiguousarray(x))[None, None]).numpy()[0]

    return run


def _floor(everything: Sequence[Recording], chosen: Sequence[Recording], seed: int) -> dict[str, Any]:
    """Who knows only the source and how often it is abnormal in the training folds."""
    rate = {}
    for name in {r.database for r in everything}:
        labels = [r.label == "abnormal" for r in everything if r.database == name and r.fold in (2, 3, 4)]
        rate[name] = float(np.mean(labels)) if labels else 0.5
    probability = np.array([rate[r.database] for r in chosen])
    positive = np.array([r.label == "abnormal" for r in chosen])
    return _scores(probability, positive, [r.group for r in chosen], 0.5, seed)


def _heart_rates(data: Path, chosen: Sequence[Recording]) -> dict[str, Any]:
    """device.rhythm against the marked beats, on up to ten seconds: how often a rate is told, how often it
    is right.
    """
    marks = training_data.states(data)
    told = right = known = 0
    for recording in chosen:
        starts = np.array(
            [s for s, _, state in marks.get(recording.record, ()) if state == "S1" and s < 10.0]
        )
        gaps = np.diff(starts)
        gaps = gaps[(gaps > 0.25) & (gaps < 2.2)]
        if len(gaps) < 3:
            continue
        known += 1
        found = rhythm.heart_rate(training_data.load(recording)[: 10 * WORKING_RATE_HZ])
        if found is not None:
            told += 1
            right += abs(found * float(np.median(gaps)) / 60.0 - 1.0) < 0.05
    return {
        "recordings": known,
        "told": round(told / known, 4) if known else None,
        "within_5_percent_of_those": round(right / told, 4) if told else None,
    }


def left_out(
    name: str, corpus: Corpus, entry: ModelEntry, out: Path, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Train the shipped recipe without the source `name`, fit its operating point on fold 1 of the others,
    and measure it on fold 0 and on all of that source (float).
    """
    recipe = load_recipe(None, hold_out=(name,))
    recipe = dataclasses.replace(recipe, steps=min(recipe.steps, LEFT_OUT_STEPS))
    folder = out / f"left-out-{name}"
    checkpoint = folder / "classifier-full.pt"
    if checkpoint.is_file() and load_checkpoint(checkpoint)[1]["recipe"] == recipe.digest():
        say(f"left out {name}: trained before")
    else:
        say(f"left out {name}: training")
        train(corpus, recipe, folder, say)
    net, _ = load_checkpoint(checkpoint)
    network = torch_network(net)
    usable = [r for r in corpus.recordings if r.reportable and r.label is not None]
    deciding = [r for r in usable if r.fold == recipe.decide and r.database != name]
    point = operating_point(screen_logits(deciding, entry, network), deciding, recipe)
    other = dataclasses.replace(entry, meta={**entry.meta, **point})
    result: dict[str, Any] = {"steps": recipe.steps}
    for label, chosen in (
        ("fold 0", [r for r in usable if r.database == name and r.fold == REPORTED]),
        ("all", [r for r in usable if r.database == name]),
    ):
        judged = [
            _Judged(r, screen.screen_recording(training_data.load(r), other, network=network)) for r in chosen
        ]
        if name == "circor":
            # an outcome is more than a sound; what can travel is the murmur
            judged = [j for j in judged if j.recording.murmur_here in ("yes", "no")]
            positive = np.array([j.recording.murmur_here == "yes" for j in judged])
        else:
            positive = np.array([j.recording.label == "abnormal" for j in judged])
        probability = np.array([_probability(j.found) for j in judged])
        groups = [j.recording.group for j in judged]
        result[label] = {
            "n": len(judged),
            "positive": int(positive.sum()),
            **_scores(probability, positive, groups, float(point["threshold"]), seed),
        }
        shown = result[label]
        say(f"left out {name}, {label}: AUC {shown['auc']['value']} MAcc {shown['macc']['value']}")
    return result


def benchmark(
    data: Path,
    cache: Path,
    *,
    bundle: Path | None = None,
    results: Path | None = None,
    checkpoints: Path | None = None,
    seed: int = 1,
    limit: int | None = None,
    leave_out: Sequence[str] = (),
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure and write `results`/classify.json (default docs/results); gives its content."""
    torch.set_num_threads(1)
    started = time.monotonic()
    loaded = bundles.load(bundle)
    entry = loaded.model("classifier")
    everything = training_data.recordings(data)
    chosen = [r for r in everything if r.fold == REPORTED and r.reportable and r.label is not None]
    if limit:
        chosen = [r for name in DATABASES for r in [c for c in chosen if c.database == name][:limit]]
    rows: dict[str, Any] = {}
    say(f"int8, bundle {loaded.version}, {len(chosen)} recordings")
    rows["int8"], judged = _row(chosen, entry, screen.Int8Network(entry), seed, say)
    base = np.array([_probability(j.found) for j in judged])
    for name, file in (("pruned", "classifier-pruned.pt"), ("float", "classifier-full.pt")):
        path = (checkpoints or Path("runs")) / file
        if not path.is_file():
            say(f"{name}: no {path}, left out")
            continue
        net, _ = load_checkpoint(path)
        say(name)
        rows[name], others = _row(chosen, entry, torch_network(net), seed, say)
        difference = np.abs(base - np.array([_probability(j.found) for j in others]))
        rows[name]["probability_difference_to_int8"] = {
            "mean": round(float(difference.mean()), 4),
            "largest": round(float(difference.max()), 4),
        }
    result: dict[str, Any] = {
        "what": "screening, fold 0, probability of abnormal against the source's label",
        "command": command,
        "commit": commit_id(),
        "seed": seed,
        "bundle": loaded.version,
        "model_sha256": entry.meta["sha256"],
        "runtime": runtime_name(),
        "data": training_data.data_hashes(data),
        "resamples": RESAMPLES,
        "threshold": entry.meta["threshold"],
        "undecided": entry.meta["undecided"],
        "cost": {
            "parameters": entry.meta["parameters"],
            "mac_per_window": entry.meta["mac_per_window"],
            "kilobytes": entry.meta["kilobytes"],
        },
        "floor": _floor(everything, chosen, seed),
        "heart_rate": _heart_rates(data, chosen),
        "rows": rows,
    }
    if leave_out:
        corpus = Corpus(data, cache, say)
        corpus.into_memory()
        out = checkpoints or Path("runs")
        result["left_out"] = {name: left_out(name, corpus, entry, out, seed, say) for name in leave_out}
    result["minutes"] = round((time.monotonic() - started) / 60, 1)
    target = (results or RESULTS) / "classify.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    os.replace(temporary, target)
    say(f"written: {target}")
    return result
