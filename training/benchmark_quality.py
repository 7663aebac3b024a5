"""Measure the judge of sound quality on fold 0, with noise that nobody learned from, and write
docs/results/quality.json.

    stethopi benchmark quality --data ../shared/data

- `abstaining`: the screening verdict of single windows (mean over the sources of MAcc, which is the mean of
  sensitivity and specificity) when the worst windows are left undecided, by the judge and, beside it, by the
  plain measures; paired intervals over subjects. On recordings as they are, poor ones included, and with
  noise put into half of the windows.
- `bad`: real bad recordings told from good ones, by source.
- `causes`: is the right thing said of noise of known kind, and nothing of good sound.
- `contact`: is the operator told within three seconds, by the rule of the live exam.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device import bundle as bundles
from device import features, quality, screen
from device.bundle import ModelEntry
from device.errors import BadInput
from device.rates import WINDOW, WORKING_RATE_HZ
from training import data as training_data
from training.card import RESULTS
from training.data import Recording
from training.figures import auc, bootstrap, macc
from training.mixing import NoisePool
from training.quality import CAUSE_OF, Pieces
from training.release import commit_id

__all__ = ["abstain", "benchmark_quality"]

REPORTED = 0
JUDGES = ("learned", "plain", "learned and margin")
"""The judge's score; the plain measures'; and the judge's times the distance of the probability from the
threshold, which the verdict looks at too."""

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
SOURCES = ("a", "b", "e", "f", "circor")
"""Whose MAcc is averaged; c and d have a handful of subjects in a fold."""

DRAWS = 3
"""Of noise for each window."""

MOST_WINDOWS = 6
"""Of one recording: a long one shall not speak for all."""

NOISE_DB = (-6.0, 12.0)
CAUSE_DB = (6, 0, -6)


@dataclass(frozen=True)
class _Row:
    database: str
    group: str
    positive: bool
    probability: float
    learned: float
    plain: float


def _positive(recording: Recording) -> bool | None:
    """What the screening verdict should be: CirCor by the murmur that was heard there, others by label."""
    if recording.murmur_here is not None:
        return {"yes": True, "no": False}.get(recording.murmur_here)
    return None if recording.label is None else recording.label == "abnormal"


class _Scorer:
    def __init__(self, entry: ModelEntry) -> None:
        self.entry = entry
        self.judge = quality.Judge.of(entry.arrays)
        self.network = screen.Int8Network(entry)
        self.view = features.View.of(entry.meta)

    def row(self, recording: Recording, positive: bool, x: np.ndarray) -> _Row | None:
        power = features.frames_of(x)
        learned = quality.assess(x, (), power, self.judge)
        if learned.reasons[:1] == ("silence",):
            return None
        logits = self.network(features.network_input(power, self.view))
        abnormal, murmur = screen.probabilities(logits, self.entry.meta)
        return _Row(
            recording.database,
            recording.group,
            positive,
            murmur if recording.murmur_here is not None else abnormal,
            learned.score,
            quality.assess(x, (), power).score,
        )


def _certainty(row: _Row, by: str, threshold: float) -> float:
    """By what windows are put in order: quality, perhaps with the verdict's distance from the threshold."""
    if by == "learned and margin":
        reach = 1.0 - threshold if row.probability >= threshold else threshold
        return row.learned * abs(row.probability - threshold) / reach
    return float(getattr(row, by))


def abstain(rows: list[_Row], by: str, share: float, thresholds: dict[str, float]) -> dict[str, float]:
    """MAcc by source of the `share` of each source's windows with the best quality `by` (see JUDGES).

    Cut within each source, for one source's good sound is another one's bad. A source that has only one class
    among what is left is not there.
    """
    found = {}
    for name in sorted({r.database for r in rows}):
        own = [r for r in rows if r.database == name]
        score = np.array([_certainty(r, by, thresholds[name]) for r in own])
        # ties are cut in the order of the rows, which has nothing to do with the label
        kept = [own[k] for k in np.argsort(score, kind="stable")[round((1.0 - share) * len(own)) :]]
        positive = np.array([r.positive for r in kept], bool)
        value = macc(np.array([r.probability for r in kept]), positive, thresholds[name])
        if not np.isnan(value):
            found[name] = value
    return found


