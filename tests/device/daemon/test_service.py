"""The daemon as a service: systemd hears what it says, and hears nothing more when something stands still."""

from __future__ import annotations

import io
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.daemon import daemon as daemon_module
from device.daemon import service
from device.daemon.daemon import Daemon
from device.daemon.service import Notifier, Signs, Watchdog, start_logging
from device.errors import SourceGone
from device.panel.light import Light
from device.panel.panels import FakePanel
from device.settings.specs import HeartSettings
from device.sources.base import Block
from device.sources.synthetic import SyntheticSource
from tests.device.daemon.test_daemon import fakes, running, settings_in, synthetic
from tests.waiting import until


class Systemd:
    """The other end of the notify socket."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.heard: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self.heard.append(self.socket.recv(4096).decode())
            except OSError:
                return

    def count(self, said: str) -> int:
        return self.heard.count(said)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    path = tmp_path / "notify"
    made = Systemd(str(path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    yield made
    made.socket.close()


# ---- what is said


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_it(tmp_path: Path, abstract: bool) -> None:
    name = f"@stethopi-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    systemd = Systemd("\0" + name[1:] if abstract else name)
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.watchdog_s is None
    notifier.say(READY=1, STATUS="two\nlines")
    until(lambda: systemd.heard)
    assert systemd.heard == ["READY=1\nSTATUS=two lines"]
    systemd.socket.close()
    notifier.say(WATCHDOG=1)  # nobody listens any more: no error
    notifier.close()
    notifier.close()


def test_without_systemd_nothing_is_said() -> None:
    notifier = Notifier({})
    notifier.say(READY=1)
    assert notifier.watchdog_s is None and notifier._socket is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_whom_it_is_meant(environment: dict[str, str], expected: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/nowhere", **environment}).watchdog_s == expected


# ---- what feeds the watchdog


class Told(Notifier):
    watchdog_s = 60.0

    def __init__(self) -> None:
        super().__init__({})
        self.watchdog_s = 60.0
        self.fed = 0

    def say(self, **fields: object) -> None:
        self.fed += "WATCHDOG" in fields


class Bench:
    """A watchdog and the time around it."""

    def __init__(self) -> None:
        self.now, self.heard, self.told = 1000.0, 0, Told()
        self.watchdog = Watchdog(self.told, lambda: self.now)

    def go(self, seconds: float, *, samples: bool = True, **signs: float | bool | None) -> int:
        """Let time pass; how often the watchdog was fed."""
        before = self.told.fed
        for _ in range(round(seconds)):
            self.now += 1.0
            self.heard += 2000 if samples else 0
            self.watchdog.look(
                Signs(
                    heard=self.heard,
                    ended=bool(signs.get("ended", False)),
                    away_since_s=signs.get("away"),
                    tried_s=signs.get("tried", self.now),  # type: ignore[arg-type]
                    judge_s=signs.get("judge", self.now),
                    uplink_s=signs.get("uplink", self.now),
                )
            )
        return self.told.fed - before


def test_samples_feed_the_watchdog_and_a_silent_stop_does_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench()
    assert bench.go(60) == 4
    assert bench.go(30, samples=False) <= 3
    assert bench.go(300, samples=False) == 0
    assert caplog.text.count("no sample for 31 s; the watchdog is not fed any more") == 1
    assert bench.go(30) >= 1, "it is fed again when sound comes back in time"
    assert caplog.text.count("all goes on") == 1


def test_a_lost_microphone_that_is_tried_feeds_it_for_an_hour() -> None:
    bench = Bench()
    bench.go(10)
    away = bench.now
    assert bench.go(3590, samples=False, away=away) > 200
    assert bench.go(600, samples=False, away=away) <= 1
    assert bench.watchdog.starves and "has been away for" in bench.watchdog.starves
    # back: it has the time of a start before the first sample
    assert bench.go(20, samples=False) >= 1


def test_a_try_that_hangs_does_not_feed_it() -> None:
    bench = Bench()
    away = bench.now
    bench.go(100, samples=False, away=away, tried=away)
    assert bench.watchdog.starves and "was not tried for" in bench.watchdog.starves


@pytest.mark.parametrize("which", ["judge", "uplink"])
def test_a_loop_that_stands_still_does_not_feed_it(which: str) -> None:
    bench = Bench()
    still = bench.now
    bench.go(115, **{which: still})
    assert bench.watchdog.starves is None
    bench.go(60, **{which: still})
    assert bench.watchdog.starves and "has stood still for" in bench.watchdog.starves


def test_what_there_is_not_cannot_stand_still() -> None:
    bench = Bench()
    assert bench.go(300, judge=None, uplink=None) > 15
    assert bench.go(300, samples=False, ended=True) > 15


# ---- the daemon


def test_the_daemon_is_ready_lives_tells_and_stops(tmp_path: Path, systemd: Systemd) -> None:
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"autostart": False})
    with running(Daemon(settings, models=fakes(), source=synthetic(pace="real"))):
        until(lambda: systemd.count("WATCHDOG=1") >= 3)
        assert systemd.count("READY=1") == 1
        until(lambda: "STATUS=source running, exam idle, 0 waiting in the outbox" in systemd.heard)
    until(lambda: systemd.count("STOPPING=1") == 1)


def test_a_daemon_whose_sound_stands_still_is_not_fed(
    tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "SAMPLES_S", 0.5)
    freeze = threading.Event()

    class Freezing(SyntheticSource):
        def read(self) -> Block | None:
            while freeze.is_set():
                freeze.wait(0.01)
            return super().read()

    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"autostart": False})
    daemon = Daemon(settings, models=fakes(), source=Freezing(HeartSettings(), pace="real"))
    with running(daemon):
        until(lambda: systemd.count("WATCHDOG=1") >= 2)
        freeze.set()
        until(lambda: "the watchdog is not fed any more" in caplog.text)
        fed = systemd.count("WATCHDOG=1")
        assert not threading.Event().wait(0.5) and systemd.count("WATCHDOG=1") <= fed + 1
        freeze.clear()
        until(lambda: systemd.count("WATCHDOG=1") > fed + 1)


def test_a_daemon_without_its_microphone_goes_on(tmp_path: Path, systemd: Systemd) -> None:
    class Absent(SyntheticSource):
        def start(self) -> None:
            raise SourceGone("no microphone is plugged in")

    settings = settings_in(tmp_path, source={"pace": "real"})
    with running(Daemon(settings, models=fakes(), source=Absent(HeartSettings()))):
        until(lambda: any("source gone" in said for said in systemd.heard))
        fed = systemd.count("WATCHDOG=1")
        until(lambda: systemd.count("WATCHDOG=1") > fed)


def test_a_full_disk_is_told_once_and_so_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By log, light and health; the exam that could not begin begins when there is room."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(daemon_module, "LOOK_EVERY_S", 0.05)
    real, full = shutil.disk_usage, threading.Event()
    full.set()

    def usage(path: object) -> object:
        found = real(path)  # type: ignore[arg-type]
        return found._replace(free=1_000_000) if full.is_set() else found

    monkeypatch.setattr(shutil, "disk_usage", usage)
    panel = FakePanel()
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"min_s": 1, "max_s": 1})
    daemon = Daemon(settings, models=fakes(), source=synthetic(pace="real"), panel=panel)
    with running(daemon):
        until(lambda: "no exam can be kept" in caplog.text and Light.ERROR in panel.history)
        assert daemon.examiner is not None or until(lambda: daemon.examiner)
        trouble = daemon.report.message().trouble
        assert trouble and "only 1 MB are free" in trouble
        full.clear()
        until(lambda: daemon.exams)
    assert caplog.text.count("no exam can be kept:") == 1
    assert caplog.text.count("exams can be kept again") == 1


# ---- the journal


def test_each_line_of_the_journal_has_its_priority() -> None:
    read, write = os.pipe()
    about = os.fstat(write)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        with os.fdopen(write, "w") as stream:
            start_logging(stream, {"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"})
            logging.getLogger("mqtt").warning("broker went away")
            logging.getLogger("daemon").error("two\nlines")
    finally:
        root.handlers[:], root.level = handlers, level
    with os.fdopen(read) as lines:
        assert lines.read() == "<4>mqtt: broker went away\n<3>daemon: two\n<3>lines\n"


def test_a_terminal_sees_the_level_in_words() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        start_logging(stream, {"JOURNAL_STREAM": "1:2"})
        logging.getLogger("mqtt").warning("broker went away")
    finally:
        root.handlers[:], root.level = handlers, level
    assert stream.getvalue() == "WARNING mqtt: broker went away\n"


# ---- the sandbox


@pytest.mark.process
def test_an_exam_needs_no_memory_that_is_both_written_and_executed(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute of the unit, by prctl(PR_SET_MDWE) where the kernel has it."""
    script = (
        "import ctypes, sys\n"
        "ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)\n"
        "from device.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    config = tmp_path / "device.toml"
    config.write_text(f'[device]\nstate_dir = "{tmp_path / "state"}"\n')
    words = ["exam", "--source", "synthetic", "--seconds", "6", "--fast"]
    run = subprocess.run(
        [sys.executable, "-c", script, *words, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "verdict" in run.stdout
