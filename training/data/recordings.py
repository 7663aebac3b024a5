"""What is learned from: heart sound recordings with labels, folds and states, and noise to mix in.

One folder is given with `--data`; it holds any of these:

    physionet2016/   compact layout (index.csv, states.csv, noise_spans.csv, audio/*.flac), or the original
                     one of the Challenge 2016 (training-a/ … with *.wav and REFERENCE.csv)
    circor2022/      compact layout, or the original one of CirCor (training_data.csv, training_data/*.wav
                     and *.tsv)
    noise/           index.csv and one folder a kind
    index.csv        your own recordings, see docs/own-recordings.md: file,label,subject[,fold,murmur]

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
    "REPORTED_FOLD",
    "Noise",
    "Recording",
    "data_hashes",
    "load",
    "load_noise",
    "noise_spans",
    "noises",
    "recordings",
    "states",
    "loudest_positions",
]

REPORTED_FOLD = 0
"""The fold that no network of ours has heard, nor any choice."""

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


def _fold_of(group: str) -> int:
    """A fold for a layout that has none: always the same for the same subject."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % 5


def _seconds(path: Path) -> float:
    import soundfile

    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); is the data folder complete?") from None
    return float(info.frames / info.samplerate)


def _original_physionet(root: Path) -> Iterator[Recording]:
    """The challenge's own folders: REFERENCE.csv has `a0001,1` (1 abnormal, -1 normal), REFERENCE-SQI.csv
    also a quality (1 good, 0 poor). The folders hold no subject numbers, so each recording counts as a
    subject of its own.
    """
    for folder in sorted(root.glob("training-[a-z]")):
        table = folder / "REFERENCE-SQI.csv"
        table = table if table.is_file() else folder / "REFERENCE.csv"
        if not table.is_file():
            raise BadInput(f"{table}: not there; it holds the labels of {folder.name}")
        with table.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(file):
                if not row:
                    continue
                record = row[0].strip()
                yield Recording(
                    record=record,
                    database=folder.name.removeprefix("training-"),
                    path=folder / f"{record}.wav",
                    group=record,
                    fold=_fold_of(record),
                    label="abnormal" if int(row[1]) == 1 else "normal",
                    quality=("good" if int(row[2]) == 1 else "poor") if len(row) > 2 else "unknown",
                    seconds=_seconds(folder / f"{record}.wav"),
                    murmur_here=None,
                    meta={"subject_basis": "recording"},
                )


def _original_circor(root: Path) -> Iterator[Recording]:
    """CirCor 1.0.3 as it comes: a row a patient in training_data.csv, sound as
    training_data/<patient>_<site>.wav.
    """
    for row in _rows(root / "training_data.csv"):
        patient, murmur = row["Patient ID"], row["Murmur"].lower()
        twin = row.get("Additional ID", "") or ""
        group = "circor_" + min(patient, twin.removesuffix(".0") or patient)
        heard_at = set((row.get("Murmur locations") or "").replace("nan", "").split("+")) - {""}
        for path in sorted((root / "training_data").glob(f"{patient}_*.wav")):
            position = path.stem.split("_")[1]
            here = {"present": "yes" if position in heard_at else "no", "absent": "no"}.get(murmur, "unknown")
            yield Recording(
                record=path.stem,
                database="circor",
                path=path,
                group=group,
                fold=_fold_of(group),
                label=(row.get("Outcome") or "").lower() or None,
                quality="unknown",
                seconds=_seconds(path),
                murmur_here=here,
                meta={"patient": patient, "position": position, "murmur": murmur},
            )


