"""What travels: other ways to read, or to put together, the networks that never heard a source.

    python -m training.travel --data ../shared/data --alone runs/circor-alone/classifier-full.pt \\
        --before "narrow, 1000 steps"=DIR

From the units `ours/left-out/*` in the cache, the AUC on the source left out by: the logit of abnormal (what
ships), of murmur, their mean and the larger; the mean over a subject's recordings; the mean with the units of
another recipe (--before, a folder like the cache's `screening/ours`); a network that learned from CirCor's
murmurs alone (--alone, a checkpoint of `training.classifier`), and the mean with it. Nothing is chosen here:
all of it is written down, in docs/results/screening-travel.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device import bundle as bundles
from device.errors import BadInput
from training import classifier
from training import data as training_data
from training.card import RESULTS
from training.classifier import Corpus, load_checkpoint
from training.comparison import Scored, read_scores, run_unit, unit_folder
from training.contenders import Learned, Ours, without_late_keys
from training.data import Recording
from training.figures import auc, bootstrap
from training.heard import HeardWindows, batched
from training.protocols import Unit
from training.recipe import read, shipped
from training.release import commit_id
from training.results import write_json

__all__ = ["SOURCES", "ways"]

SOURCES = ("a", "f", "circor")

VARIANTS = shipped("travel")


# ── variants ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Variant:
    """A recipe that is tried on sources left out."""

    name: str
    about: str
    recipe: classifier.Recipe
    without_circor: str | None
    """The variant that stands in where CirCor is left out."""

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(s for s in SOURCES if s != "circor" or self.without_circor is None)

    @property
    def alone(self) -> bool:
        """One source teaches, whichever of the others is left out: one network for all of them."""
        return bool(self.recipe.hold_out)


def variants(path: Path = VARIANTS) -> dict[str, Variant]:
    """The variants of recipes/travel.toml, by name."""
    found = {}
    for name, table in read(path).items():
        changes = {key: value for key, value in table.items() if key not in ("about", "without_circor")}
        recipe = without_late_keys(classifier.load_recipe(None, **changes))
        found[name] = Variant(name, table["about"], recipe, table.get("without_circor"))
    return found


class _OneForAll(Ours):
    """Keeps its network where all units of the variant find it."""

    def __init__(self, folder: Path, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.folder = folder

    def learn(
        self, unit: Unit, shown: Sequence[Recording], out: Path, int8: bool, say: Callable[[str], None]
    ) -> Learned:
        return super().learn(unit, shown, self.folder, int8, say)


def variant_room(cache: Path, name: str) -> Path:
    """The cache folder of a variant's units."""
    return Path(cache) / "travel" / name


def run(data: Path, cache: Path, names: Sequence[str], say: Callable[[str], None], seed: int = 1) -> None:
    """Train and score variants, one unit for each source left out; what is there already stays."""
    known = variants()
    for name in names:
        if name not in known:
            raise BadInput(f"{name}: no such variant; {VARIANTS.name} has {', '.join(known)}")
    entry = bundles.load(None).model("classifier")
    recordings, hashes = training_data.recordings(data), training_data.data_hashes(data)
    for name in names or known:
        one, room = known[name], variant_room(cache, name)
        if one.alone:
            model: Ours = _OneForAll(room / "network", data, cache, entry, one.recipe, say)
        else:
            model = Ours(data, cache, entry, one.recipe, say)
        for source in one.sources:
            unit = Unit("ours", "left-out", source)
            run_unit(unit, model, recordings, hashes, room, seed=seed, int8=False, say=say)


# ── ways to read ────────────────────────────────────────────────────────────────────────────────────────────


def _truth(recordings: Sequence[Recording]) -> np.ndarray:
    """CirCor by the murmur at that position, others by label; nan where unknown."""
    known = {"yes": 1.0, "no": 0.0, "abnormal": 1.0, "normal": 0.0}
    return np.array([known.get(str(r.murmur_here or r.label), float("nan")) for r in recordings])


def _standard(logits: np.ndarray, deciding: np.ndarray) -> np.ndarray:
    """Logits in units of their own spread on the deciding fold, so that two networks' can be averaged."""
    return (logits - np.nanmean(deciding, axis=0)) / np.nanstd(deciding, axis=0)


