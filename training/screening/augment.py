"""What is done to a window before the network hears it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from device.errors import BadInput
from device.rates import WORKING_RATE_HZ
from device.screening import features
from models.classifier import STATES
from training.screening.corpus import Corpus, targets, told
from training.screening.recipe import Recipe

_STRETCH_MAX = 1.35


class _Chances:
    """Numbers drawn with given weights, as `Generator.choice` draws them, the sums made once."""

    def __init__(self, weights: np.ndarray) -> None:
        self._below = np.cumsum(weights / np.sum(weights))
        self._below /= self._below[-1]

    def draw(self, rng: np.random.Generator) -> int:
        return int(self._below.searchsorted(rng.random(), side="right"))


class Drawer:
    """Batches as a pure function of (seed, step)."""

    def __init__(
        self, corpus: Corpus, recipe: Recipe, folds: Sequence[int], taught: np.ndarray | None = None
    ) -> None:
        self.corpus, self.recipe = corpus, recipe
        self.databases = sorted({r.database for r in corpus.recordings})
        self.labels = np.array([targets(r, recipe) for r in corpus.recordings], np.float32)
        if taught is not None:
            self.labels = told(self.labels, taught)
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
        self.drawn: list[str] = []
        """Records of the last batch."""

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
        self.drawn = []
        for k in range(r.batch):
            i = self._pick(rng)
            self.drawn.append(self.corpus.recordings[i].record)
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
