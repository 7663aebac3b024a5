"""Measure the screening models, side by side, and write docs/results/classify.json.

    stethopi benchmark classify                              the bundle on fold 0, and what is trained already
    stethopi benchmark classify --train ours/left-out cnn1d  train what is missing of these, then the same
    stethopi benchmark classify --train all --minutes 100    as much as fits; the next run goes on

Two parts. The **bundle**, what the Pi runs, on fold 0 through device.screening.screen: int8, beside the
checkpoints in --out (pruned, float), with noise and filters put before it. And the **comparison** of all
models by training.screening.protocols: each unit trains a network of its own and leaves its scores (logits of
every judged and every deciding recording) in the cache, `screening/<model>/<protocol>/<part>`. The result is
put together from the units that are there; those that are not are named.

Each source apart, for label and database are tied: who knows only the source scores well when all are
pooled, and that floor stands beside. Intervals by bootstrap over subjects. The 87 recordings of e whose
subject is unknown stay out.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from device.errors import BadInput
from device.inference import bundle as bundles
from device.inference.bundle import ModelEntry
from device.inference.interpreter import runtime_name
from device.rates import WORKING_RATE_HZ
from device.screening import rhythm, screen
from device.screening.verdict import Findings, Label
from training.benchmarks.screening_comparison import assemble
from training.benchmarks.screening_noise import NoisyRecordings, noise_figures
from training.benchmarks.screening_units import run_unit
from training.core.provenance import RESULTS, commit_id
from training.core.results import write_json
from training.core.say import Say
from training.data import recordings as training_data
from training.data.recordings import DATABASES, REPORTED_FOLD, Recording
from training.metrics.classification import RESAMPLES, calibrated, macc, referrals_of, scores
from training.screening import protocols
from training.screening.candidates import Candidate, candidate_of, names, torch_network
from training.screening.operating_point import sound_logits
from training.screening.train import load_checkpoint
from training.screening.window_quality import HeardWindows

__all__ = ["benchmark_classify", "goals_reached"]


# ── the bundle on fold 0 ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Judged:
    recording: Recording
    found: Findings


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
        **scores(probability, positive, [j.recording.group for j in judged], threshold, seed),
        **calibrated(probability, positive),
        "decided": round(float(decided.mean()), 4),
    }
    of_decided = macc(called[decided].astype(float), positive[decided], 0.5)
    entry["macc_of_decided"] = None if np.isnan(of_decided) else round(of_decided, 4)
    return entry


def _murmurs(judged: Sequence[_Judged], of_patient: float, seed: int) -> dict[str, Any]:
    """CirCor's murmurs, by recording (heard at this position or not) and by patient (the most certain
    position, from the threshold `of_patient` up).
    """
    known = [j for j in judged if j.recording.murmur_here in ("yes", "no")]
    by_recording = np.array([j.found.murmur or 0.0 for j in known])
    here = np.array([j.recording.murmur_here == "yes" for j in known])
    patients: dict[str, list[_Judged]] = {}
    for j in judged:
        if j.recording.meta.get("murmur") in ("present", "absent"):
            patients.setdefault(j.recording.meta["patient"], []).append(j)
    who = sorted(patients)
    by_patient = np.array([max(j.found.murmur or 0.0 for j in patients[n]) for n in who])
    present = np.array([patients[n][0].recording.meta["murmur"] == "present" for n in who])
    groups = [patients[n][0].recording.group for n in who]
    found: dict[str, Any] = {
        "recording": {
            "n": len(known),
            "present": int(here.sum()),
            **scores(by_recording, here, [j.recording.group for j in known], 0.5, seed),
            **calibrated(by_recording, here),
        },
        "patient": {
            "n": len(who),
            "present": int(present.sum()),
            "threshold": of_patient,
            **scores(by_patient, present, groups, of_patient, seed),
            **calibrated(by_patient, present),
        },
    }
    for one in found.values():
        one["referrals"] = referrals_of(one)
    return found


def _row(
    chosen: Sequence[Recording], entry: ModelEntry, network: screen.Network, seed: int, say: Say
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
        "pooled": scores(probability, positive, groups, threshold, seed),
        "windows": windows,
        "ms_per_window": round(1e3 * seconds / max(1, windows), 2),
    }
    heard = [j for j in judged if j.recording.murmur_here is not None]
    if heard:
        row["murmur"] = _murmurs(heard, float(entry.meta.get("murmur_by_patient", 0.5)), seed)
        say(
            f"  murmur  AUC {row['murmur']['recording']['auc']['value']} by recording,"
            f" {row['murmur']['patient']['auc']['value']} by patient"
        )
    return row, judged


def _floor(everything: Sequence[Recording], chosen: Sequence[Recording], seed: int) -> dict[str, Any]:
    """Who knows only the source and how often it is abnormal in the training folds."""
    rate = {}
    for name in {r.database for r in everything}:
        labels = [r.label == "abnormal" for r in everything if r.database == name and r.fold in (2, 3, 4)]
        rate[name] = float(np.mean(labels)) if labels else 0.5
    probability = np.array([rate[r.database] for r in chosen])
    positive = np.array([r.label == "abnormal" for r in chosen])
    return scores(probability, positive, [r.group for r in chosen], 0.5, seed)


def _heart_rates(data: Path, chosen: Sequence[Recording]) -> dict[str, Any]:
    """device.screening.rhythm against the marked beats, on up to ten seconds: how often a rate is told, how
    often it is right.
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


