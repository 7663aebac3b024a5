"""The ring by absolute index, and the way into it: nothing lost in silence, nothing in the wrong place."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from device.rates import HOP
from device.sources.base import Block
from device.spans import Gap, clipped_spans, merged
from device.stream import intake as stream_intake
from device.stream.intake import Intake
from device.stream.ring import Ring


@given(
    pieces=st.lists(st.integers(0, 70), max_size=30),
    asks=st.lists(st.tuples(st.integers(-5, 900), st.integers(0, 60))),
)
def test_it_gives_what_was_put_in_or_refuses(pieces: list[int], asks: list[tuple[int, int]]) -> None:
    ring = Ring(0.02)  # 40 samples
    said = np.zeros(0, np.float32)
    for n in pieces:
        x = np.arange(len(said), len(said) + n, dtype=np.float32)
        said = np.concatenate([said, x])
        assert ring.append(x) == ring.end == len(said)
        assert ring.oldest == max(len(said) - 40, 0)
    for start, n in asks:
        if ring.oldest <= start and start + n <= ring.end:
            assert np.array_equal(ring.read(start, n), said[start : start + n])
        else:
            with pytest.raises(LookupError):
                ring.read(start, n)
    assert np.array_equal(ring.read(ring.oldest, ring.end - ring.oldest), said[ring.oldest :])


def test_what_is_read_stays_as_it_was() -> None:
    ring = Ring(0.01)
    ring.append(np.ones(20))
    held = ring.read(0, 20)
    ring.append(np.zeros(20))
    assert held.all()


def test_gaps_are_joined_cut_and_forgotten() -> None:
    ring = Ring(0.05)  # 100 samples
    ring.mark_gap(30, 40)
    ring.mark_gap(38, 50)
    ring.mark_gap(60, 60)
    assert ring.gaps(0, 100) == [(30, 50)]
    assert ring.gaps(35, 45) == [Gap(35, 45)]
    assert ring.gaps(50, 90) == []
    ring.append(np.zeros(149))
    assert ring.gaps(0, 200) == [(30, 50)]
    ring.append(np.zeros(1))
    assert ring.gaps(0, 200) == []


def test_gaps_stay_apart_where_sound_was_heard_between_them() -> None:
    """Be it one sample: what is marked as a gap was not heard, and nothing else. Clipping comes in bursts,
    whose stretches a hop apart are kept as one."""
    ring = Ring(0.05)
    for mark, found in ((ring.mark_gap, ring.gaps), (ring.mark_clipped, ring.clipped)):
        for start, end in ((10, 20), (20, 25), (26, 30), (30 + HOP, 60), (61 + HOP, 90)):
            mark(start, end)
        joined = [(10, 60), (61 + HOP, 90)] if mark == ring.mark_clipped else None
        assert found(0, 100) == (joined or [(10, 25), (26, 30), (30 + HOP, 60), (61 + HOP, 90)])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=12), st.integers(0, 5))
def test_merged_spans_cover_the_same_samples(spans: list[tuple[int, int]], distance: int) -> None:
    covered = {k for a, b in spans for k in range(a, b)}
    found = merged(spans, distance)
    assert all(a.end + distance < b.start for a, b in zip(found, found[1:], strict=False))
    result = {k for span in found for k in range(*span)}
    assert covered <= result and (distance > 0 or covered == result)


def test_waiting_ends_with_the_sound_or_without_it() -> None:
    ring = Ring(1.0)
    assert not ring.wait(1, timeout_s=0.0)
    thread = threading.Timer(0.02, lambda: ring.append(np.zeros(16)))
    thread.start()
    assert ring.wait(16, timeout_s=20)
    thread.join()
    threading.Timer(0.02, ring.close).start()
    assert not ring.wait(17, timeout_s=20) and ring.closed


def test_the_time_of_a_sample_is_known() -> None:
    ring = Ring(10.0)
    assert ring.monotonic_of(0) is None
    ring.append(np.zeros(2000), 101.0)
    ring.append(np.zeros(2000), 102.5)  # half a second late
    assert ring.monotonic_of(2000) == 101.0
    assert ring.monotonic_of(3000) == 101.5
    assert ring.monotonic_of(0) == 100.0
    assert ring.monotonic_of(5000) == 103.0


def test_full_scale_for_two_samples_is_clipping() -> None:
    x = np.zeros(20, np.float32)
    x[3], x[6:8], x[12:20] = 1.0, -1.0, 0.9999
    assert clipped_spans(x) == [(6, 8), (12, 20)]
    assert clipped_spans(x * 0.99) == []


def blocks(x: np.ndarray, cuts: list[int], lost: dict[int, int]) -> list[Block]:
    """x in pieces at `cuts`; `lost[k]` samples are cut out before piece k."""
    result, edges = [], [0, *sorted(cuts), len(x)]
    for k, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        a += lost.get(k, 0)
        result.append(Block(x[a:b], a, b / 8000, lost.get(k, 0)))
    return result


def taken(rate: int, pieces: list[Block]) -> tuple[Ring, Intake, np.ndarray]:
    ring = Ring(60.0)
    intake = Intake(rate, ring)
    ready = [intake.accept(block) for block in pieces]
    return ring, intake, np.concatenate([*ready, intake.finish()])


def test_the_intake_puts_sound_where_it_belongs() -> None:
    """A second of a tone with 100 ms lost: the rest stays in its place, the gap is zeros, and marked."""
    x = np.sin(2 * np.pi * 50 * np.arange(8000) / 8000).astype(np.float32)
    ring, intake, y = taken(8000, blocks(x, [1001, 4000], {2: 800}))
    assert len(y) == 2000 and ring.end == 2000 and ring.closed
    assert ring.gaps(0, 2000) == [(1000, 1200)] and intake.lost == 800
    expected = np.sin(2 * np.pi * 50 * np.arange(2000) / 2000)
    for a, b in ((30, 970), (1230, 1970)):
        assert np.abs(y[a:b] - expected[a:b]).max() < 1e-3
    assert not y[1030:1170].any()
    assert np.array_equal(ring.read(0, 2000), y)
    assert ring.monotonic_of(1200) is not None


def test_a_jump_that_the_source_did_not_tell_of_is_a_gap_too() -> None:
    ring, intake, y = taken(
        2000, [Block(np.ones(10, np.float32), 0, 0.0), Block(np.ones(10, np.float32), 30, 0.0)]
    )
    assert ring.gaps(0, 99) == [(10, 30)] and intake.lost == 20 and len(y) == 40 and y.sum() == 20


@pytest.mark.parametrize("rate", [2000, 11025, 44100, 48000])
@pytest.mark.parametrize("lost_s", [3.0, 11.3, 47.77])
def test_a_long_hole_costs_nothing_and_the_sound_after_it_is_the_same_to_the_last_bit(
    rate: int, lost_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, random = round(lost_s * rate) + 7, np.random.default_rng(rate)
    before, after = (random.normal(0, 0.1, rate + odd).astype(np.float32) for odd in (3, 50))
    pieces = [Block(before, 0, 1.0), Block(after, len(before) + lost, 2.0, lost)]
    ring, intake, y = taken(rate, pieces)
    monkeypatch.setattr(stream_intake, "LONGEST_FILLED_S", 1e9)
    filled, _, whole = taken(rate, pieces)
    assert ring.end == filled.end and ring.gaps(0, ring.end) == filled.gaps(0, ring.end)
    assert np.array_equal(ring.read(0, ring.end), filled.read(0, ring.end))
    assert len(y) + intake.skipped == len(whole) and intake.lost == lost
    assert (intake.skipped > 0) == (lost_s > 10)


def test_a_week_without_a_microphone_is_no_load() -> None:
    """At 96 kHz it would be 230 GB of zeros."""
    rate, week = 96000, 7 * 86400 * 96000
    ring = Ring(100.0)
    intake = Intake(rate, ring)
    intake.accept(Block(np.ones(rate, np.float32), 0, 1.0))
    ready = intake.accept(Block(np.ones(rate, np.float32), rate + week, 2.0, week))
    assert len(ready) < 5 * 2000
    assert intake.lost == week
    assert ring.end == pytest.approx(7 * 86400 * 2000 + 4000, abs=100)
    assert ring.gaps(ring.oldest, ring.end) == [(ring.oldest, 7 * 86400 * 2000 + 2000)]
    assert ring.read(ring.end - 1000, 1000) == pytest.approx(1.0, abs=1e-3)


def test_a_source_that_goes_back_is_an_error() -> None:
    with pytest.raises(ValueError, match="must not go back"):
        taken(2000, [Block(np.ones(10, np.float32), 0, 0.0), Block(np.ones(10, np.float32), 5, 0.0)])


def test_sound_lost_at_the_end_is_a_gap() -> None:
    ring = Ring(9.0)
    intake = Intake(8000, ring)
    intake.accept(Block(np.ones(8000, np.float32), 0, 0.0))
    intake.finish(lost=4000)
    assert ring.end == 3000 and ring.gaps(0, 4000) == [(2000, 3000)]


@given(at=st.integers(0, 399), cut=st.integers(1, 398), n=st.integers(2, 60))
@example(at=35, cut=36, n=2)
def test_clipping_is_seen_at_the_sources_rate_wherever_blocks_are_cut(at: int, cut: int, n: int) -> None:
    x = np.zeros(400, np.float32)
    x[at : at + n] = 1.0
    ring, _, _ = taken(8000, blocks(x, [cut], {}))
    end = min(at + n, 400)
    spans = ring.clipped(0, 1000)
    if end - at >= 2:
        (span,) = spans
        assert span.start <= at // 4 and span.end >= -(-end // 4)
        assert span.start >= at // 4 - 1 and span.end <= -(-end // 4) + 1
    else:
        assert spans == []


def test_the_first_sample_after_a_hole_is_no_clipping_by_itself() -> None:
    """One sample at full scale is a peak; what stood before the hole does not make it a stretch."""
    ring = Ring(5)
    intake = Intake(2000, ring)
    before, after = np.zeros(160, np.float32), np.zeros(160, np.float32)
    before[-1] = after[0] = 1.0
    intake.accept(Block(before, 0, 0.0))
    intake.accept(Block(after, 170, 0.1, lost=10))
    intake.finish()
    assert ring.clipped(0, ring.end) == []