def ways(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (n,) from logits (n, 2), by the name of the way."""
    murmur, abnormal = logits[:, 0], logits[:, 1]
    return {
        "abnormal": abnormal,
        "murmur": murmur,
        "mean of both": (murmur + abnormal) / 2,
        "larger of both": np.maximum(murmur, abnormal),
    }


def _entry(score: np.ndarray, truth: np.ndarray, groups: Sequence[str], seed: int) -> dict[str, Any]:
    known = ~np.isnan(truth) & ~np.isnan(score)
    of = [g for g, k in zip(groups, known, strict=True) if k]
    score, positive = score[known], truth[known] > 0.5
    names, where = np.unique(of, return_inverse=True)
    mean = np.array([score[where == k].mean() for k in range(len(names))])
    ill = np.array([positive[where == k].any() for k in range(len(names))])
    return {
        "recordings": int(known.sum()),
        "auc": bootstrap(lambda rows: auc(score[rows], positive[rows]), of, seed),
        "by_subject": {
            "n": len(names),
            "positive": int(ill.sum()),
            "auc": bootstrap(lambda rows: auc(mean[rows], ill[rows]), list(names), seed),
        },
    }


def _together(one: Scored, other: Scored, row: str) -> np.ndarray:
    """Mean of two units' standardised logits on the recordings of the first."""
    a = _standard(one.logits[f"test/{row}"], one.logits[f"decide/{row}"])
    b = _standard(other.logits[f"test/{row}"], other.logits[f"decide/{row}"])
    place = {record: k for k, record in enumerate(other.records["test"])}
    return (a + b[[place[record] for record in one.records["test"]]]) / 2


def measure(
    data: Path, cache: Path, alone: Path | None, before: tuple[str, Path] | None, seed: int = 1
) -> dict[str, Any]:
    """The table: way → source → AUC by recording and by subject."""
    recordings = training_data.recordings(data)
    by_record = {r.record: r for r in recordings}
    table: dict[str, dict[str, Any]] = {}
    for source in SOURCES:
        unit = Unit("ours", "left-out", source)
        one = read_scores(unit_folder(cache, unit), unit)
        if one is None:
            continue
        judged = [by_record[r] for r in one.records["test"]]
        truth, groups = _truth(judged), [r.group for r in judged]
        row = one.row
        scores = {f"ours, {name}": score for name, score in ways(one.logits[f"test/{row}"]).items()}
        if before is not None:
            label, folder = before
            other = read_scores(folder / unit.protocol / unit.part, unit)
            if other is not None:
                place = {record: k for k, record in enumerate(other.records["test"])}
                rows = [place[record] for record in one.records["test"]]
                scores[f"{label}, abnormal"] = other.logits[f"test/{row}"][rows, 1]
                scores[f"mean of ours and {label}, abnormal"] = _together(one, other, row)[:, 1]
        if alone is not None and source != "circor":
            entry = bundles.load(None).model("classifier")
            heard, corpus = HeardWindows(data, cache, entry), Corpus(data, cache)
            net, _ = load_checkpoint(alone)
            net.state_head = None
            own = heard.logits(corpus, judged, net.view, batched(net))
            decided = [by_record[r] for r in one.records["decide"]]
            at = heard.logits(corpus, decided, net.view, batched(net))
            scores["CirCor alone, murmur"] = own[:, 0]
            both = _standard(one.logits[f"test/{row}"], one.logits[f"decide/{row}"]) + _standard(own, at)
            scores["mean of ours, abnormal, and CirCor alone, murmur"] = (
                _standard(one.logits[f"test/{row}"], one.logits[f"decide/{row}"])[:, 1]
                + _standard(own, at)[:, 0]
            ) / 2
            scores["mean of ours and CirCor alone, murmur"] = both[:, 0] / 2
        for way, score in scores.items():
            table.setdefault(way, {})[source] = _entry(score, truth, groups, seed)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Other ways to read the networks that never heard a source.")
    parser.add_argument("--run", nargs="*", metavar="NAME", help="train variants of recipes/travel.toml")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/stethopi").expanduser())
    parser.add_argument("--alone", type=Path, help="a checkpoint that learned from CirCor alone")
    parser.add_argument("--before", metavar="NAME=DIR", help="units of another recipe")
    options = parser.parse_args(argv)
    if options.run is not None:
        run(options.data, options.cache, options.run, lambda text: print(text, file=sys.stderr, flush=True))
        return 0
    before = None
    if options.before:
        name, folder = options.before.split("=", 1)
        before = (name, Path(folder))
    table = measure(options.data, options.cache, options.alone, before)
    for way, found in table.items():
        cells = "  ".join(f"{source} {one['auc']['value']:.3f}" for source, one in found.items())
        print(f"{way:<52} {cells}", file=sys.stderr)
    result = {"what": "AUC on a source left out, int8, seed 1", "commit": commit_id(), "ways": table}
    path = RESULTS / "screening-travel.json"
    write_json(path, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
