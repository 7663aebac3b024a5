"""ECG recordings on disk: one reader for the file source and `denoise --kind ecg`, and the writer that keeps
the kind.

    WFDB record    NAME or NAME.hea: header and signal files, formats 16, 24, 32, 61, 80, 160, 212, 508, 516,
                   524; every lead
    WAV, FLAC      one lead, ±1 of full scale is ±5 mV
    CSV            a column of time and one or more of voltage; delimiter and units are found out

Samples that are not known (no numbers, the format's code for "invalid", rows that are missing) become 0 and
are listed in `Lead.gaps`. The signal is millivolts throughout.

Source of the formats: "WFDB Applications Guide", header(5) and signal(5).
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from device.arrays import AnyArray
from device.durable import whole_file
from device.errors import BadInput, StethopiError
from device.sources.files import Sound, read_sound, soundfile, write_sound
from device.spans import Gap

__all__ = [
    "FULL_SCALE_MV",
    "HIGHEST_RATE_HZ",
    "LOWEST_RATE_HZ",
    "Ecg",
    "Lead",
    "find_ecgs",
    "is_record",
    "read_ecg",
    "write_ecg",
]

FULL_SCALE_MV = 5.0
"""What ±1 of full scale means in WAV and FLAC."""

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 100, 1000

_SOUND = (".wav", ".wave", ".flac")
_TABLE = (".csv", ".tsv", ".txt")
_WFDB = (".hea", ".dat")

_MV_OF = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "millivolt": 1.0, "volt": 1e3}


@dataclass(frozen=True)
class Lead:
    """One lead."""

    name: str
    samples: AnyArray
    """float32 (n,), mV; 0 inside gaps."""
    gaps: list[Gap] = field(default_factory=list)
    """Samples that are not known."""
    rails_mv: tuple[float, float] | None = None
    """The lowest and the highest voltage that the recorder could tell; None where that is not known."""
    step_mv: float = 0.0
    """One step of the recorder; 0: not known."""
    voltage: bool = True
    """False for what is no ECG (pressure, breathing): it is handed on as it is."""


@dataclass(frozen=True)
class Ecg:
    """A recording with one or more leads of one length and rate."""

    leads: list[Lead]
    rate_hz: int
    kind: str
    """WFDB, WAV, FLAC or CSV."""
    notes: list[str] = field(default_factory=list)
    """What a person should be told, in sentences fit for stderr."""
    path: Path | None = None
    form: Any = None
    """What the writer needs to keep the kind."""

    @property
    def samples(self) -> int:
        """Of each lead."""
        return len(self.leads[0].samples) if self.leads else 0

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.samples / self.rate_hz


# ---- reading


def is_record(path: Path) -> bool:
    """Whether a name can only mean a WFDB record."""
    return path.suffix.lower() not in (*_SOUND, *_TABLE)


def find_ecgs(folder: Path) -> list[Path]:
    """The recordings below a folder, sorted: headers of WFDB records, WAV, FLAC and CSV. BadInput when there
    is none.
    """
    wanted = (".hea", ".csv", ".tsv", *_SOUND)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in wanted and p.is_file())
    if not found:
        raise BadInput(f"{folder}: no WFDB record, WAV, FLAC or CSV in this folder; give one that holds ECGs")
    return found


def read_ecg(path: Path | str) -> Ecg:
    """A recording by its name; a WFDB record with or without extension. BadInput, one line with the remedy,
    when there is no ECG to be had.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; give a WFDB record, a WAV, FLAC or CSV file")
    if suffix in _SOUND:
        return _read_sound(path)
    if suffix in _TABLE:
        return _read_csv(path)
    return _read_record(path)


def _checked_rate(path: Path, rate_hz: float) -> int:
    whole = round(rate_hz)
    if not LOWEST_RATE_HZ <= whole <= HIGHEST_RATE_HZ:
        raise BadInput(
            f"{path}: its rate of {rate_hz:g} Hz is not from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz; "
            f"resample it, or correct the rate that the file names"
        )
    if abs(rate_hz - whole) > 0.005 * whole:
        raise BadInput(f"{path}: its rate of {rate_hz:g} Hz is no whole number; resample it to 250 or 360 Hz")
    return whole


