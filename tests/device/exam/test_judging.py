"""The judge's line: each second's spectrum once, and few changes of file on the way to its messages."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import device
from device.clock import FakeClock
from device.contract.exam import Delay
from device.contract.live import LiveExam, LiveQuality, LiveWindow
from device.dsp.mel import MelGrid
from device.exam import judging
from device.exam.examiner import Examiner
from device.exam.identity import Identity
from device.exam.plan import Plan
from device.inference import bundle
from device.rates import WORKING_RATE_HZ
from device.screening import quality, rhythm
from device.screening.features import FRAME_HOP
from device.screening.screen import Screener, screen_recording
from device.settings.specs import HeartSettings
from device.sources.files import read_sound
from device.sources.synthetic import synthesise
from device.storage.outbox import Outbox
from device.stream.ring import Ring
from tests.waiting import until

HOUSE = str(Path(device.__file__).parent)
RATE = WORKING_RATE_HZ
IDENTITY = Identity("village", "stetho-1", "0.1.0", "1", "a test", RATE, Delay(12.25, 8.0, 16.0, 36.25))
HEART = HeartSettings(murmur="systolic", noise_db=20.0, rate_hz=RATE)


@pytest.fixture(scope="module")
def heart() -> np.ndarray:
    return synthesise(HEART, 60.0).samples


class Bench:
    """An examiner with the released classifier."""

    def __init__(self, folder: Path) -> None:
        self.entry = bundle.load().model("classifier")
        self.screener = Screener(self.entry)
        self.ring = Ring(120.0)
        self.outbox = Outbox(folder)
        self.live: list[Any] = []
        self.done: list[Any] = []
        self.examiner = Examiner(
            *(IDENTITY, self.ring, self.screener, self.entry.meta, self.outbox, FakeClock()),
            live=lambda name, message: self.live.append(message),
            put=self.done.append,
            contact=self.screener.contact,
        )

    def hear(self, x: np.ndarray, judge: bool = True, block: int = 40) -> None:
        for at in range(0, len(x), block):
            self.ring.append(x[at : at + block])
            self.examiner.feed()
            if judge:
                self.examiner.judge(0.0)

    def finish(self) -> Any:
        while self.examiner.busy:
            self.examiner.judge(0.0)
        return self.done[-1]

    def told(self, kind: type) -> list[Any]:
        return [message for message in self.live if isinstance(message, kind)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.outbox.close()


def watched(work: Callable[[], None]) -> list[str]:
    """The project's file of each Python call and return while `work` runs."""
    files: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "return") and frame.f_code.co_filename.startswith(HOUSE):
            files.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return files


def test_a_judged_second_changes_file_fifteen_times_at_most(bench: Bench, heart: np.ndarray) -> None:
    """A change: two consecutive Python calls or returns inside `device` in different files, counted
    on the judge's thread over ten seconds of an exam with the released classifier, each with its window, its
    quality and its progress, the sound coming in blocks of 20 ms with a look at each; then for one second.
    """
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(heart[: 12 * RATE])
    bench.live.clear()
    files: list[str] = []
    for at in range(12 * RATE, 22 * RATE, 40):
        bench.hear(heart[at : at + 40], judge=False)
        files += watched(lambda: bench.examiner.judge(0.0))
    told = [len(bench.told(kind)) for kind in (LiveWindow, LiveQuality, LiveExam)]
    assert told == [10, 10, 10], "no second is left out of the count"
    changes = sum(a != b for a, b in zip(files, files[1:], strict=False))
    assert changes / 10 <= 15, "\n".join(
        Path(b).name for a, b in zip(["", *files], files, strict=False) if a != b
    )


