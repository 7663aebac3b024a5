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

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device.errors import BadInput
from device.inference import bundle as bundles
from device.inference.bundle import ModelEntry
from device.rates import WINDOW, WORKING_RATE_HZ
from device.screening import features, quality, screen
from training.core.provenance import RESULTS, commit_id
from training.core.results import write_json
from training.core.say import Say
from training.data import recordings as training_data
from training.data.mixing import NoisePool
from training.data.recordings import REPORTED_FOLD, Recording
from training.metrics.classification import auc, bootstrap, macc
from training.screening.quality import CAUSE_OF, Pieces

__all__ = ["abstaining", "benchmark_quality"]

JUDGES = ("learned", "plain", "learned and margin")
"""The judge's score; the plain measures'; and the judge's times the distance of the probability from the
threshold, which the verdict looks at too."""

JUDGES_OF_FOLDS = ("learned", "learned and margin")

KEPT_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
TOLD_SOURCES = ("a", "b", "e", "f", "circor")
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
        self.judge = quality.QualityJudge.of(entry.arrays)
        self.network = screen.Int8Network(entry)
        self.view = features.View.of(entry.meta)

    def row(self, recording: Recording, positive: bool, x: np.ndarray) -> _Row | None:
        power = features.screening_frames_of(x)
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


class _Windows:
    """Rows as columns, so that a thousand resamples are quick."""

    def __init__(self, rows: Sequence[_Row], thresholds: Mapping[str, float]) -> None:
        self.groups = [r.group for r in rows]
        self.names = sorted({r.database for r in rows})
        self._source = np.array([self.names.index(r.database) for r in rows])
        self._positive = np.array([r.positive for r in rows], bool)
        self._probability = np.array([r.probability for r in rows])
        at = np.array([thresholds[r.database] for r in rows])
        self._called = self._probability >= at
        learned = np.array([r.learned for r in rows])
        reach = np.where(self._called, 1.0 - at, at)
        self._certainty = {
            "learned": learned,
            "plain": np.array([r.plain for r in rows]),
            "learned and margin": learned * np.abs(self._probability - at) / reach,
        }

    def macc(self, by: str, share: float, drawn: np.ndarray | None = None) -> dict[str, float]:
        """MAcc by source of the `share` of each source's windows with the best quality `by` (see JUDGES).

        Cut within each source, for one source's good sound is another one's bad. A source that has only one
        class among what is left is not there. drawn: numbers of the windows (default: all, once).
        """
        drawn = np.arange(len(self._source)) if drawn is None else drawn
        found = {}
        for number, name in enumerate(self.names):
            own = drawn[self._source[drawn] == number]
            # ties are cut in the order of the rows, which has nothing to do with the label
            order = np.argsort(self._certainty[by][own], kind="stable")
            kept = own[order[round((1.0 - share) * len(own)) :]]
            value = macc(self._called[kept].astype(float), self._positive[kept], 0.5)
            if not np.isnan(value):
                found[name] = value
        return found


def abstaining(
    rows: Sequence[_Row],
    thresholds: Mapping[str, float],
    seed: int,
    resamples: int,
    judges: Sequence[str] = JUDGES,
) -> dict[str, Any]:
    """MAcc of windows by the share that is decided, mean over sources, and what the worst tenth costs: a
    paired interval over subjects.
    """
    windows = _Windows(rows, thresholds)

    def gain(by: str) -> Callable[[np.ndarray], float]:
        def paired(drawn: np.ndarray) -> float:
            before, after = (windows.macc(by, share, drawn) for share in (1.0, 0.9))
            both = before.keys() & after.keys()
            return float(np.mean([after[name] - before[name] for name in both])) if both else float("nan")

        return paired

    curves = {by: {f"{share:g}": windows.macc(by, share) for share in KEPT_SHARES} for by in judges}
    return {
        "windows": len(rows),
        "subjects": len(set(windows.groups)),
        "macc": {
            by: {share: round(float(np.mean([*found.values()])), 4) for share, found in curve.items()}
            for by, curve in curves.items()
        },
        "macc_by_source": {
            name: {
                share: round(found[name], 4) for share, found in curves["learned"].items() if name in found
            }
            for name in windows.names
        },
        "gain_without_worst_tenth": {
            by: bootstrap(gain(by), windows.groups, seed, resamples) for by in judges
        },
    }


def _bundle_thresholds(meta: Mapping[str, Any]) -> dict[str, float]:
    # CirCor by the murmur's own probability, fitted to 0.5
    return {name: 0.5 if name == "circor" else float(meta["threshold"]) for name in TOLD_SOURCES}


