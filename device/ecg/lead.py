"""Is the ECG's lead on, and which of its samples may be believed.

What may not is a gap with a word for it: the amplifier says that an electrode is off, the converter sticks
at the end of its range, the line is flat, the sample is no number or never came. Nothing is put in its
place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from device.arrays import Flags, Samples
from device.errors import BadInput

__all__ = [
    "FLAT_S",
    "LONGEST_DOUBT_S",
    "SHORTEST_ECG_S",
    "STUCK_S",
    "Mark",
    "Watch",
    "believed",
    "not_cleaned",
]

OFF, FLAT, NO_NUMBER, LOST = "lead off", "flat line", "no numbers", "samples lost"

STUCK_S = 0.2
"""So long at the end of the range is no high beat: an electrode is off."""

FLAT_S = 1.0
"""So long without any change is no heart and no electrode: each adds noise of a step or more."""

SETTLE_S = 0.2
"""After an electrode is on again, the amplifier returns from the end of its range."""

LONGEST_DOUBT_S = FLAT_S + 0.1
"""A sample this old is either marked or believed."""

SHORTEST_ECG_S = 2.0
"""Less of it that can be believed is no ECG."""

_SAME_MV = 1e-6

UNSETTLED_S = 0.3
"""After a stretch that it did not hear, what a denoiser gives is its own for so long."""

_NOTICED_S = 0.1
"""A shorter one it bridges."""


class Mark(NamedTuple):
    """Samples [start, end) that may not be believed, and why."""

    start: int
    end: int
    why: str


class _Run:
    """A condition that counts once it has held for some time."""

    def __init__(self, samples: int, why: str) -> None:
        self._least = max(samples, 1)
        self._why = why
        self._since: int | None = None

    def feed(self, held: Flags, index: int) -> list[Mark]:
        """bool (n,), of samples from `index` on; the runs that are long enough, from their beginning."""
        edges = np.flatnonzero(np.diff(np.concatenate([[self._since is not None], held])))
        marks = []
        start = self._since
        for edge in edges.tolist():
            if start is None:
                start = index + edge
            else:
                marks.append((start, index + edge))
                start = None
        self._since = start
        if start is not None:
            marks.append((start, index + len(held)))
        return [Mark(a, b, self._why) for a, b in marks if b - a >= self._least]

    def forget(self) -> None:
        self._since = None


class Watch:
    """Looks at one lead as it comes.

    rails_mv: the ends of the converter's range; None where it is not known.
    """

    def __init__(self, rate_hz: int, rails_mv: tuple[float, float] | None = None) -> None:
        self.state = "unknown"
        """on, or the reason why the newest samples are not believed; unknown before the first."""
        self._rails = rails_mv
        self._settle = round(SETTLE_S * rate_hz)
        self._stuck = _Run(round(STUCK_S * rate_hz), OFF)
        self._flat = _Run(round(FLAT_S * rate_hz), FLAT)
        self._last = np.float32(np.nan)
        self._off_until = -1

    def accept(self, x: Samples, index: int, off: Flags | None = None) -> tuple[Samples, list[Mark]]:
        """Samples in mV from `index` on, float32 (n,); off: where the amplifier says that a lead is off.

        Gives the samples, 0 where they are known to be none, and what is not to be believed: marks may
        begin before `index`, for it takes time to know.
        """
        x = np.asarray(x, np.float32)
        if not len(x):
            return x, []
        unknown = ~np.isfinite(x)
        marks = _runs(unknown, index, NO_NUMBER)
        away = np.zeros(len(x), bool)
        away[: max(self._off_until - index, 0)] = True
        for start, end, _ in [] if off is None else _runs(np.asarray(off, bool), index, OFF):
            self._off_until = end + self._settle
            away[start - index : self._off_until - index] = True
        marks += _runs(away, index, OFF)
        flat_ok = ~away
        if self._rails is not None:
            low, high = self._rails
            near = 0.005 * (high - low)
            with np.errstate(invalid="ignore"):
                at_end = (x <= low + near) | (x >= high - near)
            marks += self._stuck.feed(at_end, index)
            flat_ok &= ~at_end
        with np.errstate(invalid="ignore"):
            same = np.abs(np.diff(np.concatenate([[self._last], x]))) < _SAME_MV
        marks += self._flat.feed(same & flat_ok, index)
        self._last = x[-1]
        end = index + len(x)
        self.state = next((mark.why for mark in sorted(marks, key=_gravity) if mark.end == end), "on")
        return np.where(unknown | away, np.float32(0.0), x), marks

    def skip(self) -> None:
        """Samples went missing: what comes next continues nothing."""
        self._stuck.forget()
        self._flat.forget()
        self._last = np.float32(np.nan)


def not_cleaned(gaps: Iterable[tuple[int, int]], rate_hz: int) -> list[tuple[int, int]]:
    """Where a denoised lead is not to be shown: in its gaps, and after those that count until the denoiser
    has settled again.
    """
    settle, noticed = round(UNSETTLED_S * rate_hz), _NOTICED_S * rate_hz
    return [(start, end + settle if end - start >= noticed else end) for start, end in gaps]


def _gravity(mark: Mark) -> int:
    return (OFF, NO_NUMBER, FLAT, LOST).index(mark.why)


def _runs(held: Flags, index: int, why: str) -> list[Mark]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]])))
    return [Mark(index + int(a), index + int(b), why) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def believed(
    what: str,
    x: Samples,
    rate_hz: int,
    gaps: Iterable[tuple[int, int]] = (),
    rails_mv: tuple[float, float] | None = None,
) -> tuple[Samples, list[Mark]]:
    """A whole lead, float32 (n,) in mV, 0 where it may not be believed, and all of these stretches.

    gaps: those that are known already. what: names the lead in the message. Raises BadInput when less than
    2 s are left, or than half of a shorter recording.
    """
    x = np.array(x, np.float32)
    for start, end in gaps:
        x[start:end] = np.nan
    found, marks = Watch(rate_hz, rails_mv).accept(x, 0)
    bad = np.zeros(len(x), bool)
    for mark in marks:
        bad[mark.start : mark.end] = True
    left = int((~bad).sum())
    if left < min(SHORTEST_ECG_S * rate_hz, 0.5 * len(x)) or not left:
        reasons = {why: sum(m.end - m.start for m in marks if m.why == why) for why in {m.why for m in marks}}
        main = max(reasons, key=lambda why: reasons[why])
        says = {
            OFF: "the lead was off: it lies at the end of its range; fix the electrodes and record again",
            FLAT: "is a flat line: nothing was connected; check the cable and record again",
            NO_NUMBER: "holds no numbers (NaN) to speak of; export it again",
            LOST: "holds nothing; record again",
        }[main]
        raise BadInput(f"{what}: {says}")
    return np.where(bad, np.float32(0.0), found), marks
