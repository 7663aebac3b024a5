"""The exam's state machine: where a site ends is decided by the sound, never by who was late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.contract.codec import encode
from device.contract.exam import Delay, Exam, Site
from device.contract.topics import read
from device.errors import BadInput
from device.exam.plan import Phase, Plan
from device.exam.result import delay_of, finding_of, heart_rate_of, latency_of, site_of, window_row
from device.exam.session import Examination
from device.rates import WINDOW, WINDOW_EVERY
from device.screening import quality
from device.screening.verdict import Findings, Label, Window
from device.storage.recorder import RecordingFile
from device.timing import StageTimer
from tests.device.exams import make_exam, moment

META = {"threshold": 0.5, "undecided": [0.45, 0.55]}
RATE = 2000


def window(number: int, good: bool = True, probability: float | None = 0.2) -> Window:
    return Window(number * WINDOW_EVERY, probability, 0.9 if good else 0.1, () if good else ("too quiet",))


def windows_of(goods: list[bool]) -> list[Window]:
    return [window(n, good) for n, good in enumerate(goods)]


def run_site(exam: Examination, goods: list[bool], lag: list[int]) -> int:
    """Hear a site second by second, the windows coming `lag` seconds late; samples of the settled site."""
    site = exam.begin(exam.sites[-1].start + (exam.sites[-1].samples or 0) if exam.sites else 4000)
    pending: list[tuple[int, Window]] = []
    for second in range(1, 400):
        number = second - WINDOW // RATE
        if 0 <= number < len(goods):
            pending.append((second + lag[number % len(lag)], window(number, goods[number])))
        if exam.phase is Phase.RECORDING:
            exam.heard(site.start + second * RATE)
        elif not pending:
            break
        # they come in order: one that is late keeps the others back
        while pending and pending[0][0] <= second:
            exam.window(pending.pop(0)[1])
    assert exam.phase is Phase.SETTLING
    exam.settle()
    return site.samples or 0


def expected(plan: Plan, goods: list[bool]) -> tuple[int, str]:
    """Length and reason of the end, from the definition."""
    good_ends = [n * WINDOW_EVERY + WINDOW for n, good in enumerate(goods) if good]
    if len(good_ends) >= plan.good_windows:
        enough = max(good_ends[plan.good_windows - 1], plan.min_samples)
        if enough <= plan.max_samples:
            return enough, "enough good windows"
    return plan.max_samples, "longest"


@given(
    goods=st.lists(st.booleans(), min_size=60, max_size=60),
    lag=st.lists(st.integers(0, 9), min_size=1, max_size=10),
    min_s=st.integers(1, 30),
    more_s=st.integers(0, 30),
    needed=st.integers(1, 12),
)
def test_a_site_ends_where_the_sound_says_however_late_it_was_judged(
    goods: list[bool], lag: list[int], min_s: int, more_s: int, needed: int
) -> None:
    plan = Plan(("AV",), min_s, min_s + more_s, needed)
    exam = Examination(plan, META)
    samples = run_site(exam, goods, lag)
    site = exam.sites[0] if exam.sites else exam.current
    assert (samples, site.ended) == expected(plan, goods)
    assert all(w.start + WINDOW <= max(samples, WINDOW) for w in site.windows)
    assert exam.phase is Phase.DONE and exam.ended == "complete"


@given(
    goods=st.lists(st.lists(st.booleans(), min_size=20, max_size=20), min_size=1, max_size=4),
    lag=st.lists(st.integers(0, 4), min_size=1, max_size=4),
)
def test_sites_follow_each_other_without_a_hole(goods: list[list[bool]], lag: list[int]) -> None:
    plan = Plan(("AV", "PV", "TV", "MV")[: len(goods)], 5, 15, 3)
    exam = Examination(plan, META)
    for number, heard in enumerate(goods):
        run_site(exam, heard, lag)
        assert exam.phase is (Phase.DONE if number == len(goods) - 1 else Phase.BETWEEN)
    for before, after in zip(exam.sites, exam.sites[1:], strict=False):
        assert after.start == before.start + (before.samples or 0)
    assert exam.findings().label in Label


def test_enough_windows_do_not_end_a_site_before_its_shortest_time() -> None:
    exam = Examination(Plan(("AV",), 20, 60, 2), META)
    site = exam.begin(0)
    assert not exam.heard(7 * RATE)
    assert not exam.window(window(0)) and not exam.window(window(1))
    assert not exam.heard(20 * RATE - 1)
    assert exam.heard(20 * RATE)
    assert exam.settle() is site
    assert (site.samples, site.ended) == (20 * RATE, "enough good windows")


@pytest.mark.parametrize("why", ["stopped", "sound ended", "source gone"])
def test_stopped_in_the_middle_of_a_site_it_is_what_was_heard(why: str) -> None:
    exam = Examination(Plan(("AV", "MV")), META)
    site = exam.begin(1000)
    exam.heard(1000 + 7 * RATE)
    exam.stop(1000 + 7 * RATE, why)
    exam.window(window(0))
    exam.window(window(1))
    exam.window(window(3))  # hears beyond the end
    exam.settle()
    assert exam.phase is Phase.DONE
    assert (exam.ended, site.ended, site.samples) == (why, why, 7 * RATE)
    assert [w.start for w in site.windows] == [0, 2000, 6000][:2]


def test_stopped_between_sites_the_sites_before_count() -> None:
    exam = Examination(Plan(("AV", "MV"), 5, 5, 9), META)
    run_site(exam, [True], [0])
    assert exam.phase is Phase.BETWEEN
    exam.stop(999_999)
    assert (exam.phase, exam.ended, len(exam.sites)) == (Phase.DONE, "stopped", 1)


def test_the_user_may_go_on_to_the_next_site_at_any_time() -> None:
    exam = Examination(Plan(("AV", "MV")), META)
    exam.begin(0)
    exam.heard(6 * RATE)
    exam.end_site(6 * RATE)
    site = exam.settle()
    assert (site.ended, exam.phase) == ("stopped", Phase.BETWEEN)
    exam.begin(8 * RATE)
    exam.end_site(15 * RATE)
    exam.settle()
    assert (exam.phase, exam.ended) == (Phase.DONE, "complete")


def test_a_site_stopped_before_its_first_sample_is_no_site() -> None:
    exam = Examination(Plan(("AV",)), META)
    exam.begin(500)
    exam.stop(500)
    exam.settle()
    assert exam.phase is Phase.DONE and exam.sites == []


def test_a_short_site_keeps_its_one_window_of_repeated_sound() -> None:
    exam = Examination(Plan(("AV",)), META)
    site = exam.begin(0)
    exam.stop(3 * RATE, "sound ended")
    exam.window(window(0))
    exam.settle()
    assert (site.samples, len(site.windows)) == (3 * RATE, 1)
    assert exam.findings().label is Label.NORMAL


def test_nothing_good_is_unsure_and_unknown_is_not_zero() -> None:
    exam = Examination(Plan(("AV",)), META)
    exam.begin(0)
    exam.stop(RATE, "sound ended")
    exam.settle()
    finding = finding_of(exam.findings())
    assert (finding.label, finding.probability, finding.quality) == ("unsure", None, None)
    assert finding.reasons


def test_all_sites_decide_together() -> None:
    exam = Examination(Plan(("AV", "MV"), 5, 8, 9), META)
    for probability in (0.1, 0.999):
        site = exam.begin(exam.sites[-1].start + 8 * RATE if exam.sites else 0)
        exam.heard(site.start + 8 * RATE)
        for n in range(4):
            exam.window(window(n, probability=probability))
        exam.settle()
    findings = exam.findings()
    assert findings.label is Label.ABNORMAL
    assert len(findings.windows) == 8


def test_good_is_what_quality_says() -> None:
    exam = Examination(Plan(("AV",), 1, 60, 1), META)
    exam.begin(0)
    exam.heard(5 * RATE)
    assert not exam.window(Window(0, 0.2, quality.GOOD - 1e-6))
    assert exam.window(Window(0, 0.2, quality.GOOD))
    assert exam.settle().good_windows == 1


@given(
    st.lists(
        st.sampled_from(["begin", "heard", "window", "stop", "end_site", "settle", "cancel"]), max_size=30
    )
)
def test_any_order_of_events_is_obeyed_or_refused_and_leaves_a_sane_exam(events: list[str]) -> None:
    exam = Examination(Plan(("AV", "PV", "MV"), 2, 6, 1), META)
    now = 0
    for event in events:
        now += 3000
        before = (exam.phase, len(exam.sites))
        calls: dict[str, Any] = {
            "begin": lambda at=now: exam.begin(at),
            "heard": lambda at=now: exam.heard(at),
            "window": lambda: exam.window(window(0)),
            "stop": lambda at=now: exam.stop(at),
            "end_site": lambda at=now: exam.end_site(at),
            "settle": exam.settle,
            "cancel": exam.cancel,
        }
        try:
            calls[event]()
        except ValueError:
            assert (exam.phase, len(exam.sites)) == before
        assert len(exam.sites) <= 3
        for site in exam.sites:
            assert site.samples is None or 0 < site.samples <= exam.plan.max_samples


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sites": ()}, "0 sites; give 1 to 16"),
        ({"sites": ("XX",)}, "site XX: none of AV, PV, TV, MV, other"),
        ({"min_s": 0}, "must rise"),
        ({"min_s": 20, "max_s": 10}, "must rise"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Plan(**options)


def test_a_site_heard_again_has_a_name_of_its_own() -> None:
    plan = Plan(("AV", "MV", "AV"))
    assert [plan.name(n) for n in range(3)] == ["AV", "MV", "AV-2"]


def test_no_more_sites_than_the_wire_takes() -> None:
    """An exam of seventeen would be recorded, and no host could read it."""
    assert len(Plan(("other",) * 16).sites) == 16
    with pytest.raises(BadInput, match="17 sites"):
        Plan(("other",) * 17)


def test_room_is_asked_for_every_site_and_for_one_that_lies_there_twice() -> None:
    """A disk that fills up in the last site costs the patient a second visit."""
    assert Plan(("AV", "MV"), 1, 10).most_bytes == 3 * 3 * 10 * RATE


@pytest.mark.parametrize(("samples", "sites"), [(2 * RATE - 1, 1), (2 * RATE, 2)])
def test_a_last_site_counts_from_two_seconds_on(samples: int, sites: int) -> None:
    """As long as the verdict can hear something of it."""
    exam = Examination(Plan(("AV", "MV")), META)
    exam.begin(0)
    exam.end_site(5 * RATE)
    exam.settle()
    exam.begin(5 * RATE)
    exam.stop(5 * RATE + samples)
    exam.settle()
    assert exam.phase is Phase.DONE and len(exam.sites) == sites


def test_an_exam_that_is_stopped_with_its_last_sample_is_complete() -> None:
    """Nothing was left to hear: whoever reads it later must not take it for one that was broken off."""
    exam = Examination(Plan(("AV",), 5, 8), META)
    exam.begin(0)
    exam.stop(8 * RATE)
    assert exam.settle().ended == "longest" and exam.ended == "complete"
    exam = Examination(Plan(("AV",), 5, 8), META)
    exam.begin(0)
    exam.stop(8 * RATE - 1)
    assert exam.settle().ended == "stopped" and exam.ended == "stopped"


# ---- as the wire has it


def test_a_settled_exam_fits_the_wire() -> None:
    exam = Examination(Plan(("AV",), 5, 8, 9), META)
    run_site(exam, [True, False, True, True], [1])
    site = site_of(
        exam.sites[0],
        started=moment(),
        heart_rate_bpm=None,
        recording=RecordingFile(Path("x-AV.flac"), 70_000, "ab" * 32, 16_000, clipped=[[1, 3]]),
    )
    assert (site.seconds, site.good_windows, len(site.windows), site.sound.chunks) == (8.0, 3, 4, 2)
    example = make_exam()
    timer = StageTimer("denoise", 0.002)
    timer.add(0.001)
    made = Exam(
        **{
            **{f: getattr(example, f) for f in example.__dataclass_fields__},
            "sites": (site,),
            "verdict": finding_of(exam.findings()),
            "heart_rate_bpm": heart_rate_of([site]),
            "latency": latency_of([timer, StageTimer("classify", 0.25)]),
            "delay": delay_of(0.01225, 0.008, 0.016),
        }
    )
    assert read(Exam, encode(made)) == made
    assert made.heart_rate_bpm is None
    assert made.latency[1].p50_ms is None and made.latency[0].p50_ms == pytest.approx(1.0, rel=0.01)
    assert made.delay == Delay(12.25, 8.0, 16.0, 36.25)


def test_the_heart_rate_of_an_exam_is_the_middle_one_of_its_sites() -> None:
    sites = list(make_exam({"AV": b"1", "PV": b"2", "MV": b"3"}).sites)

    def told(*rates: float | None) -> list[Site]:
        return [replace(site, heart_rate_bpm=rate) for site, rate in zip(sites, rates, strict=True)]

    assert heart_rate_of(told(70.0, None, 90.0)) == 80.0
    # a site that counted both sounds of each beat does not pull it away
    assert heart_rate_of(told(70.0, 140.0, 72.0)) == 72.0


def test_long_reasons_are_cut_and_not_refused() -> None:
    row = window_row(Window(0, None, 0.0, tuple("x" * 200 for _ in range(50))))
    assert len(row.reasons) == 20 and len(row.reasons[0]) == 80
    finding = finding_of(Findings(Label.UNSURE, None, None, ["y" * 100]))
    assert finding.reasons == ("y" * 80,)
