"""Screening with noise put in: how the figures fall from clean to 0 dB, filtered or not, denoised or not.

Some recordings of fold 0, up to eight seconds each; to each a piece of noise from the noise set's test part,
one kind after the other, at 20, 10, 5 and 0 dB of power within 25 to 400 Hz. Four ways to hear the same:
as it is; through the band-pass from 25 to 400 Hz that classifiers of this field put first; through our
denoiser; through both, the denoiser first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device.denoise.stream import denoise
from device.inference.bundle import ModelEntry
from device.rates import WORKING_RATE_HZ
from device.screening.baseline_features import band_pass
from training.core.results import write_text
from training.core.say import Say
from training.data import recordings as training_data
from training.data.mixing import NoisePool
from training.data.recordings import DATABASES, Recording
from training.metrics.classification import auc, macc
from training.metrics.denoising import band

__all__ = ["LEVELS", "NOISY_INPUTS", "NoisyRecordings", "noise_figures"]

LEVELS = ("clean", "20", "10", "5", "0")
NOISY_INPUTS = ("as it is", "filtered", "denoised", "denoised, filtered")

SECONDS = 8
MOST = {"circor": 60}
FEWER = 30
"""Recordings a source, but for those in MOST."""


class NoisyRecordings:
    """The recordings with noise, made once and kept in the cache: the denoiser takes minutes."""

    def __init__(
        self,
        data: Path,
        cache: Path,
        recordings: Sequence[Recording],
        denoiser: ModelEntry,
        seed: int = 1,
        say: Say = lambda text: None,
    ) -> None:
        rng = np.random.default_rng([seed, 99])
        self.recordings: list[Recording] = []
        for name in DATABASES:
            own = [r for r in recordings if r.database == name and r.murmur_here != "unknown"]
            most = MOST.get(name, FEWER)
            picks = sorted(rng.permutation(len(own))[:most])
            self.recordings += [own[int(k)] for k in picks]
        said = [[r.record for r in self.recordings], denoiser.meta["sha256"], seed, SECONDS]
        key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
        self._folder = Path(cache) / "screening" / f"noisy-{key}"
        if not (self._folder / "done").is_file():
            say(f"putting noise into {len(self.recordings)} recordings, once")
            self._make(data, denoiser, seed)
        self._starts = np.load(self._folder / "starts.npy")
        self._sound = {
            (level, clean): np.load(self._folder / f"{level}-{int(clean)}.npy", mmap_mode="r")
            for level in LEVELS
            for clean in (False, True)
        }

    def _make(self, data: Path, denoiser: ModelEntry, seed: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        pool = NoisePool.load(data, "test", free_only=False)
        kinds = sorted(pool.segments)
        sounds: dict[tuple[str, bool], list[np.ndarray]] = {(a, b): [] for a in LEVELS for b in (False, True)}
        starts = [0]
        for k, recording in enumerate(self.recordings):
            x = training_data.load(recording)[: SECONDS * WORKING_RATE_HZ]
            rng = np.random.default_rng([seed, 100, k])
            noise = pool.draw(rng, kinds[k % len(kinds)], len(x), speed=False).astype(np.float32)
            heart, other = float((band(x) ** 2).mean()), float((band(noise) ** 2).mean())
            for level in LEVELS:
                mixed = x
                if level != "clean":
                    gain = np.sqrt(heart / (other + 1e-20) / 10.0 ** (float(level) / 10.0))
                    mixed = x + np.float32(gain) * noise
                    mixed = mixed / np.float32(max(1.0, float(np.abs(mixed).max())))
                sounds[level, False].append(mixed.astype(np.float32))
                sounds[level, True].append(denoise(denoiser, mixed.astype(np.float32)).astype(np.float32))
            starts.append(starts[-1] + len(x))
        for (level, clean), parts in sounds.items():
            np.save(self._folder / f"{level}-{int(clean)}.npy", np.concatenate(parts))
        np.save(self._folder / "starts.npy", np.array(starts))
        write_text(self._folder / "done", "complete\n")

    def logits(self, of_sound: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        """`level/way` → logits (recordings, 2) by a network's face for sound."""
        found = {}
        for level in LEVELS:
            for way in NOISY_INPUTS:
                sound = self._sound[level, way.startswith("denoised")]
                rows = []
                for start, end in zip(self._starts[:-1], self._starts[1:], strict=True):
                    x = np.array(sound[start:end])
                    rows.append(of_sound(band_pass(x).astype(np.float32) if "filtered" in way else x))
                found[f"{level}/{way}"] = np.array(rows, float)
        return found


def noise_figures(
    recordings: Sequence[Recording], logits: Mapping[str, np.ndarray], point: Mapping[str, Any]
) -> dict[str, Any]:
    """By `level`, then way: AUC and MAcc of each source at the operating point, and their means. CirCor
    counts by the murmur at that position.
    """
    share = point["combine"]
    database = np.array([r.database for r in recordings])
    positive = np.array([(r.murmur_here or r.label) in ("yes", "abnormal") for r in recordings])
    table: dict[str, Any] = {}
    for name, rows in logits.items():
        level, way = name.split("/")
        known = np.nan_to_num(rows, nan=-20.0)
        score = share["murmur"] * known[:, 0] + share["abnormal"] * known[:, 1]
        scaled = np.clip((score + point["bias"]) / point["temperature"], -60, 60)
        probability = 1.0 / (1.0 + np.exp(-scaled))
        entry: dict[str, Any] = {"sources": {}}
        for source in [d for d in DATABASES if (database == d).sum() >= 10]:
            own = database == source
            value = auc(probability[own], positive[own])
            if not np.isnan(value):
                entry["sources"][source] = {
                    "n": int(own.sum()),
                    "auc": round(value, 4),
                    "macc": round(macc(probability[own], positive[own], float(point["threshold"])), 4),
                }
        for key in ("auc", "macc"):
            each = [one[key] for one in entry["sources"].values()]
            entry[f"mean_{key}"] = round(float(np.mean(each)), 4) if each else None
        table.setdefault(level, {})[way] = entry
    return table
