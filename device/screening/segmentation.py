"""Where S1, systole, S2 and diastole lie: the rhythm network's input, and the decoders of its answer.

    band powers → Levelled → network → SegmentStream (as it is heard) or segment (a whole recording) → beats

The network says of each frame of 20 ms how likely it belongs to each state. A decoder makes a rhythm of that:
the states follow each other in the order of the heart's cycle, and each lasts as long as it does in people.
That is a semi-Markov chain with a table of durations (Ferguson 1980; Schmidt et al. 2010 for heart sound).
How long the states last was measured on the marks of the training folds. From 30 to 220 beats a minute fit,
and neighbouring beats need not be alike.

Frame k is heard when its 60 ms are over, lies about 0.02 k + 0.03 s, and stands for 20 ms around that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device.arrays import Floats, Reals, Samples
from device.rates import WORKING_RATE_HZ
from device.screening import features

__all__ = [
    "BANDS",
    "DURATIONS",
    "EARLY",
    "FRAMES_PER_S",
    "LAG",
    "LATE",
    "STATES",
    "Beat",
    "Duration",
    "Durations",
    "Levelled",
    "Rhythm",
    "SegmentStream",
    "adapted",
    "beats",
    "edge_s",
    "rhythm_of",
    "segment",
    "whole_sounds",
]

Codes = NDArray[np.uint8]
"""Of each frame its state, a place in STATES."""

STATES = ("S1", "systole", "S2", "diastole")
"""In the order in which they follow each other; after the last comes the first."""

FRAMES_PER_S = WORKING_RATE_HZ // features.FRAME_HOP

BANDS = 20
"""The lowest mel bands, up to 450 Hz."""

EARLY = 10
"""The network's early answer is for the frame so many back: 200 ms."""

LATE = 50
"""Its late answer, for whole recordings: 1 s."""

LAG = 3
"""Frames that the streaming decoder waits, 60 ms. With the early answer's 200 ms and half a frame, 30 ms, a
state is told 290 ms after it was heard."""

_MEAN_FRAMES = 2 * FRAMES_PER_S
"""Time constant of the running mean that is taken out of each band."""

_FLOOR = np.float32(1e-6)
"""Power added before the logarithm, as a share of the running mean power over all bands."""

_RANGE = np.float32(6.0)
"""Swing about a band's mean that is kept, in natural units of power (26 dB)."""

_UNLIKELY = 1e-6
"""Least probability that a network's answer counts with: one frame alone never forbids a state."""

_TRUST = 0.5
"""Exponent of the network's probabilities: neighbouring frames hear nearly the same, so one says less than
its probability. Chosen on fold 1, as is the next."""

_SHARE_TRUST = 0.25
"""Exponent of each state's share of the time, by which the probabilities are divided."""

_SHARES = np.array([0.19, 0.24, 0.16, 0.41])
"""Of the time that the states take in the marks of the training folds."""

_S1, _SYSTOLE, _S2, _DIASTOLE = range(4)


