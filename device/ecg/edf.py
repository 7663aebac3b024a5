"""An ECG in EDF or EDF+ (B. Kemp et al., "A simple format for exchange of digitized polygraphic recordings",
1992; EDF+, 2003), read through edfio.

A file may hold anything; the leads are its voltages of one rate that are no brain, eye or muscle. Everything
else, head and annotations among it, is handed on byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device.arrays import Indices, Reals, Samples
from device.durable import whole_file
from device.ecg.recording import Ecg, Lead, checked_rate, is_other_signal, many, mv_of, spans
from device.errors import BadInput, StethopiError

__all__ = ["read_edf", "write_edf"]

_ECG = re.compile(r"ecg|ekg|lead|^(i{1,3}|av[rlf]|v\d|mlii)\b", re.IGNORECASE)
_ANNOTATIONS = "EDF Annotations"


@dataclass(frozen=True)
class _Edf:
    """What the writer needs."""

    raw: bytes
    """The file, its count of records put right."""
    head: int
    """Bytes before the first record."""
    per_record: list[int]
    """Samples of each signal in a record, annotations among them."""
    signals: tuple[int, ...]
    """Of the leads, among them."""
    ranges: tuple[tuple[float, float, float, float], ...]
    """Digital and physical minimum and maximum of the leads, mV."""
    place: Indices
    """int64: the sample that each one in the file is."""


def _edfio() -> Any:
    try:
        import edfio
    except ImportError as error:
        raise StethopiError(f"EDF needs edfio ({error}); run: pip install edfio") from None
    return edfio


def _weighed(path: Path, notes: list[str]) -> tuple[bytes, int, list[int], int, float]:
    """The file with as many records as are there, the size of its head, the samples of each signal in a
    record, how many records, and their length in s.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the name") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    try:
        if raw[:8].strip() != b"0":
            raise ValueError("it begins with another version")
        signals = int(raw[252:256])
        head = 256 * (signals + 1)
        stated, record_s = int(raw[236:244]), float(raw[244:252])
        sizes = [int(raw[256 + 216 * signals + 8 * n : 264 + 216 * signals + 8 * n]) for n in range(signals)]
        record_bytes = 2 * sum(sizes)
        if record_bytes <= 0 or signals < 1 or len(raw) < head or record_s <= 0:
            raise ValueError("it has no signals")
    except ValueError as error:
        raise BadInput(f"{path}: is no EDF, or its head is damaged ({error}); copy it again") from None
    there = (len(raw) - head) // record_bytes
    if not there:
        raise BadInput(f"{path}: holds a head but no signal; record or copy it again")
    if stated <= 0:
        notes.append(
            f"{path}: its head was never finished; all {there * record_s:g} s that follow it are used"
        )
    elif stated > there:
        notes.append(
            f"{path}: is truncated: {there * record_s:g} s of the promised {stated * record_s:g} s are there "
            f"and are used"
        )
    elif stated < there:
        notes.append(
            f"{path}: its head states {stated * record_s:g} s, but {there * record_s:g} s follow it; "
            f"all are used"
        )
    right = raw[:236] + f"{there:<8d}".encode("ascii") + raw[244 : head + there * record_bytes]
    return right, head, sizes, there, record_s


def _onsets(raw: bytes, head: int, sizes: list[int], labels: list[str], records: int) -> Reals | None:
    """When each record of a discontinuous file begins, s: float64 (records,); None where it does not say."""
    if _ANNOTATIONS not in labels:
        return None
    before = 2 * sum(sizes[: labels.index(_ANNOTATIONS)])
    found = []
    for n in range(records):
        at = head + 2 * sum(sizes) * n + before
        onset = re.match(rb"([+-]\d+(?:\.\d*)?)\x14", raw[at : at + 32])
        if not onset:
            return None
        found.append(float(onset[1]))
    onsets = np.array(found)
    return onsets - onsets[0] if (np.diff(onsets) > 0).all() else None


