"""What of a lead may be believed: in any chopping, and told in one line when nothing may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device.contract.vocabulary import LEAD_WORDS
from device.ecg import lead
from device.ecg.lead import Mark, Watch, believed
from device.ecg.r_peaks import heart_rate_bpm, r_peaks
from device.errors import BadInput
from tests.device.leads import beating

RAILS = (-1.5, 1.5)


def doubted(marks: list[Mark], n: int) -> np.ndarray:
    bad = np.zeros(n, bool)
    for mark in marks:
        bad[mark.start : mark.end] = True
    return bad


def watched(x: np.ndarray, cuts: list[int], off: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    watch, marks, pieces = Watch(360, RAILS), [], []
    edges = [0, *sorted(c % (len(x) + 1) for c in cuts), len(x)]
    for a, b in zip(edges, edges[1:], strict=False):
        y, found = watch.accept(x[a:b], a, None if off is None else off[a:b])
        pieces.append(y)
        marks += found
    return np.concatenate(pieces), doubted(marks, len(x))


def test_a_good_lead_is_believed_whole() -> None:
    x, _ = beating(10.0)
    y, bad = watched(x, [100, 700])
    assert not bad.any() and (y == x).all()


def test_a_high_beat_that_touches_the_end_of_the_range_is_no_lead_off() -> None:
    x, _ = beating(10.0)
    assert not watched(np.clip(2.5 * x, *RAILS), [])[1].any()


@given(st.lists(st.integers(0, 4000), max_size=8))
@example([3001])  # where the lead has just come off
@settings(max_examples=25, deadline=None)
def test_any_chopping_finds_the_same(cuts: list[int]) -> None:
    x, _ = beating(10.0)
    x[360:540] = 1.5  # stuck
    x[1000:1500] = x[1000]  # flat
    x[2000:2003] = np.nan
    off = np.zeros(len(x), bool)
    off[3000:3050] = True
    y, bad = watched(x, cuts, off)
    truth = np.zeros(len(x), bool)
    for a, b in ((360, 540), (2000, 2003), (3000, 3050 + round(lead.SETTLE_S * 360))):
        truth[a:b] = True
    truth[1001:1500] = True
    assert (bad == truth).all()
    assert not y[2000:2003].any() and not y[3000:3100].any() and np.isfinite(y).all()


def test_the_newest_word_is_the_gravest() -> None:
    watch = Watch(360, RAILS)
    x, _ = beating(3.0)
    assert watch.state == "unknown"
    watch.accept(x[:100], 0)
    assert watch.state == "on"
    watch.accept(np.full(100, 1.5, np.float32), 100)
    assert watch.state == "lead off"
    watch.accept(x[:100], 200)
    assert watch.state == "on"
    watch.accept(np.full(400, 0.25, np.float32), 300)
    assert watch.state == "flat line"
    watch.accept(np.full(3, np.nan, np.float32), 700)
    assert watch.state == "no numbers"


def test_every_word_is_one_of_the_wire() -> None:
    assert {lead.OFF, lead.FLAT, lead.NO_NUMBER, lead.LOST} < set(LEAD_WORDS)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x: np.full_like(x, 1.5), "r: the lead was off: it lies at the end of its range; fix"),
        (lambda x: np.full_like(x, 0.3), "r: is a flat line: nothing was connected; check the cable"),
        (lambda x: np.full_like(x, np.nan), "r: holds no numbers (NaN) to speak of"),
        (lambda x: np.where(np.arange(len(x)) > 500, 1.5, x), "the lead was off"),
    ],
)
def test_a_lead_that_is_none_is_refused_in_one_line(made, said: str) -> None:
    x, _ = beating(10.0)
    with pytest.raises(BadInput) as told:
        believed("r", made(x).astype(np.float32), 360, rails_mv=RAILS)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_what_is_left_is_given_with_its_gaps() -> None:
    x, _ = beating(10.0)
    x[720:1440] = 1.5
    y, marks = believed("r", x, 360, gaps=[(100, 120)], rails_mv=RAILS)
    assert sorted(marks) == [Mark(100, 120, "no numbers"), Mark(720, 1440, "lead off")]
    assert not y[720:1440].any() and not y[100:120].any() and (y[1440:] == x[1440:]).all()


# ---- beats


@pytest.mark.parametrize("rate_hz", [250, 360, 500])
@pytest.mark.parametrize("rate", [45.0, 72.0, 150.0])
@pytest.mark.parametrize("noise_mv", [0.01, 0.08])
def test_r_peaks_are_found_where_they_are(rate_hz: int, rate: float, noise_mv: float) -> None:
    x, truth = beating(30.0, rate_hz, noise_mv, rate)
    found = r_peaks(x, rate_hz) / rate_hz
    inside = truth[(truth > 0.3) & (truth < 29.7)]
    near = np.array([np.min(np.abs(found - at)) for at in inside])
    assert (near < 0.012).mean() > 0.98
    assert abs(len(found) - len(truth)) <= 2
    bpm = heart_rate_bpm(r_peaks(x, rate_hz), rate_hz)
    assert bpm is not None and abs(bpm / rate - 1) < 0.05


def test_no_beat_is_found_where_nothing_is_known() -> None:
    x, truth = beating(20.0)
    x[2000:4000] = 0.0
    found = r_peaks(x, 360, [(2000, 4000)])
    assert not ((found > 1970) & (found < 4030)).any()
    assert len(found) >= sum((t < 5.4) or (11.3 < t < 19.8) for t in truth) - 1
    assert len(r_peaks(np.zeros(3600), 360)) == 0 and heart_rate_bpm(np.array([1, 2]), 360) is None
    assert len(r_peaks(x, 360, [(0, len(x))])) == 0
