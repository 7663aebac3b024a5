"""The decoders: a heart's beats are found where they are, in the cycle's order, however it is chopped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.screening import segmentation
from device.screening.features import screening_frames_of
from device.screening.segmentation import (
    DURATIONS,
    LAG,
    STATES,
    Beat,
    Levelled,
    SegmentStream,
    adapted,
    beats,
    edge_s,
    rhythm_of,
    segment,
)
from device.settings.specs import HeartSettings
from device.sources.synthetic import synthesise


def truth(
    rate: float, seconds: float = 12.0, seed: int = 1
) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """A synthetic heart's state of each frame, and its states."""
    spans = synthesise(HeartSettings(rate=rate, seed=seed), seconds).states
    codes = np.empty(int((seconds - 0.1) * 50), np.uint8)
    at = np.array([edge_s(k + 0.5) for k in range(len(codes))])
    for start, end, state in spans:
        codes[(at >= start) & (at < end)] = STATES.index(state)
    return codes, spans


def heard(codes: np.ndarray, sure: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """What a network might say of these states: the right one with probability `sure`, and some noise."""
    logits = np.log(np.where(np.arange(4) == codes[:, None], sure, (1 - sure) / 3))
    logits += noise * np.random.default_rng(seed).standard_normal(logits.shape)
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True)


def streamed(probabilities: np.ndarray, cuts: list[int] | None = None) -> np.ndarray:
    stream = SegmentStream()
    parts = np.split(probabilities, cuts or [])
    return np.concatenate([*(stream.process(part) for part in parts), stream.flush()])


def in_order(codes: np.ndarray) -> bool:
    steps = np.diff(codes.astype(int)) % 4
    return bool(np.isin(steps, (0, 1)).all())


def whole_lengths(codes: np.ndarray) -> list[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1), len(codes)]
    return [(int(codes[a]), b - a) for a, b in zip(edges[1:-2], edges[2:-1], strict=True)]


@st.composite
def anything(draw: st.DrawFn) -> np.ndarray:
    """Probabilities without any rhythm, from even ones to certainty."""
    seed, frames = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 120))
    logits = np.random.default_rng(seed).standard_normal((frames, 4)) * draw(st.floats(0.0, 30.0))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True)) if frames else logits
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rate", [30, 45, 72, 110, 160])
def test_every_beat_of_a_heart_is_found_in_the_stream_and_in_the_whole(rate: float) -> None:
    codes, spans = truth(rate)
    probabilities = heard(codes, 0.97)
    known = {kind: [(a + b) / 2 for a, b, state in spans if state == kind] for kind in ("S1", "S2")}
    for found in (streamed(probabilities), segment(probabilities)):
        assert len(found) == len(codes)
        told = beats(found, probabilities)
        # of the marked ones, the last may be cut by the end of the sound
        assert len(known["S1"]) - 2 <= len(told) <= len(known["S1"])
        for beat in told:
            assert min(abs(beat.s1_s - s) for s in known["S1"]) <= 0.05
            assert min(abs(beat.s2_s - s) for s in known["S2"]) <= 0.05
        assert rhythm_of(told).heart_rate_bpm == pytest.approx(rate, rel=0.06)


@pytest.mark.parametrize(("rate", "cycle"), [(220, (4, 3, 3, 4)), (30, (6, 14, 5, 75))])
def test_the_slowest_and_the_fastest_heart_fit(rate: float, cycle: tuple[int, int, int, int]) -> None:
    """A cycle of 14 frames or, of 220 a minute, now and then one of 13."""
    fastest = rate == 220
    codes = np.concatenate(
        [
            np.repeat(np.arange(4, dtype=np.uint8), (3 if fastest and k % 3 == 0 else cycle[0], *cycle[1:]))
            for k in range(40 if fastest else 6)
        ]
    )
    probabilities = heard(codes, 0.99)
    assert np.array_equal(segment(probabilities), codes)
    for found in (streamed(probabilities), segment(probabilities)):
        assert rhythm_of(beats(found, probabilities)).heart_rate_bpm == pytest.approx(rate, rel=0.04)


def test_the_whole_course_is_exact_where_the_network_is_sure() -> None:
    codes, _ = truth(75)
    assert np.array_equal(segment(heard(codes, 0.98)), codes)


def test_durations_carry_the_rhythm_over_frames_that_say_nothing() -> None:
    codes, _ = truth(75)
    probabilities = heard(codes, 0.97)
    probabilities[150:190] = 0.25
    assert np.mean(segment(probabilities, adapted(codes)) == codes) > 0.98