def read_edf(path: Path) -> Ecg:
    """BadInput, one line with the remedy, when there is no ECG to be had."""
    edfio = _edfio()
    notes: list[str] = []
    raw, head, sizes, records, record_s = _weighed(path, notes)
    labels = [raw[256 + 16 * n : 272 + 16 * n].decode("latin-1").strip() for n in range(len(sizes))]
    try:
        file = edfio.read_edf(raw, header_encoding="latin-1")
        signals = list(file.signals)
    except Exception as error:
        raise BadInput(f"{path}: is no EDF that can be read ({error}); copy or export it again") from None
    numbers = [n for n, label in enumerate(labels) if label != _ANNOTATIONS]
    volts = [
        (n, signal)
        for n, signal in zip(numbers, signals, strict=True)
        if mv_of(signal.physical_dimension) is not None and not is_other_signal(signal.label)
    ]
    named = [pair for pair in volts if _ECG.search(pair[1].label)]
    chosen = named or volts
    if not chosen:
        shown = ", ".join(label for label in labels if label != _ANNOTATIONS)
        raise BadInput(f"{path}: no ECG among its signals ({shown}); give a file with one")
    size = sizes[chosen[0][0]]
    chosen = [pair for pair in chosen if sizes[pair[0]] == size]
    left = [s.label for s in signals if s.label not in [c.label for _, c in chosen]]
    if left:
        notes.append(f"{path}: {', '.join(left)}: handed on as {'it is' if len(left) == 1 else 'they are'}")
    rate_hz = checked_rate(path, size / record_s)
    place = np.arange(records * size)
    if raw[192:197] == b"EDF+D":
        onsets = _onsets(raw, head, sizes, labels, records)
        if onsets is not None:
            starts = np.rint(onsets * rate_hz).astype(np.int64)
            if starts[-1] > 100 * records * size:
                raise BadInput(f"{path}: its parts lie hours apart; give one recording a file")
            starts = np.maximum(starts, np.arange(records) * size)
            place = (starts[:, None] + np.arange(size)).reshape(-1)
    leads, ranges = [], []
    missing = np.ones(int(place[-1]) + 1, bool)
    missing[place] = False
    for _, signal in chosen:
        unit = mv_of(signal.physical_dimension) or 1.0
        low, high = signal.physical_min * unit, signal.physical_max * unit
        digital = (float(signal.digital_min), float(signal.digital_max))
        x = np.zeros(len(missing), np.float32)
        x[place] = np.asarray(signal.data, np.float64) * unit
        step_mv = abs(high - low) / (digital[1] - digital[0])
        rails = (min(low, high), max(low, high))
        leads.append(Lead(signal.label or "ECG", x, spans(missing), rails, step_mv))
        ranges.append((*digital, low, high))
    if missing.any():
        notes.append(f"{path}: {many(missing)} are missing between its parts; treated as gaps")
    form = _Edf(raw, head, sizes, tuple(n for n, _ in chosen), tuple(ranges), place)
    return Ecg(leads, rate_hz, "EDF", notes, path, form)


def write_edf(path: Path, leads: list[Samples], like: Ecg) -> Path:
    """Other samples, float (n,) in mV each, in the place of those of `like`; whole or not at all."""
    form: _Edf = like.form
    records = np.frombuffer(form.raw, "<i2", offset=form.head).reshape(-1, sum(form.per_record)).copy()
    for number, (dmin, dmax, low, high), x in zip(form.signals, form.ranges, leads, strict=True):
        begin = sum(form.per_record[:number])
        size = form.per_record[number]
        share = (np.asarray(x, np.float64)[form.place] - low) / (high - low)
        made = np.clip(np.rint(share * (dmax - dmin) + dmin), dmin, dmax)
        records[:, begin : begin + size] = made.reshape(-1, size).astype("<i2")
    with whole_file(path) as temporary:
        temporary.write_bytes(form.raw[: form.head] + records.tobytes())
    return path
