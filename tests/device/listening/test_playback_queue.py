"""The last steps before the ear: changes without a click, and a queue that is never later than it must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.listening.playback_queue import PlaybackQueue
from device.listening.shaper import FADE, Blend, Loudness, Shaper
from device.settings.specs import HeartSettings
from device.sources.synthetic import synthesise

RATE = 48000
PERIOD = 480


def noise(n: int, seed: int = 1, level: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-level, level, n).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 400), max_size=8), wishes=st.lists(st.integers(0, 400), max_size=3))
def test_a_blend_is_the_same_however_chopped_and_ends_exactly(cuts: list[int], wishes: list[int]) -> None:
    raw, clean = noise(400, 1), noise(400, 2)

    def run(edges: list[int]) -> np.ndarray:
        blend, pieces, is_raw = Blend(raw=True), [], True
        for a, b in zip(edges, edges[1:], strict=False):
            if a in wishes:
                is_raw = not is_raw
                blend.choose(is_raw)
            pieces.append(blend.process(raw[a:b], clean[a:b]))
        return np.concatenate(pieces)

    whole = run(sorted({0, 400, *wishes}))
    assert np.array_equal(run(sorted({0, 400, *wishes, *cuts})), whole)
    last = max([w for w in wishes if w < 400], default=0)
    ends_raw = len({w for w in wishes if w < 400}) % 2 == 0
    assert np.array_equal(whole[last + 40 :], (raw if ends_raw else clean)[last + 40 :])


def test_a_blend_does_not_click() -> None:
    blend = Blend(raw=False)
    x = blend.process(np.full(100, -0.5), np.full(100, 0.5))
    blend.choose(True)
    y = np.concatenate([x, blend.process(np.full(100, -0.5), np.full(100, 0.5))])
    assert y[99] == 0.5 and y[-1] == -0.5 and np.abs(np.diff(y)).max() < 0.05


@settings(deadline=None, max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 500), max_size=8),
    preset=st.sampled_from(["none", "bell", "diaphragm", "extended"]),
    rate_hz=st.sampled_from([2000, 48000]),
)
def test_a_shaper_with_a_preset_is_the_same_however_chopped(
    cuts: list[int], preset: str, rate_hz: int
) -> None:
    x = noise(500, level=1.0)
    whole = Shaper(6.0, 0.8, preset, rate_hz).process(x)
    assert np.abs(whole).max() <= 0.8 * 1.000001
    shaper, edges = Shaper(6.0, 0.8, preset, rate_hz), [0, *sorted(cuts), 500]
    pieces = [shaper.process(x[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert len(shaper.tail()) == rate_hz // 100 == shaper.fade


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def direct(clock: Clock) -> PlaybackQueue:
    lane = PlaybackQueue(Shaper(limit=1.0, rate_hz=RATE), RATE, PERIOD, 4800, lean=True, monotonic=clock)
    lane.open()
    return lane


def test_a_capture_block_leaves_in_the_next_output_block_untouched() -> None:
    clock = Clock()
    lane = direct(clock)
    x = noise(100 * PERIOD)
    heard = []
    for n in range(100):
        clock.now = 0.01 * n
        lane.put(x[n * PERIOD : (n + 1) * PERIOD], at_s=clock.now)
        clock.now += 0.004
        heard.append(lane.next(PERIOD))
    y = np.concatenate(heard)
    assert np.array_equal(y[PERIOD:], x[PERIOD:]), "after the fade, to the bit"
    assert (lane.underruns, lane.dropped, lane.trimmed) == (0, 0, 0)
    assert lane.waited.count == 100 and lane.waited.p99 == pytest.approx(0.004, rel=0.02)
    assert lane.waited.missed == 0


def test_what_comes_in_a_heap_at_the_start_is_not_worth_the_delay() -> None:
    clock = Clock()
    lane = direct(clock)
    x = noise(8 * PERIOD)
    for n in range(8):
        lane.put(x[n * PERIOD : (n + 1) * PERIOD], at_s=0.01 * n)
    clock.now = 0.07
    y = lane.next(PERIOD)
    assert y[-1] == x[-1] and lane.waited.worst_s < 0.001


def test_a_lean_lane_finds_back_to_a_short_queue_without_a_click() -> None:
    """A server that slept: forty ms wait, and go within some seconds, though nobody stops."""
    clock = Clock()
    lane = direct(clock)
    at = np.arange(700 * PERIOD) / RATE
    x = (0.4 * np.sin(2 * np.pi * 50 * at)).astype(np.float32)
    heard = []
    for n in range(700):
        clock.now = 0.01 * n
        lane.put(x[n * PERIOD : (n + 1) * PERIOD], at_s=clock.now)
        if not 10 <= n < 14:
            heard.append(lane.next(PERIOD))
    y = np.concatenate(heard)
    assert lane.trimmed > 0.03 * RATE and (lane.underruns, lane.dropped) == (0, 0)
    with lane._lock:
        assert lane._queued + len(lane._ready) < 0.006 * RATE
    assert np.abs(np.diff(y)).max() < 2 * 0.4 * 2 * np.pi * 50 / RATE


def test_a_lane_that_is_not_lean_keeps_its_prefill() -> None:
    lane = PlaybackQueue(Shaper(limit=1.0), RATE, 80, 500)
    lane.open()
    for n in range(400):
        lane.put(noise(16, n))
        if n > 10:
            lane.next(384)
    assert lane.trimmed == 0 and lane.underruns == 0


def test_what_is_missing_is_faded_around() -> None:
    lane = direct(Clock())
    ones = np.full(PERIOD, 0.5, np.float32)
    heard = []
    for n in range(6):
        lane.put(ones * (1 if n < 3 else -1), torn=n == 3)
        heard.append(lane.next(PERIOD))
    heard.append(lane.next(PERIOD))
    y = np.concatenate([[0.0], *heard])
    assert np.abs(np.diff(y)).max() < 0.005 and y.max() == 0.5 and y.min() == -0.5


@pytest.mark.parametrize("rate_hz", [2000, RATE])
def test_cut_fades_at_once_end_plays_what_waits(rate_hz: int) -> None:
    ones = np.full(rate_hz // 10, 0.5, np.float32)
    sums = []
    for act in (PlaybackQueue.cut, PlaybackQueue.end):
        lane = PlaybackQueue(Shaper(limit=1.0, rate_hz=rate_hz), RATE, len(ones) // 10, 10 * len(ones))
        lane.open()
        lane.put(ones)
        heard = [lane.next(PERIOD) for _ in range(5)]
        lane.put(ones)
        act(lane)
        lane.put(ones)  # too late
        while not lane.parked:
            heard.append(lane.next(PERIOD))
        heard.append(lane.next(PERIOD))
        y = np.concatenate(heard)
        assert np.abs(np.diff(y)).max() < 0.006 and not lane.playing
        assert not y[-100:].any()
        sums.append(float(y.sum()) / RATE / 0.5)
    assert sums[0] < 0.12 and sums[1] == pytest.approx(0.2, abs=0.005)


def test_a_parked_lane_takes_nothing_and_may_be_opened_again() -> None:
    lane = direct(Clock())
    lane.put(noise(PERIOD))
    lane.cut()
    assert not lane.next(PERIOD).any() and lane.parked
    lane.put(noise(PERIOD))
    assert not lane.next(PERIOD).any() and lane.dropped == 0
    lane.open()
    lane.put(noise(PERIOD))
    assert lane.next(PERIOD).any() and lane.playing


def test_the_fade_is_ten_milliseconds() -> None:
    assert FADE == Shaper().fade == 20


# ---- loudness


def rms_db(x: np.ndarray) -> float:
    return 10.0 * float(np.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-20))


@pytest.mark.parametrize("rate_hz", [2000, 48000])
@pytest.mark.parametrize("level_db", [-30.0, -12.0, 0.0, 20.0])
def test_what_lasts_is_never_louder_than_the_limit(rate_hz: int, level_db: float) -> None:
    """Noise from soft to far beyond full scale: at most -20 dB of full scale after 0.3 s, untouched below."""
    x = np.random.default_rng(1).standard_normal(3 * rate_hz).astype(np.float32)
    x *= np.float32(10 ** (level_db / 20))
    y = Loudness(-20.0, rate_hz).process(x)
    settled = rms_db(y[rate_hz:])
    if level_db <= -25:
        assert settled == pytest.approx(level_db, abs=0.7)
    else:
        assert settled <= -19.5
    begins = int(0.3 * rate_hz)
    assert (
        max(rms_db(y[at : at + rate_hz // 8]) for at in range(begins, len(y) - rate_hz // 8, rate_hz // 8))
        < -18
    )


def test_a_heart_passes_as_it_is_and_off_is_off() -> None:
    heart = synthesise(HeartSettings(level=0.3, noise_db=30), 6).samples
    y = Loudness(-20.0).process(heart)
    assert rms_db(y - heart) < rms_db(heart) - 20
    assert np.array_equal(Loudness(0.0).process(heart), heart)
    assert np.array_equal(Shaper(20.0).process(heart), Shaper(20.0, loudest_db=0.0).process(heart))


def test_the_gain_comes_back_slowly_and_never_jumps() -> None:
    loudness = Loudness(-20.0)
    x = np.full(4000, 1e-3, np.float32)
    x[500:1500] = 1.0
    y = loudness.process(x)
    gain = y / x
    assert gain[:500].min() > 0.999 and gain[1490] == pytest.approx(0.1, abs=0.01)
    # 60 dB louder at once: the first 5 ms take half of the gain away in ten equal parts, and none is larger
    assert gain[519] == pytest.approx(0.505, abs=0.001)
    assert np.abs(np.diff(gain)).max() == pytest.approx((1 - gain[519]) / 10, rel=0.01)
    assert 20 * np.log10(gain[3500] / gain[1600]) == pytest.approx(20 * 0.95, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=12), st.sampled_from([2000, 44100]))
def test_loudness_is_the_same_however_the_sound_is_chopped(sizes: list[int], rate_hz: int) -> None:
    x = (np.random.default_rng(3).standard_normal(sum(sizes)) * 0.5).astype(np.float32)
    whole = Loudness(-20.0, rate_hz).process(x)
    chopped, at = Loudness(-20.0, rate_hz), 0
    pieces = []
    for size in sizes:
        pieces.append(chopped.process(x[at : at + size]))
        at += size
    assert np.array_equal(np.concatenate(pieces), whole)