def _abstaining(rows: list[_Row], meta: dict[str, Any], seed: int, resamples: int) -> dict[str, Any]:
    thresholds = {name: float(meta["threshold"]) for name in {r.database for r in rows}}
    thresholds["circor"] = 0.5  # the murmur's own probability, fitted to 0.5

    def gain(by: str) -> Callable[[np.ndarray], float]:
        def paired(drawn: np.ndarray) -> float:
            picked = [rows[k] for k in drawn]
            before, after = (abstain(picked, by, share, thresholds) for share in (1.0, 0.9))
            both = before.keys() & after.keys()
            return float(np.mean([after[name] - before[name] for name in both])) if both else float("nan")

        return paired

    groups = [r.group for r in rows]
    curves = {by: {f"{share:g}": abstain(rows, by, share, thresholds) for share in SHARES} for by in JUDGES}
    return {
        "windows": len(rows),
        "subjects": len(set(groups)),
        "macc": {
            by: {share: round(float(np.mean([*found.values()])), 4) for share, found in curve.items()}
            for by, curve in curves.items()
        },
        "macc_by_source": {
            name: {
                share: round(found[name], 4) for share, found in curves["learned"].items() if name in found
            }
            for name in sorted(thresholds)
        },
        "gain_without_worst_tenth": {by: bootstrap(gain(by), groups, seed, resamples) for by in JUDGES},
    }


def _bad(scorer: _Scorer, recordings: list[Recording], data: Path, limit: int | None) -> dict[str, Any]:
    """AUC of quality for good against bad recordings (mean of their windows), by source."""
    spans = training_data.noise_spans(data)
    table: dict[str, Any] = {}
    for database in sorted({r.database for r in recordings if r.quality == "poor"}):
        own = [
            r for r in recordings if r.database == database and r.record not in spans or r.quality == "poor"
        ]
        own = [r for r in own if r.database == database]
        poor = [r for r in own if r.quality == "poor"][:limit]
        fine = [r for r in own if r.quality != "poor"][: 3 * len(poor) + 20][: limit and 3 * limit]
        scores: dict[str, list[float]] = {"learned": [], "plain": []}
        passed = {True: [0, 0], False: [0, 0]}
        for recording in [*fine, *poor]:
            x = training_data.load(recording)
            pieces = [x[s : s + WINDOW] for s in range(0, max(1, len(x) - WINDOW + 1), WINDOW)]
            learned = [quality.assess(p, judge=scorer.judge).score for p in pieces]
            scores["learned"].append(float(np.mean(learned)))
            scores["plain"].append(float(np.mean([quality.assess(p).score for p in pieces])))
            good = passed[recording.quality != "poor"]
            good[0] += sum(score >= quality.GOOD for score in learned)
            good[1] += len(learned)
        truth = np.array([False] * len(fine) + [True] * len(poor))
        table[database] = {
            "good": len(fine),
            "poor": len(poor),
            "auc": {by: round(float(auc(-np.array(v), truth)), 4) for by, v in scores.items()},
            "good_windows_kept": round(passed[True][0] / max(1, passed[True][1]), 4),
            "poor_windows_kept": round(passed[False][0] / max(1, passed[False][1]), 4),
        }
    return table


def _causes(scorer: _Scorer, pieces: Pieces, draws: int, seed: int) -> dict[str, Any]:
    """Share of 5-s mixtures of which the right cause, or any, is told, and share that still counts."""
    table: dict[str, Any] = {}
    for number, kind in enumerate(pieces.noise.kinds):
        row: dict[str, Any] = {"cause": CAUSE_OF[kind]}
        for snr in CAUSE_DB:
            told = any_told = kept = moved = 0
            for k in range(draws):
                rng = np.random.default_rng([seed, number, k])
                x = pieces.window(rng)
                y, _ = pieces.spoil(rng, x, [kind], snr)
                found = quality.assess(y, judge=scorer.judge)
                told += CAUSE_OF[kind] in found.reasons
                any_told += bool(found.reasons)
                kept += found.good
                moved += abs(pieces.verdict(x) - pieces.verdict(y)) > 0.3
            row[str(snr)] = {
                "right_cause": round(told / draws, 3),
                "any_reason": round(any_told / draws, 3),
                "kept": round(kept / draws, 3),
                "verdict_moved": round(moved / draws, 3),
            }
        table[kind] = row
    kept = said = 0
    for k in range(4 * draws):
        found = quality.assess(pieces.window(np.random.default_rng([seed, 999, k])), judge=scorer.judge)
        kept += found.good
        said += bool(found.reasons)
    table["good sound"] = {"kept": round(kept / (4 * draws), 3), "any_reason": round(said / (4 * draws), 3)}
    return table


def _told_within(judge: quality.Judge | None, x: np.ndarray, seconds: int = 3) -> bool:
    """Would the exam's light have said so: it judges all there is (3 s at most) at each full second."""
    return any(not quality.assess(x[: s * WORKING_RATE_HZ], judge=judge).good for s in range(1, seconds + 1))


