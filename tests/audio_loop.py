"""Microphones and loudspeakers without a sound card: PulseAudio null sinks, whose monitors are recorded.

The fixture `audio_loop` is every test's (tests/conftest.py); or use AudioLoop as a context manager.
PulseAudio and its ALSA plugin are Debian packages that `make test` installs; without them a test fails and
says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["EAR", "HEADPHONES", "MICROPHONE", "SPEAKER", "AudioLoop", "audio_loop"]

PACKAGES = "pulseaudio pulseaudio-utils libasound2-plugins alsa-utils"
SINK = "fake"
MICROPHONE, SPEAKER = "stetho", "speaker"
"""Names of the devices that ALSA, and so PortAudio, shows: what is played to one is heard by the other."""
OTHER_SINK = "head"
EAR, HEADPHONES = "ear", "phones"
"""Another such pair: what the device plays to the headphones does not come back to its microphone."""


class AudioLoop:
    """One PulseAudio with two null sinks of 48 kHz. `environment` leads programs to it."""

    def __init__(self, folder: Path) -> None:
        for program in ("pulseaudio", "paplay", "arecord"):
            if shutil.which(program) is None:
                pytest.fail(f"{program} is not installed; type: apt-get install -y {PACKAGES}")
        self._folder = folder
        self._socket = folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        config = folder / "asound.conf"
        shown = 'hint { show on description "loop" }'
        config.write_text(
            "</usr/share/alsa/alsa.conf>\n"
            f'pcm.{MICROPHONE} {{ type pulse device "{SINK}.monitor" {shown} }}\n'
            f'pcm.{SPEAKER} {{ type pulse device "{SINK}" {shown} }}\n'
            f'pcm.{EAR} {{ type pulse device "{OTHER_SINK}.monitor" {shown} }}\n'
            f'pcm.{HEADPHONES} {{ type pulse device "{OTHER_SINK}" {shown} }}\n'
        )
        # libpulse 16 can wait for ever for shared memory of a server that was killed
        client = folder / "client.conf"
        client.write_text("enable-shm = no\nautospawn = no\n")
        self.environment = {
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{self._socket}",
            "PULSE_LATENCY_MSEC": "20",
            "ALSA_CONFIG_PATH": str(config),
            "PULSE_CLIENTCONFIG": str(client),
        }

    def start(self) -> AudioLoop:
        with (self._folder / "pulseaudio.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "pulseaudio",
                    "-n",
                    "--daemonize=no",
                    "--exit-idle-time=-1",
                    "--use-pid-file=no",
                    "-L",
                    f"module-native-protocol-unix socket={self._socket} auth-anonymous=1",
                    "-L",
                    f"module-null-sink sink_name={SINK} rate=48000 channels=1 format=s16le",
                    "-L",
                    f"module-null-sink sink_name={OTHER_SINK} rate=48000 channels=1 format=s16le",
                ],  # fmt: skip
                env={**os.environ, **self.environment, "HOME": str(self._folder)},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        for _ in range(300):
            if self._ask("info") == 0:
                return self
            time.sleep(0.05)
        pytest.fail(f"PulseAudio did not start: {(self._folder / 'pulseaudio.log').read_text()}")

    def _ask(self, *question: str) -> int:
        return subprocess.run(
            ["pactl", *question],
            env={**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ).returncode

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Play a sound file into the loop; the process ends with it."""
        return subprocess.Popen(
            ["paplay", f"--device={SINK}", "--latency-msec=20", str(path)],
            env={**os.environ, **self.environment},
        )

    def take_away(self) -> None:
        """The microphone is unplugged; the sound system goes on."""
        assert self._ask("unload-module", "module-null-sink") == 0

    def give_back(self) -> None:
        """It is plugged in again."""
        for sink in (SINK, OTHER_SINK):
            rate = ("rate=48000", "channels=1", "format=s16le")
            assert self._ask("load-module", "module-null-sink", f"sink_name={sink}", *rate) == 0

    def stop(self) -> None:
        """The sound system is gone, as if the card were unplugged."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._socket.unlink(missing_ok=True)

    def __enter__(self) -> AudioLoop:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()


@pytest.fixture
def audio_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[AudioLoop]:
    """A running loop; this process's ALSA and PulseAudio clients find it."""
    with tempfile.TemporaryDirectory() as folder, AudioLoop(Path(folder)) as loop:
        for name, value in loop.environment.items():
            monkeypatch.setenv(name, value)
        yield loop
