"""What is said near the microphone is private: a recording lies in the outbox and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.power.cuts import shim
from tests.power.disk import What, read_events


@pytest.mark.process
def test_an_exam_writes_nothing_outside_its_state_folder(tmp_path: Path) -> None:
    """By everything that the process creates and writes, anywhere on the machine."""
    state = tmp_path / "state"
    config = tmp_path / "device.toml"
    config.write_text(f'[device]\nstate_dir = "{state}"\n')
    run = subprocess.run(
        [sys.executable, "-m", "device", "exam", "--source", "synthetic", "--seconds", "6", "--fast"]
        + ["--config", str(config)],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim(tmp_path)),
            "STETHOPI_RECORD_BELOW": "/",
            "STETHOPI_RECORD_TO": str(tmp_path / "log"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    events = read_events(tmp_path / "log", Path("/"))
    made = {"/" + event.path for event in events if event.what in (What.CREATE, What.MKDIR)}
    made |= {"/" + event.into for event in events if event.what is What.RENAME}
    assert any(path.endswith(".flac") for path in made)
    assert [path for path in sorted(made) if not path.startswith(f"{state}")] == []
    nodes = {event.node for event in events if event.what is What.CREATE}
    written = {event.node for event in events if event.what is What.WRITE}
    assert written <= nodes | {Path("/dev/null").stat().st_ino}
    sounds = [path for path in tmp_path.rglob("*") if path.suffix in (".flac", ".wav", ".partial")]
    assert [path.parent for path in sounds] == [state / "outbox" / "sound"]
