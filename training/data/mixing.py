"""What the denoiser learns from: clean references with murmurs in them, and noise, mixed afresh for every
step.

A batch is a function of (seed, step) alone, so training can stop and go on anywhere and repeat exactly.

References. A recording's *contrast* is the median power (25–400 Hz) of its beats (S1, S2) over the 80th
percentile of the power between them (middle of diastole, and of systole). Taken are recordings of good or
unknown quality, without a marked noise span, with at least 4 s annotated in one piece, whose diastolic
contrast is at least `least_db` and among the best `share` of their database; where no murmur was heard,
systole must pass 3 dB less.

Murmurs are signal: a quarter of the draws are CirCor recordings where a murmur was heard, and about half of
the others get synthetic murmurs, placed by the annotated states.

Noise. Recorded noise from the training part whose licence lets anybody use the result, and synthetic:
coloured noise, mains hum with harmonics, taps and bumps, rubbing, tones, breathing. Two kinds at a time in
half the draws, coloured as by a chest piece, louder and softer over time.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import fft as sfft
from scipy.signal import butter, sosfiltfilt

from device.durable import whole_file
from device.errors import BadInput, StethopiError
from device.rates import WORKING_RATE_HZ as RATE
from training.data import recordings as data_room
from training.metrics.denoising import BAND_HZ

__all__ = [
    "NOISE_KINDS",
    "Mixer",
    "MixSettings",
    "NoisePool",
    "Reference",
    "add_murmur",
    "contrasts",
    "drawn_heart",
    "references",
]

HEART = ("S1", "S2", "systole", "diastole")
HEART_IN_ORDER = ("S1", "systole", "S2", "diastole")


@dataclass(frozen=True)
class Reference:
    """One clean piece: sound at rms 1 without offset, its states in seconds from its start."""

    record: str
    database: str
    group: str
    murmur: bool
    sound: np.ndarray
    spans: tuple[tuple[float, float, str], ...]


# ── references ──────────────────────────────────────────────────────────────────────────────────────────────


def _longest_run(spans: Sequence[tuple[float, float, str]]) -> tuple[float, float]:
    """The longest stretch with a heart state at every moment, seconds."""
    best = (0.0, 0.0)
    run: tuple[float, float] | None = None
    for start, end, state in spans:
        if state not in HEART:
            run = None
            continue
        run = (run[0], end) if run and abs(run[1] - start) < 0.02 else (start, end)
        if run[1] - run[0] > best[1] - best[0]:
            best = run
    return best


def _contrast(x: np.ndarray, spans: Sequence[tuple[float, float, str]]) -> tuple[float, float]:
    """dB of the beats over what lies between them: (diastole, systole); nan when there are too few."""
    sos = butter(3, BAND_HZ, "bandpass", fs=RATE, output="sos")
    power = sosfiltfilt(sos, x).astype(np.float64) ** 2
    beats: list[float] = []
    between: dict[str, list[float]] = {"diastole": [], "systole": []}
    for start, end, state in spans:
        i, j = int(start * RATE), int(end * RATE)
        if state in ("S1", "S2"):
            if j - i > 20:
                beats.append(float(power[i:j].mean()))
        elif state in between:
            i, j = i + int(0.25 * (j - i)), i + int(0.9 * (j - i))
            if j - i > 40:
                between[state].append(float(power[i:j].mean()))
    if len(beats) < 4 or min(map(len, between.values())) < 2:
        return float("nan"), float("nan")
    loud = float(np.median(beats))
    d, s = (10 * np.log10(loud / (np.percentile(between[k], 80) + 1e-20)) for k in ("diastole", "systole"))
    return float(d), float(s)


def contrasts(data: Path, cache: Path) -> dict[str, tuple[float, float, float, float]]:
    """By record: (start_s, end_s) of its longest annotated run, contrast of diastole and of systole in that
    run.

    Computed once and kept in `cache`/contrasts-<hash of the indexes>.csv. Leaves out poor quality and
    recordings with marked noise.
    """
    import hashlib

    key = hashlib.sha256("".join(sorted(data_room.data_hashes(data).values())).encode()).hexdigest()[:12]
    path = cache / f"contrasts-{key}.csv"
    if path.is_file():
        with path.open(newline="") as file:
            return {r[0]: (float(r[1]), float(r[2]), float(r[3]), float(r[4])) for r in csv.reader(file)}
    states, noisy = data_room.states(data), data_room.noise_spans(data)
    found: dict[str, tuple[float, float, float, float]] = {}
    for recording in data_room.recordings(data):
        if recording.quality == "poor" or recording.record in noisy or recording.record not in states:
            continue
        spans = states[recording.record]
        start, end = _longest_run(spans)
        if end - start < 4.0:
            continue
        inside = [s for s in spans if s[0] >= start - 1e-3 and s[1] <= end + 1e-3]
        d, s = _contrast(data_room.load(recording), inside)
        if np.isfinite(d) and np.isfinite(s):
            found[recording.record] = (start, end, d, s)
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([k, *(round(v, 4) for v in row)] for k, row in found.items())
    return found


def references(
    data: Path,
    cache: Path,
    folds: Sequence[int],
    *,
    least_db: float = 9.0,
    share: float = 0.4,
    most: int | None = None,
) -> list[Reference]:
    """The clean references of these folds by the rule above; at most `most` a database, those of best
    contrast."""
    table = contrasts(data, cache)
    states = data_room.states(data)
    pools: dict[str, list[tuple[float, data_room.Recording]]] = {}
    for recording in data_room.recordings(data):
        if recording.record in table and recording.fold in folds and recording.reportable:
            _, _, diastole, systole = table[recording.record]
            heard = recording.murmur_here == "yes"
            if recording.database == "circor" and recording.murmur_here == "unknown":
                continue
            enough = diastole >= least_db and (heard or systole >= least_db - 3.0)
            pool = "murmur" if heard else recording.database
            pools.setdefault(pool, []).append((diastole if enough else -np.inf, recording))
    out = []
    for pool, members in sorted(pools.items()):
        members.sort(key=lambda m: (-m[0], m[1].record))
        limit = max(1, round(share * len(members)))
        if most is not None:
            limit = min(limit, most)
        for contrast, recording in members[:limit]:
            if not np.isfinite(contrast):
                break
            start, end, _, _ = table[recording.record]
            i, j = round(start * RATE), round(end * RATE)
            sound = data_room.load(recording)[i:j]
            sound = sound - sound.mean()
            rms = float(np.sqrt(np.mean(sound**2)))
            if rms <= 0:
                continue
            spans = tuple(
                (a - start, b - start, s)
                for a, b, s in states[recording.record]
                if a >= start - 1e-3 and b <= end + 1e-3
            )
            out.append(
                Reference(
                    recording.record,
                    recording.database,
                    recording.group,
                    pool == "murmur",
                    (sound / rms).astype(np.float32),
                    spans,
                )
            )
    return out


# ── murmurs ─────────────────────────────────────────────────────────────────────────────────────────────────


def _band_noise(
    rng: np.random.Generator, n: int, low_hz: float, high_hz: float, edge_hz: float = 15.0
) -> np.ndarray:
    """Noise of rms about 1 between two frequencies, soft edges."""
    size = sfft.next_fast_len(n, real=True)
    f = np.fft.rfftfreq(size, 1 / RATE)
    gain = np.clip((f - low_hz) / edge_hz + 0.5, 0, 1) * np.clip((high_hz - f) / edge_hz + 0.5, 0, 1)
    spectrum = sfft.rfft(rng.standard_normal(size, dtype=np.float32)) * gain
    x = sfft.irfft(spectrum, size)[:n]
    return x / max(float(np.sqrt(np.mean(x**2))), 1e-9)


def add_murmur(
    rng: np.random.Generator,
    sound: np.ndarray,
    spans: Sequence[tuple[float, float, str]],
    *,
    under_db: float | None = None,
    phase: str | None = None,
    low_hz: float | None = None,
    width_hz: float | None = None,
    diastolic: float = 0.25,
) -> np.ndarray:
    """The sound with a synthetic murmur in every systole (or diastole); chosen at random where nothing is
    given, diastole for a share of `diastolic`.

    under_db: its power at full strength below that of the beats (median of S1 and S2), 4 to 28 dB.
    Shapes: crescendo-decrescendo, decrescendo, crescendo, plateau, holosystolic; early, mid, late.
    Unchanged when the states hold no beat.
    """
    n = len(sound)
    beats = [
        float(np.mean(sound[int(a * RATE) : int(b * RATE)] ** 2))
        for a, b, s in spans
        if s in ("S1", "S2") and a >= 0 and int(b * RATE) <= n and b > a
    ]
    if not beats:
        return sound
    phase = phase or ("systole" if rng.random() < 1 - diastolic else "diastole")
    under_db = float(rng.uniform(4, 28)) if under_db is None else under_db
    low = float(rng.uniform(40, 300)) if low_hz is None else low_hz
    width = float(rng.uniform(60, 250)) if width_hz is None else width_hz
    shape = rng.integers(5)
    begin, stop = 0.0, 1.0
    if shape != 4 and rng.random() < 0.5:
        begin, stop = ((0.0, 0.55), (0.2, 0.8), (0.45, 1.0))[rng.integers(3)]
    envelope = np.zeros(n, dtype=np.float32)
    vary = 10 ** (rng.normal(0, 1.0) / 20)
    for a, b, state in spans:
        if state != phase:
            continue
        i, j = int((a + begin * (b - a)) * RATE), int((a + stop * (b - a)) * RATE)
        if j - i < 16:
            continue
        u = np.linspace(0, 1, j - i, dtype=np.float32)
        curve = (np.sin(np.pi * u), 1 - 0.9 * u, 0.1 + 0.9 * u, np.ones_like(u), np.ones_like(u))[shape]
        curve = curve * np.minimum(1, np.minimum(u, 1 - u) * (j - i) / 24.0)
        curve = curve * (vary * 10 ** (rng.normal(0, 1.0) / 20))
        lo, hi = max(i, 0), min(j, n)
        if hi > lo:
            envelope[lo:hi] = curve[lo - i : hi - i]
    murmur = _band_noise(rng, n, low, low + width)
    if rng.random() < 0.25:  # musical: a tone with a little vibrato
        f = rng.uniform(90, 280) * (1 + 0.02 * np.sin(2 * np.pi * 5 * np.arange(n) / RATE))
        murmur = 0.5 * murmur + np.sqrt(1.5) * np.sin(2 * np.pi * np.cumsum(f) / RATE)
    gain = np.sqrt(np.median(beats)) * 10 ** (-under_db / 20)
    return (sound + gain * envelope * murmur).astype(np.float32)


def drawn_heart(rng: np.random.Generator, n: int) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """A heart of decaying tones (as a simulator or a test file has it), n samples at rms 1, and its states.

    Between the beats there is digital silence or faint noise, 40 to 80 dB below the beats.
    """
    period = rng.uniform(0.45, 1.2)
    systole = rng.uniform(0.22, 0.42) * period**0.5
    pitch, decay = rng.uniform(28, 75, 2), rng.uniform(0.012, 0.045, 2)
    strength = (1.0, 10 ** (rng.normal(-3, 3) / 20))
    x = np.zeros(n)
    spans: list[tuple[float, float, str]] = []
    onset = -rng.uniform(0, period)
    while onset * RATE < n:
        length = period * (1 + rng.normal(0, 0.02))
        edges = (0.0, 0.11, systole, systole + 0.09, max(length, systole + 0.12))
        spans += [
            (onset + a, onset + b, state)
            for a, b, state in zip(edges, edges[1:], HEART_IN_ORDER, strict=False)
        ]
        for k, at in enumerate((0.01, systole)):
            i = round((onset + at) * RATE)
            t = np.arange(round(6 * decay[k] * RATE)) / RATE
            sweep = pitch[k] * (1 + 0.1 * rng.normal()) * t
            tone = strength[k] * np.sin(2 * np.pi * sweep) * np.exp(-t / decay[k])
            tone *= np.minimum(1, t * RATE / rng.uniform(1, 20))
            lo, hi = max(i, 0), min(i + len(t), n)
            if hi > lo:
                x[lo:hi] += tone[lo - i : hi - i]
        onset += length
    x /= max(float(np.sqrt(np.mean(x**2))), 1e-6)
    if rng.random() < 0.6:
        x += 10 ** (-rng.uniform(40, 80) / 20) * coloured(rng, n)
    return x.astype(np.float32), spans


# ── noise ───────────────────────────────────────────────────────────────────────────────────────────────────

RECORDED_NOISES = ("speech_babble", "crying", "household", "environment", "breath")
SYNTHETIC = ("coloured", "hum", "taps", "rubbing", "tones", "breathing")
NOISE_KINDS = RECORDED_NOISES + SYNTHETIC
_WEIGHTS = {
    "speech_babble": 0.13,
    "crying": 0.11,
    "household": 0.08,
    "environment": 0.11,
    "breath": 0.13,
    "coloured": 0.09,
    "hum": 0.05,
    "taps": 0.09,
    "rubbing": 0.08,
    "tones": 0.05,
    "breathing": 0.08,
}


def coloured(rng: np.random.Generator, n: int, exponent: float | None = None) -> np.ndarray:
    """Noise whose power falls with frequency to the `exponent`: 0 white, 1 pink, 2 brown (random by
    default)."""
    exponent = float(rng.uniform(0, 2.2)) if exponent is None else exponent
    f = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 12.0)
    spectrum = sfft.rfft(rng.standard_normal(n, dtype=np.float32)) * f ** (-exponent / 2)
    return sfft.irfft(spectrum, n)


def hum(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mains at 50 or 60 Hz (± 0.3) with up to twelve harmonics of falling random strength, slowly swaying."""
    t = np.arange(n) / RATE
    base = (50.0 if rng.random() < 0.5 else 60.0) + rng.uniform(-0.3, 0.3)
    fall = rng.uniform(0.2, 1.5)
    x = np.zeros(n)
    for k in range(1, int(rng.integers(2, 13))):
        if base * k < 950:
            x += rng.uniform(0.1, 1) * k**-fall * np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6.3))
    return x * (1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.1, 2) * t))


