"""What is learned from: heart sound recordings with labels, folds and states, and noise to mix in.

One folder is given with `--data`; it holds any of these:

    physionet2016/   compact layout (index.csv, states.csv, noise_spans.csv, audio/*.flac)
    circor2022/      compact layout (index.csv, states.csv, audio/*.flac)
    noise/           index.csv and one folder a kind

`Recording.fold` says what a recording is for: 0 is reported, 1 decides, 2 to 4 train. A fold never divides
a `Recording.group`, which is a subject as well as that is known.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from device.errors import BadInput
from device.rates import WORKING_RATE_HZ

__all__ = [
    "DATABASES",
    "Noise",
    "Recording",
    "data_hashes",
    "load",
    "load_noise",
    "noise_spans",
    "noises",
    "recordings",
    "states",
]

DATABASES = ("a", "b", "c", "d", "e", "f", "circor")

_KEPT_ELSEWHERE = {"record", "database", "label", "quality", "group", "fold", "seconds", "sha256"}


@dataclass(frozen=True)
class Recording:
    """One recording of heart sound."""

    record: str
    database: str
    """`a` to `f` of PhysioNet 2016, `circor`, or the name of a user's own folder."""
    path: Path
    group: str
    """Who it is from, as well as that is known. Split by this, never by recording."""
    fold: int
    """0 is reported, 1 decides, 2 to 4 train."""
    label: str | None
    """`normal` or `abnormal`; in CirCor the patient's outcome, which is more than what can be heard."""
    quality: str
    """`good`, `poor` or `unknown`, as the source says."""
    seconds: float
    murmur_here: str | None
    """CirCor: `yes`, `no` or `unknown` at this position. None where nobody listened for it."""
    meta: dict[str, str] = field(default_factory=dict, repr=False, hash=False)
    """The other columns of the index."""

    @property
    def reportable(self) -> bool:
        """False for the recordings whose subject is unknown (87 of e): they may be anyone's."""
        return self.meta.get("subject_basis") != "unknown"


@dataclass(frozen=True)
class Noise:
    """One segment of noise."""

    path: Path
    kind: str
    part: str
    """`train` or `test`, split by origin."""
    free: bool
    """Its licence lets anybody use the result; a released model learns from such noise only."""
    seconds: float


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; --data takes the folder that holds physionet2016/") from None


def _compact_physionet(root: Path) -> Iterator[Recording]:
    for row in _rows(root / "index.csv"):
        yield Recording(
            record=row["record"],
            database=row["database"],
            path=root / "audio" / f"{row['record']}.flac",
            group=row["group"],
            fold=int(row["fold"]),
            label=row["label"] or None,
            quality=row["quality"] or "unknown",
            seconds=float(row["seconds"]),
            murmur_here=None,
            meta={key: value for key, value in row.items() if key not in _KEPT_ELSEWHERE},
        )


def _compact_circor(root: Path) -> Iterator[Recording]:
    for row in _rows(root / "index.csv"):
        yield Recording(
            record=row["record"],
            database="circor",
            path=root / "audio" / f"{row['record']}.flac",
            group=f"circor_{row['group']}",
            fold=int(row["fold"]),
            label=row["outcome"] or None,
            quality="unknown",
            seconds=float(row["seconds"]),
            murmur_here=row["murmur_here"] or "unknown",
            meta={key: value for key, value in row.items() if key not in _KEPT_ELSEWHERE},
        )


def recordings(data: Path) -> list[Recording]:
    """All recordings under `data`, in the order of their indexes.

    Raises BadInput when there are none.
    """
    data = Path(data)
    found: list[Recording] = []
    if (data / "physionet2016" / "index.csv").is_file():
        found.extend(_compact_physionet(data / "physionet2016"))
    if (data / "circor2022" / "index.csv").is_file():
        found.extend(_compact_circor(data / "circor2022"))
    if not found:
        raise BadInput(f"{data}: no recordings; --data takes the folder of physionet2016/ and circor2022/")
    return found


def _read(path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); is the data folder complete?") from None
    return np.ascontiguousarray(samples[:, 0]), int(rate)


def _at_working_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    if rate == WORKING_RATE_HZ:
        return samples
    from scipy.signal import resample_poly

    return resample_poly(samples, WORKING_RATE_HZ, rate).astype(np.float32)


def load(recording: Recording) -> np.ndarray:
    """The sound of a recording: float32, shape (n,), ±1 full scale, at 2 kHz. BadInput when unreadable."""
    return _at_working_rate(*_read(recording.path))


@functools.lru_cache(maxsize=4)
def states(data: Path) -> dict[str, list[tuple[float, float, str]]]:
    """Heart states by record: (start_s, end_s, state), rising in time.

    State is S1, systole, S2, diastole, or `noise` (marked so) or `unannotated`. A state of PhysioNet 2016
    lasts until the next one; its last lasts to the end of the recording.
    """
    data = Path(data)
    table: dict[str, list[tuple[float, float, str]]] = {}
    root = data / "physionet2016"
    if (root / "states.csv").is_file():
        ends = {row["record"]: float(row["seconds"]) for row in _rows(root / "index.csv")}
        starts: dict[str, list[tuple[float, str]]] = {}
        for row in _rows(root / "states.csv"):
            state = "unannotated" if row["state"] == "unmarked" else row["state"]
            starts.setdefault(row["record"], []).append((float(row["start_s"]), state))
        for record, rows in starts.items():
            limits = [start for start, _ in rows[1:]] + [max(ends.get(record, rows[-1][0]), rows[-1][0])]
            table[record] = [(start, end, state) for (start, state), end in zip(rows, limits, strict=True)]
    root = data / "circor2022"
    if (root / "states.csv").is_file():
        for row in _rows(root / "states.csv"):
            span = (float(row["start_s"]), float(row["end_s"]), row["state"])
            table.setdefault(row["record"], []).append(span)
    return table


@functools.lru_cache(maxsize=4)
def noise_spans(data: Path) -> dict[str, list[tuple[float, float]]]:
    """Spans that annotators marked as noise, by record: (start_s, end_s)."""
    table: dict[str, list[tuple[float, float]]] = {}
    path = Path(data) / "physionet2016" / "noise_spans.csv"
    if path.is_file():
        for row in _rows(path):
            table.setdefault(row["record"], []).append((float(row["start_s"]), float(row["end_s"])))
    return table


def noises(data: Path) -> list[Noise]:
    """All noise segments under `data`/noise; empty when there is no such folder."""
    root = Path(data) / "noise"
    if not (root / "index.csv").is_file():
        return []
    return [
        Noise(
            path=root / row["file"],
            kind=row["kind"],
            part=row["part"],
            free=row["noncommercial"] == "no",
            seconds=float(row["seconds"]),
        )
        for row in _rows(root / "index.csv")
    ]


def load_noise(noise: Noise) -> np.ndarray:
    """The sound of a noise segment: float32, shape (n,), at 2 kHz."""
    return _at_working_rate(*_read(noise.path))


def data_hashes(data: Path) -> dict[str, str]:
    """Hex sha256 of every index under `data`, by its path; the indexes hold the hashes of the sound files."""
    data = Path(data)
    found = sorted(data.glob("*/*.csv"))
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if path.parent.name in ("physionet2016", "circor2022", "noise")
    }