def _rows_of_folds(data: Path, cache: Path, entry: ModelEntry, say: Say) -> list[_Row]:
    """Windows of the folds whose units of ours are in the cache, each by the int8 network that never heard
    its subject, at that unit's own operating point (threshold moved to 0.5).
    """
    from training.benchmarks.screening_units import unit_point
    from training.screening import candidates, protocols
    from training.screening.corpus import Corpus
    from training.screening.scores import read_unit, unit_folder
    from training.screening.window_quality import HeardWindows

    recordings = training_data.recordings(data)
    units = [protocols.Unit("ours", "folds", str(k)) for k in range(protocols.FOLDS)]
    there = [(unit, read_unit(cache, unit)) for unit in units]
    scored = [(unit, one) for unit, one in there if one is not None and one.row == "int8"]
    if len(scored) < protocols.FOLDS:
        say(f"{len(scored)} of {protocols.FOLDS} folds of ours are trained; they are left out here")
        return []
    heard, corpus = HeardWindows(data, cache, entry, say), Corpus(data, cache, say)
    index = {r.record: k for k, r in enumerate(recordings)}
    rows = []
    for unit, one in scored:
        say(f"windows of {unit.name}")
        small = candidates.kept_int8(unit_folder(cache, unit), entry)
        network, point = screen.Int8Network(small), unit_point(one, recordings, "int8")
        meta = {**small.meta, **point}
        at = float(np.log(point["threshold"] / (1.0 - point["threshold"])))
        for record in one.records["test"]:
            recording = recordings[index[record]]
            positive = _positive(recording)
            if recording.database not in TOLD_SOURCES or positive is None or recording.seconds < 5.0:
                continue
            starts, scores = heard.windows(record)
            apart = np.flatnonzero(starts % (WINDOW // features.FRAME_HOP) == 0)[:MOST_WINDOWS]
            inputs = heard.inputs(corpus, index[record], starts[apart], features.View.of(small.meta))
            for x, score in zip(inputs, scores[apart], strict=True):
                abnormal, murmur = screen.probabilities(network(x), meta)
                logit = float(np.log(max(abnormal, 1e-9) / max(1.0 - abnormal, 1e-9))) - at
                said = murmur if recording.murmur_here is not None else 1.0 / (1.0 + np.exp(-logit))
                rows.append(
                    _Row(recording.database, recording.group, positive, said, float(score), float("nan"))
                )
    return rows


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


def _told_within(judge: quality.QualityJudge | None, x: np.ndarray, seconds: int = 3) -> bool:
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
    cache: Path | None = None,
    bundle: Path | None = None,
    results: Path | None = None,
    seed: int = 1,
    limit: int | None = None,
    command: str | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Write `results`/quality.json. BadInput when the bundle has no judge.

    cache: where `stethopi benchmark classify` keeps its units; with ours on all folds there, abstaining is
    measured over all of them, too. limit: to try, fewer of all.
    """
    found = bundles.load(bundle)
    entry = found.model("classifier")
    if quality.QualityJudge.of(entry.arrays) is None:
        raise BadInput(
            f"{found.folder}: no judge of quality in this bundle; run stethopi train quality, release"
        )
    began = time.monotonic()
    scorer = _Scorer(entry)
    all_of_fold = [r for r in training_data.recordings(data) if r.fold == REPORTED_FOLD and r.seconds >= 5.0]
    chosen = [
        r for r in all_of_fold if r.reportable and r.database in TOLD_SOURCES and _positive(r) is not None
    ]
    if limit:
        by_source: dict[str, list[Recording]] = {}
        for recording in chosen:
            by_source.setdefault(recording.database, []).append(recording)
        chosen = [r for rows in by_source.values() for r in rows[:: max(1, len(rows) // limit)][:limit]]
    noise = NoisePool.load(data, "test", free_only=False)
    draws = min(limit or 60, 60)
    pieces = Pieces(data, (REPORTED_FOLD,), noise, entry, 400, seed, say)
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
    thresholds = _bundle_thresholds(entry.meta)
    say("abstaining")
    result: dict[str, Any] = {
        "command": command,
        "commit": commit_id(),
        "bundle": found.version,
        "fold": REPORTED_FOLD,
        "seed": seed,
        "limit": limit,
        "judge": entry.meta["quality"],
        "abstaining": {
            "as recorded": abstaining(clean, thresholds, seed, resamples),
            "noise in half of the windows": abstaining(noisy, thresholds, seed, resamples),
        },
    }
    if cache is not None and not limit and (rows := _rows_of_folds(data, cache, entry, say)):
        of_folds = abstaining(rows, dict.fromkeys(TOLD_SOURCES, 0.5), seed, resamples, JUDGES_OF_FOLDS)
        result["abstaining"]["as recorded, five folds"] = of_folds
    say("bad recordings")
    result["bad"] = _bad(scorer, [r for r in all_of_fold if r.reportable], data, limit)
    say("causes")
    result["causes"] = _causes(scorer, pieces, draws, seed)
    say("contact")
    result["contact_told_within_3_s"] = _contact(scorer, pieces, draws, seed)
    result["minutes"] = round((time.monotonic() - began) / 60, 1)
    folder = results or RESULTS
    write_json(folder / "quality.json", result)
    return result