def _spans(bad: AnyArray) -> list[Gap]:
    """Where a bool (n,) is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]])))
    return [Gap(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _read_sound(path: Path) -> Ecg:
    sound = read_sound(path, (LOWEST_RATE_HZ, HIGHEST_RATE_HZ))
    rails = None if sound.floating else (-FULL_SCALE_MV, FULL_SCALE_MV * (1 - 2.0 ** (1 - sound.bits)))
    step_mv = 0.0 if sound.floating else FULL_SCALE_MV * 2.0 ** (1 - sound.bits)
    lead = Lead("ECG", sound.samples * np.float32(FULL_SCALE_MV), list(sound.gaps), rails, step_mv)
    return Ecg([lead], sound.rate_hz, sound.container, list(sound.notes), path, sound)


# ---- WFDB


@dataclass(frozen=True)
class _Signal:
    """A signal's line in the header."""

    file: str
    fmt: int
    offset: int
    gain: float
    baseline: int
    units: str
    bits: int
    zero: int
    name: str
    rest: tuple[str, ...]
    """The line's fields as they stood."""


@dataclass(frozen=True)
class _Record:
    """A header, for the writer."""

    name: str
    first: tuple[str, ...]
    signals: tuple[_Signal, ...]
    comments: tuple[str, ...]
    digital: AnyArray
    """int64 (signals, samples): what is handed on as it is."""


_INVALID = {
    16: -(1 << 15),
    24: -(1 << 23),
    32: -(1 << 31),
    61: -(1 << 15),
    80: -(1 << 7),
    160: -(1 << 15),
    212: -(1 << 11),
    508: -(1 << 7),
    516: -(1 << 15),
    524: -(1 << 23),
}
"""Each format's code for a sample that is not known: the most negative number."""

_GAIN = re.compile(r"(?P<gain>[-+]?[0-9.]+(?:[eE][-+]?\d+)?)(?:\((?P<base>[-+]?\d+)\))?(?:/(?P<units>\S+))?")
_FORMAT = re.compile(r"(?P<fmt>\d+)(?:x(?P<spf>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?")


def _header_of(path: Path) -> Path:
    if path.suffix.lower() in _WFDB:
        return path.with_suffix(".hea")
    return path.with_name(path.name + ".hea")


def _read_record(path: Path) -> Ecg:
    header = _header_of(path)
    try:
        text = header.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        raise BadInput(
            f"{path}: no such record ({header} is not there); check the name, or give a WAV, FLAC or CSV file"
        ) from None
    except OSError as error:
        raise BadInput(f"{header}: cannot be read ({error.strerror}); check its permissions") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    comments = tuple(line for line in lines if line.startswith("#"))
    lines = [line for line in lines if not line.startswith("#")]
    try:
        first = tuple(lines[0].split())
        name, count = first[0], int(first[1])
        if "/" in name:
            raise BadInput(f"{header}: has several segments; join them first, for example: snip or xform")
        rate = float(re.split(r"[/(]", first[2])[0]) if len(first) > 2 else 250.0
        samples = int(first[3]) if len(first) > 3 else 0
        signals = tuple(_signal(header, line) for line in lines[1 : count + 1])
        if len(signals) < count:
            raise ValueError(f"{len(signals)} of {count} signals are described")
    except (ValueError, IndexError) as error:
        raise BadInput(f"{header}: is no WFDB header ({error}); copy the record again") from None
    if not signals:
        raise BadInput(f"{header}: holds no signal; give a record with one")
    rate_hz = _checked_rate(header, rate)
    notes: list[str] = []
    digital = _signals(header, signals, samples, rate_hz, notes)
    leads = []
    for signal, x in zip(signals, digital, strict=True):
        bad = x == _INVALID[signal.fmt]
        unit = _MV_OF.get(signal.units.lower())
        scale = (unit or 1.0) / signal.gain
        mv = np.where(bad, 0.0, (x - signal.baseline) * scale).astype(np.float32)
        half = 1 << (signal.bits - 1) if signal.bits else 0
        low, high = signal.zero - half, signal.zero + half - 1
        rails = None
        if half:
            rails = ((low - signal.baseline) * scale, (high - signal.baseline) * scale)
        gaps = _spans(bad)
        if gaps:
            notes.append(f"{header}: {signal.name}: {_many(bad)} are not known; treated as gaps")
        if unit is None:
            notes.append(f"{header}: {signal.name} is in {signal.units}, no voltage; handed on as it is")
        leads.append(Lead(signal.name, mv, gaps, rails, abs(scale), unit is not None))
    if not any(lead.voltage for lead in leads):
        raise BadInput(f"{header}: none of its signals is a voltage; give a record with an ECG")
    form = _Record(name, first, signals, comments, digital)
    return Ecg(leads, rate_hz, "WFDB", notes, header, form)


