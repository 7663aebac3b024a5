"""What every microphone has in common, whoever reads the card: a bounded queue that counts, a clock that
finds what is missing, the choice of a channel, an offset that is taken out.

Nothing is lost in silence. Samples that the queue had no room for are counted; what the card or its driver
lost is found by comparing the count of samples with the monotonic clock. Both are told in `Block.lost`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from math import exp, inf

import numpy as np

from device.arrays import AnyArray, Flags, Samples
from device.errors import BadInput, SourceGone, StethopiError
from device.sources.base import Block

__all__ = ["CHANNELS", "PERIOD_S", "RATES_HZ", "Capture", "OffsetRemover", "SampleClock"]

RATES_HZ = (48000, 44100, 16000, 96000, 8000)
"""Tried in this order: what most cards do by themselves comes first."""

CHANNELS = ("left", "right")

PERIOD_S = 0.01
"""Sound in one piece: the capture period."""

_QUEUE_S = 2.0
_SILENT_S = 2.0
"""A card that gives nothing for so long is gone, whatever its driver says."""
_FIRST_S = 6.0
"""A sound server may take its time over the first sample."""
_OFFSET_S = 1.0
_FULL = 1.0 - 2.0**-12


class SampleClock:
    """Finds lost samples by comparing their count with the monotonic clock.

    A callback can come late but never early, so the least lateness of each second is compared with that of
    the seconds before: it creeps with the card's crystal (at most some 0.1 ms in 10 s) and jumps when samples
    are missing.
    """

    def __init__(self, rate_hz: int, period_s: float = PERIOD_S) -> None:
        self._rate_hz = rate_hz
        self._period_s = period_s
        self._least: deque[float] = deque(maxlen=10)  # of the seconds before
        self._now = inf  # of this second
        self._second_ends = -inf

    def note(self, end: int, monotonic_s: float, overflowed: bool = False) -> int:
        """At `monotonic_s` the samples before `end` were there. How many must have been lost before them.

        `overflowed`: the driver says that it lost some, so even a small jump is believed, and at once.
        """
        late = monotonic_s - end / self._rate_hz
        usual = min(self._least, default=self._now)
        if overflowed and usual < inf and late - usual > self._period_s / 2:
            return self._lost(late - usual)
        self._now = min(self._now, late)
        if monotonic_s < self._second_ends:
            return 0
        first = self._second_ends == -inf
        self._second_ends = monotonic_s + 1.0
        if first:
            return 0
        jump = self._now - min(self._least, default=self._now)
        if jump > 0.05:
            return self._lost(jump)
        self._least.append(self._now)
        self._now = inf
        return 0

    def _lost(self, seconds: float) -> int:
        # from now on the index is ahead by what was lost, and lateness is as before
        self._now = inf
        return round(seconds * self._rate_hz)


class OffsetRemover:
    """Takes out the offset that MEMS microphones have: a mean that follows within a second, subtracted.

    Corner frequency 0.16 Hz: nothing of a heart is touched. In the first second all samples so far count
    alike, so there is no step at the start and no wrong first guess for long.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._count = 0
        self.offset: float | None = None
        """Share of full scale; None before the first sound."""

    def process(self, x: AnyArray) -> tuple[Samples, Flags | None]:
        """float32 (n,) → the same without its offset, and where it was at full scale before, bool (n,); None
        for nowhere."""
        if not len(x):
            return x, None
        mean = float(x.mean(dtype=np.float64))
        before = mean if self.offset is None else self.offset
        self._count += len(x)
        share = max(len(x) / self._count, 1.0 - exp(-len(x) / (_OFFSET_S * self._rate_hz)))
        after = before + share * (mean - before)
        self.offset = after
        full = np.abs(x) >= _FULL
        ramp = np.linspace(before, after, len(x) + 1, dtype=np.float32)[1:]
        return (x - ramp).astype(np.float32), full if full.any() else None


