"""From the daemon through a broker into the store, as processes, with each of them killed in turn.

An exam that was put in the outbox arrives once and whole, whoever dies; one that was not put is a partial
recording on the device and no exam anywhere. `exams=0`: the daemon stays, when its one recording is over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from device.contract.vocabulary import LABELS
from tests.brokers import Mosquitto, free_port
from tests.process.programs import Daemon, Serve, arrived_whole, ended
from tests.waiting import until

pytestmark = pytest.mark.process


@pytest.fixture
def long_recording(tmp_path: Path) -> Path:
    """Noise that FLAC cannot make small, so that its sound is delivered in several chunks."""
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, 2000 * 28).astype(np.float32)
    path = tmp_path / "noise.flac"
    soundfile.write(path, noise, 2000, subtype="PCM_24")
    return path


def test_a_recording_arrives_once_and_whole(
    tmp_path: Path,
    mosquitto: Mosquitto,
    murmur_recording: Path,
) -> None:
    serve = Serve(tmp_path, "--broker", mosquitto.url)
    daemon = Daemon(tmp_path, mosquitto.port, f"file:{murmur_recording}")
    with ended(daemon, serve):
        serve.start()
        daemon.start()
        exam = arrived_whole(serve, murmur_recording)
        full = serve.get(f"/api/exams/{exam}")
        assert full["label"] in LABELS and full["sites"][0]["windows"]
        assert full["sites"][0]["ended"] == "sound ended"
        # the receipt reached the device: it has nothing left to do and ends by itself
        assert daemon.process is not None and daemon.process.wait(timeout=60) == 0
        assert full["sha256"] and serve.rows("receipts") >= 1
        assert serve.stop() == 0


@pytest.mark.parametrize("victim", ["daemon", "mosquitto", "serve"])
def test_kill_9_after_put_loses_nothing(
    tmp_path: Path,
    mosquitto: Mosquitto,
    long_recording: Path,
    victim: str,
) -> None:
    serve = Serve(tmp_path, "--broker", mosquitto.url)
    daemon = Daemon(tmp_path, mosquitto.port, f"file:{long_recording}", exams=0)
    with ended(daemon, serve):
        # nobody takes exams yet: the daemon can only put
        daemon.start()
        daemon.has_put()
        serve.start()
        # struck while pieces travel, or just before or after: each must be survived
        until(lambda: serve.rows("exams"), "the first sign of the exam in the store")
        if victim == "daemon":
            daemon.kill()
            daemon.start(autostart=False)
        elif victim == "mosquitto":
            mosquitto.kill()
            mosquitto.start()
        else:
            serve.kill()
            serve.start()
        arrived_whole(serve, long_recording)


def test_kill_9_before_put_leaves_a_partial_and_no_exam(
    tmp_path: Path,
    mosquitto: Mosquitto,
    murmur_recording: Path,
) -> None:
    serve = Serve(tmp_path, "--broker", mosquitto.url)
    daemon = Daemon(tmp_path, mosquitto.port, f"file:{murmur_recording}", pace="real", exams=0)
    with ended(daemon, serve):
        serve.start()
        daemon.start()
        partial = until(
            lambda: [p for p in daemon.state.rglob("*.partial") if p.stat().st_size > 12000],
            f"two seconds of recording on disk; the daemon said: {daemon.says()}",
        )
        assert partial
        daemon.kill()
        assert daemon.put() == 0
        daemon.start(autostart=False)
        until(lambda: "partial recording of" in daemon.says(), "the partial to be told of")

        def told() -> Any:
            devices: list[dict[str, Any]] = serve.get("/api/devices")["devices"]
            return devices and devices[0].get("partials")

        assert until(told, f"the host to hear of the partial; serve said: {serve.says()}") == 1
        assert serve.exams() == [] and serve.rows("exams") == 0 and serve.rows("chunks") == 0
        assert daemon.put() == 0
        kept = [path for path in daemon.state.rglob("*") if path.is_file() and "partial" in path.parts]
        assert kept and sum(path.stat().st_size for path in kept) > 12000, "what was heard is kept"


def test_the_embedded_broker_forgets_and_the_exam_still_arrives(tmp_path: Path, long_recording: Path) -> None:
    port = free_port()
    serve = Serve(tmp_path, "--embedded-broker", str(port))
    daemon = Daemon(tmp_path, port, f"file:{long_recording}", exams=0)
    with ended(daemon, serve):
        daemon.start()
        daemon.has_put()
        serve.start()
        until(lambda: serve.rows("exams"), "the first sign of the exam in the store")
        serve.kill()  # and the broker with it, and all that it held
        serve.start()
        arrived_whole(serve, long_recording)
        daemon.kill()
        daemon.start(autostart=False)
        until(lambda: "connected" in daemon.says().rsplit("listening", 1)[-1], "the daemon is back")
        assert serve.rows("exams") == 1
