"""When an exam was, by devices that do not know: corrected where a trusted pair exists, else honest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from device.clock import ClockTrust, FakeClock
from device.contract.codec import encode
from device.contract.control import Backlog, Health
from device.contract.exam import Exam
from device.contract.topics import Topic, read
from device.contract.vocabulary import Moment, chunk_span
from device.daemon.daemon import Daemon
from device.exam.plan import Phase
from device.settings.specs import HeartSettings
from device.sources.base import Block
from device.sources.synthetic import SyntheticSource
from device.storage.outbox import Outbox
from host.dashboard.app import create_app
from host.dashboard.live import Hub
from host.store.arrivals import Arrivals
from host.store.clocks import WORDS, Instant, Pair, better, instant, pair_of
from host.store.presence import Presence
from host.store.store import Store
from tests.device.daemon.test_daemon import fakes, settings_in
from tests.device.exams import make_exam
from tests.host.arrivals import topic

TRUE_S = 1.8e9
"""What time it is really, when the boot of these tests had its second 1000."""
BOOT = "11111111-2222-3333-4444-555555555555"


def moment(monotonic_s: float, wall_s: float, trust: str, boot_id: str = BOOT) -> Moment:
    return Moment(boot_id, monotonic_s, wall_s, trust)


def health(now: Moment) -> bytes:
    return encode(
        Health(
            now=now,
            uptime_s=1.0,
            source="running",
            sample_age_s=0.0,
            samples=1,
            lost_samples=0,
            exams=0,
            backlog=Backlog(0, 0, 0, None),
            partials=0,
            disk_free_bytes=None,
            memory_bytes=None,
            temperature_c=None,
            battery=None,
            shed="nothing",
            missed={},
            dropped={},
        )
    )


class Host:
    """A store whose time is the test's, and the dashboard on it."""

    def __init__(self, folder: Path) -> None:
        self.now_s = TRUE_S
        self.store = Store(folder, now=lambda: self.now_s)
        app = create_app(self.store, Hub(), send=lambda address, command: True)
        self.client = TestClient(app, base_url="http://127.0.0.1:8080")

    def exam(self, exam: Exam) -> dict[str, Any]:
        found = self.client.get(f"/api/exams/{exam.id}").json()
        (listed,) = [e for e in self.client.get("/api/exams").json()["exams"] if e["id"] == exam.id]
        assert listed["started"] == found["started"]
        return found

    def hear(self, now: Moment) -> None:
        Presence(self.store).put_health(Topic("village", "stetho-1", "health"), health(now))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "store")
    yield made
    made.store.close()


def iso(seconds: float) -> str:
    from host.dashboard.present import iso

    text = iso(seconds)
    assert text is not None
    return text


def arrived(host: Host, started: Moment, finished: Moment) -> Exam:
    exam = replace(make_exam(), started=started, finished=finished)
    Arrivals(host.store).put_result(topic(exam), encode(exam))
    return exam


def test_an_exam_without_a_clock_is_corrected_by_what_comes_later(host: Host) -> None:
    exam = arrived(host, moment(400, 12.0, "none"), moment(460, 72.0, "none"))
    shown = host.exam(exam)
    assert (shown["started"], shown["finished"], shown["clock_basis"]) == (None, None, "none")
    host.hear(moment(1000, 612.0, "none"))  # now the host's own clock makes a pair
    shown = host.exam(exam)
    assert shown["started"] == iso(TRUE_S - 600) and shown["finished"] == iso(TRUE_S - 540)
    assert shown["clock_basis"] == "corrected" and "corrected" in shown["clock_words"]
    # the device's own clock, once a time server keeps it, knows better than a message that took 0.7 s
    host.hear(moment(1010, TRUE_S + 10 - 0.7, "synchronised"))
    assert host.exam(exam)["started"] == iso(TRUE_S - 600 - 0.7)
    host.now_s += 500
    host.hear(moment(1500, 1112.0, "none"))
    assert host.exam(exam)["started"] == iso(TRUE_S - 600 - 0.7), "a worse pair replaces none that is better"


def test_another_boot_is_not_corrected(host: Host) -> None:
    exam = arrived(host, moment(400, 12.0, "none", "another"), moment(460, 72.0, "none", "another"))
    stale = arrived(host, moment(400, 1.75e9, "set", "another"), moment(460, 1.75e9, "set", "another"))
    host.hear(moment(1000, TRUE_S, "synchronised"))
    assert host.exam(exam)["started"] is None
    shown = host.exam(stale)
    assert shown["started"] == iso(1.75e9) and shown["clock_basis"] == "set"


def test_another_device_of_the_same_boot_id_is_another(host: Host) -> None:
    exam = arrived(host, moment(400, 12.0, "none"), moment(460, 72.0, "none"))
    Presence(host.store).put_health(Topic("village", "other", "health"), health(moment(1000, 0.0, "none")))
    assert host.exam(exam)["started"] is None


