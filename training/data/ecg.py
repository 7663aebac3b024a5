"""ECG records for training and measuring: WFDB folders, patients and parts, noise, mixtures.

    python -m training.data.ecg --data ../shared/data      what is there, by database and part

`--data` is our compact folder (`shared/data` or its `ecg`, with `splits.csv`) or any folder of WFDB records
as PhysioNet gives them (a `RECORDS` file or `.hea` files). Without `splits.csv` each record is a patient of
its own (mitdb's 201 and 202 are one) and falls into train, dev or test by a hash of the patient,
70 : 10 : 20; records called bw, em and ma are noise. All signals come at 360 Hz in millivolts, float32.

Noise is split by time: to 1200 s for training, of the rest the first fifth decides and the others report.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from device.errors import BadInput, StethopiError
from device.rates import ECG_RATE_HZ

__all__ = [
    "EcgRecord",
    "EcgSplit",
    "Mixtures",
    "NoiseTracks",
    "Piece",
    "beats",
    "clear_enough",
    "ecg_hashes",
    "load_pieces",
    "read_record",
    "reference",
    "splits",
]

"""Working rate of the ECG."""

LOWEST_HZ, HIGHEST_HZ = 100, 1000
NOISE_NAMES = ("bw", "em", "ma")
TRAIN_NOISE_S = 1200.0
BASELINE_HZ = 0.5
"""Below it a reference holds nothing: its own baseline is taken away, zero phase."""

_ONE_PATIENT = {"mitdb/202": "mitdb-201", "202": "mitdb-201", "201": "mitdb-201"}


@dataclass(frozen=True)
class EcgSplit:
    """One record and the part it belongs to."""

    record: str
    """Path below the folder, without extension: `mitdb/100`."""
    database: str
    patient: str
    part: str
    """train, dev, test or noise."""
    benchmark: bool = False
    """Among the 14 records that DeepFilter and others report."""


@dataclass(frozen=True)
class EcgRecord:
    """A record as it is on disk: mV, float32 (leads, n), NaN where the file marks samples as unknown."""

    name: str
    rate_hz: int
    leads: tuple[str, ...]
    samples: np.ndarray


@dataclass(frozen=True)
class Piece:
    """One lead of one record at 360 Hz, its baseline taken away: what a reference is cut from."""

    record: str
    lead: str
    patient: str
    part: str
    benchmark: bool
    samples: np.ndarray
    """float32 (n,), mV."""
    usable: np.ndarray
    """bool (seconds,): seconds that are known, not flat, not beyond the recorder's range."""
    noise: np.ndarray
    """float32 (seconds,): own noise above 40 Hz between the beats, mV; a floor of what can be measured."""
    drift: np.ndarray
    """float32 (seconds,): what is left of its own baseline, below 0.8 Hz over ten seconds, mV."""


def ecg_folder(data: Path) -> Path:
    """`data` itself, or its `ecg` folder. BadInput when neither holds records."""
    for folder in (data / "ecg", data):
        if (folder / "splits.csv").is_file() or next(folder.glob("**/*.hea"), None):
            return folder
    raise BadInput(f"{data}: no WFDB record (.hea) and no splits.csv in it; give a PhysioNet folder (--data)")


def splits(data: Path) -> list[EcgSplit]:
    """Every record with its patient and part; no patient is in two parts."""
    folder = ecg_folder(data)
    table = folder / "splits.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        needed = {"record", "database", "patient", "part"}
        if rows and not needed <= set(rows[0]):
            raise BadInput(f"{table}: needs the columns {', '.join(sorted(needed))}")
        found = [
            EcgSplit(
                r["record"], r["database"], r["patient"], r["part"], r.get("benchmark_test") in ("yes", "1")
            )
            for r in rows
        ]
    else:
        found = [_own_split(name) for name in _record_names(folder)]
    parts: dict[str, str] = {}
    for s in found:
        if s.part != "noise" and parts.setdefault(s.patient, s.part) != s.part:
            raise BadInput(f"{table}: patient {s.patient} is in {parts[s.patient]} and in {s.part}; use one")
    return found


