"""`stethopi demo` as a person runs it: a page with a verdict, and nothing left when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.programs import ROOT
from tests.waiting import until

pytestmark = pytest.mark.process


class Demo:
    """The demo's process, with a folder of its own for temporary files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._log = folder / "demo.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "host.cli", "demo", "--no-browser", *arguments],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def says(self) -> str:
        return self._log.read_text("utf-8", errors="replace")

    def url(self) -> str:
        found = until(lambda: re.search(r"http://[\d.]+:\d+", self.says()), f"an address; {self.says()}")
        return str(found.group())

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url() + path, timeout=30) as answer:
            return json.load(answer)

    def children(self) -> list[int]:
        """Processes that it started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text("ascii").split()]


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Demo]:
    demo = Demo(folder, *arguments)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait(timeout=60)


def alive(pid: int) -> bool:
    """Whether a process runs still; a dead one that nobody has asked after is not alive."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rsplit(")", 1)[1].split()[0] != "Z"
        )
    except OSError:
        return False


def libraries(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text("utf-8", errors="replace")


def test_a_real_recording_gets_a_verdict_and_ctrl_c_leaves_nothing(
    tmp_path: Path, murmur_recording: Path
) -> None:
    with running(tmp_path, "--http", "0", "--recording", str(murmur_recording)) as demo:
        demo.url()
        assert "It screens; it does not diagnose. Not a medical device. Ctrl-C ends it." in until(
            lambda: "Ctrl-C" in demo.says() and demo.says(), "what to expect"
        )
        (child,) = until(demo.children, "the stethoscope's process")
        exams = until(lambda: demo.get("/api/exams")["exams"], f"an exam; {demo.says()}")
        assert exams[0]["label"] in ("normal", "abnormal", "unsure")
        assert exams[0]["device"] == "demo-stethoscope"
        # a second one follows by itself
        (child,) = until(lambda: [c for c in demo.children() if c != child], "the next exam's process")
        for pid in (demo.process.pid, child):
            assert not re.search(r"libtorch|tensorflow_framework", libraries(pid))
        assert list(demo.temporary.glob("stethopi-demo-*"))

        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(timeout=60) == 0
        assert not alive(child)
        assert not list(demo.temporary.iterdir()), "the temporary folder is gone"
        assert "Traceback" not in demo.says()


def test_without_a_recording_a_heart_beats_and_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(tmp_path, "--http", str(port)) as demo:
            assert f":{port}" not in demo.url()
            assert f"port {port} is taken, the dashboard uses " in demo.says()
            devices = until(lambda: demo.get("/api/devices")["devices"], "the stethoscope online")
            assert devices[0]["device"] == "demo-stethoscope"
            demo.process.terminate()
            assert demo.process.wait(timeout=60) == 0
    assert not list(demo.temporary.iterdir())


def test_a_demo_that_is_killed_takes_its_stethoscope_along(tmp_path: Path) -> None:
    with running(tmp_path, "--http", "0") as demo:
        (child,) = until(demo.children, "the stethoscope's process")
        until(lambda: demo.get("/api/devices")["devices"], "the stethoscope online")
        demo.process.kill()
        until(lambda: not alive(child), "the stethoscope to end")
