"""The product's own programs as processes: started, questioned, killed, started again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.brokers import free_port
from tests.waiting import until

__all__ = ["Daemon", "Program", "Serve", "arrived_whole", "ended"]

ROOT = Path(__file__).resolve().parents[2]


def _rows(path: Path | None, table: str) -> int:
    """Rows of a table, read past the running program; 0 while there is no such database."""
    if path is None or not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        try:
            return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


class Program:
    """A process with its words in a file."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self.arguments = arguments
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """kill -9, as a power cut of this program."""
        assert self.process is not None and self.process.poll() is None, (
            f"{self.name} had ended: {self.says()}"
        )
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(timeout=30) == -signal.SIGKILL

    def stop(self) -> int:
        """SIGTERM; its exit code. Safe to call twice."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"{self.name} does not end by SIGTERM: {self.says()}")

    def says(self) -> str:
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""


class Serve(Program):
    """`stethopi serve`; `broker` is its arguments that name one."""

    def __init__(self, folder: Path, *broker: str) -> None:
        self.store = folder / "store"
        self.port = free_port()
        at = ["--http", f"127.0.0.1:{self.port}", "--store", str(self.store)]
        super().__init__("serve", ["-m", "host.cli", "serve", *broker, *at], folder)

    def start(self) -> None:
        super().start()
        until(self._answers, f"serve answers; it said: {self.says()}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"serve ended: {self.says()}")
        try:
            self.get("/api/exams")
        except OSError:
            return False
        return True

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            data = answer.read()
        return json.loads(data) if path.startswith("/api") else data

    def exams(self) -> list[dict[str, Any]]:
        return list(self.get("/api/exams")["exams"])

    def complete(self) -> list[dict[str, Any]]:
        return [exam for exam in self.exams() if exam["status"] == "complete"]

    def rows(self, table: str) -> int:
        """Rows of a table of the store."""
        return _rows(self.store / "exams.sqlite", table)


class Daemon(Program):
    """`stethopi-device run` on a settings file of its own."""

    def __init__(
        self,
        folder: Path,
        port: int,
        source: str,
        *,
        pace: str = "fast",
        device: str = "stetho-1",
        ecg: str = "none",
        **exam: Any,
    ) -> None:
        self.state = folder / "state"
        self.config = folder / "device.toml"
        self._exam = {"sites": ["AV"], "min_s": 5.0, "max_s": 30.0, "autostart": True, "exams": 1} | exam
        self._ecg = ecg
        self._port, self._source, self._pace, self._device = port, source, pace, device
        super().__init__("daemon", ["-m", "device.cli", "run", "--config", str(self.config)], folder)

    def start(self, **exam: Any) -> None:
        """Begin, with some settings of [exam] changed."""
        settings: dict[str, dict[str, Any]] = {
            "device": {"id": self._device, "fleet": "village", "state_dir": str(self.state)},
            "source": {"spec": self._source, "pace": self._pace},
            "ecg": {"spec": self._ecg},
            "exam": self._exam | exam,
            "mqtt": {"host": "127.0.0.1", "port": self._port},
        }
        lines = []
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n", "utf-8")
        super().start()

    def put(self) -> int:
        """Exams that it has put in the outbox, delivered or not."""
        return _rows(next(iter(self.state.rglob("outbox.sqlite")), None), "exams")

    def has_put(self) -> None:
        """Wait for the first one."""
        until(self.put, f"an exam in the outbox; the daemon said: {self.says()}")


@contextlib.contextmanager
def ended(*programs: Program) -> Iterator[None]:
    """At the end every program is stopped, whatever happened."""
    try:
        yield
    finally:
        for program in programs:
            program.stop()


def arrived_whole(serve: Serve, recording: Path) -> str:
    """Wait for the exam, assert that it is there once, complete, and is the recording; its id."""
    until(serve.complete, f"a complete exam; serve said: {serve.says()}")
    (exam,) = serve.exams()
    assert exam["status"] == "complete"
    full = serve.get(f"/api/exams/{exam['id']}")
    (site,) = full["sites"]
    path = serve.store / "sounds" / exam["id"] / "AV.flac"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == site["sha256"]
    heard, rate_hz = soundfile.read(path, dtype="int32")
    truth, _ = soundfile.read(recording, dtype="int32")
    assert rate_hz == 2000
    np.testing.assert_array_equal(heard, truth[: len(heard)])
    assert len(heard) == site["samples"] == min(len(truth), 60000)
    assert serve.rows("exams") == 1 and serve.rows("chunks") == 0 and serve.rows("aside") == 0
    return str(exam["id"])
