"""The screening verdict: an int8 network hears 5 s of sound every second; a recording's windows decide
together.

The network gives two logits a window, for "a murmur is heard" and for "abnormal". The bundle says how they
become one probability of abnormal: probability = sigmoid((combine · logits + bias) / temperature). A
recording's (or an exam's) probability is that of the mean logit of its good windows; the label follows from
the bundle's threshold, and is `unsure` when too few windows are good or when the probability lies in the
bundle's undecided zone.

It screens; it does not diagnose.

    python -I -m device.screen FILE     verdict, chopped against whole, time a window
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from device import features, quality
from device.bundle import ModelEntry
from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ
from device.runtime import Interpreter, dequantise, quantise

__all__ = [
    "SHORTEST_S",
    "Findings",
    "Int8Network",
    "Label",
    "Network",
    "Screener",
    "Window",
    "read_working_rate",
    "screen_recording",
    "verdict",
]

SHORTEST_S = 2.0
"""Less sound than this is not judged at all."""

_TOO_SHORT = "under 2 s of sound"


class Label(enum.Enum):
    """What is shown."""

    NORMAL = "normal"
    ABNORMAL = "abnormal"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Window:
    """What was heard in five seconds."""

    start: int
    """First sample at 2 kHz since the start of the sound."""
    probability: float | None
    """Of abnormal, 0 to 1; None for silence, which the network is not asked about."""
    quality: float
    """0 to 1, see device.quality."""
    reasons: tuple[str, ...] = ()
    """What is wrong with the sound, the worst first; empty when it is good."""
    murmur: float | None = None
    """Probability that a murmur is heard."""


@dataclass(frozen=True)
class Findings:
    """The verdict on a recording or an exam. Unknown is None, never 0."""

    label: Label
    probability: float | None
    quality: float | None
    reasons: list[str] = field(default_factory=list)
    """Why unsure, or what was wrong with the sound."""
    windows: list[Window] = field(default_factory=list)
    murmur: float | None = None


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


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _logit(p: float) -> float:
    p = min(max(p, 1e-7), 1.0 - 1e-7)
    return math.log(p / (1.0 - p))


def probabilities(logits: np.ndarray, meta: Mapping[str, Any]) -> tuple[float, float]:
    """(abnormal, murmur) from the two logits, by the bundle's `combine`, `bias` and temperatures."""
    murmur, abnormal = float(logits[0]), float(logits[1])
    combine = meta["combine"]
    score = combine["murmur"] * murmur + combine["abnormal"] * abnormal + meta["bias"]
    heard = (murmur + meta["murmur_bias"]) / meta["murmur_temperature"]
    return _sigmoid(score / meta["temperature"]), _sigmoid(heard)


class Screener:
    """Streaming: `process` takes any amount of sound at 2 kHz and gives the windows that became ready.

    A window starts every second; each band power is computed once and shared by the windows that hold it.
    The result does not depend, to the last bit, on how the sound is chopped.
    """

    def __init__(self, entry: ModelEntry, network: Network | None = None) -> None:
        self.meta = entry.meta
        self._network = network or Int8Network(entry)
        self._view = features.View.of(entry.meta)
        self._quality_judge = quality.Judge.of(entry.arrays)
        self.every = 1
        """Judge only every n-th window: for a machine that is late."""
        self._reset()

    def _reset(self) -> None:
        self._frames = features.MelFrames()
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
        return quality.assess(x, gaps, judge=self._quality_judge)

    def process(self, x: np.ndarray) -> list[Window]:
        """Take samples, float32 (n,), any n ≥ 0."""
        x = np.asarray(x, np.float32)
        self._end += len(x)
        self._sound = np.concatenate([self._sound, x])
        self._power = np.concatenate([self._power, self._frames.process(x)])
        return self._ready()

    def flush(self) -> list[Window]:
        """The sound has ended: the last windows. Two to five seconds in all are repeated to fill one
        window.
        """
        self._power = np.concatenate([self._power, self._frames.flush()])
        windows = self._ready()
        if SHORTEST_S * WORKING_RATE_HZ <= self._end < WINDOW:
            power = features.frames_of(features.at_least_a_window(self._sound))
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