def _people(everything: Sequence[Recording], folds: Sequence[int]) -> dict[str, Any]:
    """Who was heard in training, by source: recordings, subjects, age groups and sexes as the index tells."""
    table: dict[str, Any] = {}
    for name in [d for d in DATABASES if any(r.database == d for r in everything)]:
        own = [r for r in everything if r.database == name and r.fold in folds and r.label is not None]
        first = {r.group: r for r in own}
        ages = Counter(_age_group(r.meta.get("age", "")) for r in first.values())
        sexes = Counter((r.meta.get("sex") or "unknown").lower() for r in first.values())
        table[name] = {
            "recordings": len(own),
            "subjects": len(first),
            "ages": dict(sorted(ages.items())),
            "sexes": dict(sorted(sexes.items())),
        }
    return table


def _age_group(age: str) -> str:
    """CirCor tells age groups, the others years or nothing."""
    age = age.strip().lower()
    try:
        years = float(age)
    except ValueError:
        return age or "unknown"
    return "under 18 years" if years < 18 else "18 to 59 years" if years < 60 else "60 years and over"


def _qualities(heard: HeardWindows, everything: Sequence[Recording]) -> dict[str, float]:
    """Mean quality of the windows of each recording; 0 where all is silent."""
    scores = {r.record: heard.windows(r.record)[1] for r in everything}
    return {record: float(one.mean()) if len(one) else 0.0 for record, one in scores.items()}


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────────────


def _write(target: Path, result: dict[str, Any]) -> None:
    write_json(target, result)


def _of_this_bundle(target: Path, entry: ModelEntry, hashes: dict[str, str], seed: int) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(target.read_text("utf-8")) if target.is_file() else {}
    said = (result.get("model_sha256"), result.get("data"), result.get("seed"))
    if said != (entry.meta["sha256"], hashes, seed):
        raise BadInput(
            f"--only-models: {target} does not tell of this bundle, data and seed; run without --only-models"
        )
    return result


def _bundle_rows(
    entry: ModelEntry, chosen: Sequence[Recording], checkpoints: Path, seed: int, say: Say
) -> dict[str, Any]:
    """The bundle's network, and what it came from, as far as checkpoints are there."""
    rows: dict[str, Any] = {}
    rows["int8"], judged = _row(chosen, entry, screen.Int8Network(entry), seed, say)
    base = np.array([_probability(j.found) for j in judged])
    for name, file in (("pruned", "classifier-pruned.pt"), ("float", "classifier-full.pt")):
        path = checkpoints / file
        if not path.is_file():
            say(f"{name}: no {path}, left out")
            continue
        net, _ = load_checkpoint(path)
        say(name)
        seen = dataclasses.replace(entry, meta={**entry.meta, **dataclasses.asdict(net.view)})
        rows[name], others = _row(chosen, seen, torch_network(net), seed, say)
        difference = np.abs(base - np.array([_probability(j.found) for j in others]))
        rows[name]["probability_difference_to_int8"] = {
            "mean": round(float(difference.mean()), 4),
            "largest": round(float(difference.max()), 4),
        }
    return rows