class Levelled:
    """The network's input, streaming: the logarithm of each band less the band's own causal running mean.

    The mean is that of all frames so far, and after 2 s exponential. So neither the level nor the colour of
    the microphone is left, and nothing is known before it is heard.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._power: Samples | None = None
        self._mean: Samples | None = None

    def process(self, power: Samples) -> Samples:
        """Band powers (m, …, 32), any m → float32 (m, …, 20), about ±2. Frame by frame, so that any chopping
        gives equal bits.
        """
        found = np.empty((*power.shape[:-1], BANDS), np.float32)
        for k, frame in enumerate(power):
            self._heard += 1
            share = np.float32(max(1.0 / self._heard, 1.0 / _MEAN_FRAMES))
            loud = frame.mean(-1, dtype=np.float32, keepdims=True)
            self._power = loud if self._power is None else self._power + share * (loud - self._power)
            log = np.log(frame[..., :BANDS] + (_FLOOR * self._power + np.float32(1e-30)))
            self._mean = log if self._mean is None else self._mean + share * (log - self._mean)
            found[k] = np.clip(log - self._mean, -_RANGE, _RANGE) * np.float32(1.0 / 3.0)
        return found


# ── how long a state lasts ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Duration:
    """How long one state lasts: log-normal between two bounds, with a share that knows the bounds alone."""

    median_s: float
    spread: float
    """Standard deviation of the logarithm."""
    shortest: int
    """Frames."""
    longest: int
    even: float = 0.15
    """Share of the even part: an irregular beat is unlikely, never impossible."""

    def chances(self, size: int) -> Reals:
        """Probability of lasting 0, 1, …, `size` frames, float64 (size + 1,)."""
        frames = np.arange(size + 1)
        inside = (frames >= self.shortest) & (frames <= self.longest)
        away = np.log(np.maximum(frames, 0.5) / (self.median_s * FRAMES_PER_S)) / self.spread
        peak = np.where(inside, np.exp(-0.5 * away**2) / np.maximum(frames, 1), 0.0)
        total = peak.sum()
        flat: Reals = inside / inside.sum()
        if total <= 0:
            return flat
        mixed: Reals = (1.0 - self.even) * peak / total + self.even * flat
        return mixed


Durations = tuple[Duration, Duration, Duration, Duration]
"""Of S1, systole, S2, diastole."""

DURATIONS: Durations = (
    Duration(0.12, 0.19, 3, 12),
    Duration(0.16, 0.30, 3, 25),
    Duration(0.10, 0.21, 3, 11),
    Duration(0.28, 0.47, 4, 95),
)
"""Of people, measured on the marks of the folds that train. The shortest cycle is 13 frames, 231 a minute; no
state is shorter than LAG, on which the streaming decoder counts."""


def _tables(durations: Durations) -> tuple[Reals, Reals]:
    """Probability of lasting exactly, and at least, 0 … n frames: float64 (4, n + 1) each."""
    size = max(d.longest for d in durations)
    exactly = np.stack([d.chances(size) for d in durations])
    return exactly, exactly[:, ::-1].cumsum(axis=1)[:, ::-1]


def _evidence(probabilities: Floats) -> Reals:
    """What a frame says of its state: (…, 4) probabilities → (…, 4) likelihoods, up to a factor."""
    known = np.maximum(np.asarray(probabilities, np.float64), _UNLIKELY)
    return np.asarray(known**_TRUST / _SHARES**_SHARE_TRUST)


# ── as it is heard ──────────────────────────────────────────────────────────────────────────────────────────


class SegmentStream:
    """The state of each frame, LAG frames after the network spoke of it.

    It keeps the probability of every state and of how long it has lasted (the forward pass of the semi-Markov
    chain, exact), asks of it what the frame LAG back was, and goes on to the next state when that is the
    likelier and the state has lasted its shortest. What was told is never taken back.
    """

    def __init__(self, durations: Durations = DURATIONS) -> None:
        if min(d.shortest for d in durations) < LAG:
            raise ValueError(f"durations: no state may be shorter than {LAG} frames")
        exactly, at_least = _tables(durations)
        reached = at_least[:, 1:]
        self._leaves = np.divide(exactly[:, 1:], reached, out=np.ones_like(reached), where=reached > 0)
        self._shortest = [d.shortest for d in durations]
        # before the first frame a state may have lasted for any time
        self._chance = reached / reached.sum()
        self._frames = 0
        self._state: int | None = None
        self._lasted = 0

    def process(self, probabilities: Floats) -> Codes:
        """The network's probabilities (m, 4), any m → states, uint8, of the frames that became sure."""
        told = [state for one in probabilities if (state := self._step(_evidence(one))) is not None]
        return np.array(told, np.uint8)

    def flush(self) -> Codes:
        """The last frames, uint8 (at most LAG,), when the sound has ended: nothing more is heard of them."""
        waiting = min(LAG, self._frames)
        even = np.ones(4)
        told = [state for _ in range(LAG) if (state := self._step(even)) is not None]
        return np.array(told[-waiting:] if waiting else [], np.uint8)

    def _step(self, heard: Reals) -> int | None:
        if self._frames:
            leaving = self._chance * self._leaves
            aged = np.zeros_like(self._chance)
            aged[:, 1:] = (self._chance - leaving)[:, :-1]
            aged[:, 0] = np.roll(leaving.sum(axis=1), 1)
            self._chance = aged
        self._chance = self._chance * heard[:, None]
        self._chance = self._chance / self._chance.sum()
        self._frames += 1
        if self._frames <= LAG:
            return None
        # who is in a state for fewer frames than LAG was in the one before LAG frames ago: none is shorter
        young = self._chance[:, :LAG].sum(axis=1)
        then = self._chance[:, LAG:].sum(axis=1) + np.roll(young, -1)
        if self._state is None:
            self._state = int(np.argmax(then))
        elif self._lasted >= self._shortest[self._state] and then[self._state] < then[(self._state + 1) % 4]:
            self._state = (self._state + 1) % 4
            self._lasted = 0
        self._lasted += 1
        return self._state


# ── a whole recording ───────────────────────────────────────────────────────────────────────────────────────


def segment(probabilities: Floats, durations: Durations = DURATIONS) -> Codes:
    """The likeliest course of states: the network's probabilities (m, 4) → uint8 (m,).

    Exact over all courses in the cycle's order whose whole states last within their bounds; the first and the
    last are cut by the recording's ends, and may have lasted longer (Viterbi over state and duration).
    """
    frames = len(probabilities)
    if not frames:
        return np.zeros(0, np.uint8)
    exactly, at_least = _tables(durations)
    with np.errstate(divide="ignore"):
        log_exactly, log_at_least = np.log(exactly), np.log(at_least)
    size = exactly.shape[1] - 1
    heard = np.zeros((frames + 1, 4))
    np.cumsum(np.log(_evidence(probabilities)), axis=0, out=heard[1:])
    # entered[t + size]: the best course in which a state begins at t, less what was heard before t
    entered = np.full((frames + 1 + size, 4), -np.inf)
    entered[size] = 0.0
    lasted = np.zeros((frames + 1, 4), np.int64)
    states = np.arange(4)
    # lasting[k]: of a state that began k frames after t - size
    lasting = log_exactly[:, :0:-1].T
    for t in range(1, frames + 1):
        course = entered[t : t + size] + lasting
        if t <= size:
            course[size - t] = log_at_least[:, t]
        if t == frames:
            course = entered[t : t + size] + log_at_least[:, :0:-1].T
        best = course.argmax(axis=0)
        lasted[t] = size - best
        left = course[best, states] + heard[t]
        if t < frames:
            entered[t + size] = np.roll(left, 1) - heard[t]
    found = np.empty(frames, np.uint8)
    t, state = frames, int(left.argmax())
    while t > 0:
        start = t - int(lasted[t, state])
        found[start:t] = state
        t, state = start, (state - 1) % 4
    return found


