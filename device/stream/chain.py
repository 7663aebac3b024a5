"""The way of the sound, without a thread or a daemon: one block in, everything that becomes of it.

    block ── intake ──▶ ring ── recording
                │
                └── denoiser ──▶ (raw, clean), aligned ──┬── those who hear
                                                         └── waveform

A stage does not know the next one; `SoundChain.process` is the list of them. What is left out of a block when
the machine is late is for the caller to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from device.rates import HOP, HOP_S
from device.sources.base import Block
from device.stream.aligned import MOST_AT_ONCE, AlignedStream, Cleaner
from device.stream.intake import Intake
from device.stream.shedding import Shed
from device.stream.waveform import LiveWaves
from device.timing import StageTimer

__all__ = ["ChainTimes", "Hearer", "SoundChain"]


class Hearer(Protocol):
    """Takes raw and clean sound, aligned with each other. Never keeps the chain waiting."""

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        """The next working-rate sound, float32 (n,) each."""

    def skip(self, n: int) -> None:
        """A hole of `n` working-rate samples lies before what comes next."""


@dataclass(frozen=True)
class ChainTimes:
    """How long the chain's own stages take for a hop. The others have timers of their own."""

    decimate: StageTimer = field(default_factory=lambda: StageTimer("decimate", HOP_S / 4))
    listen: StageTimer = field(default_factory=lambda: StageTimer("listen", HOP_S / 4))


class SoundChain:
    """What becomes of a block of sound.

    record: told that the ring has grown. hearers: in the order in which they get each piece of sound.
    """

    def __init__(
        self,
        intake: Intake,
        record: Callable[[], None],
        cleaner: Cleaner,
        hearers: Sequence[Hearer],
        waves: LiveWaves,
        times: ChainTimes | None = None,
    ) -> None:
        self.times = times or ChainTimes()
        self._intake = intake
        self._record = record
        self._cleaner = cleaner
        self._aligned = AlignedStream(cleaner)
        self._hearers = hearers
        self._waves = waves

    @property
    def lost(self) -> int:
        """Samples of the source that never came, in all."""
        return self._intake.lost

    @property
    def waves_left_out(self) -> int:
        """Messages of the waveform that were not told, in all."""
        return self._waves.left_out

    def process(self, block: Block, shed: Shed = Shed.NOTHING) -> None:
        """Take the next block. shed: what to leave out of it; never the recording."""
        already_skipped = self._intake.skipped
        began_s = time.perf_counter()
        sound = self._intake.accept(block)
        decimated_s = time.perf_counter()
        self._record()
        if (skipped := self._intake.skipped - already_skipped) > 0:
            for hearer in (*self._hearers, self._waves):
                hearer.skip(skipped)
        if shed >= Shed.DENOISING or len(sound) > MOST_AT_ONCE:
            raw, clean = self._aligned.past(sound)
        else:
            raw, clean = self._aligned.pair(sound, self._cleaner.process(sound))
        aligned_s = time.perf_counter()
        if len(raw):
            for hearer in self._hearers:
                hearer.hear(raw, clean)
            self._waves.hear(raw, clean, shed)
            self.times.listen.add((time.perf_counter() - aligned_s) * HOP / max(len(raw), HOP))
        self.times.decimate.add((decimated_s - began_s) * HOP / max(len(sound), HOP))

    def finish(self) -> None:
        """No block comes any more: the rest of the sound goes into the ring, which is closed."""
        self._intake.finish()

    def flush(self, shed: Shed = Shed.NOTHING) -> None:
        """After `finish`: what the denoiser still holds is heard."""
        raw, clean = self._aligned.flush()
        if len(raw):
            for hearer in self._hearers:
                hearer.hear(raw, clean)
            self._waves.hear(raw, clean, shed)