def benchmark_classify(
    data: Path,
    cache: Path,
    *,
    bundle: Path | None = None,
    results: Path | None = None,
    checkpoints: Path | None = None,
    seed: int = 1,
    limit: int | None = None,
    train: Sequence[str] = (),
    train_only: bool = False,
    minutes: float | None = None,
    noise: bool = True,
    only_models: bool = False,
    command: str | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Measure and write `results`/classify.json (default docs/results); gives its content.

    train: patterns of units to train where they are not there yet (training.screening.protocols.matching).
    minutes: begin no training after so many.
    train_only: nothing is measured or written; gives {}.
    noise: also measure the bundle with noise put in.
    only_models: what the last result tells of this very bundle stays. BadInput when it tells of another.
    limit: recordings a source.
    """
    torch.set_num_threads(1)
    started = time.monotonic()
    loaded = bundles.load(bundle)
    entry = loaded.model("classifier")
    everything = training_data.recordings(data)
    hashes = training_data.data_hashes(data)
    wanted = protocols.matching(train, protocols.units(names(), {r.database for r in everything}))
    chosen = [r for r in everything if r.fold == REPORTED_FOLD and r.reportable and r.label is not None]
    if limit:
        chosen = [r for name in DATABASES for r in [c for c in chosen if c.database == name][:limit]]
    noisy = None
    asked = not train_only or any((u.protocol, u.part) == ("folds", "0") for u in wanted)
    if noise and asked and not only_models and (Path(data) / "noise").is_dir():
        noisy = NoisyRecordings(data, cache, chosen, loaded.model("denoiser"), seed, say)
    models: dict[str, Candidate] = {}
    left = []
    for unit in wanted:
        if minutes is not None and (time.monotonic() - started) / 60 >= minutes:
            left.append(unit.name)
            continue
        if unit.model not in models:
            models[unit.model] = candidate_of(unit.model, Path(data), Path(cache), entry, say)
        run_unit(unit, models[unit.model], everything, hashes, Path(cache), seed=seed, noisy=noisy, say=say)
    if left:
        say(f"after {minutes:g} minutes not begun: {', '.join(left)}; the same command goes on")
    if train_only:
        return {}
    target = (results or RESULTS) / "classify.json"

    def compare() -> dict[str, Any]:
        quality = _qualities(HeardWindows(data, cache, entry, say), everything)
        return assemble(data, cache, everything, seed, names(), quality=quality)

    if only_models:
        kept = _of_this_bundle(target, entry, hashes, seed)
        kept["models"] = compare()
        kept["models_command"], kept["models_commit"] = command, commit_id()
        kept["goals"] = goals_reached(kept)
        _write(target, kept)
        say(f"written: {target}")
        return kept
    say(f"int8, bundle {loaded.version}, {len(chosen)} recordings")
    rows = _bundle_rows(entry, chosen, checkpoints or Path("runs"), seed, say)
    result: dict[str, Any] = {
        "what": "screening, fold 0, probability of abnormal against the source's label",
        "command": command,
        "commit": commit_id(),
        "seed": seed,
        "bundle": loaded.version,
        "model_sha256": entry.meta["sha256"],
        "runtime": runtime_name(),
        "data": hashes,
        "resamples": RESAMPLES,
        "threshold": entry.meta["threshold"],
        "undecided": entry.meta["undecided"],
        "cost": {
            "parameters": entry.meta["parameters"],
            "mac_per_window": entry.meta["mac_per_window"],
            "kilobytes": entry.meta["kilobytes"],
        },
        "trained_on": _people(everything, entry.meta["trained_on"]["folds"]),
        "floor": _floor(everything, chosen, seed),
        "heart_rate": _heart_rates(data, chosen),
        "rows": rows,
    }
    if noisy is not None:
        say("the bundle in noise")
        network = screen.Int8Network(entry)
        heard = noisy.logits(lambda x: sound_logits(x, entry, network))
        result["noise"] = noise_figures(noisy.recordings, heard, entry.meta)
    result["models"] = compare()
    result["goals"] = goals_reached(result)
    result["minutes"] = round((time.monotonic() - started) / 60, 1)
    _write(target, result)
    say(f"written: {target}")
    return result


# ── goals ───────────────────────────────────────────────────────────────────────────────────────────────────


def _goal(
    figure: str, goal: float, entry: Any, stretch: float | None = None, *, at_most: bool = False
) -> dict[str, Any]:
    """A row of goal and measured. entry: a number, `{value, low, high}`, or None where not measured."""
    value = entry.get("value") if isinstance(entry, dict) else entry
    met = None if value is None else bool(value <= goal if at_most else value >= goal)
    row = {"figure": figure, "goal": goal, "at_most": at_most, "measured": entry, "met": met}
    return row | ({"stretch": stretch} if stretch is not None else {})


def _left_out(models: dict[str, Any], model: str) -> dict[str, dict[str, Any]]:
    """int8 scores on a, f and CirCor (murmur at that position, by the probability of abnormal), each left
    out.
    """
    found = models.get(model, {}).get("left-out", {}).get("rows", {}).get("int8", {})
    table = {name: found["databases"][name] for name in ("a", "f") if name in found.get("databases", {})}
    if found.get("murmur"):
        table["circor"] = found["murmur"]["by_abnormal"]
    return table


def _mean(values: Sequence[float | None], wanted: int) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 4) if len(known) == wanted else None


def _mean_auc(models: dict[str, Any], model: str) -> float | None:
    return _mean([one["auc"]["value"] for one in _left_out(models, model).values()], 3)


def goals_reached(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at and what is measured, missed goals and all; None where the units are not there."""
    models, bundle = result["models"], result["rows"]["int8"]
    ours, mine = _left_out(models, "ours"), _mean_auc(models, "ours")
    rows = [_goal("left out of training, int8: AUC, mean over a, f, CirCor (murmur)", 0.80, mine, 0.85)]
    told = {"a": "a", "f": "f", "circor": "CirCor (murmur)"}
    for name, label in told.items():
        rows.append(_goal(f"left out of training, int8: AUC, {label}", 0.75, ours.get(name, {}).get("auc")))
    others = [_mean_auc(models, model) for model in models if model != "ours"]
    best = max((v for v in others if v is not None), default=None)
    lead = None if best is None or mine is None else round(mine - best, 4)
    rows.append(_goal("the same: lead over the best other model measured", 0.10, lead))
    for name, label in told.items():
        one = ours.get(name, {})
        rows.append(_goal(f"left out, at the one threshold: MAcc, {label}", 0.70, one.get("macc"), 0.76))
        gap = None
        if one and one["macc"]["value"] is not None and one["macc_at_best_threshold"] is not None:
            gap = round(one["macc_at_best_threshold"] - one["macc"]["value"], 4)
        rows.append(_goal(f"the same: MAcc lost to the best threshold, {label}", 0.04, gap, at_most=True))
    complete = len(models.get("ours", {}).get("folds", {}).get("units", {})) == protocols.FOLDS
    five = models["ours"]["folds"]["rows"].get("int8", {}).get("databases", {}) if complete else {}
    heard_there = models["ours"]["folds"]["rows"].get("int8", {}).get("murmur") if complete else None
    murmurs = five | {"circor": heard_there["by_abnormal"]} if heard_there else {}
    wide = ("a", "b", "e", "f", "circor")
    for key, goal, label in (("auc", 0.85, "AUC"), ("macc", 0.77, "MAcc")):
        each = [five[name][key]["value"] for name in wide if name in five]
        rows.append(_goal(f"five folds: {label} within a source, mean of five", goal, _mean(each, 5)))
        each = [one[key]["value"] for name, one in murmurs.items() if name in wide]
        rows.append(_goal(f"the same, CirCor by its murmurs: {label}", goal, _mean(each, 5)))
    patients = (models["ours"].get("murmur_by_patient") if complete else None) or {}
    rows.append(_goal("five folds: CirCor's murmurs by patient, AUC", 0.90, patients.get("auc")))
    weighted = patients.get("weighted_accuracy")
    rows.append(_goal("five folds: CirCor's murmurs by patient, weighted accuracy", 0.76, weighted, 0.80))
    for name in wide:
        error = five.get(name, {}).get("after_scaling", {}).get("calibration_error")
        rows.append(_goal(f"five folds: calibration error after scaling, {name}", 0.07, error, at_most=True))
    before = result["rows"].get("pruned") or result["rows"].get("float")
    lost = None
    if before:
        pairs = [
            (before["databases"][name]["auc"]["value"], entry["auc"]["value"])
            for name, entry in bundle["databases"].items()
        ]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        lost = round(float(np.mean(known)), 4) if known else None
    rows.append(_goal("int8 against float: AUC lost, mean over sources", 0.005, lost, at_most=True))
    cost = result["cost"]
    rows.append(_goal("MMAC a window", 10.0, round(cost["mac_per_window"] / 1e6, 2), at_most=True))
    rows.append(_goal("kB of the int8 file", 300.0, cost["kilobytes"], at_most=True))
    return rows