def verdict(windows: Sequence[Window], meta: Mapping[str, Any]) -> Findings:
    """What windows of one heart, of one or more sites, say together. `meta` is the classifier's in the
    bundle.
    """
    windows = list(windows)
    if not windows:
        return Findings(Label.UNSURE, None, None, [_TOO_SHORT])
    judged = [w for w in windows if w.probability is not None]
    good = [w for w in judged if w.quality >= quality.GOOD]
    # a 5-s recording has one window and may be judged by it; a longer one shows more of the heart
    enough = len(good) >= max(1, min(3, len(windows) // 3))
    mean_quality = float(np.mean([w.quality for w in windows]))
    troubles = Counter(reason for w in windows for reason in w.reasons)
    reasons = [reason for reason, count in troubles.most_common() if 2 * count > len(windows)]
    heard = good if enough else judged
    probability = murmur = None
    if heard:
        probability = _sigmoid(
            float(np.mean([_logit(w.probability) for w in heard if w.probability is not None]))
        )
        murmurs = [_logit(w.murmur) for w in heard if w.murmur is not None]
        murmur = _sigmoid(float(np.mean(murmurs))) if murmurs else None
    if not enough or probability is None:
        label = Label.UNSURE
        if not reasons:
            reasons = [reason for reason, _ in troubles.most_common(2)]
        reasons = reasons or ["too few good windows"]
    else:
        low, high = meta["undecided"]
        if low <= probability <= high:
            label = Label.UNSURE
            reasons = ["probability close to the threshold", *reasons]
        else:
            label = Label.ABNORMAL if probability >= meta["threshold"] else Label.NORMAL
    return Findings(label, probability, mean_quality, reasons, windows, murmur)


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


def read_working_rate(path: str | Path) -> tuple[np.ndarray, list[Any]]:
    """A file's sound at 2 kHz and its gaps, by the reader and the decimator of the live path."""
    from device.resample import Decimator
    from device.sources.files import read_sound

    sound = read_sound(Path(path))
    decimator = Decimator(sound.rate_hz)
    x = np.concatenate([decimator.process(sound.samples), decimator.flush()])
    return x, list(sound.working_gaps)


def main(argv: list[str] | None = None) -> int:
    import argparse
    import sys
    import time

    from device import bundle as bundles
    from device.errors import StethopiError

    parser = argparse.ArgumentParser(
        prog="python -I -m device.screen", description="Screen a recording, show figures."
    )
    parser.add_argument("file")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest)")
    options = parser.parse_args(argv)
    try:
        x, gaps = read_working_rate(options.file)
        entry = bundles.load(options.bundle).model("classifier")
        found = screen_recording(x, entry, gaps)
        stream = Screener(entry)
        for start, end in gaps:
            stream.mark_gap(start, end)
        windows: list[Window] = []
        started = time.perf_counter()
        for start in range(0, len(x), 333):
            windows += stream.process(x[start : start + 333])
        windows += stream.flush()
        seconds = time.perf_counter() - started
    except StethopiError as error:
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code
    same = windows == found.windows
    for window in found.windows:
        probability = "unknown" if window.probability is None else f"{window.probability:.2f}"
        reasons = ", ".join(window.reasons) or "good"
        second = window.start / WORKING_RATE_HZ
        print(f"{second:6.1f} s  p {probability}  quality {window.quality:.2f}  {reasons}")
    probability = "unknown" if found.probability is None else f"{found.probability:.3f}"
    print(f"{found.label.value}  p(abnormal) {probability}  {', '.join(found.reasons)}")
    print(f"chopped equals whole: {'yes' if same else 'NO'}")
    if windows:
        print(f"{1e3 * seconds / len(windows):.1f} ms a window, quality and features included")
    print("It screens; it does not diagnose. Not a medical device.")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
