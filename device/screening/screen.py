"""The screening verdict: an int8 network hears 5 s of sound every second; a recording's windows decide
together.

The network gives two logits a window, for "a murmur is heard" and for "abnormal". The bundle says how they
become one probability of abnormal: probability = sigmoid((combine · logits + bias) / temperature). A
recording's (or an exam's) probability is that of the mean logit of its good windows; the label follows from
the bundle's threshold, and is `unsure` when too few windows are good or when the probability lies in the
bundle's undecided zone.

It screens; it does not diagnose.

    python -I -m device.checks.figures.screen FILE     verdict, chopped against whole, time a window
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from device.dsp.offset import OffsetStage
from device.inference.bundle import ModelEntry
from device.inference.interpreter import Int8Network
from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ
from device.screening import features, quality
from device.screening.verdict import SHORTEST_JUDGED_S, Findings, Window, probabilities, verdict

__all__ = [
    "WINDOW_BUDGET_S",
    "Int8Network",
    "Network",
    "Screener",
    "probabilities",
    "screen_recording",
]

WINDOW_BUDGET_S = 0.25 * WINDOW_EVERY / WORKING_RATE_HZ
"""So long may one window take: a quarter of the time until the next, as of every stage (DESIGN §2)."""


class Network(Protocol):
    """(32, 248) float32 → two logits (murmur, abnormal)."""

    def __call__(self, x: np.ndarray) -> np.ndarray: ...


class Screener:
    """Streaming: `process` takes any amount of sound at 2 kHz and gives the windows that became ready.

    A window starts every second; each band power is computed once and shared by the windows that hold it.
    The result does not depend, to the last bit, on how the sound is chopped.
    """

    def __init__(self, entry: ModelEntry, network: Network | None = None) -> None:
        self.meta = entry.meta
        self._network = network or Int8Network(entry)
        self._view = features.View.of(entry.meta)
        self._quality_judge = quality.QualityJudge.of(entry.arrays)
        self.contact = functools.partial(quality.assess, judge=self._quality_judge)
        """How good a piece of 1 s or more is, for the hand that holds the stethoscope."""
        self.every = 1
        """Judge only every n-th window: for a machine that is late."""
        self._reset()

    def _reset(self) -> None:
        self._offset = OffsetStage()
        self.spectrum = features.ScreeningFrames()
        """Of the stream that is heard, less an offset; `flush` completes it, and begins another."""
        self.sound = np.zeros(0, np.float32)
        """The newest 4 s or more of the stream (all of a shorter one), less an offset."""
        self._start = 0
        self._end = 0
        self._gaps: list[tuple[int, int]] = []

    def mark_gap(self, start: int, end: int) -> None:
        """Samples from `start` to `end` were lost (they are zeros in the sound). Mark them before they are
        judged.
        """
        self._gaps.append((int(start), int(end)))

    def process(self, x: np.ndarray) -> list[Window]:
        """Take samples, float32 (n,), any n ≥ 0."""
        x = self._offset.process(x)
        self.spectrum.process(x)
        return self._ready(x)

    def flush(self) -> list[Window]:
        """The sound has ended: the last windows. Two to five seconds in all are repeated to fill one
        window.
        """
        rest = self._offset.flush()
        self.spectrum.process(rest)
        self.spectrum.flush()
        windows = self._ready(rest)
        if SHORTEST_JUDGED_S * WORKING_RATE_HZ <= self._end < WINDOW:
            power = features.screening_frames_of(features.at_least_a_window(self.sound))
            windows = [self._judge(self.sound, power)]
        self._reset()
        return windows

    def _ready(self, x: np.ndarray) -> list[Window]:
        """The windows that this sound completes; the spectrum has it already."""
        self._end += len(x)
        self.sound = np.concatenate([self.sound, x])
        windows = []
        power = self.spectrum.power
        while len(power) >= (first := self._start // features.FRAME_HOP) + features.FRAMES:
            if self._start // WINDOW_EVERY % self.every == 0:
                windows.append(self._judge(self.sound[:WINDOW], power[first : first + features.FRAMES]))
            self.sound = self.sound[WINDOW_EVERY:]
            self._start += WINDOW_EVERY
            self._gaps = [gap for gap in self._gaps if gap[1] > self._start]
        return windows

    def _judge(self, sound: np.ndarray, power: np.ndarray) -> Window:
        gaps = [(start - self._start, end - self._start) for start, end in self._gaps]
        found = quality.assess(sound, gaps, power, self._quality_judge)
        if found.reasons[:1] == ("silence",):
            return Window(self._start, None, found.score, found.reasons)
        probability, murmur = probabilities(
            self._network(features.network_input(power, self._view)), self.meta
        )
        return Window(self._start, probability, found.score, found.reasons, murmur)


def screen_recording(
    x: np.ndarray, entry: ModelEntry, gaps: Iterable[Any] = (), network: Network | None = None
) -> Findings:
    """Screen a whole sound at 2 kHz, float32 (n,). gaps: (start, end) pairs of samples that were not heard.

    Two to five seconds are repeated to fill a window; under two seconds, or silence, is `unsure` with the
    reason.
    """
    stream = Screener(entry, network)
    for start, end in gaps:
        stream.mark_gap(start, end)
    return verdict([*stream.process(x), *stream.flush()], entry.meta)
