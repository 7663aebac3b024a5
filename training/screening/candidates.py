"""The models that `stethopi benchmark classify` compares, each behind one face: learn a unit, give logits.

`ours` is the released network's recipe, not pruned, and shorter in the leaky way and with shuffled labels;
the others are the networks of training.screening.baselines by their shipped recipes. All give two logits a
window, murmur and abnormal; a recording's are the means over its windows.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from device.errors import BadInput
from device.inference.bundle import ModelEntry
from device.screening import screen
from models.classifier import Classifier
from training.core.results import write_json
from training.core.say import Say
from training.data.recordings import Recording
from training.screening import export as screening_export
from training.screening import operating_point
from training.screening import recipe as screening_recipe
from training.screening import train as classifier
from training.screening.baseline_inputs import Inputs
from training.screening.baseline_recipe import (
    SCREENING_BASELINES,
    BaselineRecipe,
    front_end_name,
    load_baseline_recipe,
)
from training.screening.baselines import Trained, train_screening_baseline
from training.screening.corpus import Corpus
from training.screening.leaky import leaky
from training.screening.protocols import Unit
from training.screening.window_quality import HeardWindows, batched, one_by_one

__all__ = [
    "Candidate",
    "Learned",
    "Ours",
    "Scorer",
    "candidate_of",
    "kept_int8",
    "names",
    "torch_network",
    "without_late_keys",
]


SHORT_STEPS = 1200
"""Of a training of `ours` in the protocols that no goal is asked of: leaky and shuffled."""

Scorer = Callable[[Sequence[Recording]], np.ndarray]
"""Recordings → logits (n, 2), murmur and abnormal; nan where nothing can be heard."""


@dataclass(frozen=True)
class Learned:
    """A trained candidate."""

    rows: dict[str, Scorer]
    """`float`, and `int8` where it was asked for."""
    steps: int
    cost: dict[str, Any] = field(default_factory=dict)
    sound: Callable[[np.ndarray], np.ndarray] | None = None
    """Logits (2,) of any sound at 2 kHz, by the float network."""
    leaky: tuple[list[str], np.ndarray] | None = None
    """Windows of recordings that were trained on: the record of each, logits (windows, 2)."""


class Candidate(Protocol):
    name: str

    def key(self, unit: Unit) -> str:
        """Hash of all that decides the weights of a unit, beside the data."""
        ...

    def learn(self, unit: Unit, shown: Sequence[Recording], out: Path, int8: bool, say: Say) -> Learned:
        """Train on `shown` (folds 2 and up teach), going on from what lies in `out`."""
        ...


def torch_network(net: nn.Module) -> screen.Network:
    """A checkpoint's net as a network for device.screening.screen."""

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(np.ascontiguousarray(x))[None, None]).numpy()[0]

    return run


class Ours:
    """The shipped recipe, not pruned; the windows that count as by device.screening.screen."""

    name = "ours"

    def __init__(
        self,
        data: Path,
        cache: Path,
        entry: ModelEntry,
        recipe: screening_recipe.Recipe | None = None,
        say: Say = lambda text: None,
    ) -> None:
        self.data, self.cache, self.entry, self.say = data, cache, entry, say
        self.recipe = recipe or without_late_keys(screening_recipe.load_recipe(None))

    @cached_property
    def _corpus(self) -> Corpus:
        corpus = Corpus(self.data, self.cache, self.say)
        corpus.into_memory()
        return corpus

    @cached_property
    def _heard(self) -> HeardWindows:
        return HeardWindows(self.data, self.cache, self.entry, self.say)

    def _recipe(self, unit: Unit) -> screening_recipe.Recipe:
        """In full on what the goals ask for; shorter where labels are shuffled or the test was trained on."""
        if unit.protocol in ("folds", "left-out"):
            return self.recipe
        return dataclasses.replace(self.recipe, steps=min(self.recipe.steps, SHORT_STEPS))

    def key(self, unit: Unit) -> str:
        return self._recipe(unit).digest()

    def learn(self, unit: Unit, shown: Sequence[Recording], out: Path, int8: bool, say: Say) -> Learned:
        recipe = self._recipe(unit)
        checkpoint = out / "classifier-full.pt"
        corpus = copy.copy(self._corpus)
        corpus.recordings = list(shown)
        if checkpoint.is_file() and classifier.load_checkpoint(checkpoint)[1]["recipe"] == recipe.digest():
            net, _ = classifier.load_checkpoint(checkpoint)
        else:
            net = classifier.train(corpus, recipe, out, say, taught=self._taught(unit, corpus))
        bare = _without_states(net)
        network = torch_network(bare)
        cost: dict[str, Any] = {"parameters": sum(p.numel() for p in bare.parameters())}
        rows = {"float": self._scorer(corpus, batched(bare))}
        if int8:
            entry, more = self._int8(bare, corpus, out, say)
            rows["int8"] = self._scorer(corpus, one_by_one(screen.Int8Network(entry)))
            cost |= more
        return Learned(rows, recipe.steps, cost, lambda x: self._of_sound(x, network))

    def _taught(self, unit: Unit, corpus: Corpus) -> np.ndarray | None:
        """What a teacher says of the recordings, as `classifier.train` takes it; here there is none."""
        return None

    @property
    def _entry(self) -> ModelEntry:
        view = {"bands": self.recipe.bands, "range_db": self.recipe.range_db}
        return dataclasses.replace(self.entry, meta={**self.entry.meta, **view})

    def _scorer(self, corpus: Corpus, network: Callable[[np.ndarray], np.ndarray]) -> Scorer:
        return lambda chosen: self._heard.logits(corpus, chosen, self.recipe.view, network)

    def _of_sound(self, x: np.ndarray, network: screen.Network) -> np.ndarray:
        return operating_point.sound_logits(x, self._entry, network)

    def _int8(
        self, bare: Classifier, corpus: Corpus, out: Path, say: Say
    ) -> tuple[ModelEntry, dict[str, Any]]:
        from training.export.export import Limits, export

        made, kept = out / "int8.tflite", out / "int8.json"
        if not (made.is_file() and kept.is_file()):
            say("  to int8")
            result = export(
                bare,
                {"x": bare.example()},
                ["logits"],
                {"x": screening_export.calibration_inputs(corpus, self.recipe)},
                out,
                "int8",
                # what int8 costs is a figure here, no reason to refuse
                limits=Limits(int8_db=0.0),
                seed=self.recipe.seed,
            )
            meta = {
                "inputs": result.inputs,
                "outputs": result.outputs,
                "mac_per_window": result.report["macs"],
                "kilobytes": round(result.kilobytes, 1),
            }
            meta |= {"bands": self.recipe.bands, "range_db": self.recipe.range_db}
            write_json(kept, meta)
        small = kept_int8(out, self.entry)
        return small, {key: small.meta[key] for key in ("mac_per_window", "kilobytes")}


