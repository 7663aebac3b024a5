"""An ECG in a table: CSV, TSV, TXT as loggers, watches and spreadsheets write them.

Delimiter, decimal comma, head, units and what each column is are found out. When each row was taken comes
from a column of time (numbers in any unit, or time of day, which may pass midnight or a change of clocks, the
same in every time zone), else from a column of sample numbers and a rate: the head's, or `--rate`. Rows that
share a time are spread over the batch. Rows that are no samples (a footer, a cut end, `!` while an electrode
is off) are gaps or left out, and said.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from device.arrays import Indices, Reals, Samples
from device.durable import whole_file
from device.ecg.recording import (
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
from device.errors import BadInput
from device.text import decoded

__all__ = ["read_table", "write_table"]


@dataclass(frozen=True)
class _Table:
    """A table's cells, for the writer."""

    rows: list[list[str]]
    lines: Indices
    """int64 (samples there,): the row of each."""
    columns: tuple[int, ...]
    """Of the leads."""
    place: Indices
    """int64 (samples there,): the sample that a row holds."""
    scale: tuple[float, ...]
    """mV of one unit of each lead's column."""
    delimiter: str
    comma: bool
    newline: str


_MOST_HEAD = 200
"""Rows before the first sample."""

_TIME = re.compile(
    r"(elapsed[ _]?)?(time|times?tamp|t|zeit|temps|tiempo|tempo|date ?time|date|seconds?|secs?|s|ms|msecs?|"
    r"millis(econds)?|us|micros(econds)?)([ _]*[\[(/].*|_?(s|sec|ms|us|utc|stamp))?",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r".*(ecg|ekg|mlii|lead|volt|mv\b|uv\b|µv).*|i{1,3}|av[rlf]|v[1-9]|ch(annel)?[ _]?\d*", re.IGNORECASE
)
_NUMBER = re.compile(r"(index|idx|#|n|no\.?|nr|row|sample( ?(number|#|no\.?|index))?)", re.IGNORECASE)
_NO_LEAD = re.compile(
    r"(id|label|class|beat|annotation|marker|event|quality|lead[_ -]?off|lo[+-])", re.IGNORECASE
)
_UNIT_CELL = re.compile(r"\(?(mV|uV|µV|μV|V|s|sec|seconds|ms|(hh:)?mm:ss\S*)\)?", re.IGNORECASE)
_UNIT = re.compile(r"(?:^|[\s_\[(/])(nV|mV|uV|µV|μV|V|(?:micro|milli)?volts?)\b[\])]?", re.IGNORECASE)
_UNIT_TITLE = re.compile(r"(units?|einheit|unité|unidad)\b.*", re.IGNORECASE)
_RATE_TITLE = re.compile(
    r".*(sampl\w*[ _-]*(rate|freq\w*)|abtast\w*|fréquence|frecuencia|frequency|\bfs\b|\brate\b).*",
    re.IGNORECASE,
)
_HERTZ = re.compile(r"(\d+(?:[.,]\d+)?)\s*(k?hz|k?hertz|sps|samples?\s*(?:/|per)\s*s\w*)\b", re.IGNORECASE)
_BARE = re.compile(r"(?:^|[\s:=])(\d+(?:[.,]\d+)?)\s*$")


# ---- cells