def test_the_likeliest_course_is_that_of_trying_them_all() -> None:
    """Against every course of two short states' worth of frames, scored one by one."""
    rng = np.random.default_rng(4)
    for frames in (1, 5, 9, 13):
        probabilities = rng.dirichlet(np.ones(4) * 0.3, frames)
        found = segment(probabilities)
        scores = {tuple(course): _score(course, probabilities) for course in _courses(frames)}
        assert scores[tuple(found.tolist())] == pytest.approx(max(scores.values()), abs=1e-9)


def _courses(frames: int) -> list[list[int]]:
    """Every course in the cycle's order."""
    courses = [[state] for state in range(4)]
    for _ in range(frames - 1):
        courses = [[*c, s] for c in courses for s in (c[-1], (c[-1] + 1) % 4)]
    return courses


def _score(course: list[int], probabilities: np.ndarray) -> float:
    exactly, at_least = segmentation._tables(DURATIONS)
    heard = np.log(segmentation._evidence(probabilities))
    total = float(heard[np.arange(len(course)), course].sum())
    edges = [0, *(np.flatnonzero(np.diff(course)) + 1).tolist(), len(course)]
    with np.errstate(divide="ignore"):
        for k, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
            cut = k in (0, len(edges) - 2)
            total += float(np.log((at_least if cut else exactly)[course[a], b - a]))
    return total


@given(anything())
def test_the_order_of_the_cycle_is_never_broken(probabilities: np.ndarray) -> None:
    for found in (streamed(probabilities), segment(probabilities)):
        assert len(found) == len(probabilities)
        assert in_order(found)
        for state, frames in whole_lengths(found):
            assert frames >= DURATIONS[state].shortest
    for state, frames in whole_lengths(segment(probabilities)):
        assert frames <= DURATIONS[state].longest


@given(anything(), st.lists(st.integers(0, 130), max_size=6))
def test_a_chopped_stream_tells_what_the_whole_one_tells(probabilities: np.ndarray, cuts: list[int]) -> None:
    assert np.array_equal(streamed(probabilities, sorted(cuts)), streamed(probabilities))


def test_a_state_is_told_after_the_lag_and_never_taken_back() -> None:
    codes, _ = truth(72)
    probabilities = heard(codes, 0.7, noise=1.5)
    stream = SegmentStream()
    told: list[int] = []
    for k, one in enumerate(probabilities):
        told += stream.process(one[None]).tolist()
        assert len(told) == max(0, k + 1 - LAG)
    assert np.array_equal(streamed(probabilities)[: len(told)], told)


@given(st.lists(st.integers(0, 400), max_size=5), st.floats(1e-3, 1.0))
def test_the_input_knows_neither_chopping_nor_level(cuts: list[int], gain: float) -> None:
    sound = synthesise(HeartSettings(rate=80, seed=3, noise_db=10.0), 4.0).samples
    power = screening_frames_of(sound)
    whole = Levelled().process(power)
    stream = Levelled()
    chopped = np.concatenate([stream.process(part) for part in np.split(power, sorted(cuts))])
    assert np.array_equal(chopped, whole)
    quieter = Levelled().process(screening_frames_of(np.float32(gain) * sound))
    assert np.abs(quieter - whole).max() < 1e-3


def test_digital_silence_stays_finite() -> None:
    assert np.isfinite(Levelled().process(np.zeros((200, 32), np.float32))).all()


def test_an_irregular_heart_keeps_its_beats() -> None:
    """A pause of twice the cycle, as after an extra beat, is told as one long diastole."""
    cycle = [0] * 6 + [1] * 8 + [2] * 5 + [3] * 20
    codes = np.array(cycle * 6 + [3] * 35 + cycle * 6, np.uint8)
    for found in (segment(heard(codes, 0.9), adapted(codes)), streamed(heard(codes, 0.9))):
        assert np.mean(found == codes) > 0.97


def test_what_the_network_does_not_know_is_refused() -> None:
    codes, _ = truth(72)
    doubtful = heard(codes, 0.4)
    told = rhythm_of(beats(segment(doubtful), doubtful))
    assert told.heart_rate_bpm is None
    assert told.refused == "the beats are not sure"
    assert rhythm_of([]).refused == "fewer than 3 whole beats"


def test_a_rate_no_heart_has_is_refused() -> None:
    slow = [Beat(3.0 * k, 3.0 * k + 0.4, 3.0 * k - 0.06, 3.0 * k + 2.9, 1.0) for k in range(5)]
    assert "30 to 220" in str(rhythm_of(slow).refused)


def test_states_too_short_for_the_lag_are_not_taken() -> None:
    short = (segmentation.Duration(0.1, 0.2, 1, 9), *DURATIONS[1:])
    with pytest.raises(ValueError, match="shorter than 3"):
        SegmentStream(short)
