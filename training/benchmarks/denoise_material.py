"""What the denoiser is measured on: mixtures, real and synthetic murmurs, recordings for the classifier.

All of it is a function of the data, the limit and the seed, so that every process that makes it has the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from device.rates import WORKING_RATE_HZ
from training.data import recordings as data_room
from training.data.mixing import NoisePool, Reference, coloured, hum, references, taps
from training.metrics.denoising import band, murmur_excess_db

__all__ = [
    "CLEAN",
    "GRADES_DB",
    "HEADLINE_DB",
    "HEARD",
    "HEARD_LEVELS",
    "LEAST_CONTRAST_DB",
    "LEVELS_DB",
    "MOST_OF_A_DATABASE",
    "MURMUR_LEVELS",
    "PIECE",
    "PITCHES_HZ",
    "TIMINGS",
    "UNSEEN",
    "WORSE_DB",
    "Clip",
    "Material",
    "Mixture",
    "Noises",
    "known_murmur",
]

LEVELS_DB = (-10.0, -6.0, -3.0, 0.0, 3.0, 6.0, 10.0, 20.0)
HEADLINE_DB = (-6.0, -3.0, 0.0, 3.0, 6.0)
WORSE_DB = 10.0
"""Up to this input SNR it counts how many sounds were made worse."""
CLEAN = "clean"
NOISES_TO_TEST = (
    "speech_babble",
    "crying",
    "household",
    "environment",
    "breath",
    "hospital",
    "stethoscope_handling",
)
SYNTHESISED = ("taps", "hum", "white", "pink")
UNSEEN = ("hospital", "stethoscope_handling")
PIECE = 6 * WORKING_RATE_HZ
LEAST_CONTRAST_DB = 14.0
MOST_OF_A_DATABASE = 20
MURMUR_LEVELS = (CLEAN, "10", "0")
HEARD_LEVELS = {"0": 2, "10": 1, CLEAN: 1}
"""Of the classifier's comparison: how often each recording is heard there, each time in another noise."""
HEARD = 8 * WORKING_RATE_HZ
StateSpans = tuple[tuple[float, float, str], ...]

GRADES_DB = {"6 dB under the beats": 6.0, "12 dB": 12.0, "18 dB": 18.0, "24 dB": 24.0}
TIMINGS = {
    "early systolic": ("systole", 0.0, 0.5, "falling"),
    "mid-systolic": ("systole", 0.15, 0.85, "diamond"),
    "late systolic": ("systole", 0.5, 1.0, "rising"),
    "holosystolic": ("systole", 0.0, 1.0, "even"),
    "early diastolic": ("diastole", 0.0, 0.5, "falling"),
    "mid-diastolic": ("diastole", 0.2, 0.8, "diamond"),
    "late diastolic": ("diastole", 0.6, 1.0, "rising"),
}
"""Where a synthetic murmur sounds: the phase, from and to which share of it, and its curve."""
PITCHES_HZ = {"low": (60.0, 150.0), "medium": (120.0, 260.0), "high": (220.0, 400.0)}


@dataclass(frozen=True)
class Mixture:
    kind: str
    level_db: float
    reference: Reference
    clean: np.ndarray
    noisy: np.ndarray
    spans: StateSpans