def kept_int8(folder: Path, entry: ModelEntry) -> ModelEntry:
    """The int8 network that a unit of ours has left, with the bundle's judge of quality beside it."""
    meta = json.loads((folder / "int8.json").read_text("utf-8"))
    return dataclasses.replace(entry, tflite=folder / "int8.tflite", meta={**entry.meta, **meta})


def without_late_keys(recipe: screening_recipe.Recipe) -> screening_recipe.Recipe:
    """The recipe without what is only decided after training, so that a unit outlives a change of it."""
    plain = screening_recipe.Recipe()
    return dataclasses.replace(recipe, murmur_share=plain.murmur_share, undecided=plain.undecided)


def _without_states(net: Classifier) -> Classifier:
    bare = Classifier(net.channels, view=net.view)
    bare.state_head = None
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("state_head")})
    return bare.eval()


class BaselineCandidate:
    """A network of training.screening.baselines, by its shipped recipe."""

    def __init__(
        self,
        name: str,
        data: Path,
        cache: Path,
        recipe: BaselineRecipe | None = None,
        say: Say = lambda text: None,
    ) -> None:
        self.name, self.data, self.cache, self.say = name, data, cache, say
        self.recipe = recipe or load_baseline_recipe(name)

    @cached_property
    def _inputs(self) -> Inputs:
        inputs = Inputs(self.data, self.cache, front_end_name(self.name), self.say)
        inputs.into_memory()
        return inputs

    def key(self, unit: Unit) -> str:
        return self.recipe.digest()

    def learn(self, unit: Unit, shown: Sequence[Recording], out: Path, int8: bool, say: Say) -> Learned:
        chosen = [r for r in shown if r.fold > 1]
        split = None
        if unit.protocol == "leaky":
            split = leaky(
                {r.record: self._inputs.count(r.record) for r in chosen if r.label}, self.recipe.seed
            )
        trained = train_screening_baseline(
            self.recipe, self._inputs, chosen, out=out, windows=split.train if split else None, say=say
        )
        rows = {"float": _means(trained)}
        cost: dict[str, Any] = {"parameters": sum(p.numel() for p in trained.net.parameters())}
        if int8:
            say("  to int8")
            small = trained.int8(out, chosen)
            rows["int8"] = _means(small)
            cost |= small.cost
        seen = None
        if split:
            by_record = {r.record: r for r in chosen}
            records, logits = [], []
            for record, windows in split.test.items():
                records += [record] * len(windows)
                logits.append(trained.logits(by_record[record])[windows])
            seen = (records, np.concatenate(logits).astype(float))
        return Learned(
            rows, self.recipe.steps, cost, lambda x: trained.logits_of(x).mean(axis=0).astype(float), seen
        )


def _means(trained: Trained) -> Scorer:
    return lambda chosen: np.array([trained.logits(r).mean(axis=0) for r in chosen], float)


def names() -> list[str]:
    """All models that can be compared, ours first."""
    return ["ours", *SCREENING_BASELINES]


def candidate_of(
    name: str, data: Path, cache: Path, entry: ModelEntry, say: Say = lambda text: None
) -> Candidate:
    """BadInput names one that is not there."""
    if name == "ours":
        return Ours(data, cache, entry, say=say)
    if name in SCREENING_BASELINES:
        return BaselineCandidate(name, data, cache, say=say)
    raise BadInput(f"{name}: no such model; there are {', '.join(names())}")
