"""Cross-domain: other recipes, and other ways to read and to join networks, on sources left out.

    python -m training.benchmarks.cross_domain run --data ../shared/data [NAME ...]
        trains the variants of recipes/cross-domain.toml
    python -m training.benchmarks.cross_domain figures --data ../shared/data
        writes docs/results/screening-travel.json

`run` trains each variant once for every source left out (one whose teacher is CirCor alone: once) and leaves
its scores in the cache. `figures` tells the AUC on the source left out of every way that is there: the units
`ours/left-out/*` by the logit of abnormal (what ships), of murmur, by both; by other means over a recording's
windows; the variants; means of several networks; and a
systole/diastole energy baseline, which is no network: how loud these phases are beside the beats, by the
marks of the collections.

Nested choice: for each source the way that does best on the other two sources is taken, so that no source
chooses how it is judged itself. A choice made that way has to be better than what ships to replace it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device.errors import BadInput, StethopiError
from device.inference import bundle as bundles
from models.classifier import STATES
from training.benchmarks.screening_units import run_unit
from training.core.provenance import RESULTS, commit_id
from training.core.recipe import Table, read, settings, shipped
from training.core.results import write_json
from training.core.say import Say, say
from training.data import recordings as training_data
from training.data.recordings import Recording
from training.metrics.classification import auc, bootstrap, fit_classes
from training.screening import corpus as screening_corpus
from training.screening import recipe as screening_recipe
from training.screening import train as classifier
from training.screening.candidates import Learned, Ours, without_late_keys
from training.screening.corpus import Corpus
from training.screening.protocols import Unit
from training.screening.scores import Scored, read_scores, unit_folder
from training.screening.window_quality import HeardWindows, batched

__all__ = ["JUDGED_SOURCES", "Variant", "nested", "phases", "run", "variants", "ways"]

JUDGED_SOURCES = ("a", "f", "circor")

ENERGY_BASELINE = "systole/diastole energy baseline"

BESIDE = ("b", "e")
"""Mostly coronary patients: told, but neither aimed at nor asked when a way is chosen."""

VARIANTS = shipped("cross-domain")


# ── variants ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Variant:
    """A recipe that is tried on sources left out."""

    name: str
    about: str
    recipe: screening_recipe.Recipe
    without_circor: str | None
    """The variant that stands in where CirCor is left out."""
    taught: bool = False
    """The network that ships, trained without the same source, says what has no label (`_Taught`)."""

    @property
    def sources(self) -> tuple[str, ...]:
        own = tuple(s for s in JUDGED_SOURCES if s != "circor" or self.without_circor is None)
        return (*own, *BESIDE) if self.alone else own

    def of(self, source: str) -> str | None:
        """The variant whose unit tells of this one where `source` is left out."""
        return self.name if source in self.sources else self.without_circor if source == "circor" else None

    @property
    def alone(self) -> bool:
        """One source teaches, whichever of the others is left out: one network for all of them."""
        return bool(self.recipe.hold_out)


def variants(path: Path = VARIANTS) -> dict[str, Variant]:
    """The variants of recipes/cross-domain.toml, by name."""
    found = {}
    defaults = read(shipped("classifier"))["classifier"]
    for name, table in read(path).items():
        own = ("about", "without_circor", "taught")
        changes = {key: value for key, value in table.items() if key not in own}
        whole = settings(screening_recipe.Recipe, defaults | Table.of(changes, path), name)
        recipe = without_late_keys(whole)
        taught = table.get("taught", False)
        found[name] = Variant(name, table["about"], recipe, table.get("without_circor"), taught)
    return found


class _OneForAll(Ours):
    """Keeps its network where all units of the variant find it."""

    def __init__(self, folder: Path, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.folder = folder

    def learn(self, unit: Unit, shown: Sequence[Recording], out: Path, int8: bool, say: Say) -> Learned:
        return super().learn(unit, shown, self.folder, int8, say)


class _Taught(Ours):
    """Learns what has no label from the unit of ours without the same source: the murmurs of all sources but
    CirCor, and CirCor's "unknown".
    """

    def _taught(self, unit: Unit, corpus: Corpus) -> np.ndarray:
        teacher = unit_folder(self.cache, unit) / "classifier-full.pt"
        if not teacher.is_file():
            raise StethopiError(f"no {teacher}; run: stethopi benchmark classify --train {unit.name}")
        net, _ = classifier.load_checkpoint(teacher)
        net.state_head = None
        asked = [
            k
            for k, r in enumerate(corpus.recordings)
            if r.fold in self.recipe.folds and 0 in screening_corpus.targets(r, self.recipe)[1::2]
        ]
        logits = self._scorer(corpus, batched(net))([corpus.recordings[k] for k in asked])
        taught = np.full((len(corpus.recordings), 2), np.nan)
        taught[asked] = 1 / (1 + np.exp(-logits))
        return taught


def variant_room(cache: Path, name: str) -> Path:
    """The cache folder of a variant's units. What lies there took hours, so it keeps its first name."""
    return Path(cache) / "travel" / name