def _own(root: Path) -> Iterator[Recording]:
    """A researcher's own folder: index.csv with file, label (normal, abnormal or empty) and subject; fold
    (0 to 4) and murmur (yes, no or empty) if known. `database` becomes the folder's name.
    """
    rows = _rows(root / "index.csv")
    for number, row in enumerate(rows, start=2):
        where = f"{root / 'index.csv'}, line {number}"
        missing = [key for key in ("file", "label", "subject") if row.get(key) is None]
        if missing:
            raise BadInput(f"{where}: no column {missing[0]}; needed are file, label, subject")
        label, murmur = row["label"].strip().lower(), (row.get("murmur") or "").strip().lower()
        if label not in ("normal", "abnormal", ""):
            raise BadInput(f"{where}: label {row['label']!r}; use normal, abnormal, or nothing where unknown")
        if murmur not in ("yes", "no", ""):
            raise BadInput(f"{where}: murmur {row['murmur']!r}; use yes, no, or nothing where unknown")
        fold = (row.get("fold") or "").strip()
        if fold not in ("", "0", "1", "2", "3", "4"):
            raise BadInput(
                f"{where}: fold {fold!r}; use 0 (reported), 1 (decides), 2 to 4 (train), or nothing"
            )
        group = f"{root.name}_{row['subject'].strip() or row['file']}"
        yield Recording(
            record=Path(row["file"]).with_suffix("").as_posix(),
            database=root.name,
            path=root / row["file"],
            group=group,
            fold=int(fold) if fold else _fold_of(group),
            label=label or None,
            quality="unknown",
            seconds=_seconds(root / row["file"]),
            murmur_here=murmur or None,
            meta={},
        )


def recordings(data: Path) -> list[Recording]:
    """All recordings under `data`, in the order of their indexes.

    Raises BadInput when there are none.
    """
    data = Path(data)
    found: list[Recording] = []
    physionet, circor = data / "physionet2016", data / "circor2022"
    if (physionet / "index.csv").is_file():
        found.extend(_compact_physionet(physionet))
    elif physionet.is_dir():
        found.extend(_original_physionet(physionet))
    if (circor / "index.csv").is_file():
        found.extend(_compact_circor(circor))
    elif (circor / "training_data.csv").is_file():
        found.extend(_original_circor(circor))
    if (data / "index.csv").is_file():
        found.extend(_own(data))
    if not found:
        raise BadInput(
            f"{data}: no recordings; --data takes a folder of physionet2016/, circor2022/ or an index.csv"
        )
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
    elif (root / "training_data").is_dir():
        names = {"0": "unannotated", "1": "S1", "2": "systole", "3": "S2", "4": "diastole"}
        for path in sorted((root / "training_data").glob("*.tsv")):
            lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
            table[path.stem] = [(float(a), float(b), names[state]) for a, b, state in lines]
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
    """Hex sha256 of every index under `data`, by its path.

    The compact indexes hold the hashes of the sound files. For other layouts the names and sizes of the
    sound files are hashed too, as `<folder>/*`.
    """
    data = Path(data)
    found = {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted([*data.glob("*.csv"), *data.glob("*/*.csv"), *data.glob("*/training-[a-z]/*.csv")])
        if path.parent == data or path.relative_to(data).parts[0] in ("physionet2016", "circor2022", "noise")
    }
    loose: dict[str, list[str]] = {}
    for recording in recordings(data):
        if recording.path.parent.name != "audio":
            size = recording.path.stat().st_size
            loose.setdefault(recording.path.parent.name, []).append(f"{recording.path.name} {size}")
    for folder, lines in loose.items():
        found[f"{folder}/*"] = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    return found


def loudest_positions(data: Path) -> dict[str, str]:
    """Patient → the position where the expert heard the murmur best, as CirCor tells it."""
    for name in ("circor2022/patients.csv", "circor2022/training_data.csv"):
        path = Path(data) / name
        if path.is_file():
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
            keys = (
                ("patient", "most_audible")
                if "patient" in rows[0]
                else ("Patient ID", "Most audible location")
            )
            return {row[keys[0]]: row[keys[1]] for row in rows if row.get(keys[1]) not in (None, "", "nan")}
    return {}
