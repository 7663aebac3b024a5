"""How designs of the denoiser are told apart: one net's figures on fold 1, and two nets' beside each other.

The measures are those of `stethopi benchmark denoise` (training.benchmarks.denoise_measure) on fold 1 and on
noise of the training part that was held back, and two more: after the chest piece is put down, and of sound
that another chest piece has coloured. Used by training.benchmarks.denoise_trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from device.rates import WORKING_RATE_HZ
from training.benchmarks.denoise_material import HEADLINE_DB, PIECE, Material, Mixture, Noises
from training.benchmarks.denoise_measure import SECTIONS
from training.data.mixing import NoisePool
from training.denoise.apply import HELD_BACK
from training.metrics.denoising import band, bootstrap_values, improvement

__all__ = ["Deciding", "FoundDesign", "against", "figures_of", "found_by", "placed", "tilted"]

CleanUp = Callable[[np.ndarray], np.ndarray]
FoundDesign = dict[str, list[tuple[float, str, str]]]
"""By figure, item by item: value, subject, database."""
CLEAN_ITEMS = 40
SOFTER_DB = (12.0, 24.0)
TILT_DB = 6.0
"""An octave, above or below 100 Hz, at most twice this in all."""


class HeldBack(Noises):
    """Noise of the training part that no training heard."""

    def __init__(self, material: Material) -> None:
        self.pool = NoisePool.load(material.data, "train", free_only=True, every=HELD_BACK, others=False)
        self.kinds = self.pool.kinds

    def draw(self, rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
        return self.pool.draw(rng, kind, n, speed=False)


@dataclass(frozen=True)
class Deciding(Material):
    """What decides: fold 1, with noise held back."""

    fold: int = 1

    @cached_property
    def noises(self) -> Noises:
        return HeldBack(self)


# ── sounds that two of the choices are about ────────────────────────────────────────────────────────────────


def placed(sound: np.ndarray, softer_db: float) -> np.ndarray:
    """The sound with its first half softer: the chest piece is put down in the middle."""
    gain = np.ones(len(sound), dtype=np.float32)
    gain[: len(sound) // 2] = 10 ** (-softer_db / 20)
    return gain * sound


def tilted(sound: np.ndarray, db: float) -> np.ndarray:
    """The sound with so many dB more an octave above 100 Hz and less below, within twice that."""
    f = np.maximum(np.fft.rfftfreq(len(sound), 1 / WORKING_RATE_HZ), 1.0)
    curve = np.clip(db * np.log2(f / 100), -2 * abs(db), 2 * abs(db))
    spectrum = np.fft.rfft(sound.astype(np.float64)) * 10 ** (curve / 20)
    return np.fft.irfft(spectrum, len(sound)).astype(np.float32)


# ── one net ─────────────────────────────────────────────────────────────────────────────────────────────────


def found_by(material: Material, clean_up: CleanUp) -> FoundDesign:
    """Every value that a figure is made of. The same items in the same order for every net."""
    found: FoundDesign = {}

    def run(x: np.ndarray, _clean: np.ndarray) -> np.ndarray:
        return clean_up(x)

    def note(name: str, value: float, of: Mapping[str, str]) -> None:
        found.setdefault(name, []).append((float(value), of["group"], of["database"]))

    for k, mixture in enumerate(material.mixtures):
        if mixture.level_db in HEADLINE_DB:
            item = SECTIONS["mixtures"].measure(material, k, run)
            note("all plain", item["plain"], vars(mixture.reference))
            note("all beyond", item["beyond_volume"], vars(mixture.reference))
    for k, reference in enumerate(material.normal[:CLEAN_ITEMS]):
        note("clean out", SECTIONS["clean"].measure(material, k, run)["snr"], vars(reference))
    for k, reference in enumerate(material.murmurs):
        item = SECTIONS["murmur"].measure(material, k, run)
        for level, value in item.items():
            note(f"murmur {level}", value, vars(reference))
    for k, clip in enumerate(material.clips):
        item = SECTIONS["synthetic"].measure(material, k, run)
        for level, (_excess, kept) in item.items():
            note(f"kept {level}", kept, vars(clip.reference))
    for k, reference in enumerate(material.quiet):
        note("false murmur", SECTIONS["false_murmur"].measure(material, k, run)["change"], vars(reference))
    for k in range(SECTIONS["level"].count(material)):
        note("level", SECTIONS["level"].measure(material, k, run)["spread"], {"group": "", "database": ""})
    headline = [m for m in material.mixtures if m.level_db in HEADLINE_DB]
    for k, mixture in enumerate(headline[::4]):
        note("tilted", _tilted(mixture, (TILT_DB, -TILT_DB)[k % 2], run), vars(mixture.reference))
    for k, reference in enumerate(material.normal[: CLEAN_ITEMS // 2]):
        sound = reference.sound[: 2 * PIECE]
        x = material.noises.mix(material.rng(7, k), sound, material.kind(k), 10.0)
        sounds = [placed(v, SOFTER_DB[k % 2]) for v in (sound, x)]
        after = slice(len(sound) // 2, len(sound) // 2 + 2 * WORKING_RATE_HZ)
        s, x, y = (band(v)[after] for v in (*sounds, clean_up(sounds[1])))
        note("jump", improvement(s, x, y)[0], vars(reference))
    return found


def _tilted(mixture: Mixture, db: float, run: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    s, x = tilted(mixture.clean, db), tilted(mixture.noisy, db)
    return improvement(band(s), band(x), band(run(x, s)))[1]


def _of(name: str) -> Callable[[np.ndarray], float]:
    """What a figure is of its values: murmurs have a median, the others a mean, as in the benchmark."""
    middle = "murmur" in name or name.startswith("kept")
    return lambda v: float(np.median(v) if middle else np.mean(v))


def figures_of(found: FoundDesign) -> dict[str, float]:
    """A net's figures by name; of clean sound and clean murmurs the tails, too; of level the widest."""
    figures = {}
    for name, items in found.items():
        v = np.array([value for value, _, _ in items])
        v = v[np.isfinite(v)]
        figures[name] = float(np.max(v)) if name == "level" else _of(name)(v)
        if name in ("clean out", "murmur clean"):
            tail = 5 if name == "clean out" else 10
            figures[f"{name} p{tail}"] = float(np.percentile(v, tail))
    return {k: round(v, 3) for k, v in figures.items()}


def against(one: FoundDesign, other: FoundDesign, seed: int) -> dict[str, dict[str, float]]:
    """By figure, what net `one` has more than `other` on the same items: value, low and high of 95 % over
    subjects. Of medians it is the median of the differences."""
    differences: dict[str, dict[str, float]] = {}
    for name, items in one.items():
        if name != "level":
            pairs = [a[0] - b[0] for a, b in zip(items, other[name], strict=True)]
            found = bootstrap_values(pairs, [group for _, group, _ in items], _of(name), seed=seed)
            differences[name] = {k: round(float(found[k]), 3) for k in ("value", "low", "high")}
    return differences


def by_database(found: FoundDesign, name: str = "all beyond") -> dict[str, float]:
    """The mean of a figure's values for each database."""
    values: dict[str, list[float]] = {}
    for value, _, database in found[name]:
        values.setdefault(database, []).append(value)
    return {k: round(float(np.mean(v)), 3) for k, v in sorted(values.items())}


def subjects(found: FoundDesign, names: Sequence[str] = ("all beyond", "murmur clean")) -> dict[str, int]:
    """Of how many subjects some figures are."""
    return {name: len({group for _, group, _ in found[name]}) for name in names}