def adapted(codes: Codes) -> Durations:
    """The durations of one heart, from a first course of its states; DURATIONS where it has too few beats."""
    found = []
    for state, usual in enumerate(DURATIONS):
        lengths = [end - start for start, end, code in _runs(codes)[1:-1] if code == state]
        if len(lengths) < _BEATS_TO_ADAPT:
            return DURATIONS
        known = np.log(np.array(lengths) / FRAMES_PER_S)
        middle = float(np.median(known))
        # the spread of a normal, from the median deviation, which a few wrong beats do not move
        spread = 1.4826 * float(np.median(np.abs(known - middle))) + _LEAST_SPREAD
        found.append(
            Duration(
                float(np.exp(middle)), min(spread, usual.spread), usual.shortest, usual.longest, _IRREGULAR
            )
        )
    return found[0], found[1], found[2], found[3]


_BEATS_TO_ADAPT = 4
_LEAST_SPREAD = 0.08
_IRREGULAR = 0.15


# ── beats ───────────────────────────────────────────────────────────────────────────────────────────────────


class Beat(NamedTuple):
    """One heart beat, seconds from the start of the sound."""

    s1_s: float
    """Middle of S1."""
    s2_s: float
    """Middle of S2."""
    start_s: float
    """Where S1 begins."""
    end_s: float
    """Where diastole ends, or the sound."""
    confidence: float
    """0 … 1: mean probability that the network gave to the states of this beat."""


def edge_s(frame: int | float) -> float:
    """Seconds at which frame `frame` takes over from the one before it."""
    return (frame * features.FRAME_HOP + features.FRAME / 2 - features.FRAME_HOP / 2) / WORKING_RATE_HZ


def _runs(codes: Codes) -> list[tuple[int, int, int]]:
    """(first frame, frame after the last, state) of each stretch of one state."""
    if not len(codes):
        return []
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    return [(a, b, int(codes[a])) for a, b in zip(edges, edges[1:], strict=False)]


def whole_sounds(codes: Codes, state: int) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of each stretch of a state that the sound's ends do not cut."""
    return [(a, b) for a, b, code in _runs(codes)[1:-1] if code == state]


def beats(codes: Codes, probabilities: Floats) -> list[Beat]:
    """The beats whose S1 and S2 lie whole in the sound: states uint8 (m,), probabilities (m, 4)."""
    runs = _runs(codes)
    sure = probabilities[np.arange(len(codes)), codes] if len(codes) else np.zeros(0)
    found = []
    for k in range(1, len(runs) - 3):
        if runs[k][2] != _S1:
            continue
        (a, b, _), _, (c, d, _), (_, end, _) = runs[k : k + 4]
        found.append(
            Beat(
                edge_s((a + b) / 2),
                edge_s((c + d) / 2),
                edge_s(a),
                edge_s(end),
                float(sure[a:end].mean()),
            )
        )
    return found


LOWEST_BPM, HIGHEST_BPM = 30.0, 220.0

SURE = 0.88
"""Mean confidence of the beats from which a recording's rhythm is told; chosen on fold 1."""

_NEAR = 0.25
"""Distances within this share of the median are those of one rate."""

FEWEST = 3
"""Beats without which no rate is told."""


@dataclass(frozen=True)
class Rhythm:
    """What is told of a recording's beats."""

    heart_rate_bpm: float | None
    """None where it is refused."""
    confidence: float
    refused: str | None
    """Why nothing is told, or None."""


def rhythm_of(found: Sequence[Beat], least: float = SURE) -> Rhythm:
    """The heart rate, or why it is not told.

    By the mean of the distances of neighbouring S1 that lie near their median: a missed or an extra beat does
    not count, and the mean is finer than the frames are.
    """
    if len(found) < FEWEST:
        return Rhythm(None, 0.0, f"fewer than {FEWEST} whole beats")
    confidence = float(np.mean([beat.confidence for beat in found]))
    if confidence < least:
        return Rhythm(None, confidence, "the beats are not sure")
    gaps = np.diff([beat.s1_s for beat in found])
    near = np.abs(gaps - np.median(gaps)) <= _NEAR * np.median(gaps)
    rate = 60.0 / float(gaps[near].mean())
    if not LOWEST_BPM <= rate <= HIGHEST_BPM:
        return Rhythm(None, confidence, f"the rate lies outside of {LOWEST_BPM:g} to {HIGHEST_BPM:g}")
    return Rhythm(rate, confidence, None)