def run(data: Path, cache: Path, names: Sequence[str], say: Say, seed: int = 1) -> None:
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
            model = (_Taught if one.taught else Ours)(data, cache, entry, one.recipe, say)
        for source in one.sources:
            unit = Unit("ours", "left-out", source)
            run_unit(unit, model, recordings, hashes, room, seed=seed, int8=False, say=say)


# ── ways to read ────────────────────────────────────────────────────────────────────────────────────────────


def _truth(recordings: Sequence[Recording]) -> np.ndarray:
    """CirCor by the murmur at that position, others by label; nan where unknown."""
    known = {"yes": 1.0, "no": 0.0, "abnormal": 1.0, "normal": 0.0}
    return np.array([known.get(str(r.murmur_here or r.label), float("nan")) for r in recordings])


def ways(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (n,) from logits (n, 2), by the name of the way."""
    murmur, abnormal = logits[:, 0], logits[:, 1]
    return {
        "abnormal": abnormal,
        "murmur": murmur,
        "mean of both": (murmur + abnormal) / 2,
        "larger of both": np.maximum(murmur, abnormal),
    }


@dataclass(frozen=True)
class _Heard:
    """Logits of the recordings of a source left out, in the order of the unit of ours."""

    logits: np.ndarray
    standard: np.ndarray
    """In units of their own spread on the deciding fold, so that networks can be averaged."""


def _heard(one: Scored, records: Sequence[str]) -> _Heard:
    row = one.row
    place = {record: k for k, record in enumerate(one.records["test"])}
    logits = one.logits[f"test/{row}"][[place[record] for record in records]]
    deciding = one.logits[f"decide/{row}"]
    standard = (logits - np.nanmean(deciding, axis=0)) / np.nanstd(deciding, axis=0)
    return _Heard(logits, standard)


_OVER_WINDOWS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "median of the windows": lambda x, quality: float(np.median(x)),
    "lower quartile of the windows": lambda x, quality: float(np.quantile(x, 0.25)),
    "upper quartile of the windows": lambda x, quality: float(np.quantile(x, 0.75)),
    "mean of the better half of the windows": lambda x, quality: float(
        x[np.argsort(-quality, kind="stable")[: max(1, (len(x) + 1) // 2)]].mean()
    ),
}
"""Logits of abnormal of a recording's windows, and their quality → its score."""


def _over_windows(
    heard: HeardWindows, corpus: Corpus, judged: Sequence[Recording], checkpoint: Path
) -> dict[str, np.ndarray]:
    """Scores of recordings by each of `_OVER_WINDOWS`, from up to ten windows that count."""
    net, _ = classifier.load_checkpoint(checkpoint)
    net.state_head = None
    run, index = batched(net), {r.record: i for i, r in enumerate(corpus.recordings)}
    found = {name: np.full(len(judged), np.nan) for name in _OVER_WINDOWS}
    for k, recording in enumerate(judged):
        starts, quality = heard.windows(recording.record)
        counting = np.isin(starts, heard.counting(recording.record))
        chosen = np.flatnonzero(counting)[:: max(1, -(-int(counting.sum()) // 10))]
        if len(chosen):
            x = run(heard.inputs(corpus, index[recording.record], starts[chosen], net.view))[:, 1]
            for name, over in _OVER_WINDOWS.items():
                found[name][k] = over(x, quality[chosen])
    return found


# ── energy ─────────────────────────────────────────────────────────────────────────────────────────────────


def phases(power: np.ndarray, states: np.ndarray, bands: int) -> np.ndarray:
    """How loud systole and diastole are beside the beats, float (2 * bands,) in natural units of power; nan
    where a phase is not marked.

    power: (frames, 32). states: (frames,), as `training.screening.corpus.Corpus.states`.
    """
    loud = np.log(power[:, :bands] + 1e-8 * (float(power.mean()) + 1e-20))
    means = []
    for code in range(len(STATES)):
        inside = states == code
        if not inside.any():
            return np.full(2 * bands, np.nan)
        means.append(loud[inside].mean(axis=0))
    beats = (means[STATES.index("S1")] + means[STATES.index("S2")]) / 2
    return np.concatenate([means[STATES.index("systole")] - beats, means[STATES.index("diastole")] - beats])


def _energy_baseline(corpus: Corpus, source: str, bands: int, judged: Sequence[Recording]) -> np.ndarray:
    """Scores by a logistic regression on `phases` of the teaching folds: CirCor's murmurs where CirCor is
    not left out, else the labels of all others.
    """
    teachers = [
        i
        for i, r in enumerate(corpus.recordings)
        if r.fold > 1 and (r.database == "circor") == (source != "circor")
    ]
    index = {r.record: i for i, r in enumerate(corpus.recordings)}

    def measured(rows: Sequence[int]) -> np.ndarray:
        return np.array([phases(corpus.power(i), corpus.states(i), bands) for i in rows])

    truth = _truth([corpus.recordings[i] for i in teachers])
    x = measured(teachers)
    known = ~np.isnan(truth) & ~np.isnan(x[:, 0])
    of = truth[known].astype(int)
    weight = np.where(of > 0, 0.5 / max(1, of.sum()), 0.5 / max(1, (1 - of).sum()))
    chances = fit_classes(x[known], of, weight, 2)
    own = measured([index[r.record] for r in judged])
    found = chances(np.nan_to_num(own))[:, 1]
    return np.where(np.isnan(own[:, 0]), np.nan, found)


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────

SHIPPED = "ours, abnormal"

_TOGETHER = (("ours", "narrow"), ("short", "narrow"), ("ours", "short", "narrow"))
"""Networks whose standardised logits are averaged; and each of these with `murmurs`."""


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


def measure_ways(data: Path, cache: Path, seed: int = 1) -> dict[str, Any]:
    """The table: way → source → AUC by recording and by subject."""
    corpus = Corpus(data, cache)
    heard = HeardWindows(data, cache, bundles.load(None).model("classifier"))
    by_record = {r.record: r for r in corpus.recordings}
    known = variants()
    bands = screening_recipe.load_recipe(None).bands
    table: dict[str, dict[str, Any]] = {}
    for source in (*JUDGED_SOURCES, *BESIDE):
        unit = Unit("ours", "left-out", source)
        one = read_scores(unit_folder(cache, unit), unit)
        if one is None:
            continue
        records = one.records["test"]
        judged = [by_record[record] for record in records]
        nets = {"ours": _heard(one, records)}
        for name, variant in known.items():
            there = read_scores(unit_folder(variant_room(cache, str(variant.of(source))), unit), unit)
            if there is not None:
                nets[name] = _heard(there, records)
        scores = {f"ours, {name}": score for name, score in ways(nets["ours"].logits).items()}
        if source in JUDGED_SOURCES:
            whole = _over_windows(heard, corpus, judged, unit_folder(cache, unit) / "classifier-full.pt")
            scores |= {f"ours, {name}": score for name, score in whole.items()}
        for name, net in nets.items():
            if name != "ours":
                read_as = ways(net.logits)
                for way in ("abnormal", "mean of both"):
                    scores[f"{known[name].about}, {way}"] = read_as[way]
        for together in [*_TOGETHER, *((*names, "murmurs") for names in _TOGETHER)]:
            if all(name in nets for name in together):
                told = " + ".join(known[name].about if name in known else name for name in together)
                scores[f"mean of {told}"] = np.mean([nets[name].standard[:, 1] for name in together], axis=0)
        scores[ENERGY_BASELINE] = _energy_baseline(corpus, source, bands, judged)
        truth, groups = _truth(judged), [r.group for r in judged]
        for way, score in scores.items():
            table.setdefault(way, {})[source] = _entry(score, truth, groups, seed)
    return table


def nested(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each source the way with the best mean AUC on the others: `way`, and what it gives on the source.

    Only ways that were measured on all sources; of equal ones the first.
    """
    whole = {way: found for way, found in table.items() if set(found) >= set(JUDGED_SOURCES)}
    chosen = {}
    for source in JUDGED_SOURCES if whole else ():

        def elsewhere(way: str, source: str = source) -> float:
            return float(np.mean([whole[way][s]["auc"]["value"] for s in JUDGED_SOURCES if s != source]))

        way = max(whole, key=elsewhere)
        chosen[source] = {"way": way, **whole[way][source]}
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Other recipes and ways to read, on sources left out.")
    parser.add_argument("what", choices=("run", "figures"))
    parser.add_argument("names", nargs="*", help="run: variants of recipes/cross-domain.toml (default: all)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/stethopi").expanduser())
    options = parser.parse_intermixed_args(argv)

    if options.what == "run":
        try:
            run(options.data, options.cache, options.names, say)
        except StethopiError as error:
            say(f"stethopi: {error}")
            return 2
        return 0
    table = measure_ways(options.data, options.cache)
    for way, found in table.items():
        cells = "  ".join(f"{source} {one['auc']['value']:.3f}" for source, one in found.items())
        say(f"{way:<62} {cells}")
    result = {
        "what": "AUC on a source left out, seed 1; what ships in int8, variants in float",
        "commit": commit_id(),
        "shipped": SHIPPED,
        "ways": table,
        "nested": nested(table),
    }
    write_json(RESULTS / "screening-travel.json", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
