"""Train the screening network: recordings of many sources → a checkpoint.

    stethopi train classifier --data ../shared/data --out runs/classifier
    python -m training.classifier --recipe my.toml --hold-out a    how it does on a source it never heard

A healthy run of the shipped recipe ends near a loss of 0.9, one thread, and prints fold 1 by database at
the end; the figures to expect stand in docs/screening.md. Every draw is a function of (seed, step): a run
that is stopped and resumed, or repeated, gives the same weights on the same machine.

What keeps the net from learning the microphone: the input has no level and no fixed colour
(device.features); windows are drawn evenly over label and source; noise, noise floors, filters, stretches
of time and shifts of frequency are put in at random; each source has its own bias in training, so that
"which source" says nothing about the label.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device import features, quality, screen
from device.bundle import ModelEntry
from device.errors import BadInput
from device.rates import WINDOW, WORKING_RATE_HZ
from models.classifier import OUTPUTS, STATES, Classifier
from training import data as training_data
from training import loop
from training.data import Recording
from training.figures import auc, fit_platt, macc
from training.results import write_json

__all__ = [
    "Corpus",
    "Recipe",
    "calibration_inputs",
    "evaluate",
    "export_classifier",
    "finetune",
    "load_checkpoint",
    "load_recipe",
    "prune_classifier",
    "recording_logits",
    "save_curve",
    "screen_logits",
    "sound_logits",
    "targets",
    "train",
]

UNKNOWN = 255
_STRETCH_MAX = 1.35


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the data. A TOML file's `[classifier]` holds what
    differs.
    """

    seed: int = 1
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    channels: tuple[int, ...] = (16, 24, 32, 32, 48, 64, 64)
    dropout: float = 0.2
    average: float = 0.998
    """Decay of the running mean of the weights, which is what is kept."""
    folds: tuple[int, ...] = (2, 3, 4)
    decide: int = 1
    hold_out: tuple[str, ...] = ()
    """Databases left out altogether."""
    shares: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {
            "circor": 0.45,
            "a": 0.2,
            "b": 0.08,
            "c": 0.03,
            "d": 0.04,
            "e": 0.1,
            "f": 0.1,
        }
    )
    """Share of the draws by database; databases not named here get 0.1."""
    label_smoothing: float = 0.05
    murmur_weight: float = 1.0
    abnormal_weight: float = 1.0
    state_weight: float = 0.3
    outcome_weight: float = 0.15
    """Weight of CirCor's outcome as a label of abnormal where no murmur is heard: it is mostly not audible.
    """
    synthetic_murmur: float = 0.3
    """Share of the draws without a finding that get a murmur put in: the same heart and microphone, one
    with and one
    without, so that nothing but the murmur tells them apart."""
    extra_sounds: float = 0.0
    """Share of the draws without a finding that get a low sound put into each diastole: a third or a fourth
    heart sound, or a rumble. They are abnormal; whether there is a murmur is not asked."""
    no_murmur_weight: float = 0.5
    """Weight of "no murmur" for recordings of normal hearts where nobody noted murmurs."""
    noise_share: float = 0.4
    noise_snr_db: tuple[float, float] = (-3.0, 20.0)
    floor_share: float = 0.4
    floor_db: tuple[float, float] = (-45.0, -8.0)
    filter_db: float = 8.0
    low_cut: float = 0.0
    """Share of the draws whose lowest one to four bands are taken away, as by a chest piece that does not
    pass them."""
    bands: int = features.BANDS
    """So many of the 32 bands, from the lowest up, are heard at all."""
    range_db: float = 0.0
    """A floor so far under each band's loud frames is put beneath every window; 0: none."""
    stretch: tuple[float, float] = (0.8, 1.3)
    shift_bands: float = 1.5
    time_masks: int = 2
    time_mask_frames: int = 20
    band_masks: int = 1
    band_mask_bands: int = 4
    mixup: float = 0.0
    prune_ratio: float = 0.25
    finetune_steps: int = 1000
    finetune_learning_rate: float = 1e-3
    int8_db: float = 12.0
    """Least signal over quantisation error of the logits that export accepts."""
    murmur_share: float = 0.0
    """Share of the murmur logit in the score of abnormal; the rest is the abnormal logit's."""
    undecided: float = 0.02
    """Recordings whose probability is this close to the threshold are `unsure`."""

    @property
    def view(self) -> features.View:
        return features.View(self.bands, self.range_db)

    def digest(self) -> str:
        """Hash of all values, so that a changed recipe is not taken for a finished one."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: Path | None = None, **changes: Any) -> Recipe:
    """The shipped recipe, or `[classifier]` of a TOML file. BadInput names an unknown key or a wrong type."""
    if path is None:
        text = resources.files("training").joinpath("recipes/classifier.toml").read_text("utf-8")
    else:
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            raise BadInput(
                f"{path}: the recipe cannot be read ({error.strerror}); give a TOML file"
            ) from None
    try:
        table = tomllib.loads(text).get("classifier", {})
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path or 'classifier.toml'}: not TOML ({error})") from None
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    values: dict[str, Any] = {}
    default = Recipe()
    for key, value in {**table, **changes}.items():
        if key not in fields:
            import difflib

            near = difflib.get_close_matches(key, fields, 1, 0.0)
            raise BadInput(
                f'{path or "classifier.toml"}: [classifier] {key}: no such key. Did you mean "{near[0]}"?'
            )
        like = getattr(default, key)
        if isinstance(like, tuple) and isinstance(value, list | tuple):
            value = tuple(value)
        elif isinstance(like, float) and isinstance(value, int):
            value = float(value)
        if not isinstance(value, type(like) if not isinstance(like, Mapping) else Mapping):
            kind = type(like).__name__
            raise BadInput(f"{path or 'classifier.toml'}: [classifier] {key} = {value!r}: a {kind} is needed")
        values[key] = value
    return Recipe(**values)


def _frame_states(spans: Sequence[tuple[float, float, str]], count: int, period_s: float) -> np.ndarray:
    """State of each frame's middle, uint8 (count,); UNKNOWN where noise, unannotated or beyond. The sound
    of a short recording repeats, and so do its states: `period_s` is its own length.
    """
    codes = np.full(count, UNKNOWN, np.uint8)
    middle = (np.arange(count) * features.FRAME_HOP + features.FRAME / 2) / WORKING_RATE_HZ % period_s
    for start, end, state in spans:
        if state in STATES:
            codes[(middle >= start) & (middle < end)] = STATES.index(state)
    return codes


FEATURES_VERSION = 1
"""Raise it when device.mel, device.features or training.data come to give other band powers, states or
recordings for the same files: what is kept is then computed anew. Other words for the same are no reason."""


class Corpus:
    """All recordings with their band powers and states, computed once and kept in a cache folder.

    `power(i)`: float32 (frames, 32) of recording i, at least a window long; `states(i)`: uint8 (frames,).
    """

    def __init__(self, data: Path, cache: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self.recordings: list[Recording] = training_data.recordings(data)
        self.noises = [n for n in training_data.noises(data) if n.free and n.part == "train"]
        self.hashes = training_data.data_hashes(data)
        said = [str(Path(data).resolve()), self.hashes, repr(features.GRID), FEATURES_VERSION]
        key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
        folder = cache / f"features-{key}"
        if not (folder / "done").is_file():
            say(f"computing features of {len(self.recordings)} recordings into {folder}")
            self._compute(data, folder)
        self._power = np.load(folder / "power.npy", mmap_mode="r")
        self._states = np.load(folder / "states.npy")
        self._starts = np.load(folder / "starts.npy")
        self._noise_power = np.load(folder / "noise_power.npy")
        self._noise_starts = np.load(folder / "noise_starts.npy")

    def _compute(self, data: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        spans = training_data.states(data)
        power, codes, starts = [], [], [0]
        for recording in self.recordings:
            x = training_data.load(recording)
            frames = features.frames_of(features.at_least_a_window(x))
            power.append(frames)
            codes.append(
                _frame_states(spans.get(recording.record, ()), len(frames), len(x) / WORKING_RATE_HZ)
            )
            starts.append(starts[-1] + len(frames))
        noise, noise_starts = [], [0]
        for item in self.noises:
            frames = features.frames_of(features.at_least_a_window(training_data.load_noise(item)))
            noise.append(frames)
            noise_starts.append(noise_starts[-1] + len(frames))
        empty = np.zeros((0, features.BANDS), np.float32)
        np.save(folder / "power.npy", np.concatenate(power))
        np.save(folder / "states.npy", np.concatenate(codes))
        np.save(folder / "starts.npy", np.array(starts))
        np.save(folder / "noise_power.npy", np.concatenate([empty, *noise]))
        np.save(folder / "noise_starts.npy", np.array(noise_starts))
        (folder / "done").write_text("complete\n")

    def into_memory(self) -> None:
        """Read all band powers into memory (0.4 GB for both corpora), for training."""
        self._power = np.array(self._power)

    def power(self, index: int) -> np.ndarray:
        return self._power[self._starts[index] : self._starts[index + 1]]

    def states(self, index: int) -> np.ndarray:
        return self._states[self._starts[index] : self._starts[index + 1]]

    def noise(self, index: int) -> np.ndarray:
        return self._noise_power[self._noise_starts[index] : self._noise_starts[index + 1]]


def targets(recording: Recording, recipe: Recipe) -> tuple[float, float, float, float]:
    """(murmur, its weight, abnormal, its weight) of a recording; weight 0 where nothing is known."""
    murmur, murmur_weight = 0.0, 0.0
    if recording.murmur_here in ("yes", "no"):
        murmur, murmur_weight = float(recording.murmur_here == "yes"), 1.0
    elif recording.murmur_here is None and recording.label == "normal":
        murmur_weight = recipe.no_murmur_weight
    abnormal, abnormal_weight = float(recording.label == "abnormal"), float(recording.label is not None)
    if recording.murmur_here is not None:
        # a murmur that is heard there is a finding, whatever the outcome was; an outcome without one is
        # hearsay
        if recording.murmur_here == "yes":
            abnormal = 1.0
        elif recording.murmur_here == "unknown":
            abnormal_weight = 0.0
        else:
            abnormal_weight *= recipe.outcome_weight if abnormal else 1.0
    return murmur, murmur_weight, abnormal, abnormal_weight


def _told(labels: np.ndarray, taught: np.ndarray) -> np.ndarray:
    """Labels (n, 4) as of `targets`, with a teacher's probabilities (n, 2) of murmur and of abnormal, at half
    the weight, where nothing is noted; where the teacher heard nothing either (nan) all stays.
    """
    labels = labels.copy()
    for head in (0, 1):
        unknown = (labels[:, 2 * head + 1] == 0) & ~np.isnan(taught[:, head])
        labels[unknown, 2 * head] = taught[unknown, head]
        labels[unknown, 2 * head + 1] = 0.5
    return labels


class _Chances:
    """Numbers drawn with given weights, as `Generator.choice` draws them, the sums made once."""

    def __init__(self, weights: np.ndarray) -> None:
        self._below = np.cumsum(weights / np.sum(weights))
        self._below /= self._below[-1]

    def draw(self, rng: np.random.Generator) -> int:
        return int(self._below.searchsorted(rng.random(), side="right"))


class _Drawer:
    """Batches as a pure function of (seed, step)."""

    def __init__(
        self, corpus: Corpus, recipe: Recipe, folds: Sequence[int], taught: np.ndarray | None = None
    ) -> None:
        self.corpus, self.recipe = corpus, recipe
        self.databases = sorted({r.database for r in corpus.recordings})
        self.labels = np.array([targets(r, recipe) for r in corpus.recordings], np.float32)
        if taught is not None:
            self.labels = _told(self.labels, taught)
        cells: dict[tuple[str, str], dict[str, list[int]]] = {}
        for i, r in enumerate(corpus.recordings):
            if r.fold not in folds or r.database in recipe.hold_out:
                continue
            _, murmur_weight, abnormal, abnormal_weight = self.labels[i]
            if murmur_weight + abnormal_weight == 0 or r.quality == "poor":
                continue
            if r.murmur_here in ("yes", "unknown"):
                cell = "murmur" if r.murmur_here == "yes" else "unknown"
            else:
                cell = "abnormal" if abnormal else "normal"
            cells.setdefault((r.database, cell), {}).setdefault(r.group, []).append(i)
        if not cells:
            raise BadInput(
                "no labelled recordings are left to train on; look at folds and hold_out in the recipe"
            )
        self.cells = [[cells[key][group] for group in sorted(cells[key])] for key in sorted(cells)]
        weights = []
        for database, cell in sorted(cells):
            kinds = {c: (2.0 if c == "murmur" else 1.0) for d, c in cells if d == database}
            weights.append(recipe.shares.get(database, 0.1) * kinds[cell] / sum(kinds.values()))
        self.weights = np.array(weights) / np.sum(weights)
        self._of_cell = _Chances(self.weights)
        # by group first, damped: a subject of sixty recordings counts more than one of a single, but not
        # sixty times
        self._of_group = [_Chances(np.sqrt([len(group) for group in cell])) for cell in self.cells]
        self.database_of = {r.record: self.databases.index(r.database) for r in corpus.recordings}

    def _pick(self, rng: np.random.Generator) -> int:
        cell = self._of_cell.draw(rng)
        group = self.cells[cell][self._of_group[cell].draw(rng)]
        return group[rng.integers(len(group))]

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x (batch, 1, bands, 248), labels (batch, 4), database (batch,), states (batch, 62)."""
        r, rng = self.recipe, np.random.default_rng([self.recipe.seed, step])
        x = np.empty((r.batch, r.bands, features.FRAMES), np.float32)
        labels = np.empty((r.batch, 4), np.float32)
        database = np.empty(r.batch, np.int64)
        state = np.empty((r.batch, features.FRAMES // 4), np.int64)
        for k in range(r.batch):
            i = self._pick(rng)
            power, codes = self._excerpt(i, rng)
            labels[k] = self.labels[i]
            if not labels[k, 0] and not labels[k, 2] and rng.random() < r.synthetic_murmur:
                louder = _with_murmur(power, codes, rng)
                if louder is not None:
                    power, labels[k] = louder, 1.0
            if not labels[k, 0] and not labels[k, 2] and rng.random() < r.extra_sounds:
                louder = _with_extra_sound(power, codes, rng)
                if louder is not None:
                    power, labels[k] = louder, (0.0, 0.0, 1.0, 1.0)
            x[k] = self._spoil(power, rng)
            database[k] = self.database_of[self.corpus.recordings[i].record]
            state[k] = codes[2::4]
        for _ in range(r.time_masks):
            widths = rng.integers(0, r.time_mask_frames + 1, r.batch)
            firsts = rng.integers(0, features.FRAMES - r.time_mask_frames, r.batch)
            for k in range(r.batch):
                x[k, :, firsts[k] : firsts[k] + widths[k]] = 0.0
        if r.low_cut:
            lowest = rng.integers(1, 5, r.batch)
            for k in np.flatnonzero(rng.random(r.batch) < r.low_cut):
                x[k, : lowest[k]] = 0.0
        for _ in range(r.band_masks):
            widths = rng.integers(0, r.band_mask_bands + 1, r.batch)
            firsts = rng.integers(0, r.bands - r.band_mask_bands, r.batch)
            for k in range(r.batch):
                x[k, firsts[k] : firsts[k] + widths[k]] = 0.0
        if r.mixup:
            share = rng.beta(r.mixup, r.mixup, r.batch).astype(np.float32)
            share = np.maximum(share, 1 - share)
            other = rng.permutation(r.batch)
            both = labels[:, [1, 3]] * labels[other][:, [1, 3]]
            x = share[:, None, None] * x + (1 - share)[:, None, None] * x[other]
            mixed = labels.copy()
            for column, weight in ((0, 1), (2, 3)):
                mixed[:, column] = share * labels[:, column] + (1 - share) * labels[other, column]
                mixed[:, weight] = both[:, weight // 2]
            labels = mixed
        return x[:, None], labels, database, state

    def _excerpt(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A window of a recording, stretched in time by chance: (248, 32), (248,)."""
        power, codes = self.corpus.power(index), self.corpus.states(index)
        length = int(round(features.FRAMES * rng.uniform(*self.recipe.stretch)))
        start = int(rng.integers(0, max(1, len(power) - length + 1)))
        at = start + np.linspace(0.0, length - 1.0, features.FRAMES)
        low = at.astype(int)
        part = (at - low).astype(np.float32)[:, None]
        low, high = low % len(power), (low + 1) % len(power)
        return power[low] * (1 - part) + power[high] * part, codes[np.rint(at).astype(int) % len(power)]

    def _spoil(self, power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Another microphone, another room: filter, frequency shift, noise, noise floor; then the network's
        input.
        """
        r = self.recipe
        bands = np.arange(features.BANDS)
        if r.shift_bands:
            at = np.clip(
                bands * rng.uniform(0.94, 1.06) + rng.uniform(-r.shift_bands, r.shift_bands), 0, bands[-1]
            )
            low = np.minimum(at.astype(int), features.BANDS - 2)
            part = (at - low).astype(np.float32)
            power = power[:, low] * (1 - part) + power[:, low + 1] * part
        if r.filter_db:
            power = power * _curve(rng, r.filter_db)
        mean = float(power.mean()) + 1e-20
        if len(self.corpus.noises) and rng.random() < r.noise_share:
            noise = self.corpus.noise(int(rng.integers(len(self.corpus.noises))))
            start = int(rng.integers(len(noise)))
            noise = noise[(start + np.arange(features.FRAMES)) % len(noise)] * _curve(rng, r.filter_db)
            snr = 10.0 ** (rng.uniform(*r.noise_snr_db) / 10.0)
            power = power + noise * np.float32(mean / (snr * (float(noise.mean()) + 1e-20)))
        if rng.random() < r.floor_share:
            # a stationary floor: the power of noise in a band of a few independent bins is gamma distributed
            level = mean * 10.0 ** (rng.uniform(*r.floor_db) / 10.0)
            floor = rng.standard_gamma(_FLOOR_SHAPE, (features.FRAMES, features.BANDS)) / _FLOOR_SHAPE
            power = power + (level * floor * _curve(rng, 2 * r.filter_db)).astype(np.float32)
        return features.network_input(np.ascontiguousarray(power, np.float32), r.view)


_FLOOR_SHAPE = np.linspace(2.0, 5.0, features.BANDS)

_MURMUR_SHAPES = (
    lambda u: np.sin(np.pi * u),  # crescendo-decrescendo, as of a narrow valve
    lambda u: 1.0 - 0.9 * u,  # decrescendo, as of a leaking semilunar valve
    lambda u: 0.1 + 0.9 * u,  # crescendo, as of late prolapse
    np.ones_like,  # plateau, as of a leaking mitral valve
)


def _with_murmur(power: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Band powers (n, 32) with a murmur in each systole (four of five draws) or diastole, placed by the
    states (n,).

    Its band, shape, span and loudness are drawn; it lies 5 to 26 dB under the beats, but at least 3 dB over
    what its bands hold there anyway, for what cannot be heard must not be learned. None where the states
    are not known or no such loudness is left.
    """
    beats = (codes == STATES.index("S1")) | (codes == STATES.index("S2"))
    phase = STATES.index("systole" if rng.random() < 0.8 else "diastole")
    inside = codes == phase
    if beats.sum() < 20 or inside.sum() < 20:
        return None
    centre, width = rng.uniform(2.0, 22.0), rng.uniform(1.5, 8.0)
    bands = np.exp(-0.5 * ((np.arange(features.BANDS) - centre) / width) ** 2)
    bands /= bands.sum()
    loud = float(np.median(power[beats].sum(axis=1)))
    under = loud * 10.0 ** (-rng.uniform(5.0, 26.0) / 10.0)
    # the murmur's power is spread over its bands; what it must drown is their own
    there = float(np.median(power[inside] @ (bands / bands.max())))
    level = max(under, there * 10.0 ** (rng.uniform(3.0, 9.0) / 10.0))
    if level > 0.6 * loud:
        return None
    begin, end = ((0.0, 1.0), (0.0, 1.0), (0.0, 0.6), (0.2, 0.8), (0.4, 1.0))[rng.integers(5)]
    shape = _MURMUR_SHAPES[rng.integers(len(_MURMUR_SHAPES))]
    swell = np.zeros(len(power))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        first = start + int(round(begin * (stop - start)))
        last = max(first + 2, start + int(round(end * (stop - start))))
        curve = shape(np.linspace(0.08, 0.92, last - first)) ** 2 * 10.0 ** (rng.normal(0.0, 1.5) / 10.0)
        swell[first:last] = curve[: len(swell[first:last])]
    grain = rng.standard_gamma(2.5, power.shape) / 2.5
    return power + (level * swell[:, None] * bands * grain).astype(np.float32)


def _with_extra_sound(power: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Band powers (n, 32) with a low sound in each diastole: a third heart sound 0.10 to 0.18 s after its
    beginning, a fourth 0.06 to 0.14 s before its end, or a rumble through most of it.

    It lies 2 to 16 dB under the beats in its own bands (20 to 150 Hz or so), but at least 4 dB over what is
    there anyway. None where the states are not known or no such loudness is left.
    """
    beats = (codes == STATES.index("S1")) | (codes == STATES.index("S2"))
    inside = codes == STATES.index("diastole")
    if beats.sum() < 20 or inside.sum() < 20:
        return None
    centre, width = rng.uniform(0.0, 6.0), rng.uniform(1.5, 4.0)
    bands = np.exp(-0.5 * ((np.arange(features.BANDS) - centre) / width) ** 2)
    share = bands / bands.sum()
    loud, there = float(np.median(power[beats] @ share)), float(np.median(power[inside] @ share))
    level = max(
        loud * 10.0 ** (-rng.uniform(2.0, 16.0) / 10.0), there * 10.0 ** (rng.uniform(4.0, 9.0) / 10.0)
    )
    if level > loud:
        return None
    kind = int(rng.integers(3))
    frame_s = features.FRAME_HOP / WORKING_RATE_HZ
    third, fourth = rng.uniform(0.10, 0.18) / frame_s, rng.uniform(0.06, 0.14) / frame_s
    wide = rng.uniform(1.2, 2.6)
    swell = np.zeros(len(power))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        t = np.arange(start, stop)
        if kind == 0:
            shape = np.exp(-0.5 * ((t - start - third) / wide) ** 2)
        elif kind == 1:
            shape = np.exp(-0.5 * ((t - stop + fourth) / wide) ** 2)
        else:
            shape = np.clip(((t - start) / max(1, stop - start) - 0.1) * 8.0, 0.0, 1.0)
        swell[start:stop] = shape * 10.0 ** (rng.normal(0.0, 1.5) / 10.0)
    grain = rng.standard_gamma(3.0, power.shape) / 3.0
    return power + (level * swell[:, None] * bands * grain).astype(np.float32)


_KNOTS_AT = np.arange(6)
_CURVE_AT = np.linspace(0, 5, features.BANDS)


def _curve(rng: np.random.Generator, swing_db: float) -> np.ndarray:
    """A smooth random power gain over the bands, float32 (32,)."""
    knots = np.cumsum(rng.normal(0.0, swing_db / 2.0, 6))
    db = np.interp(_CURVE_AT, _KNOTS_AT, knots - knots.mean())
    return (10.0 ** (db / 10.0)).astype(np.float32)


def _loss(
    logits: torch.Tensor,
    states: torch.Tensor | None,
    labels: torch.Tensor,
    state: torch.Tensor,
    recipe: Recipe,
) -> torch.Tensor:
    smooth = recipe.label_smoothing
    total = logits.new_zeros(())
    for column, factor in ((0, recipe.murmur_weight), (1, recipe.abnormal_weight)):
        target = labels[:, 2 * column] * (1 - 2 * smooth) + smooth
        weight = labels[:, 2 * column + 1]
        each = nn.functional.binary_cross_entropy_with_logits(logits[:, column], target, reduction="none")
        total = total + factor * (each * weight).sum() / weight.sum().clamp(min=1.0)
    if states is not None and recipe.state_weight:
        known = state != UNKNOWN
        if known.any():
            total = total + recipe.state_weight * nn.functional.cross_entropy(
                states.transpose(1, 2)[known], state[known]
            )
    return total


def save_curve(path: Path, curve: Sequence[Mapping[str, float]]) -> None:
    """A training curve: steps and losses, for `stethopi plot`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, list(curve))


def _run(
    net: Classifier,
    drawer: _Drawer,
    recipe: Recipe,
    *,
    steps: int,
    learning_rate: float,
    first_draw: int,
    checkpoint: Path | None,
    key: str,
    say: Callable[[str], None],
    every: int = 500,
    curve_file: Path | None = None,
) -> Classifier:
    """Train `net` for `steps`; resumes from `checkpoint` when that is of the same key. Gives the averaged
    net; the loss every `every` steps goes into `curve_file`.
    """
    layout = loop.layout_for(_channels_of(net))
    net = net.to(memory_format=layout)  # type: ignore[call-overload]
    bias = nn.Parameter(torch.zeros(len(drawer.databases), 2))

    def loss_of(step: int) -> torch.Tensor:
        x, labels, database, state = map(torch.from_numpy, drawer.batch(step))
        x = x.contiguous(memory_format=layout)
        states = None
        if net.state_head is not None:
            logits, states = net.forward_with_states(x)
        else:
            logits = net(x)
        return _loss(logits + bias[database], states, labels, state, recipe)

    plan = loop.Plan(
        steps, learning_rate, recipe.weight_decay, recipe.seed, every, first_draw, recipe.average
    )
    curve = loop.learn(net, loss_of, plan, beside=[bias], checkpoint=checkpoint, key=key, say=say)
    if curve_file is not None:
        save_curve(curve_file, curve)
    return net


def train(
    corpus: Corpus,
    recipe: Recipe,
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    every: int = 500,
    taught: np.ndarray | None = None,
) -> Classifier:
    """Train from scratch, or on from `out`/classifier-resume.pt; writes `out`/classifier-full.pt when done.

    Gives the averaged net in eval mode. every: steps from one checkpoint, and line said, to the next.
    taught: a teacher's probabilities (recordings, 2) of murmur and abnormal, for what has no label.
    """
    drawer = _Drawer(corpus, recipe, recipe.folds, taught)
    torch.manual_seed(recipe.seed)
    net = Classifier(recipe.channels, recipe.dropout, recipe.view)
    net = _run(
        net,
        drawer,
        recipe,
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        first_draw=0,
        checkpoint=out / "classifier-resume.pt" if out else None,
        key=recipe.digest(),
        say=say,
        every=every,
        curve_file=out / "curve.json" if out else None,
    )
    if out is not None:
        save_checkpoint(out / "classifier-full.pt", net, recipe, corpus)
        (out / "classifier-resume.pt").unlink(missing_ok=True)
    return net


def finetune(
    net: Classifier,
    corpus: Corpus,
    recipe: Recipe,
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Classifier:
    """Train a pruned net (without its state head) on; writes `out`/classifier-pruned.pt."""
    drawer = _Drawer(corpus, recipe, recipe.folds)
    net = _run(
        net,
        drawer,
        recipe,
        steps=recipe.finetune_steps,
        learning_rate=recipe.finetune_learning_rate,
        first_draw=10_000_000,
        checkpoint=out / "classifier-resume-pruned.pt" if out else None,
        key=recipe.digest() + "-pruned",
        say=say,
    )
    if out is not None:
        save_checkpoint(out / "classifier-pruned.pt", net, recipe, corpus)
        (out / "classifier-resume-pruned.pt").unlink(missing_ok=True)
    return net


def prune_classifier(
    recipe: Recipe,
    source: Path,
    corpus: Corpus,
    out: Path | None,
    say: Callable[[str], None] = lambda text: None,
) -> Classifier:
    """Take the share `prune_ratio` of the channels of a trained net away and train on; writes
    `out`/classifier-pruned.pt.
    """
    from training.prune import prune

    net, _ = load_checkpoint(source)
    net.state_head = None
    report = prune(net, (net.example(),), recipe.prune_ratio, keep=[net.head], round_to=4)
    say(f"pruned: {report['before']} to {report['after']}")
    return finetune(net, corpus, recipe, out, say)


def _channels_of(net: Classifier) -> list[int]:
    return [net.stem[0].out_channels, *(block[3].out_channels for block in net.blocks)]  # type: ignore[union-attr]


def save_checkpoint(path: Path, net: Classifier, recipe: Recipe, corpus: Corpus) -> None:
    """Weights with what is needed to build the net and to know where it came from."""
    loop.save(
        path,
        {
            "channels": _channels_of(net),
            "dropout": recipe.dropout,
            "bands": recipe.bands,
            "range_db": recipe.range_db,
            "has_states": net.state_head is not None,
            "net": net.state_dict(),
            "recipe": recipe.digest(),
            "seed": recipe.seed,
            "data": corpus.hashes,
        },
    )


def load_checkpoint(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """The net of a checkpoint, in eval mode, and what stands beside the weights. BadInput when there is
    none.
    """
    try:
        kept = loop.load(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; run `stethopi train classifier` first") from None
    net = Classifier(kept["channels"], kept["dropout"], features.View.of(kept))
    if not kept["has_states"]:
        net.state_head = None
    net.load_state_dict(kept.pop("net"))
    return net.eval(), kept


def window_inputs(power: np.ndarray, view: features.View, every: int = features.FRAMES_EVERY) -> np.ndarray:
    """The windows of a recording on the device's grid: band powers (m, 32) → (windows, 1, bands, 248)."""
    starts = range(0, len(power) - features.FRAMES + 1, every)
    return np.stack([features.network_input(power[s : s + features.FRAMES], view) for s in starts])[:, None]


def recording_logits(net: Classifier, power: np.ndarray, every: int = features.FRAMES_EVERY) -> np.ndarray:
    """Logits of every window of a recording, float32 (windows, 2)."""
    with torch.no_grad():
        return net(torch.from_numpy(window_inputs(power, net.view, every))).numpy()


def evaluate(
    net: Classifier,
    corpus: Corpus,
    folds: Sequence[int],
    databases: Sequence[str] | None = None,
    every: int = features.FRAMES_EVERY,
) -> dict[str, dict[str, float]]:
    """AUC by database of both logits (mean over a recording's windows) for abnormal, and for murmur where
    known.
    """
    torch.set_num_threads(1)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for i, r in enumerate(corpus.recordings):
        if r.fold not in folds or not r.reportable or r.label is None:
            continue
        if databases is not None and r.database not in databases:
            continue
        logits = recording_logits(net, corpus.power(i), every).mean(0)
        murmur = {"yes": 1.0, "no": 0.0}.get(r.murmur_here or "", float("nan"))
        rows.setdefault(r.database, []).append((logits[0], logits[1], float(r.label == "abnormal"), murmur))
    table: dict[str, dict[str, float]] = {}
    for database, values in sorted(rows.items()):
        v = np.array(values)
        entry = {
            "n": float(len(v)),
            "abnormal": auc(v[:, 1], v[:, 2] > 0.5),
            "abnormal_by_murmur": auc(v[:, 0], v[:, 2] > 0.5),
            "abnormal_by_both": auc(v[:, :2].sum(1), v[:, 2] > 0.5),
        }
        known = ~np.isnan(v[:, 3])
        if known.any():
            entry["murmur"] = auc(v[known, 0], v[known, 3] > 0.5)
            entry["murmur_by_abnormal"] = auc(v[known, 1], v[known, 3] > 0.5)
        table[database] = entry
    return table


def calibration_inputs(corpus: Corpus, recipe: Recipe, count: int = 300) -> np.ndarray:
    """Windows of training recordings of all databases for the converter, float32 (count, 1, bands, 248)."""
    rng = np.random.default_rng([recipe.seed, 77])
    by_database: dict[str, list[int]] = {}
    for i, r in enumerate(corpus.recordings):
        if r.fold in recipe.folds:
            by_database.setdefault(r.database, []).append(i)
    names = sorted(by_database)
    windows = []
    for k in range(count):
        choice = by_database[names[k % len(names)]]
        power = corpus.power(choice[rng.integers(len(choice))])
        start = int(rng.integers(0, len(power) - features.FRAMES + 1))
        windows.append(features.network_input(power[start : start + features.FRAMES], recipe.view))
    return np.stack(windows)[:, None]


class _Heard:
    """A network that remembers the logits it gave, one row a window."""

    def __init__(self, network: Callable[[np.ndarray], np.ndarray]) -> None:
        self.network = network
        self.logits: list[np.ndarray] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        logits = self.network(x)
        self.logits.append(logits)
        return logits


_NEUTRAL = {
    "combine": {"murmur": 0.0, "abnormal": 1.0},
    "bias": 0.0,
    "temperature": 1.0,
    "murmur_bias": 0.0,
    "murmur_temperature": 1.0,
    "threshold": 0.5,
    "undecided": [0.5, 0.5],
}


def sound_logits(x: np.ndarray, entry: ModelEntry, network: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean logits of the good windows (of all, where none is good) of a sound at 2 kHz, by the device's own
    screening.

    float64 (2,); nan for silence.
    """
    neutral = dataclasses.replace(entry, meta={**entry.meta, **_NEUTRAL})
    heard = _Heard(network)
    found = screen.screen_recording(x, neutral, network=heard)
    judged = [w for w in found.windows if w.probability is not None]
    good = [k for k, w in enumerate(judged) if w.quality >= quality.GOOD]
    logits = np.array(heard.logits, float).reshape(-1, 2)
    return logits[good or slice(None)].mean(axis=0) if len(logits) else np.full(2, np.nan)


def screen_logits(
    chosen: Sequence[Recording], entry: ModelEntry, network: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """`sound_logits` of recordings, float64 (recordings, 2)."""
    inner = network or screen.Int8Network(entry)
    return np.array([sound_logits(training_data.load(r), entry, inner) for r in chosen]).reshape(-1, 2)


_LEVELS = np.linspace(0.1, 0.9, 161)
"""Thresholds that are tried."""

_FEWEST_PATIENTS = 10
"""Of a class, for a threshold of their own."""


def _top(curve: np.ndarray) -> float:
    """The level at which a curve over _LEVELS, smoothed over 0.1, is highest: no lucky point is taken."""
    width = 21
    smooth = np.convolve(curve, np.ones(width) / width, "valid")
    return float(_LEVELS[width // 2 + int(smooth.argmax())]) if curve.any() else 0.5


def _murmur_by_patient(chosen: Sequence[Recording], murmur: np.ndarray) -> float:
    """From which probability, of a patient's surest position, a murmur is said to be present: of several
    positions one is soon wrongly sure, so it lies higher than for one. By MAcc over CirCor's patients.
    """
    surest: dict[str, float] = {}
    present: dict[str, bool] = {}
    for recording, probability in zip(chosen, murmur, strict=True):
        if recording.meta.get("murmur") in ("present", "absent"):
            name = recording.meta["patient"]
            surest[name] = max(surest.get(name, 0.0), float(probability))
            present[name] = recording.meta["murmur"] == "present"
    truth = np.array(list(present.values()), bool)
    if min(truth.sum(), (~truth).sum(), len(truth)) < _FEWEST_PATIENTS:
        return 0.5
    values = np.array(list(surest.values()))
    return round(_top(np.array([macc(values, truth, t) for t in _LEVELS])), 4)


def operating_point(logits: np.ndarray, chosen: Sequence[Recording], recipe: Recipe) -> dict[str, Any]:
    """How logits become the probability and the label: fitted on recordings of the fold that decides.

    Each source and label weighs the same in the scaling. The threshold is that of the best mean MAcc over
    the sources (a small one counts less), on a curve smoothed over 0.1, so that no lucky point is taken.
    """
    truth = np.array([targets(r, recipe) for r in chosen])
    database = np.array([r.database for r in chosen])
    usable = ~np.isnan(logits[:, 0])
    score = recipe.murmur_share * logits[:, 0] + (1 - recipe.murmur_share) * logits[:, 1]
    known = usable & (truth[:, 3] >= 1.0)
    positive = truth[:, 2] > 0.5
    weights = np.zeros(len(chosen))
    for name in set(database):
        for label in (False, True):
            cell = known & (database == name) & (positive == label)
            if cell.any():
                # a handful of recordings cannot speak as loudly as hundreds
                weights[cell] = min(1.0, cell.sum() / 20.0) / cell.sum()
    bias, temperature = fit_platt(score[known], positive[known].astype(float), weights[known])
    probability = 1.0 / (1.0 + np.exp(-np.clip(np.nan_to_num((score + bias) / temperature), -60.0, 60.0)))
    heard = usable & (truth[:, 1] >= 1.0)
    if heard.any():
        murmur_positive = truth[:, 0] > 0.5
        share = np.where(murmur_positive, 0.5 / max(1, (murmur_positive & heard).sum()), 0.0)
        share = np.where(murmur_positive, share, 0.5 / max(1, (~murmur_positive & heard).sum()))
        murmur_bias, murmur_temperature = fit_platt(
            logits[heard, 0], murmur_positive[heard].astype(float), share[heard]
        )
    else:
        murmur_bias, murmur_temperature = 0.0, 1.0
    heard_logit = np.clip((np.nan_to_num(logits[:, 0]) + murmur_bias) / murmur_temperature, -60.0, 60.0)
    by_patient = _murmur_by_patient(chosen, 1.0 / (1.0 + np.exp(-heard_logit)))
    curve = np.zeros(len(_LEVELS))
    for name in sorted(set(database)):
        own = known & (database == name)
        if positive[own].any() and not positive[own].all():
            row = [macc(probability[own], positive[own], t) for t in _LEVELS]
            heard_there = max(0.0, 2.0 * auc(probability[own], positive[own]) - 1.0)
            curve += heard_there * min(1.0, own.sum() / 50.0) * np.array(row)
    threshold = _top(curve)
    return {
        "combine": {"murmur": recipe.murmur_share, "abnormal": 1 - recipe.murmur_share},
        "bias": bias,
        "temperature": temperature,
        "murmur_bias": murmur_bias,
        "murmur_temperature": murmur_temperature,
        "murmur_by_patient": by_patient,
        "threshold": round(threshold, 4),
        "undecided": [round(threshold - recipe.undecided, 4), round(threshold + recipe.undecided, 4)],
        "fitted_on": {"fold": recipe.decide, "recordings": int(known.sum())},
    }


def export_classifier(
    recipe: Recipe,
    source: Path,
    corpus: Corpus,
    out: Path,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Checkpoint → int8 with both gates → operating point → the classifier's part of a bundle in `out`.

    Raises training.export.ExportRefused when a gate does not hold; then no part is written.
    """
    from training.export import Limits, export
    from training.release import write_part

    net, kept = load_checkpoint(source)
    net.state_head = None
    calibration = calibration_inputs(corpus, recipe)
    result = export(
        net,
        {"x": net.example()},
        ["logits"],
        {"x": calibration},
        out,
        "classifier",
        limits=Limits(int8_db=recipe.int8_db),
        seed=recipe.seed,
    )
    say(f"int8: {result.kilobytes:.0f} kB, logits {result.report['int8_db']['logits']:.1f} dB above error")
    meta: dict[str, Any] = {
        "input": "raw",
        "rate_hz": WORKING_RATE_HZ,
        "window_s": WINDOW / WORKING_RATE_HZ,
        "every_s": features.FRAMES_EVERY * features.FRAME_HOP / WORKING_RATE_HZ,
        "outputs_are": list(OUTPUTS),
        "bands": recipe.bands,
        "range_db": recipe.range_db,
        "inputs": result.inputs,
        "outputs": result.outputs,
        "states": [],
        "parameters": result.report["parameters"],
        "mac_per_window": result.report["macs"],
        "kilobytes": round(result.kilobytes, 1),
        "recipe": dataclasses.asdict(recipe),
        "recipe_sha256": recipe.digest(),
        "seed": recipe.seed,
        "data": corpus.hashes,
        "trained_on": {
            "folds": list(recipe.folds),
            "databases": sorted({r.database for r in corpus.recordings} - set(recipe.hold_out)),
            "noise": "part = train and noncommercial = no only",
        },
        "pruned": not kept["has_states"],
        "export": result.report,
    }
    entry = ModelEntry("classifier", result.int8_tflite, meta)
    chosen = [
        r for r in corpus.recordings if r.fold == recipe.decide and r.reportable and r.label is not None
    ]
    if not chosen:
        raise BadInput(f"no labelled recordings in fold {recipe.decide}, which sets the threshold; add some")
    say(f"operating point from {len(chosen)} recordings of fold {recipe.decide}")
    meta.update(operating_point(screen_logits(chosen, entry), chosen, recipe))
    network = screen.Int8Network(entry)
    examples = calibration[:: max(1, len(calibration) // 8)][:8, 0]
    sounds = _example_sounds(corpus, recipe)
    found = [screen.screen_recording(s.astype(np.float32) / 32768.0, entry) for s in sounds]
    vectors = {
        "x": examples,
        "logits": np.stack([network(x) for x in examples]),
        "sound": sounds,
        "probability": np.array([f.probability if f.probability is not None else np.nan for f in found]),
    }
    write_part(out, "classifier", meta, vectors=vectors)
    return meta


def _example_sounds(corpus: Corpus, recipe: Recipe, count: int = 4) -> np.ndarray:
    """Five seconds of some training recordings, int16 (count, 10000)."""
    chosen = [r for r in corpus.recordings if r.fold in recipe.folds and r.seconds >= 5.0][::97][:count]
    sounds = [features.at_least_a_window(training_data.load(r))[:WINDOW] for r in chosen]
    return np.clip(np.rint(np.stack(sounds) * 32768.0), -32768, 32767).astype(np.int16)


def describe(table: Mapping[str, Mapping[str, float]]) -> str:
    """The evaluation as lines to print."""
    lines = []
    for database, entry in table.items():
        cells = "  ".join(f"{key} {value:.3f}" for key, value in entry.items() if key != "n")
        lines.append(f"{database:<7} n {int(entry['n']):4d}  {cells}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    import argparse
    import sys

    parser = argparse.ArgumentParser(description="Train the screening network and print fold 1 by database.")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/stethopi").expanduser())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hold-out", nargs="*", default=[])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="change single keys of the recipe"
    )
    parser.add_argument(
        "--trial", metavar="NAME", help="add the figures to docs/results/screening-trials.json"
    )
    options = parser.parse_args(argv)
    changes: dict[str, Any] = {
        key: json.loads(value) for key, value in (s.split("=", 1) for s in options.set)
    }
    if options.hold_out:
        changes["hold_out"] = tuple(options.hold_out)
    recipe = load_recipe(options.recipe, **changes)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    corpus = Corpus(options.data, options.cache, say)
    corpus.into_memory()
    net = train(corpus, recipe, options.out, say)
    trial: dict[str, Any] = {
        "changes": {key: value for key, value in changes.items() if key != "hold_out"},
        "left_out": list(recipe.hold_out),
        "fold_1": evaluate(net, corpus, [recipe.decide]),
    }
    print(describe(trial["fold_1"]), flush=True)
    if recipe.hold_out:
        # never heard in training: all of its folds may decide, but for the one that is reported
        trial["left_out_folds_1_to_4"] = evaluate(
            net, corpus, range(1, 5), recipe.hold_out, 2 * features.FRAMES_EVERY
        )
        print("left out:\n" + describe(trial["left_out_folds_1_to_4"]), flush=True)
    if options.trial:
        from training.card import RESULTS
        from training.release import commit_id

        path = RESULTS / "screening-trials.json"
        trials = json.loads(path.read_text("utf-8")) if path.is_file() else []
        trials.append({"name": options.trial, "commit": commit_id(), "seed": recipe.seed, **trial})
        write_json(path, trials)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