def test_each_frame_of_the_spectrum_is_computed_once(
    bench: Bench, heart: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[int] = []
    power = MelGrid.power
    monkeypatch.setattr(MelGrid, "power", lambda grid, x: units.append(1) or power(grid, x))  # type: ignore[func-returns-value]
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(heart[: 10 * RATE + 80])
    assert len(units) == 1 + 10 * 50 // 10, "ten frames each, and one for the stream before"
    bench.hear(heart[10 * RATE + 80 : 20 * RATE])
    bench.examiner.stop()
    exam = bench.finish()
    assert exam.heart_rate_bpm is not None
    assert len(units) == 1 + 20 * 50 // 10


@pytest.mark.parametrize("samples", [24_000, 25_001, 31_337, 7_999])
def test_an_exam_says_to_the_bit_what_its_recording_does(
    bench: Bench, heart: np.ndarray, samples: int
) -> None:
    bench.hear(heart[:1234])
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(heart[:samples], block=37)
    bench.examiner.stop()
    (site,) = bench.finish().sites
    parcel = bench.outbox.claim()
    assert parcel is not None
    x = read_sound(parcel.sounds[0].path).samples
    # the ring's float32 against the file's 24 bit: what was judged is what was heard
    assert np.abs(x - heart[:samples]).max() <= 2**-24
    found = screen_recording(heart[:samples], bench.entry)
    assert [(w.start, w.probability, w.quality, w.reasons) for w in site.windows] == [
        (w.start, w.probability, w.quality, w.reasons) for w in found.windows
    ]
    assert site.heart_rate_bpm == rhythm.heart_rate(heart[:samples]) is not None


def test_an_exam_and_its_recording_say_the_same_where_there_is_an_offset(
    bench: Bench, heart: np.ndarray
) -> None:
    moved = heart[:25_001] + np.float32(0.2)
    bench.hear(moved[:1234])
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(moved, block=37)
    bench.examiner.stop()
    (site,) = bench.finish().sites
    found = screen_recording(moved, bench.entry)
    assert [(w.start, w.probability, w.quality, w.reasons) for w in site.windows] == [
        (w.start, w.probability, w.quality, w.reasons) for w in found.windows
    ]
    plain = rhythm.heart_rate(heart[:25_001])
    assert plain is not None
    assert site.heart_rate_bpm == pytest.approx(plain, abs=0.5)
    assert rhythm.heart_rate(moved) == pytest.approx(plain, abs=0.5)
    told: list[LiveQuality] = bench.told(LiveQuality)
    assert len(told) > 10
    for number, message in enumerate(told, 1):
        alone = bench.screener.contact(heart[message.index - 1234 : number * RATE + 80])
        assert message.quality == pytest.approx(alone.score, abs=0.1)


def test_the_heart_rate_is_that_of_the_site_where_more_was_heard(bench: Bench, heart: np.ndarray) -> None:
    bench.examiner.start(Plan(("AV",), 6, 60, 3))
    bench.hear(heart[: 9 * RATE], judge=False)
    (site,) = bench.finish().sites
    assert site.samples < 9 * RATE and site.ended == "enough good windows"
    assert site.heart_rate_bpm == rhythm.heart_rate(heart[: site.samples])


def test_a_site_of_which_windows_were_left_out_has_its_heart_rate_all_the_same(
    bench: Bench, heart: np.ndarray
) -> None:
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(heart[: 8 * RATE])
    bench.hear(heart[8 * RATE : 30 * RATE], judge=False)
    bench.hear(heart[30 * RATE : 40 * RATE])
    bench.examiner.stop()
    exam = bench.finish()
    assert exam.dropped["windows"] > 10
    assert exam.sites[0].heart_rate_bpm == rhythm.heart_rate(heart[: 40 * RATE])


def test_the_contact_is_that_of_the_newest_three_seconds(bench: Bench, heart: np.ndarray) -> None:
    x = heart[: 20 * RATE].copy()
    x[14 * RATE :] *= 1e-3
    bench.hear(np.zeros(777, np.float32))
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(x, block=44)
    told: list[LiveQuality] = bench.told(LiveQuality)
    assert len(told) == 19, "one a second"
    for number, message in enumerate(told, 1):
        start = message.index - 777
        assert start % FRAME_HOP == 0, "on the frames' grid, or its frames would have to be computed anew"
        piece = x[start : number * RATE + 80]
        assert len(piece) == min(number * RATE + 80, quality.CONTACT_S * RATE)
        alone = bench.screener.contact(piece)
        # the same frames; where they stand among the ten that are computed at once may move the last bit
        assert message.quality == pytest.approx(alone.score, rel=1e-5)
        assert message.reasons == alone.reasons
        rate = rhythm.heart_rate(piece)
        assert message.heart_rate_bpm == (rate if rate is None else pytest.approx(rate, rel=1e-5))
    assert told[10].quality >= quality.GOOD and "too quiet" in told[-1].reasons


def test_what_was_not_heard_makes_the_contact_bad(bench: Bench, heart: np.ndarray) -> None:
    bench.hear(heart[: 7 * RATE])
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(heart[: 4 * RATE])
    bench.ring.mark_gap(bench.ring.end - 1500, bench.ring.end)
    bench.hear(heart[4 * RATE : 9 * RATE])
    gaps = ["gaps" in message.reasons for message in bench.told(LiveQuality)]
    assert gaps == [False] * 3 + [True] * 3 + [False] * 2


def test_a_window_is_told_with_the_sound_that_completes_it(bench: Bench, heart: np.ndarray) -> None:
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(heart[: 5 * RATE + 40])
    assert bench.told(LiveWindow) == []
    bench.hear(heart[5 * RATE + 40 : 5 * RATE + 80])
    assert [w.start for w in bench.told(LiveWindow)] == [0]


def test_the_sound_wakes_the_judge(bench: Bench, heart: np.ndarray) -> None:
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    judge = threading.Thread(target=lambda: bench.examiner.judge(200.0))
    judge.start()
    until(lambda: len(bench.examiner._now.changed._waiters) > 0)  # type: ignore[attr-defined]
    bench.hear(heart[: RATE + 80], judge=False)
    judge.join(20)
    assert not judge.is_alive()


def test_windows_are_left_out_only_by_a_judge_that_is_far_behind(bench: Bench, heart: np.ndarray) -> None:
    bench.examiner.start(Plan(("AV",), 60, 60, 99))
    bench.hear(heart[: round((judging.MOST_LAG_S - 1) * RATE)], judge=False)
    bench.hear(heart[: 10 * RATE])
    bench.examiner.stop()
    assert bench.finish().dropped["windows"] == 0
