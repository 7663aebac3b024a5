"""The sound for the eye: messages of 100 ms at 250 values a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from device.contract.live import LiveWave
from device.rates import WORKING_RATE_HZ
from device.stream.aligned import MOST_AT_ONCE
from device.stream.shedding import Shed

__all__ = ["Display", "LiveWaves"]

EVERY = 8
WAVE = WORKING_RATE_HZ // 10


def _peaks(x: np.ndarray) -> tuple[int, ...]:
    """Of each eight samples the one with the largest magnitude, as int16."""
    groups = x.reshape(-1, EVERY)
    peaks = groups[np.arange(len(groups)), np.argmax(np.abs(groups), axis=1)]
    return tuple(int(v) for v in np.clip(np.rint(peaks * 32767.0), -32768, 32767))


class Display:
    """Cuts the sound into messages of 100 ms for the eye. exam: gives the id of the one under way."""

    def __init__(self, exam: Callable[[], str | None] = lambda: None) -> None:
        self._exam = exam
        self._index = 0
        self._raw = np.zeros(0, np.float32)
        self._clean = np.zeros(0, np.float32)

    def process(self, raw: np.ndarray, clean: np.ndarray) -> list[LiveWave]:
        """Take aligned sound, float32 (n,) each; the messages that became whole. A long hole is jumped
        over.
        """
        self._raw = np.concatenate([self._raw, raw])
        self._clean = np.concatenate([self._clean, clean])
        surplus = max(len(self._raw) - MOST_AT_ONCE, 0) // WAVE * WAVE
        self._cut(surplus)
        made = []
        while len(self._raw) >= WAVE:
            made.append(
                LiveWave(
                    index=self._index,
                    every=EVERY,
                    raw=_peaks(self._raw[:WAVE]),
                    clean=_peaks(self._clean[:WAVE]),
                    exam=self._exam(),
                )
            )
            self._cut(WAVE)
        return made

    def skip(self, n: int) -> None:
        """The sound that comes next is `n` samples later."""
        self._cut(len(self._raw))
        self._index += n

    def _cut(self, n: int) -> None:
        self._raw, self._clean = self._raw[n:], self._clean[n:]
        self._index += n


class LiveWaves:
    """Tells the waveform of an exam while it is heard."""

    def __init__(self, exam: Callable[[], str | None], tell: Callable[[LiveWave], None]) -> None:
        """exam: id of the one that is under way. tell: takes the messages."""
        self.left_out = 0
        """Messages that were not told because the machine was late."""
        self._display = Display(exam)
        self._tell = tell

    def hear(self, raw: np.ndarray, clean: np.ndarray, shed: Shed = Shed.NOTHING) -> None:
        """Aligned sound, float32 (n,) each."""
        for wave in self._display.process(raw, clean):
            if wave.exam is None:
                continue
            if shed >= Shed.WAVEFORM:
                self.left_out += 1
            else:
                self._tell(wave)

    def skip(self, n: int) -> None:
        """The sound that comes next is `n` samples later."""
        self._display.skip(n)
