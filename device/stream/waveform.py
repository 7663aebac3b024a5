"""The sound for the eye: messages of 100 ms."""

from __future__ import annotations

import numpy as np

from device.contract.live import LiveWave
from device.stream.aligned import EVERY, MOST_AT_ONCE, WAVE

__all__ = ["Display"]


def _peaks(x: np.ndarray) -> tuple[int, ...]:
    """Of each eight samples the one with the largest magnitude, as int16."""
    groups = x.reshape(-1, EVERY)
    peaks = groups[np.arange(len(groups)), np.argmax(np.abs(groups), axis=1)]
    return tuple(int(v) for v in np.clip(np.rint(peaks * 32767.0), -32768, 32767))


class Display:
    """Cuts the sound into messages of 100 ms for the eye."""

    def __init__(self) -> None:
        self._index = 0
        self._raw = np.zeros(0, np.float32)
        self._clean = np.zeros(0, np.float32)

    def process(self, raw: np.ndarray, clean: np.ndarray, exam: str | None = None) -> list[LiveWave]:
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
                    exam=exam,
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
