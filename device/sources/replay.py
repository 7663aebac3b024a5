"""A recording as a source: in real time by the monotonic clock, or as fast as it is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from device.errors import BadInput
from device.sources.base import Block
from device.sources.files import Sound

__all__ = ["PACES", "Pacer", "Replay"]

PACES = ("real", "fast")


class Pacer:
    """When a sample is due: at the start time plus its index over the rate, so that no delay adds up."""

    def __init__(self, rate_hz: int, pace: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        if pace not in PACES:
            raise BadInput(f"pace {pace}: not one of {', '.join(PACES)}")
        self.monotonic = monotonic
        self._rate_hz = rate_hz
        self._real = pace == "real"
        self._start_s = 0.0

    def begin(self, index: int) -> None:
        """Sample `index` is due now."""
        self._start_s = self.monotonic() - index / self._rate_hz

    def begin_at(self, monotonic_s: float) -> None:
        """Sample 0 is due at that time."""
        self._start_s = monotonic_s

    def resumed(self, index: int) -> int:
        """Samples that went by since sample `index` was due: what a source that was away has lost."""
        if not self._real:
            return 0
        return max(int((self.monotonic() - self._start_s) * self._rate_hz) - index, 0)

    def wait(self, index: int, stopped: threading.Event) -> bool:
        """Wait until sample `index` is due. False when stopped before."""
        while self._real:
            late = self.monotonic() - (self._start_s + index / self._rate_hz)
            if late >= 0:
                break
            if stopped.wait(-late):
                return False
        return not stopped.is_set()


class Replay:
    """A recording, read by `read_sound`, as a source of sound.

    `block`: samples of each block, in turn (0: 20 ms). Samples that were no numbers are lost samples here, as
    they would be from a microphone.
    """

    def __init__(
        self,
        sound: Sound,
        *,
        pace: str = "real",
        block: int | tuple[int, ...] = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate_hz = sound.rate_hz
        self.name = sound.path.name if sound.path else "recording"
        self.notes = list(sound.notes)
        self.sound = sound
        self._pacer = Pacer(self.rate_hz, pace, monotonic)
        sizes = block if isinstance(block, tuple) else (block,)
        self._sizes = [size or max(self.rate_hz // 50, 1) for size in sizes]
        self._reads = 0
        self._index = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to hear; SourceGone when there is nothing to hear."""
        self._pacer.begin(self._index)
        self._stopped.clear()

    def read(self) -> Block | None:
        """The next block, or None when the sound has ended; SourceGone when the source went away."""
        lost = 0
        for gap in self.sound.gaps:
            if gap.start <= self._index < gap.end:
                lost = gap.end - self._index
                self._index = gap.end
        size = self._sizes[self._reads % len(self._sizes)]
        next_gap = min(
            (g.start for g in self.sound.gaps if g.start > self._index), default=len(self.sound.samples)
        )
        end = min(self._index + size, next_gap, len(self.sound.samples))
        # a gap at the very end is told by an empty block after it
        if end <= self._index and not lost:
            return None
        if not self._pacer.wait(end, self._stopped):
            return None
        self._reads += 1
        samples = self.sound.samples[self._index : end] if end > self._index else np.zeros(0, np.float32)
        block = Block(samples, self._index, self._pacer.monotonic(), lost)
        self._index = max(end, self._index)
        return block

    def stop(self) -> None:
        """Hear no more; safe to call twice and from any thread."""
        self._stopped.set()
