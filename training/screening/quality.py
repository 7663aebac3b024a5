"""Teach the judge of sound quality: what spoils a recording, and can its verdict be trusted.

    stethopi train quality --data ../shared/data --out runs     after stethopi export classifier

Learned from: pieces of 1, 3 and 5 s of real recordings (good ones; and bad ones, which are poor quality by
their source's word or lie in a span marked as noise), noise alone, and good pieces with one or two kinds of
noise mixed in, all the time or for a part of it.

Targets. A cause is *there* where its noise is less than 3 dB under the heart, and *not there* from 9 dB;
in between nothing is asked. *Trusted* is 1 for good and 0 for bad recordings and for noise alone. Of a
mixture of 5 s it is the mean of two opinions: does the classifier still say what it said of the clean
piece, and is there more heart than noise. So the judge is taught for one classifier and released with it.

Folds 2–4 teach, fold 1 sets the level at which a window counts (19 of 20 windows of good recordings do),
fold 0 is only reported, by `stethopi benchmark quality`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import butter, sosfilt

from device.errors import BadInput
from device.inference.bundle import ModelEntry
from device.rates import WINDOW, WORKING_RATE_HZ
from device.screening import features, quality, screen
from training.core.recipe import load_settings, shipped
from training.core.say import Say
from training.data import recordings as training_data
from training.data.mixing import NoisePool
from training.data.recordings import Recording

__all__ = ["CAUSE_OF", "Drawn", "Pieces", "QualityRecipe", "fit", "load_quality_recipe", "train_quality"]

CAUSE_OF = {
    "speech_babble": "voices",
    "crying": "voices",
    "taps": "rubbing or knocks",
    "rubbing": "rubbing or knocks",
    "stethoscope_handling": "rubbing or knocks",
    "breath": "breath",
    "breathing": "breath",
    "environment": "noise around",
    "household": "noise around",
    "hospital": "noise around",
    "tones": "noise around",
    "hum": "mains hum",
    "coloured": "hiss",
}
"""What a health worker is told of each kind of noise."""

THERE_DB, NOT_THERE_DB = 3.0, 9.0
_SECONDS = (1, 3, 5)


@dataclass(frozen=True)
class QualityRecipe:
    """What `training/recipes/quality.toml` says."""

    seed: int = 1
    recordings: int = 2400
    """Drawn from the training folds, evenly over the databases; fold 1 gives a third as many."""
    pieces: int = 60000
    hidden: int = 96
    epochs: int = 40
    rate: float = 2e-3
    weight_decay: float = 1e-3
    drop: float = 0.1
    good_share: float = 0.95
    """Of the 5-s windows of good recordings of fold 1 that shall count."""
    good_share_short: float = 0.98
    """Of pieces of 1 to 3 s, by which the contact is judged while an exam runs."""


def load_quality_recipe(path: Path | None = None, **changes: Any) -> QualityRecipe:
    """Read a recipe (default: the shipped one) with some keys changed. BadInput names what is wrong."""
    return load_settings(QualityRecipe, path or shipped("quality"), **changes)


# ── pieces ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Drawn:
    """Pieces as the judge hears them, and what it should say."""

    x: np.ndarray
    """(n, 89) measures."""
    wanted: np.ndarray
    """(n, 7): trusted, then the causes; 0 to 1."""
    asked: np.ndarray
    """(n, 7): weight of each target, 0 where nothing is known."""


def _chosen(recordings: Sequence[Recording], count: int, rng: np.random.Generator) -> list[Recording]:
    """About `count` recordings, evenly over the databases, all the bad ones among them."""
    by_database: dict[str, list[Recording]] = {}
    for recording in recordings:
        by_database.setdefault(recording.database, []).append(recording)
    found: list[Recording] = []
    share = max(1, count // max(1, len(by_database)))
    for database in sorted(by_database):
        rows = by_database[database]
        found += [rows[int(k)] for k in rng.permutation(len(rows))[:share]]
    return found


class Pieces:
    """Good and bad pieces of real recordings of some folds, and noise of one part to spoil them with."""

    def __init__(
        self,
        data: Path,
        folds: Sequence[int],
        noise: NoisePool,
        entry: ModelEntry,
        count: int,
        seed: int,
        say: Say = print,
    ) -> None:
        rng = np.random.default_rng([seed, 17])
        of_folds = [r for r in training_data.recordings(data) if r.fold in folds and r.seconds >= 5.0]
        if not of_folds:
            raise BadInput(
                f"{data}: no recording of 5 s or more in the folds {list(folds)}; give other --data"
            )
        spans, states = training_data.noise_spans(data), training_data.states(data)
        bad = [r for r in of_folds if r.quality == "poor" or r.record in spans]
        fine = [r for r in of_folds if r.quality != "poor" and r.record not in spans]
        self.noise, self.entry = noise, entry
        self.good: dict[str, list[np.ndarray]] = {}
        self.bad: list[np.ndarray] = []
        chosen = [*_chosen(fine, count, rng), *bad]
        for k, recording in enumerate(chosen):
            if k % 300 == 0:
                say(f"reading recordings: {k} of {len(chosen)}")
            sound = training_data.load(recording)
            if not float(np.abs(sound).max(initial=0.0)) > 4 * quality.SILENCE_PEAK:
                continue
            noisy = spans.get(recording.record, [])
            noisy = noisy + [(a, b) for a, b, state in states.get(recording.record, []) if state == "noise"]
            if recording.quality == "poor":
                noisy = [(0.0, len(sound) / WORKING_RATE_HZ)]
            if recording.record in spans or recording.quality == "poor":
                for start, end in noisy:
                    piece = sound[int(start * WORKING_RATE_HZ) : int(end * WORKING_RATE_HZ)]
                    if len(piece) >= WINDOW:
                        self.bad.append(piece)
            elif not noisy:
                self.good.setdefault(recording.database, []).append(sound)
        self.databases = sorted(self.good)
        if not self.databases:
            raise BadInput(f"{data}: no good recording in the folds {list(folds)}; nothing to learn from")
        self._network = screen.Int8Network(entry)
        self._view = features.View.of(entry.meta)

    def verdict(self, x: np.ndarray) -> float:
        """The classifier's probability of abnormal for 5 s."""
        logits = self._network(features.network_input(features.screening_frames_of(x), self._view))
        return screen.probabilities(logits, self.entry.meta)[0]

    def window(self, rng: np.random.Generator, good: bool = True) -> np.ndarray:
        """Five seconds of a good (or bad) recording."""
        if good:
            sounds = self.good[self.databases[int(rng.integers(len(self.databases)))]]
        else:
            sounds = self.bad
        sound = sounds[int(rng.integers(len(sounds)))]
        start = int(rng.integers(len(sound) - WINDOW + 1))
        return np.array(sound[start : start + WINDOW], np.float32)

    def spoil(
        self, rng: np.random.Generator, x: np.ndarray, kinds: Sequence[str], snr_db: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """x with noise of these kinds, the first `snr_db` under it, others softer; and each kind's noise."""
        added: dict[str, np.ndarray] = {}
        level = _loud(x)
        for k, kind in enumerate(kinds):
            noise = np.asarray(self.noise.draw(rng, kind, len(x)), np.float64)
            noise -= noise.mean()
            if rng.random() < 0.3:
                noise *= _part_of_the_time(rng, len(x))
            loud = _loud(noise)
            if loud > 0:
                down = snr_db + k * float(rng.uniform(0, 6))
                noise *= level / loud * 10.0 ** (-down / 20.0)
            added[kind] = noise
        return (x + np.sum(list(added.values()), axis=0)).astype(np.float32), added

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One piece: measures (89,), wanted (7,), asked (7,)."""
        n_causes = len(quality.CAUSES)
        wanted, asked = np.zeros(1 + n_causes), np.ones(1 + n_causes)
        seconds = int(rng.choice(_SECONDS, p=(0.3, 0.2, 0.5)))
        n = seconds * WORKING_RATE_HZ
        start = int(rng.integers(WINDOW - n + 1))
        what = rng.random()
        if what < 0.28 or (what < 0.42 and not self.bad):
            y = self.window(rng)
            wanted[0] = 1.0
            asked[1:] = 0.5
        elif what < 0.42:
            y = self.window(rng, good=False)
            asked[1:] = 0.0
        else:
            x = self.window(rng)
            kinds = [self.noise.kinds[int(k)] for k in rng.permutation(len(self.noise.kinds))]
            kinds = kinds[: 1 + int(rng.random() < 0.3)]
            alone = what > 0.92
            snr = float(rng.uniform(-12.0, 26.0))
            y, added = self.spoil(rng, x, kinds, snr)
            piece = slice(start, start + n)
            heart, noise = _loud(x[piece]), _loud(np.sum(list(added.values()), axis=0)[piece])
            if alone:
                y, heart = (y - x).astype(np.float32), 0.0
            for kind, sound in added.items():
                k = 1 + quality.CAUSES.index(CAUSE_OF[kind])
                loud = _loud(sound[piece])
                under = 99.0 if loud <= 0 else (-99.0 if alone else 20 * np.log10(heart / loud + 1e-9))
                if alone and loud < 0.3 * noise:
                    under = 6.0
                wanted[k] = max(wanted[k], float(under < THERE_DB))
                asked[k] = min(asked[k], float(not THERE_DB <= under < NOT_THERE_DB))
            if not alone:
                ratio = 20 * np.log10((heart + 1e-9) / (noise + 1e-9))
                wanted[0] = 1.0 / (1.0 + np.exp(-np.clip(ratio, -30, 30) / 2.0))
                if seconds == WINDOW // WORKING_RATE_HZ:
                    moved = abs(self.verdict(x) - self.verdict(y))
                    wanted[0] = 0.5 * (wanted[0] + float(np.clip((0.4 - moved) / 0.25, 0, 1)))
        # the level of a recording says nothing of its quality, within reason: the plain measures see to it
        y = y * np.float32(10.0 ** rng.uniform(-1.0, 0.3))
        y = y[start : start + n]
        return quality.measures(y, features.screening_frames_of(y)), wanted, asked

    def many(self, seed: int, count: int, say: Say = print) -> Drawn:
        """`count` pieces, each a function of (seed, its number)."""
        rows = []
        for k in range(count):
            if k and k % 5000 == 0:
                say(f"pieces: {k} of {count}")
            rows.append(self.draw(np.random.default_rng([seed, k])))
        x, wanted, asked = (np.array(part, np.float32) for part in zip(*rows, strict=True))
        return Drawn(x, wanted, asked)


def _loud(x: np.ndarray) -> float:
    """Root mean square above 20 Hz."""
    if not len(x):
        return 0.0
    return float(np.sqrt(np.mean(sosfilt(_HIGH_PASS, np.asarray(x, np.float64)) ** 2)))


_HIGH_PASS = butter(2, 20.0, "highpass", fs=WORKING_RATE_HZ, output="sos")


def _part_of_the_time(rng: np.random.Generator, n: int) -> np.ndarray:
    """1 for one to three seconds, 0 else, with ramps of 50 ms."""
    length = int(rng.uniform(1.0, 3.0) * WORKING_RATE_HZ)
    start = int(rng.integers(max(1, n - length)))
    gate = np.zeros(n)
    gate[start : start + length] = 1.0
    ramp = np.hanning(201)
    return np.convolve(gate, ramp / ramp.sum(), "same")


# ── the net ─────────────────────────────────────────────────────────────────────────────────────────────────


def fit(drawn: Drawn, recipe: QualityRecipe, say: Say = print) -> dict[str, np.ndarray]:
    """Weights of `device.screening.quality.QualityJudge` from pieces; the same pieces and recipe give the
    same weights.
    """
    import torch
    from torch import nn

    from training.core import loop
    from training.core.schedules import one_cycle

    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    mean = drawn.x.mean(axis=0)
    scale = 1.0 / (drawn.x.std(axis=0) + 1e-3)
    z = torch.from_numpy(np.clip((drawn.x - mean) * scale, -5.0, 5.0).astype(np.float32))
    wanted, asked = torch.from_numpy(drawn.wanted), torch.from_numpy(drawn.asked)
    n_in, n_out = z.shape[1], wanted.shape[1]
    net = nn.Sequential(
        nn.Dropout(recipe.drop), nn.Linear(n_in, recipe.hidden), nn.ReLU(), nn.Linear(recipe.hidden, n_out)
    )
    # each epoch hears every piece once, in an order of its own
    generator = torch.Generator().manual_seed(recipe.seed)
    batch = min(256, len(z))
    rows: list[torch.Tensor] = []
    for _ in range(recipe.epochs):
        order = torch.randperm(len(z), generator=generator)
        rows += order[: len(z) // batch * batch].view(-1, batch)

    def loss_of(chosen: torch.Tensor, step: int) -> torch.Tensor:
        said = net(z[chosen])
        return nn.functional.binary_cross_entropy_with_logits(said, wanted[chosen], asked[chosen])

    loop.learn(
        net,
        rows.__getitem__,
        loss_of,
        torch.optim.AdamW(net.parameters(), recipe.rate, weight_decay=recipe.weight_decay),
        one_cycle(recipe.rate, len(rows) + 1),
        loop.TrainingPlan(len(rows), None, every=10 * (len(z) // batch)),
        say=say,
    )
    first, last = net[1], net[3]
    arrays = {
        "mean": mean,
        "scale": scale,
        "w1": first.weight.detach().numpy().T,
        "b1": first.bias.detach().numpy(),
        "w2": last.weight.detach().numpy().T,
        "b2": last.bias.detach().numpy(),
    }
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()} | {
        "lift": np.zeros(1, np.float32)
    }


def _good_level(
    judge: quality.QualityJudge, good: Pieces, seed: int, share: float, seconds: Sequence[int]
) -> float:
    """Logit that `share` of good pieces of these lengths reach, the mean over databases."""
    levels = []
    for database in good.databases:
        rng = np.random.default_rng([seed, 23])
        chances = []
        for k in range(150):
            sounds = good.good[database]
            sound = sounds[int(rng.integers(len(sounds)))]
            n = seconds[k % len(seconds)] * WORKING_RATE_HZ
            start = int(rng.integers(len(sound) - n + 1))
            x = sound[start : start + n]
            chances.append(float(judge(x, features.screening_frames_of(x))[0]))
        levels.append(np.percentile(chances, 100 * (1 - share)))
    at = float(np.clip(np.mean(levels), 1e-4, 1 - 1e-4))
    return float(np.log(at / (1 - at)))


def _levelled(arrays: Mapping[str, np.ndarray], good: Pieces, recipe: QualityRecipe) -> dict[str, np.ndarray]:
    """The first output moved so that `good_share` of good windows reach GOOD (and `good_share_short` of
    shorter pieces), each database alike."""
    moved = {**arrays, "b2": arrays["b2"].copy(), "lift": np.zeros(1, np.float32)}
    wanted = np.log(quality.GOOD / (1 - quality.GOOD))
    whole = _good_level(quality.QualityJudge(moved), good, recipe.seed, recipe.good_share, (5,))
    moved["b2"][0] += wanted - whole
    short = _good_level(quality.QualityJudge(moved), good, recipe.seed, recipe.good_share_short, (1, 2, 3))
    moved["lift"] = np.array([wanted - short], np.float32)
    return moved


def _taught_before(
    part: Path, meta: Mapping[str, Any], recipe: QualityRecipe
) -> dict[str, np.ndarray] | None:
    """The judge beside the classifier, if it is of this recipe. An export takes a judge away, so one that is
    there was taught for the classifier that is there.
    """
    if meta.get("quality", {}).get("recipe") != dataclasses.asdict(recipe):
        return None
    with np.load(part / "classifier.npz", allow_pickle=False) as kept:
        arrays = dict(kept)
    return arrays if quality.QualityJudge.of(arrays) is not None else None


def _taught(recipe: QualityRecipe, data: Path, entry: ModelEntry, say: Say) -> dict[str, np.ndarray]:
    noise = NoisePool.load(data, "train", free_only=True)
    teaching = Pieces(data, (2, 3, 4), noise, entry, recipe.recordings, recipe.seed, say)
    arrays = fit(teaching.many(recipe.seed, recipe.pieces, say), recipe, say)
    del teaching
    deciding = Pieces(data, (1,), noise, entry, recipe.recordings // 3, recipe.seed + 1, say)
    return quality.QualityJudge.named(_levelled(arrays, deciding, recipe))


def train_quality(
    recipe: QualityRecipe, data: Path, part: Path, say: Say = print, *, resume: bool = False
) -> dict[str, np.ndarray]:
    """Teach the judge for the exported classifier in `part` and lay it beside it, in classifier.npz.

    resume: a judge of this recipe that is there already stays, and only the operating point is set again.

    Which windows count changes with the judge, so the classifier's operating point is set again, on fold 1
    and by the classifier's own rule. A few minutes on one core; the part is replaced when all is done. The
    same data, recipe and classifier give the same arrays. BadInput when no classifier was exported there.
    """
    from training.export.part import write_part
    from training.screening.operating_point import operating_point, screen_logits
    from training.screening.recipe import load_recipe as classifier_recipe

    index = part / "classifier.json"
    try:
        meta = json.loads(index.read_text("utf-8"))
    except OSError:
        raise BadInput(f"{index}: not there; run `stethopi export classifier` first") from None
    entry = ModelEntry("classifier", part / "classifier.tflite", meta, {})
    arrays = (_taught_before(part, meta, recipe) if resume else None) or _taught(recipe, data, entry, say)
    entry = dataclasses.replace(entry, arrays=arrays)

    own = classifier_recipe(None, **meta["recipe"])
    chosen = [
        r
        for r in training_data.recordings(data)
        if r.fold == own.decide and r.reportable and r.label is not None
    ]
    if chosen:
        say(f"operating point from {len(chosen)} recordings of fold {own.decide}")
        meta.update(operating_point(screen_logits(chosen, entry), chosen, own))
        entry = dataclasses.replace(entry, meta=meta)
    with np.load(part / "classifier.vectors.npz", allow_pickle=False) as kept:
        vectors = dict(kept)
    found = [screen.screen_recording(x.astype(np.float32) / 32768.0, entry) for x in vectors["sound"]]
    vectors["probability"] = np.array([np.nan if f.probability is None else f.probability for f in found])
    meta["quality"] = {
        "recipe": dataclasses.asdict(recipe),
        "seed": recipe.seed,
        "causes": list(quality.CAUSES),
        "weights": int(sum(a.size for n, a in arrays.items() if n.split(".")[1][0] in "wb")),
    }
    write_part(part, "classifier", meta, arrays=arrays, vectors=vectors)
    return arrays