def _record_names(folder: Path) -> list[str]:
    listed = folder / "RECORDS"
    if listed.is_file():
        return [line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()]
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.glob("**/*.hea"))


def _own_split(name: str) -> EcgSplit:
    database = name.rpartition("/")[0] or "records"
    if name.rpartition("/")[2] in NOISE_NAMES:
        return EcgSplit(name, database, name, "noise")
    patient = _ONE_PATIENT.get(name, name.replace("/", "-"))
    share = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) / 2**32
    return EcgSplit(name, database, patient, "train" if share < 0.7 else "dev" if share < 0.8 else "test")


def read_record(path: Path) -> EcgRecord:
    """A WFDB record (path with or without .hea) in mV at its own rate.

    BadInput when there is no such record, its signal file is missing or shorter than promised, its rate is
    not between 100 and 1000 Hz, or it holds no voltage.
    """
    import wfdb

    base = path.with_suffix("") if path.suffix in (".hea", ".dat") else path
    header = base.with_name(base.name + ".hea")
    if not header.is_file():
        raise BadInput(f"{header}: no such record; give the path of a .hea file")
    try:
        head = wfdb.rdheader(str(base))
        missing = [n for n in dict.fromkeys(head.file_name or []) if not (base.parent / n).is_file()]
        if missing:
            raise BadInput(
                f"{base.parent / missing[0]}: not there, though {header.name} names it; fetch it too"
            )
        if not LOWEST_HZ <= head.fs <= HIGHEST_HZ or head.fs != int(head.fs):
            raise BadInput(
                f"{header}: {head.fs:g} samples a second; an ECG must have {LOWEST_HZ} to {HIGHEST_HZ}, whole"
            )
        with contextlib.redirect_stdout(io.StringIO()):
            record = wfdb.rdrecord(str(base))
    except BadInput:
        raise
    except Exception as problem:  # wfdb raises whatever its parser met
        why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise BadInput(f"{header}: cannot be read as a WFDB record ({why}); fetch it again") from problem
    if record.p_signal is None or record.n_sig == 0:
        raise BadInput(f"{header}: holds no signal; give a record with voltage")
    scale = np.array([{"uv": 1e-3, "v": 1e3}.get(str(u).lower(), 1.0) for u in record.units])
    samples = (record.p_signal * scale).T.astype(np.float32)
    return EcgRecord(base.name, int(record.fs), tuple(record.sig_name), np.ascontiguousarray(samples))


def beats(path: Path, extension: str = "atr") -> tuple[np.ndarray, list[str]] | None:
    """Beat annotations: sample numbers at the record's own rate and symbols; None when there is no such
    file."""
    import wfdb

    base = path.with_suffix("") if path.suffix == ".hea" else path
    if not base.with_name(f"{base.name}.{extension}").is_file():
        return None
    found = wfdb.rdann(str(base), extension)
    return np.asarray(found.sample), list(found.symbol)


def to_working_rate(x: np.ndarray, rate_hz: int) -> np.ndarray:
    """Any rate to 360 Hz over the last axis, polyphase; aligned at sample 0."""
    if rate_hz == ECG_RATE_HZ:
        return x.astype(np.float32)
    ratio = Fraction(ECG_RATE_HZ, rate_hz)
    y = signal.resample_poly(
        x.astype(np.float64), ratio.numerator, ratio.denominator, axis=-1, padtype="line"
    )
    return y.astype(np.float32)


_BASELINE = signal.butter(2, BASELINE_HZ, "highpass", fs=ECG_RATE_HZ, output="sos")
_BELOW_1 = signal.butter(4, 0.8, "lowpass", fs=ECG_RATE_HZ, output="sos")
_ABOVE_40 = signal.butter(4, 40.0, "highpass", fs=ECG_RATE_HZ, output="sos")