class Noises:
    """Noise of every kind that is reported."""

    def __init__(self, data: Path) -> None:
        self.pool = NoisePool.load(data, "test", free_only=False)
        self.kinds = [k for k in NOISES_TO_TEST if k in self.pool.segments] + list(SYNTHESISED)

    def draw(self, rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
        if kind == "taps":
            return taps(rng, n)
        if kind == "hum":
            return hum(rng, n)
        if kind in ("white", "pink"):
            return coloured(rng, n, 0.0 if kind == "white" else 1.0)
        return self.pool.draw(rng, kind, n, speed=False)

    def mix(self, rng: np.random.Generator, clean: np.ndarray, kind: str, level_db: float) -> np.ndarray:
        """The clean sound with that noise at an SNR in 25–400 Hz."""
        noise = self.draw(rng, kind, len(clean)).astype(np.float32)
        while float(np.std(band(noise))) < 1e-6:  # a piece of a recording without anything in the band
            noise = self.draw(rng, kind, len(clean)).astype(np.float32)
        gain = float(np.std(band(clean)) / np.std(band(noise))) * 10 ** (-level_db / 20)
        return (clean + gain * noise).astype(np.float32)


def suited_to_judge(data: Path, fold: int) -> list[data_room.Recording]:
    """Recordings of a fold that the classifier can be judged by: not of poor quality, 5 s or longer, with a
    label, and of CirCor with or surely without a murmur here."""
    found = []
    for r in data_room.recordings(data):
        if r.fold != fold or not r.reportable or r.label is None or r.quality == "poor" or r.seconds < 5:
            continue
        if r.database != "circor" or r.murmur_here in ("yes", "no"):
            found.append(r)
    return found


def _in_turn(refs: Sequence[Reference], rng: np.random.Generator) -> list[Reference]:
    """References with their databases in turn, inside each in random order."""
    by: dict[str, list[Reference]] = {}
    for k in rng.permutation(len(refs)):
        by.setdefault(refs[k].database, []).append(refs[k])
    found: list[Reference] = []
    while any(by.values()):
        found += [members.pop() for _, members in sorted(by.items()) if members]
    return found


def _piece(r: Reference, rng: np.random.Generator) -> tuple[np.ndarray, StateSpans]:
    start = int(rng.integers(max(1, len(r.sound) - PIECE + 1)))
    s0 = start / WORKING_RATE_HZ
    return r.sound[start : start + PIECE], tuple((a - s0, b - s0, s) for a, b, s in r.spans)


def mixtures_of(refs: Sequence[Reference], noises: Noises, each: int, seed: int) -> list[Mixture]:
    rng = np.random.default_rng([seed, 1])
    order = _in_turn(refs, rng)
    found, k = [], 0
    for kind in noises.kinds:
        for level in LEVELS_DB:
            for _ in range(each):
                r = order[k % len(order)]
                k += 1
                clean, spans = _piece(r, rng)
                found.append(Mixture(kind, level, r, clean, noises.mix(rng, clean, kind, level), spans))
    return found


@dataclass(frozen=True)
class Clip:
    """Clean beats with one known murmur, and what it is."""

    grade: str
    timing: str
    pitch: str
    reference: Reference
    beats: np.ndarray
    murmur: np.ndarray
    spans: StateSpans

    @property
    def phase(self) -> str:
        return TIMINGS[self.timing][0]

    def excess_db(self, x: np.ndarray) -> float:
        """Of the phase that holds the murmur over the other one."""
        found = murmur_excess_db(x, self.spans)
        return found if self.phase == "systole" else -found


def known_murmur(
    rng: np.random.Generator,
    n: int,
    spans: StateSpans,
    beat_power: float,
    *,
    under_db: float,
    timing: str,
    pitch: str,
) -> np.ndarray:
    """A murmur alone, float32 (n,), in each systole or diastole that lies inside: band noise under a curve.

    Its mean power where it sounds is exactly `under_db` below `beat_power` (that of S1 and S2). `timing`
    and `pitch` are names of TIMINGS and PITCHES_HZ. Zeros when no such phase lies inside.
    """
    phase, begin, stop, shape = TIMINGS[timing]
    low, high = PITCHES_HZ[pitch]
    envelope = np.zeros(n)
    for start, end, state in spans:
        if state != phase:
            continue
        i, j = (round((start + u * (end - start)) * WORKING_RATE_HZ) for u in (begin, stop))
        if i < 0 or j > n or j - i < 16:
            continue
        u = np.linspace(0, 1, j - i)
        curve = {"diamond": np.sin(np.pi * u), "falling": 1 - 0.8 * u, "rising": 0.2 + 0.8 * u}.get(
            shape, np.ones_like(u)
        )
        envelope[i:j] = curve * np.minimum(1, np.minimum(u, 1 - u) * (j - i) / 20)
    sounding = envelope > 0
    if not sounding.any():
        return np.zeros(n, dtype=np.float32)
    murmur = envelope * band(rng.standard_normal(n), low, high)
    power = float(np.mean(murmur[sounding] ** 2))
    return (murmur * np.sqrt(beat_power / power) * 10 ** (-under_db / 20)).astype(np.float32)


def _beat_power(sound: np.ndarray, spans: StateSpans) -> float:
    found = []
    for a, b, state in spans:
        i, j = round(a * WORKING_RATE_HZ), round(b * WORKING_RATE_HZ)
        if state in ("S1", "S2") and i >= 0 and j <= len(sound) and j > i:
            found.append(float(np.mean(sound[i:j] ** 2)))
    return float(np.median(found)) if found else float("nan")


def clips_of(refs: Sequence[Reference], each: int, seed: int) -> list[Clip]:
    """Every grade with every timing and pitch, once for each ten of the limit; below ten, each so many-th."""
    rng = np.random.default_rng([seed, 4])
    order = _in_turn(refs, rng)
    found: list[Clip] = []
    k = 0
    for _ in range(max(1, each // 10)):
        for grade, under_db in GRADES_DB.items():
            for timing in TIMINGS:
                for pitch in PITCHES_HZ:
                    for _ in range(len(order)):  # the next reference whose piece holds enough beats
                        r = order[k % len(order)]
                        k += 1
                        beats, spans = _piece(r, rng)
                        power = _beat_power(beats, spans)
                        m = known_murmur(
                            rng, len(beats), spans, power, under_db=under_db, timing=timing, pitch=pitch
                        )
                        clip = Clip(grade, timing, pitch, r, beats, m, spans)
                        if m.any() and np.isfinite(clip.excess_db(beats + m)):
                            found.append(clip)
                            break
    return found[:: max(1, 10 // each)]


@dataclass(frozen=True)
class Material:
    """Everything that is measured on: a function of (data, limit, seed, fold)."""

    data: Path
    cache: Path
    each: int
    seed: int
    fold: int = 0

    @cached_property
    def noises(self) -> Noises:
        return Noises(self.data)

    @cached_property
    def normal(self) -> list[Reference]:
        """The clean references: no murmur heard, the clearest beats of the fold."""
        refs = references(
            self.data,
            self.cache,
            (self.fold,),
            least_db=LEAST_CONTRAST_DB,
            share=1.0,
            most=MOST_OF_A_DATABASE,
        )
        return [r for r in refs if not r.murmur and len(r.sound) >= PIECE]

    @cached_property
    def murmurs(self) -> list[Reference]:
        """Real ones: heard here, in the fold, with 6 dB or more of systolic excess."""
        heard = references(self.data, self.cache, (self.fold,), least_db=6.0, share=1.0)
        heard = [r for r in heard if r.murmur and murmur_excess_db(r.sound, r.spans) >= 6.0]
        return heard[: 6 * self.each]

    @cached_property
    def quiet(self) -> list[Reference]:
        """Normal beats with next to no excess of their own."""
        found = [r for r in self.normal if abs(murmur_excess_db(r.sound, r.spans)) < 6.0]
        return found[: 6 * self.each]

    @cached_property
    def mixtures(self) -> list[Mixture]:
        return mixtures_of(self.normal, self.noises, self.each, self.seed)

    @cached_property
    def clips(self) -> list[Clip]:
        return clips_of(self.quiet, self.each, self.seed)

    @cached_property
    def judged(self) -> list[data_room.Recording]:
        """For the classifier: all of fold 0 that suit; at a limit below ten each so many-th."""
        return suited_to_judge(self.data, self.fold)[:: max(1, 10 // self.each)]

    def rng(self, section: int, k: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, section, k])

    def kind(self, k: int) -> str:
        return self.noises.kinds[k % len(self.noises.kinds)]

    def heard(self, recording: data_room.Recording) -> np.ndarray:
        """The first eight seconds of a recording, as it is."""
        return data_room.load(recording)[:HEARD]
