"""The sound at the working rate by absolute sample index: one writer, many readers, gaps marked, never
silent.

Also the way in: `Intake` brings a source's blocks to the working rate, fills what was lost with zeros, and
marks it, so that sample n always stands for n / 2000 s since the source started.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from typing import NamedTuple

import numpy as np

from device.rates import HOP, WORKING_RATE_HZ
from device.spans import Gap, merged

__all__ = ["Gap", "Piece", "Ring"]


class Piece(NamedTuple):
    """Some sound of the ring."""

    sound: np.ndarray
    """float32 (n,)."""
    gaps: list[Gap]
    """What of it was not heard; absolute indices."""
    clipped: list[Gap]
    """Where the source was at full scale; absolute indices."""


class Ring:
    """The last `seconds` of sound, float32, addressed by absolute index. Thread safe.

    Reading what was overwritten, or is not there yet, raises LookupError: nobody gets other sound than asked
    for.
    """

    def __init__(self, seconds: float, rate_hz: int = WORKING_RATE_HZ) -> None:
        self.rate_hz = rate_hz
        self._size = max(int(seconds * rate_hz), 1)
        self._sound = np.zeros(self._size, np.float32)
        self._end = 0
        self._spans: dict[str, list[Gap]] = {"gap": [], "clipped": []}
        self._times: deque[tuple[int, float]] = deque(maxlen=4096)
        self._grown = threading.Condition()
        self._closed = False

    @property
    def end(self) -> int:
        """Index of the first sample that is not there yet."""
        with self._grown:
            return self._end

    @property
    def oldest(self) -> int:
        """Index of the oldest sample that can be read."""
        with self._grown:
            return max(self._end - self._size, 0)

    @property
    def closed(self) -> bool:
        """No more sound will come."""
        with self._grown:
            return self._closed

    def append(self, x: np.ndarray, monotonic_s: float | None = None) -> int:
        """Add samples, float32 (n,); give the new end. `monotonic_s` is when the last of them was there."""
        x = np.asarray(x, dtype=np.float32)
        with self._grown:
            tail = x[-self._size :]
            at = (self._end + len(x) - len(tail)) % self._size
            first = min(len(tail), self._size - at)
            self._sound[at : at + first] = tail[:first]
            self._sound[: len(tail) - first] = tail[first:]
            self._end += len(x)
            if monotonic_s is not None and len(x):
                self._times.append((self._end, monotonic_s))
            oldest = self._end - self._size
            for kind, spans in self._spans.items():
                if spans and spans[0].end <= oldest:
                    self._spans[kind] = [span for span in spans if span.end > oldest]
            self._grown.notify_all()
            return self._end

    def skip(self, n: int) -> int:
        """Add n samples of nothing, more than the ring holds if need be; give the new end."""
        with self._grown:
            self._end += max(n - self._size, 0)
            return self.append(np.zeros(min(n, self._size), np.float32))

    def mark_gap(self, start: int, end: int) -> None:
        """Say that [start, end) was not heard; the samples there are zeros. May lie ahead of `end`."""
        self._mark("gap", start, end)

    def mark_clipped(self, start: int, end: int) -> None:
        """Say that the source was at full scale within [start, end). May lie ahead of `end`."""
        self._mark("clipped", start, end)

    def blank(self, start: int, end: int) -> None:
        """What stands in [start, end) turned out to be none: zeros, as far as it is still held; marked."""
        with self._grown:
            first, last = max(start, self._end - self._size, 0), min(end, self._end)
            if last > first:
                self._sound[np.arange(first, last) % self._size] = 0.0
            self._mark("gap", start, end)

    def _mark(self, kind: str, start: int, end: int) -> None:
        with self._grown:
            # hard clipping comes in bursts: stretches less than a hop apart are kept as one
            distance = HOP if kind == "clipped" else 0
            self._spans[kind] = merged([*self._spans[kind], (start, end)], distance)

    def gaps(self, start: int, end: int) -> list[Gap]:
        """The gaps that touch [start, end), cut to it; absolute indices."""
        return self._within("gap", start, end)

    def clipped(self, start: int, end: int) -> list[Gap]:
        """The clipped stretches that touch [start, end), cut to it; absolute indices."""
        return self._within("clipped", start, end)

    def _within(self, kind: str, start: int, end: int) -> list[Gap]:
        with self._grown:
            cut = [Gap(max(a, start), min(b, end)) for a, b in self._spans[kind]]
        return [span for span in cut if span.end > span.start]

    def read(self, start: int, n: int) -> np.ndarray:
        """A copy of samples start … start + n - 1, float32 (n,). LookupError when not all of them are
        held."""
        with self._grown:
            oldest = max(self._end - self._size, 0)
            if n < 0 or start < oldest or start + n > self._end:
                raise LookupError(f"samples {start} to {start + n} asked, {oldest} to {self._end} held")
            at = start % self._size
            first = min(n, self._size - at)
            return np.concatenate([self._sound[at : at + first], self._sound[: n - first]])

    def take(self, start: int, end: int) -> Piece:
        """Samples [start, end) with all that is known of them. LookupError when not all of them are held."""
        return Piece(self.read(start, end - start), self.gaps(start, end), self.clipped(start, end))

    def wait(self, end: int, timeout_s: float | None = None) -> bool:
        """Wait until the samples before `end` are there. False when time ran out or the sound ended
        before."""
        with self._grown:
            self._grown.wait_for(lambda: self._end >= end or self._closed, timeout_s)
            return self._end >= end

    def close(self) -> None:
        """No more sound will come: wakes all who wait."""
        with self._grown:
            self._closed = True
            self._grown.notify_all()

    def monotonic_of(self, index: int) -> float | None:
        """Monotonic time of a sample, from the nearest known pair before it (else after); None without
        one."""
        with self._grown:
            times = list(self._times)
        if not times:
            return None
        known, at_s = times[max(bisect_right(times, (index, float("inf"))) - 1, 0)]
        return at_s + (index - known) / self.rate_hz