def reference(x: np.ndarray) -> np.ndarray:
    """A lead without its own baseline: zero-phase high pass at 0.5 Hz over the last axis, 360 Hz.

    A zero-phase filter up to 0.67 Hz leaves the ST segment where it is (Kligfield et al. 2007).
    """
    return signal.sosfiltfilt(_BASELINE, x, axis=-1, padlen=min(x.shape[-1] - 1, 3 * ECG_RATE_HZ)).astype(
        np.float32
    )


def _judge(
    x: np.ndarray, raw: np.ndarray, raw_known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By second: usable, own noise (root mean square above 40 Hz of the quieter half) and own drift, of a
    reference at 360 Hz and the lead it was made from."""
    seconds = len(x) // ECG_RATE_HZ
    grid = x[: seconds * ECG_RATE_HZ].reshape(seconds, ECG_RATE_HZ)
    known = raw_known[: seconds * ECG_RATE_HZ].reshape(seconds, ECG_RATE_HZ).all(1)
    still = np.abs(np.diff(raw[: seconds * ECG_RATE_HZ].reshape(seconds, ECG_RATE_HZ), axis=1)) < 1e-5
    flat = still.mean(1) > 0.9
    loud = np.abs(grid).max(1) > 8.0
    high = signal.sosfiltfilt(_ABOVE_40, x)[: seconds * ECG_RATE_HZ].reshape(seconds, 20, ECG_RATE_HZ // 20)
    noise = np.sqrt(np.median((high**2).mean(2), axis=1)).astype(np.float32)
    slow = signal.sosfiltfilt(_BELOW_1, x)[: seconds * ECG_RATE_HZ].reshape(seconds, ECG_RATE_HZ)
    drift = np.sqrt(_ten_seconds((slow**2).mean(1))).astype(np.float32)
    return known & ~flat & ~loud, noise, drift


def _ten_seconds(by_second: np.ndarray) -> np.ndarray:
    """Running mean over ten seconds."""
    if len(by_second) < 10:
        return np.full(len(by_second), by_second.mean() if len(by_second) else 0.0)
    padded = np.pad(by_second.astype(np.float64), (5, 4), mode="reflect")
    return np.convolve(padded, np.ones(10) / 10, "valid")


def load_pieces(data: Path, parts: Sequence[str], databases: Sequence[str] | None = None) -> list[Piece]:
    """Every lead of the records of these parts, ready to cut references from, in the order of the table.

    Unknown samples are bridged and their seconds marked as not usable. BadInput names a record that cannot be
    read.
    """
    folder = ecg_folder(data)
    found = []
    for s in splits(data):
        if s.part not in parts or (databases and s.database not in databases):
            continue
        record = read_record(folder / s.record)
        for k, lead in enumerate(record.leads):
            x = record.samples[k]
            known = np.isfinite(x)
            if known.mean() < 0.5:
                continue
            if not known.all():
                at = np.arange(len(x))
                x = np.interp(at, at[known], x[known]).astype(np.float32)
            raw = to_working_rate(x, record.rate_hz)
            y = reference(raw)
            where = np.minimum(
                (np.arange(len(y)) * (record.rate_hz / ECG_RATE_HZ)).astype(int), len(known) - 1
            )
            usable, noise, drift = _judge(y, raw, known[where])
            found.append(Piece(s.record, lead, s.patient, s.part, s.benchmark, y, usable, noise, drift))
    if not found:
        raise BadInput(f"{folder}: no record of part {' or '.join(parts)}; look at splits.csv")
    return found


class NoiseTracks:
    """bw, em and ma of a part (train, dev, test): two channels each at 360 Hz, mV."""

    def __init__(self, data: Path, part: str) -> None:
        folder = ecg_folder(data)
        self.tracks: dict[str, np.ndarray] = {}
        for s in splits(data):
            name = s.record.rpartition("/")[2]
            if s.part != "noise" or name not in NOISE_NAMES:
                continue
            record = read_record(folder / s.record)
            x = to_working_rate(np.nan_to_num(record.samples), record.rate_hz)
            n = x.shape[1] / ECG_RATE_HZ
            rest = TRAIN_NOISE_S + 0.2 * (n - TRAIN_NOISE_S)
            start, end = {
                "train": (0.0, min(TRAIN_NOISE_S, n)),
                "dev": (TRAIN_NOISE_S, rest),
                "test": (rest, n),
            }[part]
            self.tracks[name] = x[:, int(start * ECG_RATE_HZ) : int(end * ECG_RATE_HZ)]
        missing = [n for n in NOISE_NAMES if n not in self.tracks or not self.tracks[n].shape[1]]
        if missing:
            raise BadInput(
                f"{folder}: no noise of {', '.join(missing)} for {part}; put nstdb's bw, em and ma there"
            )

    def draw(self, rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
        """One piece of n samples of a kind (bw, em, ma, mixed, gaussian, mains), mean 0 and variance 1.

        mixed: bw, em and ma of equal power, each from its own place.
        """
        if kind == "mixed":
            x = sum(self.draw(rng, k, n) for k in NOISE_NAMES)
        elif kind == "gaussian":
            x = rng.standard_normal(n)
        elif kind == "mains":
            t = np.arange(n) / ECG_RATE_HZ
            base = float(rng.choice([50.0, 60.0])) + float(rng.uniform(-0.2, 0.2))
            swing = 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.05, 0.3) * t + rng.uniform(0, 6.28))
            x = swing * sum(
                a * np.sin(2 * np.pi * h * base * t + rng.uniform(0, 6.28))
                for h, a in ((1, 1.0), (2, rng.uniform(0, 0.3)), (3, rng.uniform(0, 0.3)))
                if h * base < ECG_RATE_HZ / 2
            )
        else:
            x = self._piece(rng, kind, n)
        y = np.asarray(x, dtype=np.float64)
        y = y - y.mean()
        return y / max(float(y.std()), 1e-9)

    def _piece(self, rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
        track = self.tracks[kind]
        for _ in range(20):
            channel = int(rng.integers(track.shape[0]))
            start = int(rng.integers(max(1, track.shape[1] - n)))
            x = track[channel, start : start + n]
            if len(x) < n:
                x = np.resize(x, n)
            if float(x.std()) > 1e-4:
                return x.astype(np.float64) * float(rng.choice([-1.0, 1.0]))
        raise BadInput(f"noise {kind}: flat; fetch nstdb again")


@dataclass(frozen=True)
class EcgMixSettings:
    """What training mixes. Levels in dB."""

    batch: int = 16
    samples: int = 4320
    low_db: float = -8.0
    high_db: float = 20.0
    clean: float = 0.1
    """Share of the batch without noise."""
    mixed: float = 0.5
    """Share of bw + em + ma with weights of their own; the rest is one kind alone."""
    synthetic: float = 0.12
    """Share of white noise and mains hum."""
    own_noise_db: float = 20.0
    """References whose own noise above 40 Hz lies less far under them are left out."""
    drift: float = 0.5
    """Share of clean and noisy that get an electrode's offset and a slow drift too."""
    dropout: float = 0.0
    """Share in which the lead is off for one to three seconds: a flat line, whose answer is nothing."""
    speed: float = 0.0
    """References run up to this share faster or slower."""
    blend: float = 0.0
    """Share of references that are two leads of one record, in any proportion."""
    warp: float = 0.0
    """The pace of references sways by up to this share within a piece."""
    colour: float = 0.0
    """Share of references with some frequencies stronger and others weaker, by 2 dB rms, without delay."""


class Mixtures:
    """Batches for training: batch(step) → clean and noisy (batch, samples), float32, a function of (seed,
    step)."""

    def __init__(
        self, pieces: Sequence[Piece], noises: NoiseTracks, settings: EcgMixSettings, seed: int
    ) -> None:
        self.pieces, self.noises, self.settings, self.seed = pieces, noises, settings, seed
        self.drawn: list[str] = []
        """Records of the last batch."""
        need = -(-int(settings.samples * (1 + settings.speed) * (1 + settings.warp)) // ECG_RATE_HZ)
        self.starts = []
        for p in pieces:
            good = p.usable & _clear(p, settings.own_noise_db)
            run = np.convolve(good, np.ones(need), "valid") == need
            self.starts.append(np.flatnonzero(run))
        patients: dict[str, list[int]] = {}
        for k, p in enumerate(pieces):
            if len(self.starts[k]):
                patients.setdefault(p.patient, []).append(k)
        if not patients:
            raise BadInput(f"no piece of {need} s without noise of its own; lower own_noise_db in the recipe")
        self.patients = [patients[name] for name in sorted(patients)]

    def cut(self, rng: np.random.Generator) -> np.ndarray:
        """One reference: a patient, a lead, a place; any amplitude and polarity."""
        members = self.patients[int(rng.integers(len(self.patients)))]
        k = members[int(rng.integers(len(members)))]
        self.drawn.append(self.pieces[k].record)
        n = self.settings.samples
        faster = 1.0 + rng.uniform(-1, 1) * self.settings.speed if self.settings.speed else 1.0
        pace = faster * (1 + self._swaying(rng, n)) if self.settings.warp else None
        longer = int(np.ceil(n * faster)) if pace is None else int(np.ceil(pace.sum()))
        need = min(longer, len(self.pieces[k].samples))
        start = int(rng.choice(self.starts[k])) * ECG_RATE_HZ + int(rng.integers(ECG_RATE_HZ))
        start = max(0, min(start, len(self.pieces[k].samples) - need))
        x = self.pieces[k].samples[start : start + need].astype(np.float64)
        if self.settings.blend and rng.random() < self.settings.blend:
            others = [m for m in members if self.pieces[m].record == self.pieces[k].record and m != k]
            if others:
                turn = rng.uniform(0, 2 * np.pi)
                other = self.pieces[others[0]].samples[start : start + need]
                if len(other) == len(x):
                    x = np.cos(turn) * x + np.sin(turn) * other
        if faster != 1.0 or pace is not None:
            at = np.arange(n) * faster if pace is None else np.cumsum(pace) - pace[0]
            x = np.interp(at, np.arange(len(x)), x)
        x = x[:n]
        if self.settings.colour and rng.random() < self.settings.colour:
            x = _coloured(rng, x)
        sign = -1.0 if rng.random() < 0.25 else 1.0
        return x * sign * 10 ** (rng.uniform(-8, 8) / 20)

    def _swaying(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Straight lines between random shares, one every two seconds."""
        knots = rng.uniform(-1, 1, n // (2 * ECG_RATE_HZ) + 2) * self.settings.warp
        return np.interp(np.arange(n) / (2 * ECG_RATE_HZ), np.arange(len(knots)), knots)

    def noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        s = self.settings
        u = rng.random()
        if u < s.synthetic:
            return self.noises.draw(rng, "gaussian" if rng.random() < 0.5 else "mains", n)
        if u < s.synthetic + s.mixed:
            weights = rng.dirichlet((2.0, 2.0, 2.0)) ** 0.5
            x = sum(w * self.noises.draw(rng, k, n) for w, k in zip(weights, NOISE_NAMES, strict=True))
            return x / max(float(np.std(x)), 1e-9)
        return self.noises.draw(rng, NOISE_NAMES[int(rng.integers(3))], n)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, step])
        s = self.settings
        self.drawn = []
        clean = np.empty((s.batch, s.samples), dtype=np.float32)
        noisy = np.empty_like(clean)
        t = np.arange(s.samples) / ECG_RATE_HZ
        for k in range(s.batch):
            x = self.cut(rng)
            power = max(float(x.std()), 1e-4)
            y = x
            if rng.random() >= s.clean:
                level = rng.uniform(s.low_db, s.high_db)
                y = y + power * 10 ** (-level / 20) * self.noise(rng, s.samples)
            if rng.random() < s.drift:
                wander = np.sin(2 * np.pi * rng.uniform(0.05, 0.4) * t + rng.uniform(0, 6.28))
                y = y + power * (rng.normal(0, 2.0) + rng.uniform(0, 0.7) * wander)
            if s.dropout and rng.random() < s.dropout:
                start = int(rng.integers(s.samples))
                span = slice(start, start + int(rng.integers(1, 3 * ECG_RATE_HZ)))
                x, y = x.copy(), y.copy()
                x[span], y[span] = 0.0, y[start]
            clean[k], noisy[k] = x, y
        return clean, noisy


def _coloured(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """x through a smooth random gain over frequency, zero phase."""
    knots = np.array([0.0, 1.0, 3.0, 8.0, 15.0, 30.0, 60.0, ECG_RATE_HZ / 2])
    gain_db = np.interp(np.fft.rfftfreq(len(x), 1 / ECG_RATE_HZ), knots, rng.normal(0, 2.0, len(knots)))
    return np.fft.irfft(np.fft.rfft(x) * 10 ** (gain_db / 20), len(x))


def _clear(p: Piece, least_db: float) -> np.ndarray:
    """By second: is the own noise that far under the reference (whose level is taken over 10 s)?"""
    seconds = len(p.usable)
    grid = p.samples[: seconds * ECG_RATE_HZ].reshape(seconds, ECG_RATE_HZ).astype(np.float64)
    power = np.convolve((grid**2).mean(1), np.ones(10) / 10, "same")
    return np.sqrt(power) > p.noise * 10 ** (least_db / 20)


def clear_enough(p: Piece, noise_db: float = 20.0, drift_db: float = 17.0) -> np.ndarray:
    """By second: usable, and own noise and own drift that far under the reference's level over ten
    seconds."""
    seconds = len(p.usable)
    grid = p.samples[: seconds * ECG_RATE_HZ].reshape(seconds, ECG_RATE_HZ).astype(np.float64)
    level = np.sqrt(_ten_seconds((grid**2).mean(1)))
    quiet = level > p.noise * 10 ** (noise_db / 20)
    return p.usable & quiet & (level > p.drift * 10 ** (drift_db / 20))


def ecg_hashes(data: Path) -> dict[str, str]:
    """sha256 of the table of parts and of all signal files' names and sizes."""
    folder = ecg_folder(data)
    digest = hashlib.sha256()
    for s in splits(data):
        header = folder / f"{s.record}.hea"
        digest.update(f"{s.record} {s.patient} {s.part} ".encode() + header.read_bytes())
    return {"ecg": digest.hexdigest()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.ecg", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args(argv)
    try:
        rows: dict[tuple[str, str], list[Any]] = {}
        for p in load_pieces(options.data, ("train", "dev", "test")):
            row = rows.setdefault((p.part, p.record.partition("/")[0]), [set(), set(), 0, 0])
            row[0].add(p.patient)
            row[1].add(p.record)
            row[2] += int(p.usable.sum())
            row[3] += int((p.usable & _clear(p, EcgMixSettings.own_noise_db)).sum())
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    print("part   database  patients  records  minutes (leads)  clear enough to train on")
    for (part, database), (patients, records, usable, clear) in sorted(rows.items()):
        print(
            f"{part:6} {database:9} {len(patients):8} {len(records):8} {usable / 60:16.0f} {clear / 60:25.0f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
