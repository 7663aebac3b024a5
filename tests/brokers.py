"""A real Mosquitto for tests: started on a free port of the loopback, stopped, killed, brought back.

The fixture `mosquitto` is every test's (tests/conftest.py); or use Mosquitto as a context manager.
Mosquitto is a Debian package that `make test` installs; without it a test fails and says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["Mosquitto", "free_port", "mosquitto"]


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker process. `host` and `port` stay the same when it is killed and started again."""

    def __init__(
        self, folder: Path, *, port: int | None = None, extra: str = "", anonymous: bool = True
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self._log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} {self.host}\nallow_anonymous {str(anonymous).lower()}\n"
            f"persistence false\n{extra}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> Mosquitto:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.fail("mosquitto is not installed; type: apt-get install -y mosquitto")
        with self._log.open("ab") as log:
            # Debian's mosquitto gives up root for its own user, who may not read the folder of a test
            self._process = subprocess.Popen(
                [program, "-c", str(self._config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"mosquitto did not start:\n{self._log.read_text()}")
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9, as a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; safe twice."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def __enter__(self) -> Mosquitto:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """A running Mosquitto with nothing in it."""
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as folder, Mosquitto(Path(folder)) as broker:
        yield broker
