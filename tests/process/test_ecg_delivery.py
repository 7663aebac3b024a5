"""Sound and ECG of one exam, through a broker into the store, as processes: both whole, whoever dies."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.brokers import Mosquitto
from tests.device.leads import beating, write_record
from tests.process.programs import Daemon, Serve, arrived_whole, ended
from tests.waiting import until

pytestmark = pytest.mark.process


@pytest.fixture
def lead(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A record of 12 s whose electrode is off from second 4 to 5.5; and what it holds in mV."""
    x, _ = beating(12.0, 360, 0.02)
    x = (np.rint(x * 200) / 200).astype(np.float32)
    x[4 * 360 : round(5.5 * 360)] = 10.235
    folder = tmp_path / "ecg"
    folder.mkdir()
    return write_record(folder, "lead", [x]), x


def both_whole(serve: Serve, recording: Path, x: np.ndarray) -> str:
    """Assert that sound and ECG are there, byte for byte and in their places; the exam's id."""
    exam = arrived_whole(serve, recording)
    full = serve.get(f"/api/exams/{exam}")
    (site,) = full["sites"]
    path = serve.store / "sounds" / exam / "AV.ecg.flac"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == site["ecg"]["sha256"]
    assert serve.get(f"/sounds/{exam}/AV.ecg.flac") == path.read_bytes()
    y, rate_hz = soundfile.read(path)
    about: dict[str, Any] = serve.get(f"/api/exams/{exam}/sites/AV/ecg")
    # read as fast as it goes, both have one clock: the ECG's first sample lies where the sound's does
    assert rate_hz == 360 and abs(about["start_s"]) < 1e-6 and about["rate_hz"] == 360.0
    assert len(y) >= site["samples"] * 360 // 2000, "the whole site"
    known = np.ones(len(y), bool)
    known[4 * 360 : round(5.5 * 360)] = False
    np.testing.assert_allclose(y[known] * 5, x[: len(y)][known], atol=1e-6)
    assert not y[~known].any(), "where the lead was off nothing is invented"
    ((start, end),) = about["gaps"]
    assert (start, end) == pytest.approx((4.0, 5.5), abs=0.01) and about["reasons"] == ["lead off"]
    assert not any(4.0 <= at < 5.5 for at in about["r_peaks"]) and len(about["r_peaks"]) >= 7
    assert site["ecg"]["gap_seconds"] == pytest.approx(1.5, abs=0.01)
    return exam


def test_sound_and_ecg_arrive_whole_with_the_lead_off_in_mid_exam(
    tmp_path: Path,
    mosquitto: Mosquitto,
    murmur_recording: Path,
    lead: tuple[Path, np.ndarray],
) -> None:
    record, x = lead
    serve = Serve(tmp_path, "--broker", mosquitto.url)
    daemon = Daemon(tmp_path, mosquitto.port, f"file:{murmur_recording}", ecg=f"file:{record}")
    with ended(daemon, serve):
        serve.start()
        daemon.start()
        both_whole(serve, murmur_recording, x)
        assert daemon.process is not None and daemon.process.wait(timeout=60) == 0
        assert "ECG: lead off" in daemon.says() and "Traceback" not in daemon.says()


def test_kill_9_of_all_three_after_put_loses_neither(
    tmp_path: Path,
    mosquitto: Mosquitto,
    murmur_recording: Path,
    lead: tuple[Path, np.ndarray],
) -> None:
    record, x = lead
    serve = Serve(tmp_path, "--broker", mosquitto.url)
    daemon = Daemon(tmp_path, mosquitto.port, f"file:{murmur_recording}", ecg=f"file:{record}", exams=0)
    with ended(daemon, serve):
        serve.start()
        mosquitto.kill()  # so that nothing can have been delivered
        daemon.start()
        daemon.has_put()
        daemon.kill()
        serve.kill()
        assert serve.rows("exams") == 0
        mosquitto.start()
        serve.start()
        daemon.start(autostart=False)
        exam = both_whole(serve, murmur_recording, x)
        until(lambda: f"{exam} delivered" in daemon.says(), "the device to hear of it")


def test_a_lead_that_is_not_there_never_stops_the_sound(
    tmp_path: Path,
    mosquitto: Mosquitto,
    murmur_recording: Path,
) -> None:
    serve = Serve(tmp_path, "--broker", mosquitto.url)
    daemon = Daemon(tmp_path, mosquitto.port, f"file:{murmur_recording}", ecg="mcp3008", pace="real")
    with ended(daemon, serve):
        serve.start()
        daemon.start()
        exam = arrived_whole(serve, murmur_recording)
        full = serve.get(f"/api/exams/{exam}")
        assert full["sites"][0]["ecg"] is None and "MCP3008" in full["ecg_source"]
        assert daemon.says().count("ECG went away") == 1, "told once"