def taps(rng: np.random.Generator, n: int) -> np.ndarray:
    """Taps and bumps on the chest piece: one to six decaying resonances of 20–400 Hz with a click, 0.4–5 a
    second."""
    x = np.zeros(n)
    for _ in range(max(1, rng.poisson(rng.uniform(0.4, 5) * n / RATE))):
        i = int(rng.integers(n))
        length = min(n - i, int(RATE * rng.uniform(0.03, 0.4)))
        if length < 8:
            continue
        t = np.arange(length) / RATE
        hit = np.zeros(length)
        for _ in range(int(rng.integers(1, 7))):
            f = 20 * 20 ** rng.random()
            hit += (
                rng.normal()
                * np.sin(2 * np.pi * f * t + rng.uniform(0, 6.3))
                * np.exp(-t / rng.uniform(0.004, 0.06))
            )
        hit += rng.uniform(0, 1) * rng.standard_normal(length) * np.exp(-t / rng.uniform(0.001, 0.02))
        hit *= np.minimum(1, np.arange(length) / rng.uniform(1, 12))
        x[i : i + length] += 10 ** (rng.normal(0, 5) / 20) * hit
    return x


def rubbing(rng: np.random.Generator, n: int) -> np.ndarray:
    """Cloth and skin on the membrane: band noise of 20–700 Hz in irregular strokes."""
    low = rng.uniform(20, 200)
    x = _band_noise(rng, n, low, low + rng.uniform(100, 500), 40.0)
    knots = int(rng.integers(4, 10 * max(1, n // RATE)))
    envelope = 10 ** (np.interp(np.linspace(0, knots - 1, n), np.arange(knots), rng.normal(0, 9, knots)) / 20)
    return x * envelope + 0.3 * taps(rng, n) * (rng.random() < 0.3)


def tones(rng: np.random.Generator, n: int) -> np.ndarray:
    """Beeps of a device: a tone of 180–950 Hz with harmonics, on and off."""
    t = np.arange(n) / RATE
    f = rng.uniform(180, 950)
    x = sum(
        rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * f * k * t + rng.uniform(0, 6.3))
        for k in range(1, 4)
        if f * k < 980
    )
    period, on = rng.uniform(0.15, 1.5), rng.uniform(0.2, 0.8)
    gate = ((t + rng.uniform(0, period)) % period < on * period).astype(np.float64)
    smooth = np.hanning(41)
    return x * np.convolve(gate, smooth / smooth.sum(), "same")


def breathing(rng: np.random.Generator, n: int) -> np.ndarray:
    """Breath sound: noise falling from 80–250 Hz upwards, in and out in 1.2 to 5 s, out softer and lower."""
    t = np.arange(n) / RATE
    period = rng.uniform(1.2, 5)
    phase = (t / period + rng.random()) % 1.0
    split = rng.uniform(0.3, 0.5)
    rise = np.where(phase < split, np.sin(np.pi * phase / split), 0) ** rng.uniform(0.7, 2)
    fall = np.where(phase >= split, np.sin(np.pi * (phase - split) / (1 - split)), 0) ** rng.uniform(0.7, 2)
    f = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 1.0)

    def shaped() -> np.ndarray:
        low, high, slope = rng.uniform(40, 150), rng.uniform(150, 450), rng.uniform(1, 4)
        gain = (f / low) ** 2 / (1 + (f / low) ** 2) / (1 + (f / high) ** slope)
        x = sfft.irfft(sfft.rfft(rng.standard_normal(n, dtype=np.float32)) * gain, n)
        return x / max(float(np.std(x)), 1e-9)

    return (rise * shaped() + rng.uniform(0.1, 0.9) * fall * shaped()) * (1 + 0.0 * t)


_MAKERS = {
    "coloured": coloured,
    "hum": hum,
    "taps": taps,
    "rubbing": rubbing,
    "tones": tones,
    "breathing": breathing,
}


class NoisePool:
    """Noise by kind: recorded segments (as many as are given for a kind) and the synthetic makers."""

    def __init__(self, segments: dict[str, list[np.ndarray]]) -> None:
        self.segments = {k: [s - s.mean() for s in v if len(s) > RATE // 4] for k, v in segments.items() if v}

    @classmethod
    def load(
        cls, data: Path, part: str, *, free_only: bool, every: int = 0, others: bool = True
    ) -> NoisePool:
        """All noise of a part. `every` > 0 divides: only each `every`-th of a kind (others=False), or the
        rest."""
        found: dict[str, list[np.ndarray]] = {}
        count: dict[str, int] = {}
        for noise in data_room.noises(data):
            if noise.part != part or (free_only and not noise.free):
                continue
            count[noise.kind] = k = count.get(noise.kind, -1) + 1
            if every and (k % every == every - 1) == others:
                continue
            found.setdefault(noise.kind, []).append(data_room.load_noise(noise))
        return cls(found)

    @property
    def kinds(self) -> list[str]:
        return [*self.segments, *_MAKERS]

    def draw(self, rng: np.random.Generator, kind: str, n: int, *, speed: bool = True) -> np.ndarray:
        """n samples of that kind, any level. Recorded: a random place, repeated when short, speed 0.75 to
        1.33."""
        if kind in _MAKERS:
            return _MAKERS[kind](rng, n)
        if kind not in self.segments:
            raise StethopiError(f"no noise of kind {kind}; there are {', '.join(self.kinds)}")
        segment = self.segments[kind][int(rng.integers(len(self.segments[kind])))]
        factor = float(0.75 * (1.3333 / 0.75) ** rng.random()) if speed and rng.random() < 0.7 else 1.0
        at = rng.integers(len(segment)) + np.arange(n) * factor
        i = at.astype(np.int64)
        frac = (at - i).astype(np.float32)
        m = len(segment)
        return segment[i % m] * (1 - frac) + segment[(i + 1) % m] * frac


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class MixSettings:
    """`[mix]` of the recipe."""

    batch: int = 12
    samples: int = 8192
    low_db: float = -12.0
    high_db: float = 20.0
    clean: float = 0.15
    """Share of examples without noise."""
    murmur: float = 0.25
    """Share of examples from recordings with a murmur."""
    synthetic_murmur: float = 0.55
    """Share of the others that get a synthetic one."""
    diastolic: float = 0.25
    """Share of the synthetic ones that sound in diastole."""
    two_kinds: float = 0.5
    synthetic_heart: float = 0.0
    """Share of examples whose beats are drawn, with nothing or next to nothing between them."""
    jump: float = 0.0
    """Share of examples that begin softer, by up to 36 dB, or before the chest piece lies on the chest."""
    colour: float = 0.7
    """Share of examples whose heart sound is coloured at random, as by another chest piece."""
    swaying: float = 0.4
    """Share of noises that become louder and softer."""
    setting_in: float = 0.15
    """Share of noises that come or go."""
    sampling: str = "weighted"
    """How often a database is drawn: "weighted" (by hand), "equal", or "proportional" to its references."""
    kinds: Mapping[str, float] = field(default_factory=dict)
    """How often a kind of noise is drawn, instead of the usual weight; kinds left out keep theirs."""


_DATABASES = {"a": 0.2, "b": 0.16, "c": 0.05, "d": 0.08, "e": 0.22, "f": 0.08, "circor": 0.21}


class Mixer:
    """Batches of (clean, noisy), float32 (batch, samples), clean at about rms 1."""

    def __init__(self, refs: Sequence[Reference], noise: NoisePool, settings: MixSettings, seed: int) -> None:
        self.settings, self.seed, self.noise = settings, seed, noise
        self.drawn: list[str] = []
        """Records of the last batch."""
        n = int(settings.samples * 1.2) + 8
        self.pools: dict[str, list[Reference]] = {}
        for r in refs:
            if len(r.sound) >= n:
                self.pools.setdefault("murmur" if r.murmur else r.database, []).append(r)
        names = [k for k in self.pools if k != "murmur"]
        if not names:
            raise StethopiError(f"no clean reference of at least {n / RATE:.1f} s; is --data complete?")
        self.databases = names
        ways = {
            "weighted": [_DATABASES.get(k, 0.1) for k in names],
            "equal": [1.0] * len(names),
            "proportional": [float(len(self.pools[k])) for k in names],
        }
        if settings.sampling not in ways:
            raise BadInput(f"recipe: [mix] sampling = {settings.sampling}: there are {', '.join(ways)}")
        weights = np.array(ways[settings.sampling])
        self.weights = weights / weights.sum()
        self.kinds = [k for k in NOISE_KINDS if k in _MAKERS or k in noise.segments]
        for kind, weight in settings.kinds.items():
            if kind not in _WEIGHTS or not float(weight) >= 0:
                raise BadInput(
                    f"recipe: [mix.kinds] {kind} = {weight}: wanted is a weight of at least 0 for one of "
                    f"{', '.join(NOISE_KINDS)}"
                )
        w = np.array([float(settings.kinds.get(k, _WEIGHTS[k])) for k in self.kinds])
        if not w.sum() > 0:
            raise BadInput("recipe: [mix.kinds]: all weights are 0; leave at least one kind")
        self.kind_weights = w / w.sum()
        self.f = np.fft.rfftfreq(settings.samples, 1 / RATE)
        self.in_band = ((self.f >= BAND_HZ[0]) & (self.f <= BAND_HZ[1])).astype(np.float32)

    def _clean(self, rng: np.random.Generator) -> np.ndarray:
        n = self.settings.samples
        if self.settings.synthetic_heart and rng.random() < self.settings.synthetic_heart:
            x, spans = drawn_heart(rng, n)
            if rng.random() < self.settings.synthetic_murmur:
                x = add_murmur(rng, x, spans, diastolic=self.settings.diastolic)
            return x
        if "murmur" in self.pools and rng.random() < self.settings.murmur:
            pool = self.pools["murmur"]
        else:
            pool = self.pools[self.databases[int(rng.choice(len(self.databases), p=self.weights))]]
        r = pool[int(rng.integers(len(pool)))]
        self.drawn.append(r.record)
        factor = float(rng.uniform(0.85, 1.18)) if rng.random() < 0.5 else 1.0
        start = int(rng.integers(len(r.sound) - int(n * factor) - 2))
        if factor == 1.0:
            x = r.sound[start : start + n].copy()
        else:
            at = start + np.arange(n) * factor
            i = at.astype(np.int64)
            frac = (at - i).astype(np.float32)
            x = r.sound[i] * (1 - frac) + r.sound[i + 1] * frac
        if not r.murmur and rng.random() < self.settings.synthetic_murmur:
            s0 = start / RATE
            spans = [
                ((a - s0) / factor, (b - s0) / factor, s)
                for a, b, s in r.spans
                if b > s0 and a < s0 + n * factor / RATE
            ]
            x = add_murmur(rng, x, spans, diastolic=self.settings.diastolic)
        return x

    def _curve(self, rng: np.random.Generator, spread_db: float) -> np.ndarray:
        """A smooth random gain over frequency."""
        knots = np.array([0.0, 30, 70, 130, 220, 380, 600, 1000])
        return (10 ** (np.interp(self.f, knots, rng.normal(0, spread_db, len(knots))) / 20)).astype(
            np.float32
        )

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        n = self.settings.samples
        total = np.zeros(n, dtype=np.float32)
        for k in range(2 if rng.random() < self.settings.two_kinds else 1):
            kind = self.kinds[int(rng.choice(len(self.kinds), p=self.kind_weights))]
            x = self.noise.draw(rng, kind, n).astype(np.float32)
            gain = self._curve(rng, 3.0)
            if (
                kind in ("speech_babble", "crying", "household", "environment", "tones")
                and rng.random() < 0.6
            ):
                corner, order = 100 * 8 ** rng.random(), rng.uniform(0.5, 2)  # heard through the chest piece
                gain = gain / (1 + (self.f / corner) ** 2) ** (order / 2)
            x = sfft.irfft(sfft.rfft(x) * gain, n).astype(np.float32)
            way = rng.random()
            if way < self.settings.swaying:
                knots = int(rng.integers(3, 8))
                curve = np.interp(np.linspace(0, knots - 1, n), np.arange(knots), rng.normal(0, 6, knots))
                x = x * (10 ** (curve / 20)).astype(np.float32)
            elif way < self.settings.swaying + self.settings.setting_in:  # comes or goes
                edge = int(rng.uniform(0.1, 0.9) * n)
                ramp = 1 / (1 + np.exp(-(np.arange(n) - edge) / rng.uniform(20, 400)))
                x = x * (ramp if rng.random() < 0.5 else 1 - ramp).astype(np.float32)
            power = float(np.mean(x**2))
            if power > 0:
                total += x * float(10 ** (-k * rng.uniform(0, 10) / 20) / np.sqrt(power))
        return total

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Clean and noisy of this step, (batch, samples) each."""
        s = self.settings
        rng = np.random.default_rng([self.seed, step])
        self.drawn = []
        clean = np.stack([self._clean(rng) for _ in range(s.batch)])
        colour = np.stack(
            [
                self._curve(rng, 3.0) if rng.random() < s.colour else np.ones_like(self.in_band)
                for _ in range(s.batch)
            ]
        )
        spectrum = sfft.rfft(clean, axis=-1) * colour
        clean = sfft.irfft(spectrum, s.samples, axis=-1).astype(np.float32)
        noise = np.stack([self._noise(rng) for _ in range(s.batch)])
        wanted = rng.uniform(s.low_db, s.high_db, s.batch)
        quiet = rng.random(s.batch) < s.clean
        p_clean = (np.abs(spectrum) ** 2 * self.in_band).sum(-1)
        p_noise = (np.abs(sfft.rfft(noise, axis=-1)) ** 2 * self.in_band).sum(-1) + 1e-12
        gain = np.sqrt(p_clean / p_noise) * 10 ** (-wanted / 20)
        gain[quiet] = 0.0
        noisy = (clean + gain[:, None] * noise).astype(np.float32)
        if s.jump:
            for k in np.flatnonzero(rng.random(s.batch) < s.jump):
                clean[k], noisy[k] = _placed(rng, clean[k], noisy[k])
        return clean, noisy


def _placed(rng: np.random.Generator, clean: np.ndarray, noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sounds with a softer beginning: less of everything, or (half of the time) its noise alone."""
    n = len(clean)
    edge = rng.uniform(0.1, 0.65) * n
    rise = 1 / (1 + np.exp(-np.clip((np.arange(n) - edge) / rng.uniform(4, 60), -40, 40)))
    soft = 10 ** (-rng.uniform(6, 36) / 20)
    gain = (soft + (1 - soft) * rise).astype(np.float32)
    heart = (rise if rng.random() < 0.5 else gain).astype(np.float32)
    return heart * clean, heart * clean + gain * (noisy - clean)