def _contact(scorer: _Scorer, pieces: Pieces, draws: int, seed: int) -> dict[str, Any]:
    """Share of bad contacts that are told within three seconds; `good sound`: of good ones, wrongly."""
    three = 3 * WORKING_RATE_HZ
    cases: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
        "good sound": lambda rng: pieces.window(rng),
        "nothing but the microphone's own hiss": lambda rng: (2e-4 * rng.standard_normal(WINDOW)).astype(
            np.float32
        ),
        "silence": lambda rng: np.zeros(WINDOW, np.float32),
        "hardly touching (40 dB softer)": lambda rng: _softer(pieces.window(rng), rng),
        "clipped": lambda rng: _clipped(pieces.window(rng)),
    }

    def noise_alone(kind: str) -> Callable[[np.random.Generator], np.ndarray]:
        def make(rng: np.random.Generator) -> np.ndarray:
            x = pieces.window(rng)
            return (pieces.spoil(rng, x, [kind], 0.0)[0] - x).astype(np.float32)

        return make

    for kind in pieces.noise.kinds:
        cases[f"{kind} alone"] = noise_alone(kind)
    table = {}
    for number, (name, make) in enumerate(cases.items()):
        told = [
            _told_within(scorer.judge, make(np.random.default_rng([seed, 77, number, k]))[:three])
            for k in range(draws)
        ]
        table[name] = round(float(np.mean(told)), 3)
    return table


def _softer(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A loose contact: the heart 40 dB down, the microphone's hiss as it was."""
    hiss = 3e-4 * rng.standard_normal(len(x))
    return (0.01 * x / max(float(np.abs(x).max()), 1e-6) * 0.3 + hiss).astype(np.float32)


def _clipped(x: np.ndarray) -> np.ndarray:
    limit = float(np.percentile(np.abs(x), 85))
    return np.clip(x, -limit, limit)


def benchmark_quality(
    data: Path,
    *,
    bundle: Path | None = None,
    results: Path | None = None,
    seed: int = 1,
    limit: int | None = None,
    command: str | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write `results`/quality.json. BadInput when the bundle has no judge. limit: to try, fewer of all."""
    found = bundles.load(bundle)
    entry = found.model("classifier")
    if quality.Judge.of(entry.arrays) is None:
        raise BadInput(
            f"{found.folder}: no judge of quality in this bundle; run stethopi train quality, release"
        )
    began = time.monotonic()
    scorer = _Scorer(entry)
    all_of_fold = [r for r in training_data.recordings(data) if r.fold == REPORTED and r.seconds >= 5.0]
    chosen = [r for r in all_of_fold if r.reportable and r.database in SOURCES and _positive(r) is not None]
    if limit:
        by_source: dict[str, list[Recording]] = {}
        for recording in chosen:
            by_source.setdefault(recording.database, []).append(recording)
        chosen = [r for rows in by_source.values() for r in rows[:: max(1, len(rows) // limit)][:limit]]
    noise = NoisePool.load(data, "test", free_only=False)
    draws = min(limit or 60, 60)
    pieces = Pieces(data, (REPORTED,), noise, entry, 400, seed, say)
    clean: list[_Row] = []
    noisy: list[_Row] = []
    for number, recording in enumerate(chosen):
        if number % 200 == 0:
            say(f"windows of recordings: {number} of {len(chosen)}")
        positive = bool(_positive(recording))
        sound = training_data.load(recording)
        for k, start in enumerate(range(0, len(sound) - WINDOW + 1, WINDOW)):
            if k == MOST_WINDOWS:
                break
            x = sound[start : start + WINDOW]
            row = scorer.row(recording, positive, x)
            if row is None:
                continue
            clean.append(row)
            for draw in range(DRAWS):
                rng = np.random.default_rng([seed, number, k, draw])
                other = row
                if rng.random() < 0.5:
                    kind = noise.kinds[int(rng.integers(len(noise.kinds)))]
                    spoilt = pieces.spoil(rng, x, [kind], rng.uniform(*NOISE_DB))[0]
                    other = scorer.row(recording, positive, spoilt) or row
                noisy.append(other)
    resamples = 50 if limit else 500
    say("abstaining")
    result: dict[str, Any] = {
        "command": command,
        "commit": commit_id(),
        "bundle": found.version,
        "fold": REPORTED,
        "seed": seed,
        "limit": limit,
        "judge": entry.meta["quality"],
        "abstaining": {
            "as recorded": _abstaining(clean, entry.meta, seed, resamples),
            "noise in half of the windows": _abstaining(noisy, entry.meta, seed, resamples),
        },
    }
    say("bad recordings")
    result["bad"] = _bad(scorer, [r for r in all_of_fold if r.reportable], data, limit)
    say("causes")
    result["causes"] = _causes(scorer, pieces, draws, seed)
    say("contact")
    result["contact_told_within_3_s"] = _contact(scorer, pieces, draws, seed)
    result["minutes"] = round((time.monotonic() - began) / 60, 1)
    folder = results or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "quality.json.tmp"
    temporary.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    os.replace(temporary, folder / "quality.json")
    return result
