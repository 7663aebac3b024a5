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

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from device.dsp.offset import OffsetStage, without_offset
from device.inference.bundle import ModelEntry
from device.inference.interpreter import Interpreter, dequantise, quantise
from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ
from device.screening import features, quality
from device.screening.verdict import Findings, Window, sigmoid, verdict

__all__ = ["SHORTEST_S", "Int8Network", "Network", "Screener", "screen_recording"]

SHORTEST_S = 2.0
"""Less sound than this is not judged at all."""


class Network(Protocol):
    """(32, 248) float32 → two logits (murmur, abnormal)."""

    def __call__(self, x: np.ndarray) -> np.ndarray: ...


class Int8Network:
    """The bundle's classifier. Not thread safe: one per thread."""

    def __init__(self, entry: ModelEntry) -> None:
        self._interpreter = Interpreter(entry.tflite)
        self._input = int(entry.meta["inputs"][0]["position"])
        self._output = int(entry.meta["outputs"][0]["position"])
        self._in, self._out = self._interpreter.inputs[self._input], self._interpreter.outputs[self._output]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self._interpreter.set(
            self._input, quantise(x, self._in.scale, self._in.zero_point).reshape(self._in.shape)
        )
        self._interpreter.invoke()
        return dequantise(self._interpreter.get(self._output), self._out.scale, self._out.zero_point).reshape(
            -1
        )


def probabilities(logits: np.ndarray, meta: Mapping[str, Any]) -> tuple[float, float]:
    """(abnormal, murmur) from the two logits, by the bundle's `combine`, `bias` and temperatures."""
    murmur, abnormal = float(logits[0]), float(logits[1])
    combine = meta["combine"]
    score = combine["murmur"] * murmur + combine["abnormal"] * abnormal + meta["bias"]
    heard = (murmur + meta["murmur_bias"]) / meta["murmur_temperature"]
    return sigmoid(score / meta["temperature"]), sigmoid(heard)


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
        self.every = 1
        """Judge only every n-th window: for a machine that is late."""
        self._reset()

    def _reset(self) -> None:
        self._offset = OffsetStage()
        self._frames = features.ScreeningFrames()
        self._power = np.zeros((0, features.BANDS), np.float32)
        self._sound = np.zeros(0, np.float32)
        self._start = 0
        self._end = 0
        self._gaps: list[tuple[int, int]] = []

    def mark_gap(self, start: int, end: int) -> None:
        """Samples from `start` to `end` were lost (they are zeros in the sound). Mark them before they are
        judged.
        """
        self._gaps.append((int(start), int(end)))

    def contact(self, x: np.ndarray, gaps: Iterable[Any] = ()) -> quality.Quality:
        """How good a piece of 1 s or more is, for the hand that holds the stethoscope."""
        return quality.assess(without_offset(x), gaps, judge=self._quality_judge)

    def process(self, x: np.ndarray) -> list[Window]:
        """Take samples, float32 (n,), any n ≥ 0."""
        self._hear(self._offset.process(x))
        return self._ready()

    def _hear(self, x: np.ndarray) -> None:
        self._end += len(x)
        self._sound = np.concatenate([self._sound, x])
        self._power = np.concatenate([self._power, self._frames.process(x)])

    def flush(self) -> list[Window]:
        """The sound has ended: the last windows. Two to five seconds in all are repeated to fill one
        window.
        """
        self._hear(self._offset.flush())
        self._power = np.concatenate([self._power, self._frames.flush()])
        windows = self._ready()
        if SHORTEST_S * WORKING_RATE_HZ <= self._end < WINDOW:
            power = features.screening_frames_of(features.at_least_a_window(self._sound))
            windows = [self._judge(self._sound, power)]
        self._reset()
        return windows

    def _ready(self) -> list[Window]:
        windows = []
        while len(self._power) >= features.FRAMES:
            if self._start // WINDOW_EVERY % self.every == 0:
                windows.append(self._judge(self._sound[:WINDOW], self._power[: features.FRAMES]))
            self._power = self._power[features.FRAMES_EVERY :]
            self._sound = self._sound[WINDOW_EVERY:]
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
