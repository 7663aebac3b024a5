"""When the samples of a source were there, by the monotonic clock, and how fast its own clock really goes.

Each source counts its samples by a crystal of its own. A block says when its last sample was there; it may
say so late (a busy machine) but never early, so of every second the earliest word counts. Through these
goes a robust line: its slope is the true rate, and two lines tell which samples of two sources belong
together.

The line: median of the slopes between all pairs of seconds (Theil 1950, Sen 1968), laid through the lower
quarter of what remains. Within the first seconds, when a slope would be a guess, the rate by name is taken.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from device.arrays import Reals

__all__ = ["Line", "Nominal", "Times", "Timeline"]

_LEAST_S = 8.0
"""Before, the rate by name: 200 ppm over so long is 1.6 ms."""

_MOST_SECONDS = 240
_FASTEST = 0.002
"""No crystal is so wrong (2,000 ppm); a converter that paces itself by another one may be."""


class Times(Protocol):
    """Sample ↔ time; samples may lie between two, times are monotonic seconds."""

    rate_hz: int

    def at(self, index: float) -> float | None:
        """When a sample was there; None before anything is known."""

    def index_at(self, monotonic_s: float) -> float | None:
        """The sample of that time, between two of them."""


@dataclass(frozen=True)
class Line:
    """time = offset_s + index / true_rate_hz."""

    offset_s: float
    true_rate_hz: float
    spread_s: float | None
    """How far the seconds lie from the line, nine of ten; None while there are too few."""


class Nominal:
    """A source read as fast as it goes has no time but that of its samples."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz

    def at(self, index: float) -> float | None:
        """When a sample is due, in seconds since the first one."""
        return index / self.rate_hz

    def index_at(self, monotonic_s: float) -> float | None:
        """The sample that is due then, between two of them."""
        return monotonic_s * self.rate_hz

    @property
    def line(self) -> Line | None:
        """Through 0, at the nominal rate."""
        return Line(0.0, float(self.rate_hz), 0.0)


class _Stretch:
    """Samples without a hole between them."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.seconds: deque[tuple[float, float]] = deque(maxlen=_MOST_SECONDS)
        """Of each second the (index, time) that was told with the least delay."""
        self.open: tuple[float, float] | None = None
        self.ends = -np.inf
        self.line: Line | None = None
        self.fresh = False


class Timeline:
    """Fed with blocks by one thread, asked by any."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._lock = threading.Lock()
        self._stretches: deque[_Stretch] = deque(maxlen=32)

    def note(self, end: int, monotonic_s: float, *, broken: bool = False) -> None:
        """At `monotonic_s` the samples before `end` were there. broken: after a hole whose length is a
        guess; what came before tells nothing of what comes now.
        """
        last = float(end - 1)
        with self._lock:
            if broken or not self._stretches:
                self._stretches.append(_Stretch(end - 1))
            now = self._stretches[-1]
            late = monotonic_s - last / self.rate_hz
            if monotonic_s >= now.ends:
                if now.open is not None:
                    now.seconds.append(now.open)
                now.open, now.ends = None, monotonic_s + 1.0
            if now.open is None or late < now.open[1] - now.open[0] / self.rate_hz:
                now.open = (last, monotonic_s)
                now.fresh = True

    def at(self, index: float) -> float | None:
        """When a sample was there; None before anything is known."""
        line = self._line_of(index)
        return None if line is None else line.offset_s + index / line.true_rate_hz

    def index_at(self, monotonic_s: float) -> float | None:
        """The sample of that time, by the newest stretch begun by then; None before anything is known."""
        with self._lock:
            stretches = list(self._stretches)
        found: float | None = None
        for stretch in stretches:
            line = self._fitted(stretch)
            if line is None:
                continue
            index = (monotonic_s - line.offset_s) * line.true_rate_hz
            if found is None or index >= stretch.first:
                found = index
        return found

    @property
    def line(self) -> Line | None:
        """Of the newest stretch."""
        with self._lock:
            newest = self._stretches[-1] if self._stretches else None
        return None if newest is None else self._fitted(newest)

    def _line_of(self, index: float) -> Line | None:
        with self._lock:
            stretches = list(self._stretches)
        if not stretches:
            return None
        fitting = [s for s in stretches if s.first <= index + self.rate_hz * 0.05] or stretches[:1]
        return self._fitted(fitting[-1])

    def _fitted(self, stretch: _Stretch) -> Line | None:
        with self._lock:
            if stretch.line is not None and not stretch.fresh:
                return stretch.line
            points = [*stretch.seconds, *([stretch.open] if stretch.open else [])]
            stretch.fresh = False
        if not points:
            return None
        stretch.line = line = _fit(np.array(points), self.rate_hz)
        return line


def _fit(points: Reals, rate_hz: int) -> Line:
    """(index, time) of shape (n, 2) → line."""
    index, time = points[:, 0], points[:, 1]
    first, began = index[0], time[0]
    late = (time - began) - (index - first) / rate_hz
    span_s = float(time[-1] - began)
    slope = 0.0
    spread: float | None = None
    if span_s >= _LEAST_S and len(points) >= 5:
        # an odd second of a busy machine is thinned out, the span stays
        every = max(len(points) // 80, 1)
        t, y = (time - began)[::every], late[::every]
        a, b = np.triu_indices(len(t), 1)
        apart = t[b] - t[a]
        far = apart > 0.25 * span_s
        slope = float(np.median((y[b] - y[a])[far] / apart[far]))
        slope = float(np.clip(slope, -_FASTEST, _FASTEST))
    rest = late - slope * (time - began)
    offset = float(np.percentile(rest, 25)) if span_s >= _LEAST_S else float(rest.min())
    if span_s >= _LEAST_S:
        spread = float(np.percentile(np.abs(rest - offset), 90))
    # time - began = (index - first) / rate + slope (time - began) + offset
    true_rate = rate_hz * (1.0 - slope)
    return Line(began + offset / (1.0 - slope) - first / true_rate, true_rate, spread)
