"""A microphone that goes again and again, or falls silent at a random instant: told, recovered, marked, and
nothing is left behind. Hours of it in seconds, on a clock that the source itself drives.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.clock import FakeClock
from device.contract.control import Health
from device.daemon import daemon as daemon_module
from device.daemon import source_thread, wiring
from device.daemon.daemon import Daemon
from device.daemon.health import SilenceWatch
from device.daemon.machine import resident_bytes
from device.daemon.models import Models
from device.errors import SourceGone
from device.panel.light import Light
from device.panel.panels import FakePanel
from device.settings.settings import Settings
from device.settings.specs import HeartSettings
from device.sources.base import Block
from device.sources.synthetic import SyntheticSource
from device.stream.ring import Ring
from tests.device.daemon.test_daemon import running, settings_in
from tests.device.fakes import META, FakeCleaner, FakeJudge
from tests.waiting import until

RATE = 2000


class Driven(FakeClock):
    """A clock that goes by as the source waits, and a little with each look at it."""

    def monotonic(self) -> float:
        self.advance(1e-5)
        return super().monotonic()


class Waiting(threading.Event):
    """An event that is waited for on that clock."""

    def __init__(self, clock: Driven) -> None:
        super().__init__()
        self._clock = clock
        self.looks = lambda: 0
        """How often somebody has looked whether sound comes."""

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None:  # frozen: time goes by until somebody notices
            looks = self.looks()
            while not super().wait(0.0005):
                if self.looks() > looks:
                    looks = self.looks()
                    self._clock.advance(1.0)
            return True
        self._clock.advance(timeout)
        return self.is_set()


class Hasty(SyntheticSource):
    """A synthetic heart in real time by that clock, but never further ahead than the daemon can take."""

    def __init__(self, settings: HeartSettings, clock: Driven) -> None:
        super().__init__(settings, pace="real", monotonic=clock.monotonic)
        self._stopped = self.waiting = Waiting(clock)
        self._clock = clock
        self.taken: Callable[[], int] | None = None
        """How many samples the daemon has taken."""
        self.lost = self.given = 0
        self.starts = 0

    def start(self) -> None:
        try:
            super().start()
        except SourceGone:
            self._clock.advance(0.03)  # who tries again waits
            raise
        self.starts += 1

    def read(self) -> Block | None:
        while self.taken is not None and not self._stopped.is_set():
            if self.given - self.taken() < 2.0 * RATE:
                break
            time.sleep(0.0005)
        block = super().read()
        if block is not None:
            self.lost += block.lost
            self.given = block.index + len(block.samples)
        return block


class Through(FakeCleaner):
    """Remembers nothing: hours go through it."""

    def process(self, x: np.ndarray) -> np.ndarray:
        return x / 2

    def flush(self) -> np.ndarray:
        return np.zeros(0, np.float32)


class Counted:
    """What a daemon holds of the machine."""

    def __init__(self) -> None:
        self.threads = threading.active_count()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.memory = resident_bytes() or 0


def began(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: Hasty, clock: Driven, panel: FakePanel
) -> tuple[Daemon, Settings]:
    gc.collect()  # what earlier tests left is not this daemon's
    monkeypatch.setattr(source_thread, "RETRY_S", (0.0, 0.0))
    monkeypatch.setattr(daemon_module, "WATCH_S", 0.001)
    settings = settings_in(folder, source={"pace": "real"}, exam={"autostart": False, "exams": 0})
    models = Models("fake", Through(), FakeJudge(), META)
    daemon = Daemon(settings, models=models, source=source, clock=clock, panel=panel)
    source.taken = lambda: daemon.examiner.heard if daemon.examiner else 0
    looks, real = [0], SilenceWatch.look

    def look(self: SilenceWatch) -> None:
        real(self)
        looks[0] += 1

    monkeypatch.setattr(SilenceWatch, "look", look)
    source.waiting.looks = lambda: looks[0]
    return daemon, settings


def test_five_hundred_losses_in_a_row_leave_nothing_behind_and_every_gap_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daemon")
    clock, panel = Driven(), FakePanel()
    heart = HeartSettings(gone_after_s=0.2, gone_for_s=0.05, gone_times=500, level=0.0, noise_db=float("inf"))
    source = Hasty(heart, clock)
    rings: list[Ring] = []
    monkeypatch.setattr(wiring, "Ring", lambda seconds: rings.append(Ring(seconds)) or rings[0])
    daemon, _ = began(tmp_path, monkeypatch, source, clock, panel)
    with running(daemon):
        until(lambda: source.starts > 50)
        early = Counted()
        until(lambda: source.starts > 500)
        until(lambda: daemon.parts.source.state == "running")
        late = Counted()
        chain = daemon.parts.chain
        until(lambda: chain and chain.lost == source.lost)
        assert daemon.parts.source.blocks_lost == 0 and source.lost >= 500 * 0.05 * RATE
        gaps = rings[0].gaps(0, rings[0].end)
        # what the ring still holds: 0.2 s of sound and 0.06 s of gap in turn
        assert len(gaps) > 100 and all(abs(gap.end - gap.start - source.lost / 500) <= 32 for gap in gaps)
    assert caplog.text.count("source went away") == caplog.text.count("source came back") == 500
    assert panel.history.count(Light.NO_SOUND) == 500
    assert (late.threads, late.descriptors) == (early.threads, early.descriptors)
    assert late.memory - early.memory < 8_000_000


def test_a_source_that_freezes_at_a_random_instant_two_hundred_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Told within 10 s by light, log and the health message; started again; the gap marked."""
    caplog.set_level(logging.INFO, "daemon")
    random = np.random.default_rng(8)
    clock = Driven()
    last_s: list[float] = [0.0]
    told_s: list[float] = []

    class Sleepy(Hasty):
        def start(self) -> None:
            super().start()
            if self.starts <= 200:
                self._freeze = self._index + int(random.integers(RATE // 50 + 1, 3000))

        def read(self) -> Block | None:
            block = super().read()
            if block is not None:
                last_s[0] = block.monotonic_s
            return block

    class Watched(FakePanel):
        def show(self, light: Light) -> None:
            if light is Light.NO_SOUND and self.light is not Light.NO_SOUND:
                told_s.append(clock._monotonic - last_s[0])
            super().show(light)

    class Wire:
        """In place of the uplink, with a broker that is there."""

        online, loop_monotonic_s, live_dropped = True, 0.0, 0

        def health(self, message: Health) -> None:
            if message.source == "gone":
                sent.append((clock._monotonic - last_s[0], message.sample_age_s))

        def live(self, name: str, message: Any) -> None:
            pass

        def stop(self) -> None:
            pass

    sent: list[tuple[float, float | None]] = []
    source, panel = Sleepy(HeartSettings(level=0.0, noise_db=float("inf")), clock), Watched()
    daemon, _ = began(tmp_path, monkeypatch, source, clock, panel)
    daemon.parts.uplink = Wire()  # type: ignore[assignment]
    with running(daemon):
        until(lambda: source.starts > 200)
        until(lambda: daemon.parts.source.state == "running")
        chain = daemon.parts.chain
        until(lambda: chain and chain.lost == source.lost)
        assert source.lost >= 200 * 8 * RATE
    assert len(told_s) == 200 and max(told_s) <= 10.0 and min(told_s) >= 7.9
    assert len(sent) >= 200 and max(after for after, _ in sent) <= 10.0
    assert all(age is not None and 7.9 <= age <= 10.0 for _, age in sent)
    assert caplog.text.count("though it seems alive; it is started again") == 200
    assert caplog.text.count("source came back") == 200


def test_a_source_that_never_begins_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent from its start on, and again after it was started anew."""
    clock, panel = Driven(), FakePanel()

    class Dumb(Hasty):
        def start(self) -> None:
            super().start()
            self._freeze = self._index if self.starts <= 3 else float("inf")

    source = Dumb(HeartSettings(), clock)
    daemon, _ = began(tmp_path, monkeypatch, source, clock, panel)
    with running(daemon):
        until(lambda: daemon.parts.source.state == "running")
        assert source.starts == 4 and Light.NO_SOUND in panel.history
