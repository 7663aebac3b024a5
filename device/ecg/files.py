"""ECG recordings on disk: one reader for the file source and `denoise --kind ecg`, and the writer that keeps
the kind.

    WFDB record    NAME or NAME.hea: header and signal files, formats 16, 24, 32, 61, 80, 160, 212, 508, 516,
                   524; every lead
    WAV, FLAC      one lead, ±1 of full scale is ±5 mV
    CSV            a column of time, or a rate, and one or more of voltage (device.ecg.table)
    EDF, EDF+      (device.ecg.edf)

Samples that are not known (no numbers, the format's code for "invalid", rows that are missing) become 0 and
are listed in `Lead.gaps`. The signal is millivolts throughout.

Source of the formats: "WFDB Applications Guide", header(5) and signal(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device.durable import whole_file
from device.ecg.edf import read_edf, write_edf
from device.ecg.recording import (
    FULL_SCALE_MV,
    HIGHEST_RATE_HZ,
    LOWEST_RATE_HZ,
    Ecg,
    Lead,
    checked_rate,
    is_other_signal,
    many,
    mv_of,
    spans,
)
from device.ecg.table import read_table, write_table
from device.errors import BadInput, StethopiError
from device.sources.files import Channel, Sound, read_sound, soundfile, write_sound
from device.text import decoded
from device.walk import Walk, is_folder, walk

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

_SOUND = (".wav", ".wave", ".flac")
_TABLE = (".csv", ".tsv", ".txt")
_WFDB = (".hea", ".dat")
_EDF = (".edf",)
_BESIDE = (".dat", ".atr", ".qrs", ".ann")
"""What lies beside headers of records."""


# ---- reading


def is_record(path: Path) -> bool:
    """Whether a name can only mean a WFDB record."""
    return path.suffix.lower() not in (*_SOUND, *_TABLE, *_EDF)


def find_ecgs(folder: Path) -> Walk:
    """The recordings below a folder: headers of WFDB records, WAV, FLAC, CSV and EDF. BadInput when there is
    none."""
    found = walk(folder, (".hea", ".csv", ".tsv", *_EDF, *_SOUND), beside=_BESIDE)
    if not found.files:
        why = "; ".join(found.unreadable) or found.left_out
        raise BadInput(
            f"{folder}: no WFDB record, WAV, FLAC, CSV or EDF in this folder; give one that holds ECGs"
            + (f" ({why})" if why else "")
        )
    return found


def read_ecg(path: Path | str, *, channel: Channel = 1, rate_hz: float | None = None) -> Ecg:
    """A recording by its name; a WFDB record with or without extension. `channel`: of a WAV or FLAC that has
    several (device.sources.files). `rate_hz`: of a table that has neither times nor a rate. BadInput, one
    line with the remedy, when there is no ECG to be had."""
    path = Path(path)
    suffix = path.suffix.lower()
    if is_folder(path):
        raise BadInput(f"{path}: is a folder; give a WFDB record, a WAV, FLAC, CSV or EDF file")
    if suffix in _SOUND:
        return _read_sound(path, channel)
    if suffix in _TABLE:
        return read_table(path, rate_hz)
    if suffix in _EDF:
        return read_edf(path)
    return _read_record(path)


def _read_sound(path: Path, channel: Channel) -> Ecg:
    sound = read_sound(path, (LOWEST_RATE_HZ, HIGHEST_RATE_HZ), channel)
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
    digital: np.ndarray
    """int64 (signals, samples): what is handed on as it is."""
    encoding: str = "utf-8"
    """Of the header."""


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
        raw = header.read_bytes()
    except FileNotFoundError:
        raise BadInput(
            f"{path}: no such record ({header} is not there); check the name, or give a WAV, FLAC or CSV file"
        ) from None
    except OSError as error:
        raise BadInput(f"{header}: cannot be read ({error.strerror}); check its permissions") from None
    lines = [line.strip() for line in decoded(raw).splitlines() if line.strip()]
    comments = tuple(line for line in lines if line.startswith("#"))
    lines = [line for line in lines if not line.startswith("#")]
    try:
        first = tuple(lines[0].split())
        name, count = first[0], int(first[1])
        if re.fullmatch(r".+/\d+", name) and not _has_signal_file(header, lines):
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
    rate_hz = checked_rate(header, rate)
    notes: list[str] = []
    digital = _signals(header, signals, samples, rate_hz, notes)
    leads = []
    for signal, x in zip(signals, digital, strict=True):
        bad = x == _INVALID[signal.fmt]
        unit = mv_of(signal.units)
        scale = (unit or 1.0) / signal.gain
        mv = np.where(bad, 0.0, (x - signal.baseline) * scale).astype(np.float32)
        rails = _rails(signal, x[~bad], scale)
        gaps = spans(bad)
        if gaps:
            notes.append(f"{header}: {signal.name}: {many(bad)} are not known; treated as gaps")
        if unit is not None and is_other_signal(signal.name):
            unit = None
            notes.append(f"{header}: {signal.name} is no ECG by its name; handed on as it is")
        elif unit is None:
            notes.append(f"{header}: {signal.name} is in {signal.units}, no voltage; handed on as it is")
        leads.append(Lead(signal.name, mv, gaps, rails, abs(scale), unit is not None))
    if not any(lead.voltage for lead in leads):
        raise BadInput(f"{header}: none of its signals is a voltage of an ECG; give a record with one")
    form = _Record(name, first, signals, comments, digital, _encoding(raw))
    return Ecg(leads, rate_hz, "WFDB", notes, header, form)


def _encoding(raw: bytes) -> str:
    """To write a header in as it was: a µ of one byte stays one."""
    try:
        raw.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        return "latin-1"


def _has_signal_file(header: Path, lines: list[str]) -> bool:
    """Whether NAME/DIGITS is a name with a folder in it: a record of segments names no signal file."""
    return len(lines) > 1 and _placed(header, lines[1].split()[0]).is_file()


def _rails(signal: _Signal, x: np.ndarray, scale: float) -> tuple[float, float] | None:
    """The ends of the recorder's range in mV, by the header's resolution and zero; None where the samples
    (n,) lie beyond them: then the header is wrong about it."""
    if not signal.bits or not len(x):
        return None
    half = 1 << (signal.bits - 1)
    low, high = signal.zero - half, signal.zero + half - 1
    if x.min() < low or x.max() > high:
        return None
    ends = ((low - signal.baseline) * scale, (high - signal.baseline) * scale)
    return min(ends), max(ends)


def _placed(header: Path, name: str) -> Path:
    """Where a signal file lies: beside the header, whatever folder its name has; else in that folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).name:
        raise BadInput(f"{header}: names {name!r}, which is no plain file name; correct the header")
    plain = header.with_name(Path(name).name)
    return plain if plain.exists() else header.parent / name


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
) -> np.ndarray:
    """int64 (signals, samples) out of the signal files."""
    columns: dict[str, np.ndarray] = {}
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


