"""Measure where S1, S2 and the beats are found, on subjects that no training heard.

    python -m training.benchmarks.rhythm --data ../shared/data --out runs    → docs/results/rhythm.json
    python -m training.benchmarks.rhythm --fold 1 --results /tmp             the fold that decides

Every marked recording of the fold, whatever its quality, whole: none is left out but those whose subject is
unknown. Rows: `streaming`, the early answer through the streaming decoder from the recording's first frame,
290 ms behind; `unhurried`, the late answer through the same decoder, which shows what the wait costs;
`offline`, the late answer through both passes over the whole recording. For each the field's
F1 of S1 and S2 within 100 and 60 ms (training.rhythm.measure), by database and as the mean over databases.
Then the heart rate over the whole recording against the marks,
how much was refused, and beside it today's autocorrelation (device.screening.rhythm). Intervals: bootstrap
over subjects.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from device.errors import BadInput, StethopiError
from device.screening import features, rhythm
from device.screening.segmentation import EARLY, FRAMES_PER_S, LAG, SURE, beats, rhythm_of
from training.core.provenance import RESULTS, commit_id
from training.core.results import write_json
from training.core.say import Say, say
from training.data import recordings as training_data
from training.data.recordings import DATABASES, Recording
from training.metrics.classification import bootstrap
from training.rhythm.measure import (
    TOLERANCES_S,
    counts,
    f1,
    marked_rate,
    marks_of,
    middles,
    offline_states,
    probabilities,
    streamed_states,
)
from training.rhythm.train import FOLDS, checkpoint_path, load_rhythm

__all__ = ["benchmark_rhythm"]

ROWS = ("streaming", "unhurried", "offline")

WRONG_F1 = 0.8
"""A recording with less is wrongly segmented, and should have been refused."""


@dataclass
class _Heard:
    """One recording, measured."""

    recording: Recording
    marked_bpm: float | None
    autocorrelation_bpm: float | None
    counts: dict[tuple[str, float], np.ndarray] = field(default_factory=dict)
    """By row and tolerance."""
    confidence: dict[str, float] = field(default_factory=dict)
    rate_bpm: dict[str, float | None] = field(default_factory=dict)


def _measured(net: Any, recording: Recording, spans: Sequence[tuple[float, float, str]]) -> _Heard:
    sound = training_data.load(recording)
    power = features.screening_frames_of(sound)
    marks = marks_of(spans, recording.seconds)
    early, late = probabilities(net, power)
    told, sure = rhythm.beat(power)
    heard = _Heard(recording, marked_rate(spans), told if sure >= rhythm.SURE else None)
    for row, answer, codes in (
        ("streaming", early, streamed_states(early)),
        ("unhurried", late, streamed_states(late)),
        ("offline", late, offline_states(late)),
    ):
        found = rhythm_of(beats(codes, answer))
        heard.confidence[row], heard.rate_bpm[row] = found.confidence, found.heart_rate_bpm
        where = middles(codes)
        for tolerance in TOLERANCES_S:
            heard.counts[row, tolerance] = counts(where, marks, tolerance)
    return heard


def _f1_table(heard: Sequence[_Heard], row: str, tolerance: float, seed: int) -> dict[str, Any]:
    """F1 by database and its mean over them, with intervals over subjects."""
    counted = np.array([h.counts[row, tolerance] for h in heard]).reshape(len(heard), 3)
    database = np.array([h.recording.database for h in heard])
    groups = [h.recording.group for h in heard]
    names = [d for d in DATABASES if (database == d).any()]

    def score(rows: np.ndarray, of: np.ndarray | None = None) -> float:
        return f1(counted[rows if of is None else of[rows]].sum(axis=0))

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([score(rows[database[rows] == name]) for name in names]))

    table: dict[str, Any] = {}
    for name in names:
        own = np.flatnonzero(database == name)
        table[name] = {
            **bootstrap(partial(score, of=own), [groups[i] for i in own], seed),
            "recordings": len(own),
            "subjects": len({groups[i] for i in own}),
        }
    return {
        "mean": bootstrap(mean, groups, seed),
        "sounds": bootstrap(score, groups, seed),
        "databases": table,
    }


def _rate_table(heard: Sequence[_Heard], told: Sequence[float | None], seed: int) -> dict[str, Any]:
    """Error of the told rates against the marks, and how many are told."""
    known = [(h, rate) for h, rate in zip(heard, told, strict=True) if h.marked_bpm is not None]
    groups = [h.recording.group for h, _ in known]
    wrong = np.array([np.nan if rate is None else abs(rate - (h.marked_bpm or 0.0)) for h, rate in known])
    named = np.flatnonzero(~np.isnan(wrong))
    of_named = [groups[i] for i in named]
    return {
        "recordings": len(known),
        "told": bootstrap(lambda rows: float((~np.isnan(wrong[rows])).mean()), groups, seed),
        "mean_absolute_error_bpm": bootstrap(lambda rows: float(wrong[named[rows]].mean()), of_named, seed),
        "within_5_bpm": bootstrap(lambda rows: float((wrong[named[rows]] <= 5.0).mean()), of_named, seed),
    }


def _refusal(heard: Sequence[_Heard], row: str) -> dict[str, Any]:
    """How much is refused, of all and of the wrongly segmented."""
    scored = [(f1(h.counts[row, TOLERANCES_S[0]]), h.rate_bpm[row] is None) for h in heard]
    wrong = [refused for score, refused in scored if score < WRONG_F1]
    right = [refused for score, refused in scored if score >= WRONG_F1]
    return {
        "wrongly_segmented": len(wrong),
        "of_those_refused": round(float(np.mean(wrong)), 4) if wrong else None,
        "rightly_segmented": len(right),
        "of_those_told": round(1.0 - float(np.mean(right)), 4) if right else None,
    }


def _section(heard: Sequence[_Heard], seed: int) -> dict[str, Any]:
    """All figures over some recordings."""
    found: dict[str, Any] = {"recordings": len(heard), "subjects": len({h.recording.group for h in heard})}
    for row in ROWS:
        found[row] = {
            **{f"f1_{t * 1000:.0f}_ms": _f1_table(heard, row, t, seed) for t in TOLERANCES_S},
            "heart_rate": _rate_table(heard, [h.rate_bpm[row] for h in heard], seed),
            "refusal": _refusal(heard, row),
        }
    found["autocorrelation"] = {
        "heart_rate": _rate_table(heard, [h.autocorrelation_bpm for h in heard], seed)
    }
    return found


def benchmark_rhythm(
    data: Path,
    *,
    checkpoints: Path,
    results: Path | None = None,
    fold: int = 0,
    limit: int | None = None,
    seed: int = 1,
    command: str = "",
    say: Say = lambda text: None,
) -> Path:
    """Writes rhythm.json and gives its path. BadInput when nothing is trained or nothing is marked."""
    started = time.monotonic()
    torch.set_num_threads(1)
    path = checkpoint_path(checkpoints)
    try:
        net, kept = load_rhythm(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; run: stethopi train rhythm --out {checkpoints}") from None
    marks = training_data.states(data)
    chosen: list[Recording] = []
    taken: dict[str, int] = {}
    for recording in training_data.recordings(data):
        if recording.fold != fold or not recording.reportable or recording.record not in marks:
            continue
        taken[recording.database] = taken.get(recording.database, 0) + 1
        if limit is None or taken[recording.database] <= limit:
            chosen.append(recording)
    heard = []
    for k, recording in enumerate(chosen):
        one = _measured(net, recording, marks[recording.record])
        if one.counts["offline", TOLERANCES_S[0]].sum():
            heard.append(one)
        if (k + 1) % 250 == 0:
            say(f"{k + 1} of {len(chosen)} recordings")
    if not heard:
        raise BadInput(f"{data}: no marked recordings in fold {fold}; --data takes one with states.csv")
    result = {
        "fold": fold,
        "trained_on_folds": list(FOLDS),
        "limit": limit,
        "seed": seed,
        "command": command,
        "commit": commit_id(),
        "data": training_data.data_hashes(data),
        "network": {
            "precision": "float32",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "parameters": sum(p.numel() for p in net.parameters()),
            "mac_per_s": net.macs_per_frame() * FRAMES_PER_S,
            "lag_ms": (EARLY + LAG) * 1000 // FRAMES_PER_S + 30,
            "layout": kept["layout"],
            "recipe": kept["recipe"],
            "trained_at_commit": kept["commit"],
            "training_minutes": round(kept["minutes"], 1),
            "loss": [[point["step"], round(point["loss"], 4)] for point in kept["curve"]],
        },
        "least_confidence": SURE,
        "all": _section(heard, seed),
        "poor": sum(h.recording.quality == "poor" for h in heard),
        "minutes": 0.0,
    }
    result["minutes"] = round((time.monotonic() - started) / 60, 1)
    folder = results or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "rhythm.json"
    write_json(target, result)
    for row in ROWS:
        for tolerance in TOLERANCES_S:
            mean = result["all"][row][f"f1_{tolerance * 1000:.0f}_ms"]["mean"]  # type: ignore[index]
            say(f"{row}, {tolerance * 1000:.0f} ms: mean F1 {100 * mean['value']:.2f}")
    return target


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.rhythm", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where rhythm.pt lies")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: docs/results")
    parser.add_argument("--fold", type=int, default=0, help="0 is reported (default), 1 decides")
    parser.add_argument("--limit", type=int, metavar="N", help="to try: N recordings a database")
    parser.add_argument("--seed", type=int, default=1, help="of the bootstrap (default 1)")
    options = parser.parse_args(argv)
    typed = ["python -m training.benchmarks.rhythm", *(sys.argv[1:] if argv is None else argv)]
    try:
        path = benchmark_rhythm(
            options.data,
            checkpoints=options.out,
            results=options.results,
            fold=options.fold,
            limit=options.limit,
            seed=options.seed,
            command=" ".join(typed),
            say=say,
        )
    except StethopiError as error:
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code
    print(f"written: {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