def _many(bad: AnyArray) -> str:
    places = len(_spans(bad))
    count = int(bad.sum())
    return f"{count} sample{'s' * (count != 1)} in {places} place{'s' * (places != 1)}"


def _signal(header: Path, line: str) -> _Signal:
    fields = line.split(maxsplit=8)
    found = _FORMAT.fullmatch(fields[1])
    if found is None or int(found["fmt"]) not in _INVALID:
        known = ", ".join(map(str, _INVALID))
        raise BadInput(f"{header}: signal format {fields[1]} is not read here (only {known}); convert: xform")
    if int(found["spf"] or 1) != 1 or int(found["skew"] or 0) != 0:
        raise BadInput(f"{header}: signals of several rates, or skewed ones, are not read here; use xform")
    gain, base, units = 200.0, None, "mV"
    if len(fields) > 2:
        parts = _GAIN.fullmatch(fields[2])
        if parts is None:
            raise ValueError(f"{fields[2]} is no gain")
        gain = float(parts["gain"]) or 200.0
        base = int(parts["base"]) if parts["base"] else None
        units = parts["units"] or "mV"
    numbers = [int(text) for text in fields[3:8]]
    bits, zero = (numbers + [0, 0])[:2] if len(numbers) > 1 else ((numbers or [0])[0], 0)
    return _Signal(
        file=fields[0],
        fmt=int(found["fmt"]),
        offset=int(found["offset"] or 0),
        gain=gain,
        baseline=zero if base is None else base,
        units=units,
        bits=bits,
        zero=zero,
        name=fields[8] if len(fields) > 8 else "ECG",
        rest=tuple(fields),
    )


def _signals(
    header: Path, signals: tuple[_Signal, ...], samples: int, rate_hz: int, notes: list[str]
) -> AnyArray:
    """int64 (signals, samples) out of the signal files."""
    columns: dict[str, AnyArray] = {}
    for signal in signals:
        if signal.file not in columns:
            columns[signal.file] = _signal_file(
                header, signal, sum(each.file == signal.file for each in signals)
            )
    length = min(x.shape[1] for x in columns.values())
    if not length:
        raise BadInput(f"{header}: its signal file is empty; copy the record again")
    if samples and length < samples:
        notes.append(
            f"{header}: is truncated: {length / rate_hz:.3f} s of the promised {samples / rate_hz:.3f} s "
            f"are there and are used"
        )
    length = min(length, samples) if samples else length
    taken = dict.fromkeys(columns, 0)
    rows = []
    for signal in signals:
        rows.append(columns[signal.file][taken[signal.file], :length])
        taken[signal.file] += 1
    return np.array(rows)


def _signal_file(header: Path, signal: _Signal, width: int) -> AnyArray:
    """int64 (width, n) of one signal file, whose signals take turns."""
    if Path(signal.file).name != signal.file:
        raise BadInput(f"{header}: names {signal.file!r}, which is no plain file name; correct the header")
    path = header.with_name(signal.file)
    if signal.fmt in (508, 516, 524):
        return _flac(path, header, signal.fmt)
    try:
        raw = np.fromfile(path, np.uint8)[signal.offset :]
    except FileNotFoundError:
        raise BadInput(f"{header}: names {path.name}, which is not there; copy it there") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    x = _unpacked(raw, signal.fmt)
    whole = len(x) // width
    return np.ascontiguousarray(x[: whole * width].reshape(whole, width).T)


