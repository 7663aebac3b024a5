"""Exams on a ring: complete, the same however the two threads interleave, never half."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.clock import FakeClock
from device.contract.codec import encode
from device.contract.exam import Delay, Exam
from device.contract.topics import Address, parse_topic
from device.errors import StethopiError
from device.exam import judging
from device.exam.examiner import Examiner
from device.exam.identity import Identity
from device.exam.plan import Phase, Plan
from device.sources.files import read_sound
from device.storage.outbox import Outbox
from device.storage.recorder import Recorder
from device.stream.ring import Ring
from tests.device.fakes import META, FakeJudge

RATE = 2000
IDENTITY = Identity("village", "stetho-1", "0.1.0", "1", "a test", 2000, Delay(12.25, 8.0, 16.0, 36.25))


def sound(seconds: float, seed: int = 3) -> np.ndarray:
    steps = np.random.default_rng(seed).integers(-(2**22), 2**22, round(seconds * RATE))
    return (steps / 2**23).astype(np.float32)


class Rig:
    """An examiner with its ring and outbox, driven by hand."""

    def __init__(self, folder: Path, *, ring_s: float = 120.0, **options: Any) -> None:
        self.outbox = Outbox(folder)
        self.ring = Ring(ring_s)
        self.judge = FakeJudge()
        self.live: list[tuple[str, Any]] = []
        self.put: list[Exam] = []
        self.examiner = Examiner(
            IDENTITY,
            self.ring,
            self.judge,
            META,
            self.outbox,
            FakeClock(),
            live=lambda name, message: self.live.append((name, message)),
            put=self.put.append,
            **options,
        )

    def hear(self, x: np.ndarray, judge: bool = True, block: int = 500) -> None:
        for at in range(0, len(x), block):
            self.ring.append(x[at : at + block])
            self.examiner.feed()
            if judge:
                self.examiner.judge(0.0)
                self.examiner.judge(0.0)

    def run(self, rounds: int = 400) -> None:
        idle = 0
        while rounds and idle < 3:
            self.examiner.judge(0.0)
            rounds, idle = rounds - 1, 0 if self.examiner.busy else idle + 1

    def recorded(self, exam: Exam, site: str) -> np.ndarray:
        """The sound of a site, as it is in the outbox; its hash is checked."""
        parcel = self.outbox.claim()
        assert parcel is not None and parcel.id == exam.id
        self.outbox.release(exam.id)
        (path,) = [s.path for s in parcel.sounds if s.site == site]
        return read_sound(path).samples

    def states(self) -> list[str]:
        return [message.state for name, message in self.live if name == "exam"]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(tmp_path / f"outbox-{len(made)}", **options))
        return made[-1]

    yield make
    for each in made:
        each.outbox.close()


def test_an_exam_is_recorded_judged_and_put(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.hear(sound(3, seed=1))
    exam_id = r.examiner.start(Plan(("AV",)), subject="P-7")
    x = sound(20)
    r.hear(x)
    r.run()
    (exam,) = r.put
    assert exam.id == exam_id == r.live[0][1].exam
    assert (exam.subject, exam.ended, exam.verdict.label) == ("P-7", "complete", "normal")
    (site,) = exam.sites
    # eight good windows are there after 12 s
    assert (site.samples, site.ended, site.start_index) == (24000, "enough good windows", 6000)
    assert [w.start for w in site.windows] == [2000 * n for n in range(8)]
    assert np.array_equal(r.recorded(exam, "AV"), x[:24000])
    assert r.outbox.state(exam.id) == "waiting"
    assert not r.examiner.busy
    stages = {stage.stage: stage for stage in exam.latency}
    assert stages["classify"].count > 0 and stages["record"].p99_ms is not None
    assert exam.dropped == {"windows": 0}
    assert r.states()[0] == "recording" and r.states()[-2:] == ["site done", "finished"]
    assert r.live[-1][1].verdict == exam.verdict
    for name, message in r.live:
        assert parse_topic(Address("f", "d").live(name)).payload_type is type(message)
        encode(message)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocks=st.lists(st.integers(1, 4000), min_size=1, max_size=8),
    rounds=st.lists(st.integers(0, 3), min_size=1, max_size=8),
)
def test_the_same_sound_gives_the_same_exam_whoever_is_late(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[int], rounds: list[int]
) -> None:
    x = np.concatenate([sound(7), np.zeros(6 * RATE, np.float32), sound(20, seed=5)])
    plan = Plan(("AV", "MV", "PV"), 5.0, 11.0, 3)

    def run(blocks: list[int], rounds: list[int]) -> tuple[Any, ...]:
        r = Rig(tmp_path_factory.mktemp("outbox"))
        r.examiner.autostart, r.examiner.autostart_left = plan, 1
        r.examiner.judge(0.0)
        at = turn = 0
        while at < len(x):
            size = blocks[turn % len(blocks)]
            r.ring.append(x[at : at + size])
            r.examiner.feed()
            for _ in range(rounds[turn % len(rounds)]):
                r.examiner.judge(0.0)
            at, turn = at + size, turn + 1
        r.examiner.source_ended()
        r.run()
        (exam,) = r.put
        sounds = [r.recorded(exam, site.site).tobytes() for site in exam.sites]
        r.outbox.close()
        rows = [(s.site, s.start_index, s.samples, s.ended, s.windows, s.heart_rate_bpm) for s in exam.sites]
        return exam.ended, exam.verdict, rows, sounds

    with pytest.MonkeyPatch.context() as patch:
        # however late: leaving windows out is another test
        patch.setattr(judging, "MOST_LAG_S", 1e9)
        assert run(blocks, rounds) == run([500], [2])


def test_sites_follow_at_once_or_when_asked(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV", "MV"), 5, 5, 9))
    r.hear(sound(9))
    assert r.examiner.phase is Phase.BETWEEN
    r.hear(sound(3))
    assert r.examiner.next_site()
    r.hear(sound(9))
    r.run()
    (exam,) = r.put
    assert [(s.site, s.start_index, s.samples) for s in exam.sites] == [
        ("AV", 0, 10000),
        ("MV", 24000, 10000),
    ]
    assert exam.ended == "complete"
    assert not r.examiner.next_site() and not r.examiner.stop() and not r.examiner.cancel()


def test_the_button_ends_a_site_and_the_exam(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV", "MV", "PV")))
    r.hear(sound(6.5))
    assert r.examiner.next_site()
    r.run()
    assert r.examiner.phase is Phase.BETWEEN
    r.examiner.next_site()
    r.hear(sound(6))
    assert r.examiner.stop()
    r.run()
    (exam,) = r.put
    assert [(s.site, s.seconds, s.ended) for s in exam.sites] == [
        ("AV", 6.5, "stopped"),
        ("MV", 6.0, "stopped"),
    ]
    assert exam.ended == "stopped"


def test_a_site_begun_by_accident_is_left_out_but_a_first_one_is_kept(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV", "MV"), 5, 5, 9))
    r.hear(sound(6))
    r.examiner.next_site()
    r.hear(sound(0.5))
    r.examiner.stop()
    r.run()
    assert [s.site for s in r.put[0].sites] == ["AV"]
    r.examiner.start(Plan(("AV",)))
    r.hear(sound(0.5))
    r.examiner.stop()
    r.run()
    exam = r.put[1]
    assert (exam.verdict.label, exam.verdict.probability, exam.sites[0].seconds) == ("unsure", None, 0.5)
    assert exam.verdict.reasons == ("under 2 s of sound",)
    assert sorted(p.suffix for p in r.outbox.sounds.iterdir()) == [".flac", ".flac"]


def test_an_exam_stopped_before_any_sound_is_none(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV",)))
    r.examiner.stop()
    r.run()
    assert r.put == [] and not r.examiner.busy
    assert r.states()[-1] == "cancelled"
    assert list(r.outbox.sounds.iterdir()) == []


def test_cancelled_nothing_is_left(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV", "MV"), 5, 5, 9), at_once=True)
    r.hear(sound(8))
    assert r.examiner.cancel()
    r.run()
    assert r.put == [] and list(r.outbox.sounds.iterdir()) == []
    # what the classifier heard of it does not reach the next exam
    r.examiner.start(Plan(("AV",), 5, 5, 9))
    x = sound(5, seed=9)
    r.hear(x)
    r.run()
    assert len(r.put) == 1
    assert np.array_equal(r.judge.streams[-1], x)


def test_only_one_exam_at_a_time(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV",)))
    with pytest.raises(StethopiError, match="under way"):
        r.examiner.start(Plan(("AV",)))


def test_exams_begin_by_themselves_where_the_one_before_ended(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.autostart, r.examiner.autostart_left = Plan(("AV",), 5, 6, 9), 3
    x = sound(60)
    r.hear(x)
    r.run()
    assert [(e.sites[0].start_index, e.sites[0].samples) for e in r.put] == [
        (0, 12000),
        (12000, 12000),
        (24000, 12000),
    ]
    assert r.examiner.finished == 3
    with pytest.raises(AssertionError):
        r.recorded(r.put[1], "AV")  # the first one is claimed first


def test_a_rest_of_sound_makes_no_exam_of_its_own(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.autostart, r.examiner.autostart_left = Plan(("AV",), 5, 6, 9), -1
    r.hear(sound(13))
    r.examiner.source_ended()
    r.run()
    assert [e.sites[0].samples for e in r.put] == [12000, 12000]
    assert not r.examiner.busy
    assert sorted(p.suffix for p in r.outbox.sounds.iterdir()) == [".flac", ".flac"]
    with pytest.raises(StethopiError, match="ended"):
        r.examiner.start(Plan(("AV",)))


def test_gaps_and_clipping_stand_in_the_exam_and_are_told_to_the_classifier(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.hear(sound(1))
    r.examiner.start(Plan(("AV",), 6, 6, 99))
    x = sound(6)
    r.hear(x[:3000])
    r.ring.mark_gap(5000, 7000)
    r.ring.mark_clipped(8000, 8010)
    x[3000:5000] = 0.0
    r.hear(x[3000:])
    r.run()
    (site,) = r.put[0].sites
    assert site.gaps == ((3000, 5000),)
    assert (6000, 6010) in site.clipped
    assert {start for start, _ in r.judge.gaps} >= {3000} and {end for _, end in r.judge.gaps} >= {5000}


def test_a_late_classifier_leaves_windows_out_and_says_so(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV",), 40, 40, 99))
    r.hear(sound(8))
    r.hear(sound(22), judge=False)
    r.hear(sound(10))
    r.run()
    (exam,) = r.put
    starts = [w.start for w in exam.sites[0].windows]
    assert starts == sorted(set(starts)) and starts[-1] == 70000
    assert exam.dropped["windows"] == 36 - len(starts) > 10
    assert exam.sites[0].samples == 80000, "the recording is never shed"


def test_a_fast_source_waits_for_the_classifier(rig: Callable[..., Rig]) -> None:
    import threading

    r = rig(fast=True, ring_s=20.0)
    r.examiner.start(Plan(("AV",), 60, 60, 99))
    x = sound(60)
    feeder = threading.Thread(target=lambda: r.hear(x, judge=False))
    feeder.start()
    furthest = 0
    while not r.put:
        furthest = max(furthest, r.ring.end - r.examiner._running.judged if r.examiner._running else 0)
        r.examiner.judge(0.01)
    feeder.join(10)
    assert furthest <= 6 * RATE
    assert r.put[0].dropped["windows"] == 0 and len(r.put[0].sites[0].windows) == 56
    assert np.array_equal(r.recorded(r.put[0], "AV"), x)


def test_a_full_disk_is_told_and_the_exam_is_put_when_there_is_room(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    r = rig()
    full = [True]
    put = r.outbox.put

    def sometimes(exam: Exam, files: Any) -> str:
        if full:
            raise StethopiError("exam cannot be written (disk full); free space on the disk")
        return put(exam, files)

    monkeypatch.setattr(r.outbox, "put", sometimes)
    r.examiner.start(Plan(("AV",), 5, 5, 9))
    r.hear(sound(6))
    r.run()
    assert r.examiner.busy and r.put == []
    assert "free space" in (r.examiner.stuck or "")
    assert sum("free space" in record.getMessage() for record in caplog.records) == 1
    full.clear()
    r.examiner._handover._retry_at_s = 0.0
    r.run(2)
    assert len(r.put) == 1 and not r.examiner.busy and r.examiner.stuck is None
    assert r.outbox.backlog().exams == 1


def test_a_recording_that_the_disk_does_not_take_ends_as_a_partial_one(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    r = rig()
    r.examiner.start(Plan(("AV",)))
    r.hear(sound(4))

    def refuse(self: Recorder, x: np.ndarray) -> None:
        raise StethopiError("the recording cannot be written (no space left); free space on the card")

    monkeypatch.setattr(Recorder, "append", refuse)
    r.hear(sound(1))
    r.run()
    assert r.put == [] and not r.examiner.busy and r.states()[-1] == "partial"
    assert any("free space" in record.getMessage() for record in caplog.records)
    r.outbox.close()
    again = Outbox(r.outbox.folder)
    assert [round(p.seconds, 1) for p in again.partials] == [4.0]
    again.close()


def test_no_room_no_exam_and_it_is_said_once(
    rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    r = rig()
    r.outbox.quota_bytes = 1000
    with pytest.raises(StethopiError, match="quota"):
        r.examiner.start(Plan(("AV",)))
    r.examiner.autostart, r.examiner.autostart_left = Plan(("AV",)), -1
    r.run(20)
    assert sum("no exam can begin" in record.getMessage() for record in caplog.records) == 1


def test_closing_ends_the_exam_as_it_is(rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    r = rig()
    r.examiner.autostart, r.examiner.autostart_left = Plan(("AV",)), -1
    r.examiner.judge(0.0)
    r.hear(sound(7))
    r.examiner.close()
    r.run()
    assert not r.examiner.busy
    assert [(e.ended, e.sites[0].seconds) for e in r.put] == [("stopped", 7.0)]


def test_a_source_that_stays_away_ends_the_exam_with_what_there_is(rig: Callable[..., Rig]) -> None:
    r = rig()
    r.examiner.start(Plan(("AV", "MV")), at_once=True)
    r.hear(sound(7))
    r.examiner.source_gone()
    r.run()
    assert [(e.ended, e.sites[0].seconds) for e in r.put] == [("source gone", 7.0)]
    # it is back: exams are possible again
    r.examiner.start(Plan(("AV",)))


def lose(r: Rig, seconds: float) -> None:
    """So much sound never came; as device.stream.intake.Intake does it."""
    r.ring.mark_gap(r.ring.end, r.ring.end + round(seconds * RATE))
    r.ring.skip(round(seconds * RATE))


def test_no_exam_begins_by_itself_while_the_source_is_away(rig: Callable[..., Rig]) -> None:
    r = rig(ring_s=60)
    r.examiner.autostart, r.examiner.autostart_left = Plan(("AV",), 5, 6, 9), -1
    r.hear(sound(9))
    r.examiner.source_gone()
    r.run()
    assert not r.examiner.busy
    lose(r, 1000)
    r.hear(sound(7))
    r.run()
    assert [(e.ended, e.sites[0].start_index / RATE, e.sites[0].gaps) for e in r.put] == [
        ("complete", 0, ()),
        ("source gone", 6, ()),
        ("complete", 1009, ()),
    ]


def test_a_hole_longer_than_the_ring_ends_the_exam_with_what_there_is(rig: Callable[..., Rig]) -> None:
    r = rig(ring_s=60)
    r.examiner.start(Plan(("AV", "MV"), 30, 40, 99))
    r.hear(sound(8))
    r.hear(sound(4), judge=False)
    lose(r, 200)
    r.hear(sound(5))
    r.run()
    ((site,),) = [exam.sites for exam in r.put]
    assert (r.put[0].ended, site.site, site.seconds, site.gaps) == ("source gone", "AV", 12.0, ())
    assert np.array_equal(r.recorded(r.put[0], "AV"), np.concatenate([sound(8), sound(4)]))


def test_what_was_heard_before_such_a_hole_makes_no_window_after_it(rig: Callable[..., Rig]) -> None:
    r = rig(ring_s=60)
    r.examiner.start(Plan(("AV", "MV"), 30, 40, 99))
    r.hear(sound(4.2))
    r.hear(sound(4), judge=False)
    lose(r, 200)
    r.hear(sound(5))
    r.run()
    assert r.put[0].sites[0].seconds == 8.2
    assert [name for name, _ in r.live if name == "window"] == []


def test_a_site_that_is_repeated_while_it_is_judged_begins_anew(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    r = rig()
    process = r.judge.process

    def meanwhile(x: np.ndarray) -> Any:
        windows = process(x)
        if len(r.examiner._running.state.current.windows) == 1 and not r.examiner._running.take:
            assert r.examiner.repeat_site()
        return windows

    monkeypatch.setattr(r.judge, "process", meanwhile)
    r.examiner.start(Plan(("AV",), 6, 6, 99))
    r.hear(sound(7, seed=1))
    x = sound(8, seed=2)
    r.hear(x)
    r.run()
    (site,) = r.put[0].sites
    assert [w.start for w in site.windows] == [0, 2000]
    heard = np.concatenate([sound(7, seed=1), x])[site.start_index :][: site.samples]
    assert np.array_equal(r.recorded(r.put[0], "AV"), heard)
    assert np.array_equal(r.judge.streams[-1][: len(heard)], heard)