def _signal_file(header: Path, signal: _Signal, width: int) -> np.ndarray:
    """int64 (width, n) of one signal file, whose signals take turns."""
    path = _placed(header, signal.file)
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


def _unpacked(raw: np.ndarray, fmt: int) -> np.ndarray:
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


def _flac(path: Path, header: Path, fmt: int) -> np.ndarray:
    if not path.is_file():
        raise BadInput(f"{header}: names {path.name}, which is not there; copy it there")
    module = soundfile()
    try:
        x, _ = module.read(path, dtype="int32", always_2d=True)
    except module.LibsndfileError as error:
        raise BadInput(f"{path}: is no FLAC file, though {header.name} says so ({error})") from None
    return np.ascontiguousarray((x.astype(np.int64) >> {508: 24, 516: 16, 524: 8}[fmt]).T)


def _packed(x: np.ndarray, fmt: int) -> bytes:
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


# ---- writing


def write_ecg(path: Path, leads: list[np.ndarray], like: Ecg) -> Path:
    """Write other samples in the place of those of `like`: its kind, rate, length and names; whole or not at
    all. leads: float (n,) in mV each; gaps stay what they were."""
    if like.kind == "WFDB":
        return _write_record(path, leads, like)
    if like.kind == "CSV":
        return write_table(path, leads, like)
    if like.kind == "EDF":
        return write_edf(path, leads, like)
    sound: Sound = like.form
    x = np.asarray(leads[0], np.float32) / np.float32(FULL_SCALE_MV)
    if sound.floating:
        x = x.copy()
        for gap in like.leads[0].gaps:
            x[gap.start : gap.end] = np.nan
    return write_sound(path, x, like.rate_hz, like=sound)


def _write_record(path: Path, leads: list[np.ndarray], like: Ecg) -> Path:
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
        scale = (mv_of(signal.units) or 1.0) / signal.gain
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
        temporary.write_text("\n".join([*lines, *form.comments]) + "\n", form.encoding, "replace")
    return header


def _write_flac(path: Path, digital: np.ndarray, fmt: int, rate_hz: int) -> None:
    module = soundfile()
    subtype, shift = {508: ("PCM_S8", 24), 516: ("PCM_16", 16), 524: ("PCM_24", 8)}[fmt]
    x = np.ascontiguousarray((digital.T << shift).astype(np.int32))
    try:
        module.write(path, x, rate_hz, subtype=subtype, format="FLAC")
    except module.LibsndfileError as error:
        raise StethopiError(f"{path}: cannot be written ({error})") from None