def _rows_of(path: Path, notes: list[str]) -> tuple[list[list[str]], str, str, bool]:
    """Rows that are not empty, delimiter, line end, and whether the last line was ended."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the name") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    text = decoded(raw)
    zeros = text.count("\0")
    if zeros:
        # what a logger leaves that lost its power: the row before them is cut
        text = re.sub("\0+", "\n\n", text)
        notes.append(f"{path}: holds {zeros} zero bytes, as after a loss of power; they are left out")
    newline = "\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n"
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line.strip()]
    ended = text.endswith("\n") and not zeros
    start = "\n".join(lines[:20])
    try:
        delimiter = csv.Sniffer().sniff(start, ",;\t|").delimiter
    except csv.Error:
        delimiter = next((one for one in ";\t,|" if one in start), ",")
    open_quotes = [n for n, line in enumerate(lines) if line.count('"') % 2]
    for n in open_quotes:
        lines[n] = lines[n].replace('"', "")
    if open_quotes:
        notes.append(f"{path}: {_rows(len(open_quotes))} with a quote that is never closed; read without it")
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(c.strip() for c in row)]
    except csv.Error as error:
        raise BadInput(f"{path}: is no table that can be read ({error}); export it again as CSV") from None
    return rows, delimiter, newline, ended


def _rows(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"


def _cell(row: list[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _is_nan(cell: str) -> bool:
    # AD8232 sketches print "!" while an electrode is off
    return cell.strip().lower() in ("", "nan", "na", "n/a", "null", "none", "inf", "-inf", "-", "!")


def _float(cell: str, comma: bool) -> float:
    try:
        return float(cell.replace(",", ".") if comma else cell)
    except ValueError:
        return float("nan")


def _floats(cells: Iterable[str], comma: bool) -> Reals:
    return np.array([_float(cell, comma) for cell in cells])


def _numbers(row: list[str], comma: bool) -> bool:
    """Whether a row can be one of samples: a number or a time in it, and nothing that is a title."""
    found = [np.isfinite(_float(cell, comma)) or _clock(cell) is not None for cell in row]
    return any(found) and all(
        good or _is_nan(cell) or n > 1 for n, (good, cell) in enumerate(zip(found, row, strict=True))
    )


def _bare(cell: str) -> str:
    return cell.strip().strip("'\"").strip()


def _titles(head: list[list[str]], width: int) -> list[str]:
    """The names of the columns: the last row before the numbers that is as wide and not merely units."""
    rows = [[_bare(cell) for cell in row] for row in head if len(row) == width]
    if len(rows) > 1 and all(_is_nan(c) or _UNIT_CELL.fullmatch(c) for c in rows[-1]):
        rows.pop()
    return rows[-1] if rows else [""] * width


# ---- times


def _time_column(titles: list[str], body: list[list[str]], width: int, comma: bool, rate: bool) -> int | None:
    """The column of time; None where there is none. `rate`: one is known, and bare counting is no time."""
    named = [n for n, title in enumerate(titles) if _TIME.fullmatch(title)]
    if named:
        return named[0]
    if any(titles):
        return None
    # no header: the first column, when it rises evenly
    x = _floats((_cell(row, 0) for row in body[:1000]), comma)
    x = x[np.isfinite(x)]
    steps = np.diff(x)
    if width < 2 or len(steps) < 1 or not (steps > 0).all() or (rate and (steps == 1).all()):
        return None
    return 0


_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)\s*([ap]m)?", re.IGNORECASE)


def _clock(cell: str) -> float | None:
    """Seconds of [hh:]mm:ss[.fff], alone or with a date beside it, or of an ISO date and time; None for
    anything else. A time that names no zone is the same number everywhere.
    """
    text = cell.strip().strip("'\"[] ").replace("Z", "+00:00")
    if ":" not in text:
        return None
    with_date = None
    try:
        with_date = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        pass
    if with_date is not None:
        zoned = with_date if with_date.tzinfo else with_date.replace(tzinfo=UTC)
        return zoned.timestamp()
    found = _CLOCK.search(text)
    if not found or re.search(r"[^\W\d_]{4,}", text):
        return None
    hours = int(found[1] or 0)
    if found[4]:
        hours = hours % 12 + 12 * (found[4].lower() == "pm")
    return hours * 3600 + int(found[2]) * 60 + float(found[3].replace(",", "."))


def _times_of(cells: list[str], title: str, comma: bool) -> tuple[Reals, tuple[float, ...]]:
    """Time of each row, and what its unit may be in seconds. Not a number where a row has none."""
    if any(":" in cell for cell in cells[:5]):
        found = [_clock(cell) for cell in cells]
        return np.array([np.nan if one is None else one for one in found]), (1.0,)
    for pattern, unit in (
        (r"(^|[\s_\[(/])(us|µs|μs|micros\w*)\b", 1e-6),
        (r"(^|[\s_\[(/])(ms|msecs?|millis\w*)\b", 1e-3),
        (r"(^|[\s_\[(/])(s|secs?|seconds?)\b", 1.0),
    ):
        if re.search(pattern, title, re.IGNORECASE):
            return _floats(cells, comma), (unit,)
    return _floats(cells, comma), (1.0, 1e-3, 1e-6)


_FEW = 0.05
"""Share of rows up to which those that are odd are left out; more of them mean something."""

_DAY_S, _HOUR_S = 86400.0, 3600.0
_WRAPS = (2.0**32, 2.0**16)
"""Where counters of milliseconds and microseconds begin again."""


def _carried(path: Path, at: Reals, clock: bool, notes: list[str]) -> Reals:
    """Times that rise: the day carried over midnight, the hour over a change of clocks or a full hour of
    mm:ss, a counter over its end.
    """
    steps = np.diff(at)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    jumps = (steps < 0) | ((np.abs(steps - _HOUR_S) <= 1.0) if clock else False)
    if not usual or not jumps.any() or jumps.sum() > 10:
        return at
    patience = max(100 * usual, 2.0 if clock else 0.0)
    for n in np.flatnonzero(jumps):
        turns = (
            ((_DAY_S, "midnight"), (_HOUR_S, "a full hour"))
            if clock
            else tuple((w, "the end of its counter") for w in _WRAPS)
        )
        for turn, what in turns:
            if 0 <= steps[n] + turn <= patience:
                notes.append(f"{path}: its times pass {what}; carried")
                steps[n] += turn
                break
        else:
            if clock and 0 <= steps[n] - _HOUR_S <= 1.0:
                notes.append(f"{path}: its clock was put forward by an hour; carried")
                steps[n] -= _HOUR_S
    return np.concatenate([at[:1], at[0] + np.cumsum(steps)])


def _places(path: Path, at: Reals, units: tuple[float, ...], notes: list[str]) -> tuple[Indices, int, float]:
    """The sample of each row, the rate, and the unit of time in seconds, from the times of the rows.

    Rows that share a time are a batch, spread to the next one's.
    """
    if (np.diff(at) < 0).any():
        row = int(np.argmax(np.diff(at) < 0)) + 2
        raise BadInput(f"{path}: the time of sample {row} does not rise; sort the rows by time")
    first = np.flatnonzero(np.concatenate([[True], np.diff(at) > 0]))
    size = np.diff(np.concatenate([first, [len(at)]]))
    if len(first) < 2:
        raise BadInput(f"{path}: all its samples share one time; give --rate HZ, and no column of time")
    batches = bool(len(size) < len(at))
    taken, count = np.diff(at[first]), size[:-1]
    each = taken / count
    usual = float(np.median(each))
    # the mean of the usual steps: times are often rounded to a millisecond
    normal = each < 1.7 * usual + 1e-12
    if batches and len(each) > 2:
        normal[0] = False  # a first batch may have begun before the file
    step = float(taken[normal].sum() / count[normal].sum())
    fitting = [u for u in units if LOWEST_RATE_HZ * 0.99 <= 1 / (step * u) <= HIGHEST_RATE_HZ * 1.01]
    unit = fitting[0] if fitting else units[0]
    rate_hz = checked_rate(path, 1 / (step * unit))
    steps = np.ones(len(at) - 1, np.int64)
    wide = each >= 1.7 * usual + 1e-12
    if batches:
        wide[0] = False
        notes.append(
            f"{path}: up to {int(size.max())} rows share a time; they are spread over the time to the next"
        )
    holes = np.maximum(np.rint(taken / step).astype(np.int64) - count + 1, 1)
    steps[first[1:][wide] - 1] = holes[wide]
    place = np.concatenate([[0], np.cumsum(steps)])
    if place[-1] > 100 * len(place):
        raise BadInput(f"{path}: its rows are seconds or hours apart in places; give one recording a file")
    return place, rate_hz, unit


def _rate_of(head: list[list[str]]) -> float | None:
    """The rate that the rows before the samples name, in Hz."""
    for row in head:
        text = " ".join(map(_bare, row))
        hertz = _HERTZ.search(text)
        bare = _BARE.search(text) if _RATE_TITLE.fullmatch(_bare(row[0])) else None
        found = hertz or bare
        if found:
            rate = float(found[1].replace(",", "."))
            return rate * 1e3 if hertz and hertz[2].lower().startswith("k") else rate
    return None


# ---- reading


def read_table(path: Path, rate_hz: float | None = None) -> Ecg:
    """rate_hz: where there are no times and the head names no rate. BadInput, one line."""
    notes: list[str] = []
    rows, delimiter, newline, ended = _rows_of(path, notes)
    start = "\n".join(delimiter.join(row) for row in rows[:20])
    comma = delimiter != "," and re.search(r"\d,\d", start) is not None
    head = 0
    while head < min(len(rows), _MOST_HEAD) and not _numbers(rows[head], comma):
        head += 1
    body = rows[head:]
    if len(body) < 2:
        raise BadInput(f"{path}: holds no table of numbers; write rows of time and voltage, with a header")
    width = max(set(map(len, body[:100])), key=[len(row) for row in body[:100]].count)
    titles = _titles(rows[:head], width)
    known_hz = _rate_of(rows[:head]) or rate_hz
    column = _time_column(titles, body, width, comma, rate_hz is not None)
    if column is None:
        lines, place, rate, numbered = _counted(path, titles, body, comma, known_hz, notes)
    else:
        lines, place, rate = _timed(path, titles, body, column, comma, ended, notes)
        numbered = None
        if rate_hz is not None and round(rate_hz) != rate:
            notes.append(f"{path}: its times say {rate} Hz; --rate is for tables without times")
    apart = {column, numbered}
    chosen = [n for n in range(width) if n not in apart and _LEAD.fullmatch(titles[n])]
    chosen = chosen or [n for n in range(width) if n not in apart]
    chosen = [
        n
        for n in chosen
        if not (_NO_LEAD.fullmatch(titles[n]) or _NUMBER.fullmatch(titles[n]) or is_other_signal(titles[n]))
    ]
    total = int(place[-1]) + 1
    leads, columns, scales = [], [], []
    for n in chosen:
        cells = [_cell(body[line], n) for line in lines]
        x = _floats(cells, comma)
        if np.isfinite(x).mean() < 0.02 and any(c.strip() and not _is_nan(c) for c in cells[:100]):
            continue  # words, not numbers
        name = titles[n] or "ECG"
        scale, guess = _unit_of(rows[:head], n, titles[n], x)
        if guess:
            notes.append(f"{path}: {name}: no unit is named; taken as {guess}")
        whole = np.full(total, np.nan)
        whole[place] = x * scale
        bad = ~np.isfinite(whole)
        if bad.any():
            notes.append(f"{path}: {name}: {many(bad)} are missing or no numbers; treated as gaps")
        leads.append(Lead(name, np.where(bad, 0.0, whole).astype(np.float32), spans(bad)))
        columns.append(n)
        scales.append(scale)
    if not leads:
        raise BadInput(f"{path}: beside the time there is no column of numbers; name one ecg or mV")
    form = _Table(rows, lines + head, tuple(columns), place, tuple(scales), delimiter, comma, newline)
    return Ecg(leads, rate, "CSV", list(dict.fromkeys(notes)), path, form)


def _timed(
    path: Path,
    titles: list[str],
    body: list[list[str]],
    column: int,
    comma: bool,
    ended: bool,
    notes: list[str],
) -> tuple[Indices, Indices, int]:
    """The rows that are samples, the sample of each, and the rate, by the column of time."""
    lines = np.arange(len(body))
    if not ended and len(body) > 3 and _is_cut(body, comma):
        notes.append(f"{path}: its last row is cut off; it is left out")
        lines = lines[:-1]
    cells = [_cell(body[line], column) for line in lines]
    at, units = _times_of(cells, titles[column], comma)
    timed = np.isfinite(at)
    off = ~timed & np.array([all(_is_nan(cell) for cell in body[line]) for line in lines])
    if not timed.any() or (~timed & ~off).mean() > _FEW:
        row = int(np.argmin(timed | off)) + 1
        raise BadInput(f"{path}: the time of sample {row} is no number; write a time in every row")
    odd = int((~timed & ~off).sum())
    if odd:
        where = " at its end" if not timed[-1] and not (~timed & ~off)[: len(timed) - odd].any() else ""
        notes.append(f"{path}: {_rows(odd)}{where} without a time; no samples, left out")
    if off.any():
        notes.append(f"{path}: {_rows(int(off.sum()))} without a time or a number; a gap where time goes on")
    lines, at = lines[timed], at[timed]
    if len(at) < 2:
        raise BadInput(f"{path}: holds no table of numbers; write rows of time and voltage, with a header")
    clock = any(":" in cell for cell in cells[:5])
    at = _carried(path, at, clock, notes)
    again = np.concatenate([[False], np.diff(at) == 0])
    if 0 < again.mean() <= _FEW:
        notes.append(f"{path}: {_rows(int(again.sum()))} with the time of the one before; left out")
        lines, at = lines[~again], at[~again]
    place, rate_hz, unit = _places(path, at, units, notes)
    if len(units) > 1 and unit != 1.0:
        word = "milliseconds" if unit == 1e-3 else "microseconds"
        notes.append(f"{path}: its times name no unit; taken as {word}, which makes {rate_hz} Hz")
    return lines, place, rate_hz


def _is_cut(body: list[list[str]], comma: bool) -> bool:
    """Whether the last row, whose line has no end, ends early: fewer cells, or fewer decimals than all
    before it have.
    """
    *before, last = body[-50:]
    if len(last) < min(map(len, before)):
        return True
    point = "," if comma else "."
    for n, cell in enumerate(last):
        usual = {len(_cell(row, n).partition(point)[2]) for row in before if not _is_nan(_cell(row, n))}
        if len(usual) == 1 and len(cell.partition(point)[2]) < usual.pop():
            return True
    return False


def _counted(
    path: Path,
    titles: list[str],
    body: list[list[str]],
    comma: bool,
    rate_hz: float | None,
    notes: list[str],
) -> tuple[Indices, Indices, int, int | None]:
    """As `_timed`, for rows one sample apart: the rate is known. And the column that counts them."""
    if rate_hz is None:
        shown = ", ".join(title or f"column {n + 1}" for n, title in enumerate(titles))
        raise BadInput(
            f"{path}: no column of time among {shown}; name one time, t, s or ms, or give --rate HZ"
        )
    rate = checked_rate(path, rate_hz)
    notes.append(f"{path}: has no times; its rows are taken as {rate} a second")
    sampled = np.array([_numbers(row, comma) or all(_is_nan(cell) for cell in row) for row in body])
    if not sampled.all():
        notes.append(f"{path}: {_rows(int((~sampled).sum()))} that are no samples are left out")
    lines = np.flatnonzero(sampled)
    counting = next((n for n, title in enumerate(titles) if _NUMBER.fullmatch(title)), None)
    if counting is None and not any(titles) and len(titles) > 1:
        x = _floats((_cell(body[line], 0) for line in lines), comma)
        counting = 0 if len(x) > 2 and (np.diff(x) == 1).all() else None
    place = np.arange(len(lines))
    if counting is not None:
        x = _floats((_cell(body[line], counting) for line in lines), comma)
        if np.isfinite(x).all() and (np.diff(x) >= 1).all() and x[-1] - x[0] < 2 * len(x):
            place = np.rint(x - x[0]).astype(np.int64)
    return lines, place, rate, counting


def _unit_of(head: list[list[str]], column: int, title: str, x: Reals) -> tuple[float, str]:
    """mV of one unit of a column, and the unit that had to be guessed."""
    texts = [title, *(_bare(_cell(row, column)) for row in head)]
    texts += [_bare(row[1]) for row in head if len(row) > 1 and _UNIT_TITLE.fullmatch(_bare(row[0]))]
    for text in texts:
        found = _UNIT.search(text)
        if found:
            return mv_of(found[1]) or 1.0, ""
    good = x[np.isfinite(x)]
    span = float(np.subtract(*np.percentile(good, [99.5, 0.5]))) if len(good) else 0.0
    return (1.0, "mV") if span <= 50 else (1e-3, "µV")


# ---- writing


def _decimals(cells: Iterable[str], comma: bool) -> int:
    """Digits behind the point that a column has; more than it needs to show a microvolt do no harm."""
    most = 0
    for cell in cells:
        _, point, rest = cell.strip().partition("," if comma else ".")
        if point and rest.isdigit():
            most = max(most, len(rest))
    return most


def write_table(path: Path, leads: list[Samples], like: Ecg) -> Path:
    """Other samples, float (n,) in mV each, in the place of those of `like`; whole or not at all."""
    form: _Table = like.form
    rows = [list(row) for row in form.rows]
    body = [rows[line] for line in form.lines]
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
