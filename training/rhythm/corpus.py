"""What the rhythm network learns from: excerpts of marked recordings with noise, and the state of each frame.

Everything is drawn from band powers that were computed once; noise is added as power, so a draw costs no
spectrum. Gain is not drawn: the network's input does not change with it (a test holds that).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device.errors import BadInput
from device.rates import WORKING_RATE_HZ
from device.screening import features
from device.screening.segmentation import STATES, Levelled
from training.data.mixing import NoisePool
from training.screening.corpus import UNKNOWN, Corpus

__all__ = ["Drawer", "MixSettings", "noise_bank"]

BANK_VERSION = 1
"""Raise it when training.data.mixing comes to draw other noise for the same seed."""


@dataclass(frozen=True)
class MixSettings:
    """`[mix]` of the recipe."""

    batch: int = 16
    frames: int = 400
    """Of an excerpt; 50 are a second."""
    stretch: float = 1.4
    """An excerpt is played up to so many times as fast or as slow."""
    noisy: float = 0.6
    """Share of excerpts with noise."""
    low_db: float = -3.0
    high_db: float = 25.0
    band_drop: float = 0.15
    """Share of excerpts that lose a run of bands, as through a poor microphone."""
    shares: tuple[tuple[str, float], ...] = ()
    """Share of the draws by database; one that is not named gets 0.1."""


def noise_bank(data: Path, cache: Path, *, draws: int, seconds: float, seed: int) -> np.ndarray:
    """Band powers of drawn noise, float32 (draws, frames, 32): every kind alike, of licences that let anybody
    use the result. Kept in the cache folder.
    """
    said = json.dumps([draws, seconds, seed, BANK_VERSION, repr(features.GRID), str(Path(data).resolve())])
    path = cache / f"rhythm-noise-{hashlib.sha256(said.encode()).hexdigest()[:16]}.npy"
    if path.is_file():
        return np.asarray(np.load(path))
    pool = NoisePool.load(data, "train", free_only=True)
    rng = np.random.default_rng(seed)
    n = round(seconds * WORKING_RATE_HZ)
    found = []
    for k in range(draws):
        sound = pool.draw(rng, pool.kinds[k % len(pool.kinds)], n)
        found.append(features.screening_frames_of(np.asarray(sound, np.float32)))
    bank = np.stack(found)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.save(file, bank)
    temporary.replace(path)
    return bank


class Drawer:
    """Batches of the recordings of some folds. Step k gives the same batch, whenever it is asked for."""

    def __init__(
        self, corpus: Corpus, noise: np.ndarray, settings: MixSettings, folds: Sequence[int], seed: int
    ) -> None:
        self.corpus, self.noise, self.settings, self.seed = corpus, noise, settings, seed
        self.drawn: list[str] = []
        """The recordings in the batch drawn last."""
        shares = dict(settings.shares)
        groups: dict[str, dict[str, list[int]]] = {}
        for i, recording in enumerate(corpus.recordings):
            if recording.fold in folds and (corpus.states(i) != UNKNOWN).sum() >= 50:
                groups.setdefault(recording.database, {}).setdefault(recording.group, []).append(i)
        if not groups:
            raise BadInput("no marked recordings; --data takes a folder whose physionet2016/ has states.csv")
        self.members = [list(of.values()) for of in groups.values()]
        weights = np.array([shares.get(database, 0.1) for database in groups])
        self.weights = weights / weights.sum()
        # a subject of sixty recordings counts more than one of a single, but not sixty times
        self.by_group = []
        for members in self.members:
            chance = np.sqrt([len(m) for m in members])
            self.by_group.append(chance / chance.sum())

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Input (batch, 20, frames) and state of each frame (batch, frames), UNKNOWN where none is marked."""
        s, rng = self.settings, np.random.default_rng([self.seed, step])
        self.drawn = []
        power = np.empty((s.frames, s.batch, features.BANDS), np.float32)
        codes = np.empty((s.batch, s.frames), np.int64)
        for k in range(s.batch):
            power[:, k], codes[k] = self._excerpt(rng)
            if rng.random() < s.noisy:
                power[:, k] += self._noise(rng, float(power[:, k].mean()))
        x = np.ascontiguousarray(Levelled().process(power).transpose(1, 2, 0))
        for k in np.flatnonzero(rng.random(s.batch) < s.band_drop):
            first = rng.integers(x.shape[1])
            x[k, first : first + rng.integers(1, 6)] = 0.0
        return x, codes

    def _excerpt(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        database = rng.choice(len(self.members), p=self.weights)
        members = self.members[database]
        group = members[rng.choice(len(members), p=self.by_group[database])]
        i = group[rng.integers(len(group))]
        self.drawn.append(self.corpus.recordings[i].record)
        power, codes = self.corpus.power(i), self.corpus.states(i)
        frames = self.settings.frames
        speed = self.settings.stretch ** rng.uniform(-1.0, 1.0)
        length = frames * speed
        at = rng.uniform(0.0, max(1.0, len(power) - length)) + np.arange(frames) * speed
        low = at.astype(int)
        part = (at - low).astype(np.float32)[:, None]
        beyond = low + 1 >= len(power)
        low, high = low % len(power), (low + 1) % len(power)
        nearest = codes[np.where(part[:, 0] < 0.5, low, high)]
        # what follows a recording's end is its beginning: sound, but no rhythm to be learned
        return power[low] * (1 - part) + power[high] * part, np.where(beyond, UNKNOWN, nearest)

    def _noise(self, rng: np.random.Generator, mean: float) -> np.ndarray:
        one = self.noise[rng.integers(len(self.noise))]
        start = rng.integers(len(one))
        noise = one[(start + np.arange(self.settings.frames)) % len(one)]
        snr = 10.0 ** (rng.uniform(self.settings.low_db, self.settings.high_db) / 10.0)
        return noise * np.float32((mean + 1e-20) / (snr * (float(noise.mean()) + 1e-20)))


assert len(STATES) < UNKNOWN
