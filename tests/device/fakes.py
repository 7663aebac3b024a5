"""Stand-ins for the models: a denoiser that halves 24 ms late, a classifier that says what it is told."""

from __future__ import annotations

import numpy as np

from device.errors import SourceGone
from device.rates import HOP, HOP_S, WINDOW, WINDOW_EVERY
from device.screening.features import ScreeningFrames
from device.screening.verdict import Window
from device.sources.alsa import HwParams
from device.sources.base import Block
from device.sources.capture import Capture
from device.timing import StageTimer

__all__ = ["META", "FakeCard", "FakeCleaner", "FakeJudge"]

META = {"threshold": 0.5, "undecided": [0.45, 0.55]}


class FakeCleaner:
    """Halves the sound, hop by hop, two hops late, as the denoiser is."""

    hop_s = HOP_S
    look_ahead_s = 2 * HOP_S

    def __init__(self) -> None:
        self.strength = 1.0
        self.step_times = StageTimer("denoise", HOP_S / 4)
        self.seen = 0
        self._sound = np.zeros(0, np.float32)
        self._given = 0

    def process(self, x: np.ndarray) -> np.ndarray:
        self.seen += len(x)
        self._sound = np.concatenate([self._sound, x])
        ready = max((len(self._sound) - 2 * HOP) // HOP * HOP, self._given)
        out = self._sound[self._given : ready] / 2
        for _ in range(len(out) // HOP):
            self.step_times.add(1e-4)
        self._given = ready
        return out

    def flush(self) -> np.ndarray:
        out = self._sound[self._given :] / 2
        self._sound, self._given = np.zeros(0, np.float32), 0
        return out


class FakeJudge:
    """A window each second: its quality is 0.9 where the sound is louder than 0.01, its probability is
    fixed. `heard` are the pieces of sound of every stream, `gaps` those it was told of.
    """

    def __init__(self, probability: float = 0.2) -> None:
        self.every = 1
        self.probability = probability
        self.streams: list[np.ndarray] = []
        self.gaps: list[tuple[int, int]] = []
        self.spectrum = ScreeningFrames()
        self.sound = np.zeros(0, np.float32)
        self._next = 0

    def mark_gap(self, start: int, end: int) -> None:
        self.gaps.append((start, end))

    def process(self, x: np.ndarray) -> list[Window]:
        self.sound = np.concatenate([self.sound, x])
        self.spectrum.process(x)
        windows = []
        while self._next * WINDOW_EVERY + WINDOW <= len(self.sound):
            start = self._next * WINDOW_EVERY
            if self._next % self.every == 0:
                windows.append(self._window(start, self.sound[start : start + WINDOW]))
            self._next += 1
        return windows

    def flush(self) -> list[Window]:
        self.spectrum.flush()
        self.spectrum = ScreeningFrames()
        sound, self.sound, self._next = self.sound, np.zeros(0, np.float32), 0
        if len(sound):
            self.streams.append(sound)
        return [self._window(0, sound)] if 4000 <= len(sound) < WINDOW else []

    def _window(self, start: int, x: np.ndarray) -> Window:
        good = float(np.abs(x).max(initial=0.0)) > 0.01
        return Window(start, self.probability, 0.9 if good else 0.0, () if good else ("too quiet",), 0.1)


class FakeCard(Capture):
    """A sound card that gives what it is told to, as fast as it is read, on a clock of its own.

    frames: float32 (n, channels), given in pieces of 10 ms, then again from the start. late_s: so much later
    comes each piece, as if samples before it were missing.
    """

    def __init__(
        self,
        frames: np.ndarray,
        rate_hz: int = 16000,
        *,
        name: str = "fake",
        setup: HwParams | None = None,
        channel: str = "left",
        late_s: float = 0.0,
    ) -> None:
        self.now = 1000.0
        super().__init__(name, channel=channel, monotonic=lambda: self.now)
        self.frames = frames
        self.setup = setup
        self.late_s = late_s
        self.there = True
        self.sending = True
        self.at = 0
        self.rate_hz, self.channels = rate_hz, frames.shape[1]

    def _open(self) -> None:
        if not self.there:
            raise SourceGone(f"{self.name}: is not there; plug it in")

    def _begin(self) -> None:
        pass

    def _runs(self) -> bool:
        self.now += 1.0
        return self.there

    def read(self) -> Block | None:
        n = self.rate_hz // 100
        if not (self.there and self.sending):
            return super().read()
        piece = np.take(self.frames, range(self.at, self.at + n), axis=0, mode="wrap")
        self.at += n
        self.now += n / self.rate_hz + self.late_s
        self._take(piece)
        return super().read()

    def _let_go(self) -> None:
        pass
