"""The units of the comparison of screening models: each is trained once and leaves its scores.

A unit (training.screening.protocols) leaves the logits of every judged and every deciding recording in the
cache, `screening/<model>/<protocol>/<part>`. Its operating point is fitted on its own deciding fold, by the
rule of the release.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmarks.screening_noise import NoisyRecordings
from training.core.provenance import commit_id
from training.core.results import write_arrays, write_json, write_text
from training.core.say import Say
from training.data.recordings import Recording
from training.screening import protocols
from training.screening.candidates import Candidate
from training.screening.operating_point import operating_point
from training.screening.protocols import Unit
from training.screening.recipe import load_recipe
from training.screening.scores import Scored, read_unit, unit_folder

__all__ = ["deciding_of", "run_unit", "unit_point"]


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


def deciding_of(one: Scored, recordings: Sequence[Recording]) -> list[Recording]:
    """As the unit's teacher saw them: with the dealt labels, where they were dealt."""
    seen = {r.record: r for r in protocols.deciding(one.unit, recordings, one.meta["seed"])}
    return [seen[record] for record in one.records["decide"]]


def unit_point(one: Scored, recordings: Sequence[Recording], row: str) -> dict[str, Any]:
    """The operating point that the unit's deciding fold gives, by the rule of the release."""
    return operating_point(one.logits[f"decide/{row}"], deciding_of(one, recordings), load_recipe(None))