class Capture(ABC):
    """A microphone as a source of sound. Started again after SourceGone it goes on counting: the time between
    is lost.

    Who reads the card fills in `_open`, `_begin`, `_runs` and `_let_go`, sets `rate_hz` and `channels` in
    `_open`, and calls `_take` with what came. channel: left or right, where the card has two.
    """

    kind = "microphone"

    def __init__(
        self,
        name: str = "",
        *,
        rate_hz: int = 0,
        channel: str = "left",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"{self.kind} {name}".rstrip()
        self.period_s = PERIOD_S
        self.channel = {"1": "left", "2": "right"}.get(channel, channel)
        if self.channel not in CHANNELS:
            raise BadInput(f"{self.name}: has no channel {channel}; give left (1) or right (2)")
        self.channels = 1
        self.rate_hz = 0
        self.dropped = 0
        """Samples that came while the queue was full."""
        self.overflows = 0
        """How often the driver said that it had lost samples."""
        self.notes: list[str] = []
        self.on_frames: Callable[[AnyArray], None] | None = None
        """Is shown all channels as they came, float32 (n, channels), by who calls `read`."""
        self._wanted = name
        self._rates = (rate_hz,) if rate_hz else RATES_HZ
        self._monotonic = monotonic
        self._queue: deque[tuple[AnyArray, float, bool, int]] = deque()
        self._queued = 0
        self._dropped_now = 0
        self._heard = threading.Condition()
        self._stopped = False
        self._open_now = False
        self._index = 0
        self._last_s: float | None = None
        self._started_s = 0.0
        self._remover: OffsetRemover | None = None

    # ---- what the card's reader fills in

    @abstractmethod
    def _open(self) -> None:
        """Find the card and open it, stopped. Raises StethopiError with the remedy."""

    @abstractmethod
    def _begin(self) -> None:
        """Let the card run. Raises SourceGone."""

    @abstractmethod
    def _runs(self) -> bool:
        """Whether sound can still be expected."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close the card."""

    # ---- the same for all

    @property
    def offset(self) -> float | None:
        """What is being taken out, share of full scale; None before the first sound."""
        return self._remover.offset if self._remover else None

    @property
    def _again(self) -> bool:
        """It has run before."""
        return self._last_s is not None

    def start(self) -> None:
        try:
            self._start()
        except SourceGone:
            raise
        except StethopiError as error:
            if self._again:
                raise SourceGone(str(error)) from None
            raise

    def _start(self) -> None:
        self._clock: SampleClock
        self._open()
        self._open_now = True
        self._clock = SampleClock(self.rate_hz, self.period_s)
        self._remover = OffsetRemover(self.rate_hz)
        self._started_s = self._monotonic()
        self._stopped = False
        self._begin()

    def _take(self, frames: AnyArray, overflowed: bool = False) -> None:
        """The reader's thread: float32 (n, channels) that just came, copied already. Returns at once."""
        with self._heard:
            if self._queued + len(frames) > _QUEUE_S * self.rate_hz:
                self._dropped_now += len(frames)
            else:
                self._queue.append((frames, self._monotonic(), overflowed, self._dropped_now))
                self._queued += len(frames)
                self._dropped_now = 0
                self._heard.notify()

    def read(self) -> Block | None:
        with self._heard:
            while not self._queue:
                if self._stopped or not self._open_now:
                    return None
                if not self._alive():
                    break
                self._heard.wait(0.1)
            item = self._queue.popleft() if self._queue else None
            if item:
                self._queued -= len(item[0])
            elif self._stopped:
                return None
        if item is None:
            gone = self._why_gone()
            self._close()
            raise SourceGone(gone)
        return self._block(*item)

    def _why_gone(self) -> str:
        return f"{self.name}: gives no sound any more; plug it in again"

    def _alive(self) -> bool:
        heard = self._last_s is not None and self._last_s >= self._started_s
        since, patience = (self._last_s, _SILENT_S) if heard else (self._started_s, _FIRST_S)
        if self._monotonic() - (since or 0.0) > patience:
            return False
        return self._runs()

    def _block(self, frames: AnyArray, monotonic_s: float, overflowed: bool, dropped: int) -> Block:
        if self.on_frames is not None:
            self.on_frames(frames)
        column = min(CHANNELS.index(self.channel), frames.shape[1] - 1)
        assert self._remover is not None
        samples, full = self._remover.process(np.ascontiguousarray(frames[:, column]))
        n = len(samples)
        lost = dropped
        if self._last_s is not None and self._last_s < self._started_s:  # it was away
            lost += max(round((monotonic_s - self._last_s) * self.rate_hz) - n, 0)
        lost += self._clock.note(self._index + lost + n, monotonic_s, overflowed)
        self.dropped += dropped
        self.overflows += overflowed
        self._index += lost
        block = Block(samples, self._index, monotonic_s, lost, full)
        self._index += n
        self._last_s = monotonic_s
        return block

    def stop(self) -> None:
        with self._heard:
            self._stopped = True
            self._heard.notify_all()
        self._close()

    def _close(self) -> None:
        self._open_now = False
        self._let_go()
        with self._heard:
            self._queue.clear()
            self._queued = 0