def test_what_a_time_server_kept_is_taken_as_it_is(host: Host) -> None:
    exam = arrived(host, moment(400, 1.79e9, "synchronised"), moment(460, 1.79e9 + 60, "synchronised"))
    host.hear(moment(1000, 0.0, "none"))
    shown = host.exam(exam)
    assert shown["started"] == iso(1.79e9) and shown["clock_basis"] == "synchronised"


def test_pairs_outlive_the_host(tmp_path: Path) -> None:
    first = Host(tmp_path / "store")
    exam = arrived(first, moment(400, 12.0, "none"), moment(460, 72.0, "none"))
    first.hear(moment(1000, 0.0, "none"))
    first.store.close()
    again = Host(tmp_path / "store")
    assert again.exam(exam)["started"] == iso(TRUE_S - 600)
    again.store.close()


def test_every_basis_has_its_words() -> None:
    assert set(WORDS) == {trust.value for trust in ClockTrust} | {"corrected"}


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.booleans(), st.sampled_from(["none", "set", "synchronised"])),
        min_size=1,
        max_size=20,
    )
)
def test_pairs_in_any_order_correct_within_the_shortest_way(told: list[tuple[float, bool, str]]) -> None:
    """Messages take 0 to 30 s; the wall clock of the device is off unless it is kept."""
    pair: Pair | None = None
    for n, (way_s, _, trust) in enumerate(told):
        at_s = 100.0 * n
        wall_s = TRUE_S + at_s if trust == "synchronised" else -1e9
        new = pair_of(moment(at_s, wall_s, trust), TRUE_S + at_s + way_s)
        assert new is not None
        pair = better(pair, new)
    found = instant(moment(50.0, -1e9, "set"), pair)
    exact = any(trust == "synchronised" for *_, trust in told)
    off_s = 0.0 if exact else min(way_s for way_s, *_ in told)
    assert found.basis == "corrected" and found.seconds == pytest.approx(TRUE_S + 50 + off_s, abs=1e-3)


def test_no_pair_no_correction() -> None:
    assert pair_of(moment(5, 1.75e9, "set")) is None
    assert instant(moment(5, 0.0, "none"), None) == Instant(None, "none")
    assert instant(moment(5, 7.0, "set"), None) == Instant(7.0, "set")


@pytest.mark.parametrize("trust", [ClockTrust.NONE, ClockTrust.SET])
@pytest.mark.parametrize("jump_s", [-50 * 3.156e7, 10 * 3.156e7, -3600.0])
def test_a_jump_in_mid_exam_is_harmless_from_the_microphone_to_the_page(
    tmp_path: Path, host: Host, jump_s: float, trust: ClockTrust
) -> None:
    clock = FakeClock(monotonic_s=1000.0, wall_s=1.75e9, boot_id=BOOT)
    clock.trusted = trust

    class Jumping(SyntheticSource):
        jumped = False

        def read(self) -> Block | None:
            clock.advance(0.02)
            examiner = daemon.examiner
            if not self.jumped and examiner is not None and examiner.phase is Phase.RECORDING:
                self.jumped = True
                clock.jump(jump_s)
            return super().read()

    settings = settings_in(tmp_path)
    source = Jumping(HeartSettings(), pace="fast")
    daemon = Daemon(settings, models=fakes(), source=source, clock=clock)
    assert daemon.run(signals=False) == 0
    box = Outbox(settings.device.state_dir / "outbox")
    parcel = box.claim()
    assert parcel is not None
    exam = read(Exam, parcel.result)
    assert exam.finished.monotonic_s > exam.started.monotonic_s
    assert abs(exam.finished.wall_s - exam.started.wall_s) > 3000, "the wall clock did jump"
    assert exam.sites[0].samples == 16000 and exam.sites[0].gaps == ()

    Arrivals(host.store).put_result(topic(exam), parcel.result)
    for sound in parcel.sounds:
        for n in range(sound.chunks):
            first, past = chunk_span(n, sound.size, sound.chunk_size)
            Arrivals(host.store).put_chunk(topic(exam, sound.site, n), sound.path.read_bytes()[first:past])
    assert box.delivered(parcel.id, parcel.sha256)
    age_s = box.backlog(Moment(**clock.stamp().to_json())).oldest_s
    assert age_s is None or age_s >= 0
    box.close()
    shown = host.exam(exam)
    assert shown["status"] == "complete"
    assert (shown["started"] is None) == (trust is ClockTrust.NONE)
    # the same switch-on speaks live: from now on both ends are right, whatever the wall clock said
    host.hear(Moment(**clock.stamp().to_json()))
    shown = host.exam(exam)
    ago_s = clock.monotonic() - exam.started.monotonic_s
    assert shown["started"] == iso(TRUE_S - ago_s)
    assert shown["started"] < shown["finished"] <= iso(TRUE_S)