def _unpacked(raw: AnyArray, fmt: int) -> AnyArray:
    """Bytes → samples in the order of the file, int64."""
    if fmt in (16, 61, 160, 32):
        kind = {16: "<i2", 61: ">i2", 160: "<u2", 32: "<i4"}[fmt]
        size = np.dtype(kind).itemsize
        x = raw[: len(raw) // size * size].view(kind).astype(np.int64)
        return x - 32768 if fmt == 160 else x
    if fmt == 80:
        return raw.astype(np.int64) - 128
    groups = raw[: len(raw) // 3 * 3].reshape(-1, 3).astype(np.int64)
    if fmt == 24:
        x = groups[:, 0] | groups[:, 1] << 8 | groups[:, 2] << 16
        return x - ((x >> 23) << 24)
    # 212: two samples of 12 bits in three bytes; a last single one in two
    pairs = np.empty((len(groups), 2), np.int64)
    pairs[:, 0] = groups[:, 0] | (groups[:, 1] & 0x0F) << 8
    pairs[:, 1] = groups[:, 2] | (groups[:, 1] & 0xF0) << 4
    x = pairs.reshape(-1)
    if len(raw) % 3 == 2:
        x = np.append(x, int(raw[-2]) | (int(raw[-1]) & 0x0F) << 8)
    return x - ((x >> 11) << 12)


def _flac(path: Path, header: Path, fmt: int) -> AnyArray:
    if not path.is_file():
        raise BadInput(f"{header}: names {path.name}, which is not there; copy it there")
    module = soundfile()
    try:
        x, _ = module.read(path, dtype="int32", always_2d=True)
    except module.LibsndfileError as error:
        raise BadInput(f"{path}: is no FLAC file, though {header.name} says so ({error})") from None
    return np.ascontiguousarray((x.astype(np.int64) >> {508: 24, 516: 16, 524: 8}[fmt]).T)


def _packed(x: AnyArray, fmt: int) -> bytes:
    """Samples in the order of the file, int64 (n,) → bytes."""
    if fmt in (16, 61, 32):
        return x.astype({16: "<i2", 61: ">i2", 32: "<i4"}[fmt]).tobytes()
    if fmt == 160:
        return (x + 32768).astype("<u2").tobytes()
    if fmt == 80:
        return (x + 128).astype(np.uint8).tobytes()
    if fmt == 24:
        return np.ascontiguousarray(x.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]).tobytes()
    bits = x & 0xFFF
    odd = len(bits) % 2
    pairs = np.append(bits, 0).reshape(-1, 2) if odd else bits.reshape(-1, 2)
    made = np.empty((len(pairs), 3), np.uint8)
    made[:, 0] = pairs[:, 0] & 0xFF
    made[:, 1] = pairs[:, 0] >> 8 | (pairs[:, 1] >> 8) << 4
    made[:, 2] = pairs[:, 1] & 0xFF
    data = made.tobytes()
    return data[:-1] if odd else data


# ---- CSV


@dataclass(frozen=True)
class _Table:
    """A CSV's cells, for the writer."""

    rows: list[list[str]]
    head: int
    """Rows before the first sample."""
    columns: tuple[int, ...]
    """Of the leads."""
    place: AnyArray
    """int64 (rows,): the sample that a row holds."""
    scale: tuple[float, ...]
    """mV of one unit of each lead's column."""
    delimiter: str
    comma: bool
    """Decimal comma."""
    newline: str


_TIME = re.compile(
    r"(elapsed[ _]?)?(time|times?tamp|t|zeit|temps|tiempo|tempo|date ?time|date|seconds?|secs?|s|ms|msecs?|"
    r"millis(econds)?|us|micros(econds)?)([ _]*[\[(/].*|_?(s|sec|ms|us|utc|stamp))?",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r".*(ecg|ekg|mlii|lead|volt|mv\b|uv\b|µv).*|i{1,3}|av[rlf]|v[1-9]|ch(annel)?[ _]?\d*", re.IGNORECASE
)
_NO_LEAD = re.compile(
    r"(index|idx|#|n|no\.?|nr|row|sample( ?(number|#|no))?|id|label|class|beat|annotation|marker|event|"
    r"quality|lead[_ -]?off|lo[+-])",
    re.IGNORECASE,
)
_UNIT_CELL = re.compile(r"\(?(mV|uV|µV|μV|V|s|sec|seconds|ms|(hh:)?mm:ss\S*)\)?", re.IGNORECASE)
_UNIT = re.compile(r"(?:^|[\s_\[(/])(mV|uV|µV|μV|V)\b[\])]?", re.IGNORECASE)


def _read_csv(path: Path) -> Ecg:
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the name") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    newline = "\r\n" if "\r\n" in text else "\n"
    start = "\n".join(text.splitlines()[:20])
    try:
        delimiter = csv.Sniffer().sniff(start, ",;\t|").delimiter
    except csv.Error:
        delimiter = next((one for one in ";\t,|" if one in start), ",")
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(c.strip() for c in row)]
    comma = delimiter != "," and re.search(r"\d,\d", start) is not None
    head = 0
    while head < len(rows) and head < 50 and not _numbers(rows[head], comma):
        head += 1
    body = rows[head:]
    if len(body) < 2:
        raise BadInput(f"{path}: holds no table of numbers; write rows of time and voltage, with a header")
    width = max(set(map(len, body[:100])), key=[len(row) for row in body[:100]].count)
    titles = _titles(rows[:head], width)
    time_column = _time_column(path, titles, body, width, comma)
    cells = [_cell(row, time_column) for row in body]
    at, units = _times_of(cells, titles[time_column], comma)
    place, rate_hz, unit = _places(path, at, units)
    total = int(place[-1]) + 1
    notes: list[str] = []
    if len(units) > 1 and unit != 1.0:
        word = "milliseconds" if unit == 1e-3 else "microseconds"
        notes.append(f"{path}: its times name no unit; taken as {word}, which makes {rate_hz} Hz")
    missing = np.ones(total, bool)
    missing[place] = False
    chosen = [n for n in range(width) if n != time_column and _LEAD.fullmatch(titles[n])]
    chosen = chosen or [n for n in range(width) if n != time_column and not _NO_LEAD.fullmatch(titles[n])]
    leads, columns, scales = [], [], []
    for column in chosen:
        cells = [_cell(row, column) for row in body]
        x = _floats(cells, comma)
        if np.isfinite(x).mean() < 0.02 and any(c.strip() and not _is_nan(c) for c in cells[:100]):
            continue  # words, not numbers
        name = titles[column] or "ECG"
        scale, guess = _unit_of(rows[:head], column, titles[column], x)
        if guess:
            notes.append(f"{path}: {name}: no unit is named; taken as {guess}")
        whole = np.full(total, np.nan)
        whole[place] = x * scale
        bad = ~np.isfinite(whole)
        if bad.any():
            notes.append(f"{path}: {name}: {_many(bad)} are missing or no numbers; treated as gaps")
        samples = np.where(bad, 0.0, whole).astype(np.float32)
        leads.append(Lead(name, samples, _spans(bad)))
        columns.append(column)
        scales.append(scale)
    if not leads:
        raise BadInput(f"{path}: beside the time there is no column of numbers; name one ecg or mV")
    form = _Table(rows, head, tuple(columns), place, tuple(scales), delimiter, comma, newline)
    return Ecg(leads, rate_hz, "CSV", notes, path, form)


