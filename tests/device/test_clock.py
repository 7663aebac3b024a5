"""Clocks: what they are worth, and that jumps of the wall clock leave order alone."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import pytest

from device import clock
from device.clock import ClockTrust, FakeClock, Stamp, SystemClock


def test_the_machine_tells_its_boot_and_both_times() -> None:
    machine = SystemClock()
    assert len(machine.boot_id) == 36 and machine.boot_id == SystemClock().boot_id
    before = time.monotonic(), time.time()
    stamp = machine.stamp()
    after = time.monotonic(), time.time()
    assert before[0] <= stamp.monotonic_s <= after[0] and before[1] <= stamp.wall_s <= after[1]
    assert stamp.clock_trust in (ClockTrust.SET, ClockTrust.SYNCHRONISED)


@pytest.mark.parametrize(
    ("wall", "disciplined", "trust"),
    [(0.0, True, "none"), (1.4e9, False, "none"), (1.8e9, False, "set"), (1.8e9, True, "synchronised")],
)
def test_trust(monkeypatch: pytest.MonkeyPatch, wall: float, disciplined: bool, trust: str) -> None:
    monkeypatch.setattr(clock, "_kept_by_a_time_server", lambda: disciplined)
    monkeypatch.setattr(time, "time", lambda: wall)
    assert SystemClock().trust().value == trust


def test_the_question_to_the_kernel_is_harmless() -> None:
    assert clock._kept_by_a_time_server() in (True, False)


@pytest.mark.parametrize(
    ("state", "status", "kept"),
    [
        (0, 0x2001, True),  # TIME_OK, a disciplined clock of nanoseconds
        (1, 0x2001, True),  # a leap second at the end of this day
        (4, 0x2001, True),  # just after one
        (5, 0x2001, False),  # TIME_ERROR
        (0, 0x2041, False),  # STA_UNSYNC
        (-1, 0, False),  # not allowed to ask
    ],
)
def test_what_the_kernel_says_of_its_clock(
    monkeypatch: pytest.MonkeyPatch, state: int, status: int, kept: bool
) -> None:
    """Numbers of <sys/timex.h>. A clock taken for kept corrects the dates of other exams."""

    def adjtimex(where: Any) -> int:
        assert where._obj.modes == 0, "asks, and sets nothing"
        where._obj.status = status
        return state

    monkeypatch.setattr(clock, "_adjtimex", lambda: adjtimex)
    assert clock._kept_by_a_time_server() is kept


def test_a_machine_without_the_question_is_kept_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_adjtimex", lambda: None)
    assert clock._kept_by_a_time_server() is False


def test_asking_the_kernel_leaves_nothing_behind() -> None:
    """Each new ctypes.CDLL makes classes that wait for a full collection: it was the soak's slope."""
    SystemClock().trust()
    gc.collect()
    for _ in range(50):
        SystemClock().trust()
    assert gc.collect() < 50


def test_a_machine_without_boot_id_gets_one_for_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(clock, "_BOOT_ID", clock.Path(str(tmp_path)) / "nothing")
    assert len(SystemClock().boot_id) == 36 and SystemClock().boot_id != SystemClock().boot_id


def test_a_stamp_is_plain_json() -> None:
    stamp = Stamp("b", 1.5, 2.5, ClockTrust.SYNCHRONISED)
    plain = {"boot_id": "b", "monotonic_s": 1.5, "wall_s": 2.5, "clock_trust": "synchronised"}
    assert json.loads(json.dumps(stamp.to_json())) == plain


def test_the_trust_is_spelt_as_on_the_wire() -> None:
    from device.contract.vocabulary import CLOCK_TRUST

    assert tuple(CLOCK_TRUST) == tuple(trust.value for trust in ClockTrust)


def test_the_fake_goes_when_told() -> None:
    fake = FakeClock()
    first = fake.stamp()
    fake.advance(3)
    fake.jump(-50 * 365 * 86400)
    assert fake.monotonic() - first.monotonic_s == 3
    assert fake.wall() < first.wall_s - 1e9
    fake.trusted = ClockTrust.NONE
    assert fake.stamp().clock_trust is ClockTrust.NONE and fake.trust() is ClockTrust.NONE