def _cell(row: list[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _is_nan(cell: str) -> bool:
    return cell.strip().lower() in ("", "nan", "na", "n/a", "null", "none", "inf", "-inf", "-")


def _float(cell: str, comma: bool) -> float:
    try:
        return float(cell.replace(",", ".") if comma else cell)
    except ValueError:
        return float("nan")


def _floats(cells: Iterable[str], comma: bool) -> AnyArray:
    return np.array([_float(cell, comma) for cell in cells])


def _numbers(row: list[str], comma: bool) -> bool:
    """Whether a row can be one of samples: a number or a time in it, and nothing that is a title."""
    found = [np.isfinite(_float(cell, comma)) or _clock(cell) is not None for cell in row]
    return any(found) and all(
        good or _is_nan(cell) or n > 1 for n, (good, cell) in enumerate(zip(found, row, strict=True))
    )


def _titles(head: list[list[str]], width: int) -> list[str]:
    """The names of the columns: the last row before the numbers that is as wide and not merely units."""
    rows = [[cell.strip().strip("'\"").strip() for cell in row] for row in head if len(row) == width]
    if len(rows) > 1 and all(_is_nan(c) or _UNIT_CELL.fullmatch(c) for c in rows[-1]):
        rows.pop()
    return rows[-1] if rows else [""] * width


def _time_column(path: Path, titles: list[str], body: list[list[str]], width: int, comma: bool) -> int:
    named = [n for n, title in enumerate(titles) if _TIME.fullmatch(title)]
    if named:
        return named[0]
    if not any(titles):  # no header: the first column, when it rises evenly
        x = _floats((_cell(row, 0) for row in body[:1000]), comma)
        steps = np.diff(x)
        if width > 1 and np.isfinite(steps).all() and (steps > 0).all():
            return 0
    shown = ", ".join(title or f"column {n + 1}" for n, title in enumerate(titles))
    raise BadInput(f"{path}: no column of time among {shown}; name one time, t, s or ms")


def _clock(cell: str) -> float | None:
    """Seconds of [hh:]mm:ss[.fff] or of an ISO date and time; None for anything else."""
    text = cell.strip().strip("'\"[] ").replace("Z", "+00:00")
    if ":" not in text:
        return None
    found = re.fullmatch(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)", text)
    if found:
        return int(found[1] or 0) * 3600 + int(found[2]) * 60 + float(found[3].replace(",", "."))
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    return None


def _times_of(cells: list[str], title: str, comma: bool) -> tuple[AnyArray, tuple[float, ...]]:
    """Time of each row, and what its unit may be in seconds."""
    if any(":" in cell for cell in cells[:5]):
        found = [_clock(cell) for cell in cells]
        return np.array([np.nan if one is None else one for one in found]), (1.0,)
    for pattern, unit in (
        (r"(^|[\s_\[(/])(us|µs|micros\w*)\b", 1e-6),
        (r"(^|[\s_\[(/])(ms|msecs?|millis\w*)\b", 1e-3),
        (r"(^|[\s_\[(/])(s|secs?|seconds?)\b", 1.0),
    ):
        if re.search(pattern, title, re.IGNORECASE):
            return _floats(cells, comma), (unit,)
    return _floats(cells, comma), (1.0, 1e-3, 1e-6)


def _places(path: Path, at: AnyArray, units: tuple[float, ...]) -> tuple[AnyArray, int, float]:
    """The sample of each row, the rate, and the unit of time in seconds, from the times of the rows."""
    if not np.isfinite(at).all():
        row = int(np.argmin(np.isfinite(at))) + 1
        raise BadInput(f"{path}: the time of sample {row} is no number; write a time in every row")
    steps = np.diff(at)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 2
        raise BadInput(f"{path}: the time of sample {row} does not rise; sort the rows by time")
    usual = float(np.median(steps))
    # the mean of the usual steps: times are often rounded to a millisecond
    normal = steps[steps < 1.7 * usual + 1e-12]
    step = float(np.mean(normal))
    fitting = [u for u in units if LOWEST_RATE_HZ * 0.99 <= 1 / (step * u) <= HIGHEST_RATE_HZ * 1.01]
    unit = fitting[0] if fitting else units[0]
    rate_hz = _checked_rate(path, 1 / (step * unit))
    holes = np.where(steps >= 1.7 * usual + 1e-12, np.maximum(np.rint(steps / step).astype(np.int64), 1), 1)
    place = np.concatenate([[0], np.cumsum(holes)])
    if place[-1] > 100 * len(place):
        raise BadInput(f"{path}: its rows are seconds or hours apart in places; give one recording a file")
    return place, rate_hz, unit


def _unit_of(head: list[list[str]], column: int, title: str, x: AnyArray) -> tuple[float, str]:
    """mV of one unit of a column, and the unit that had to be guessed."""
    for text in [title, *(_cell(row, column).strip().strip("'\"") for row in head)]:
        found = _UNIT.search(text)
        if found:
            return _MV_OF[found[1].lower()], ""
    good = x[np.isfinite(x)]
    span = float(np.subtract(*np.percentile(good, [99.5, 0.5]))) if len(good) else 0.0
    return (1.0, "mV") if span <= 50 else (1e-3, "µV")


# ---- writing


def write_ecg(path: Path, leads: list[AnyArray], like: Ecg) -> Path:
    """Write other samples in the place of those of `like`: its kind, rate, length and names; whole or not at
    all. leads: float (n,) in mV each; gaps stay what they were.
    """
    if like.kind == "WFDB":
        return _write_record(path, leads, like)
    if like.kind == "CSV":
        return _write_csv(path, leads, like)
    sound: Sound = like.form
    x = np.asarray(leads[0], np.float32) / np.float32(FULL_SCALE_MV)
    if sound.floating:
        x = x.copy()
        for gap in like.leads[0].gaps:
            x[gap.start : gap.end] = np.nan
    return write_sound(path, x, like.rate_hz, like=sound)


def _write_record(path: Path, leads: list[AnyArray], like: Ecg) -> Path:
    form: _Record = like.form
    header = _header_of(path)
    name = header.stem
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise BadInput(f"{path}: a record's name holds letters, digits, _ and -; choose another")
    digital = form.digital.copy()
    for row, (signal, lead, x) in enumerate(zip(form.signals, like.leads, leads, strict=True)):
        if not lead.voltage:
            continue
        lowest = _INVALID[signal.fmt]
        scale = _MV_OF[signal.units.lower()] / signal.gain
        made = np.rint(np.asarray(x, np.float64) / scale).astype(np.int64) + signal.baseline
        made = np.clip(made, lowest + 1, -lowest - 1)
        for gap in lead.gaps:
            made[gap.start : gap.end] = form.digital[row, gap.start : gap.end]
        digital[row] = made
    first = [name, str(len(form.signals)), form.first[2] if len(form.first) > 2 else "250"]
    first += [str(digital.shape[1]), *form.first[4:]]
    lines = [" ".join(first)]
    files = list(dict.fromkeys(signal.file for signal in form.signals))
    named = {old: f"{name}{'' if n == 0 else f'_{n + 1}'}.dat" for n, old in enumerate(files)}
    for row, signal in enumerate(form.signals):
        fields = list(signal.rest)
        fields[:2] = [named[signal.file], str(signal.fmt)]
        if len(fields) > 6:
            # initial value and checksum: the sum of all samples, 16 bit, signed
            total = int(digital[row].sum()) & 0xFFFF
            fields[5] = str(int(digital[row, 0]))
            fields[6] = str(total - 0x10000 if total & 0x8000 else total)
        lines.append(" ".join(fields))
    for old in files:
        rows = [row for row, signal in enumerate(form.signals) if signal.file == old]
        fmt = form.signals[rows[0]].fmt
        with whole_file(header.with_name(named[old])) as temporary:
            if fmt in (508, 516, 524):
                _write_flac(temporary, digital[rows], fmt, like.rate_hz)
            else:
                temporary.write_bytes(_packed(digital[rows].T.reshape(-1), fmt))
    # the header last: a record that has one is whole
    with whole_file(header) as temporary:
        temporary.write_text("\n".join([*lines, *form.comments]) + "\n", "utf-8")
    return header


def _write_flac(path: Path, digital: AnyArray, fmt: int, rate_hz: int) -> None:
    module = soundfile()
    subtype, shift = {508: ("PCM_S8", 24), 516: ("PCM_16", 16), 524: ("PCM_24", 8)}[fmt]
    x = np.ascontiguousarray((digital.T << shift).astype(np.int32))
    try:
        module.write(path, x, rate_hz, subtype=subtype, format="FLAC")
    except module.LibsndfileError as error:
        raise StethopiError(f"{path}: cannot be written ({error})") from None


def _decimals(cells: Iterable[str], comma: bool) -> int:
    """Digits behind the point that a column has; more than it needs to show a microvolt do no harm."""
    most = 0
    for cell in cells:
        _, point, rest = cell.strip().partition("," if comma else ".")
        if point and rest.isdigit():
            most = max(most, len(rest))
    return most


def _write_csv(path: Path, leads: list[AnyArray], like: Ecg) -> Path:
    form: _Table = like.form
    rows = [list(row) for row in form.rows]
    body = rows[form.head :]
    for column, scale, lead, x in zip(form.columns, form.scale, like.leads, leads, strict=True):
        digits = _decimals((_cell(row, column) for row in body[:2000]), form.comma)
        digits = min(max(digits, 4 if scale == 1.0 else 1 if scale < 1 else 7), 9)
        known = np.ones(like.samples, bool)
        for gap in lead.gaps:
            known[gap.start : gap.end] = False
        values = np.asarray(x, np.float64) / scale
        for row, at in zip(body, form.place, strict=True):
            if known[at] and column < len(row):
                text = f"{values[at]:.{digits}f}"
                row[column] = text.replace(".", ",") if form.comma else text
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=form.delimiter, lineterminator=form.newline).writerows(rows)
    return path
