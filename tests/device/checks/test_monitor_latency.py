"""How late listening is: told for a recording, measured through a real driver and sound server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device.checks import monitor_latency as monitor
from device.sources.files import write_sound
from tests.audio_loop import EAR, HEADPHONES, MICROPHONE, AudioLoop


def listen(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "device.checks.figures.listen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))


def test_the_delay_is_told_with_its_parts(tmp_path: Path) -> None:
    x = np.random.default_rng(1).uniform(-0.3, 0.3, 48000).astype(np.float32)
    run = listen(str(write_sound(tmp_path / "x.wav", x, 48000)))
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("chopped vs whole: max difference 0 (limit 0)") == 3
    ways = dict(re.findall(r"(raw|clean) to the ear ([\d.]+) ms", run.stdout))
    assert ways["raw"] == "20.0"
    parts = [float(part) for part in re.findall(r" ([\d.]+)(?:,|$)", run.stdout.splitlines()[-2])]
    assert sum(parts) == pytest.approx(float(ways["clean"]), abs=0.1) and len(parts) == 6
    assert "besides either: capture block 10 ms" in run.stdout


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    run = listen(str(tmp_path / "nothing.wav"))
    assert run.returncode == 2 and run.stderr.startswith("stethopi: ") and run.stderr.count("\n") == 1
    assert listen().returncode == 2


@pytest.mark.parametrize("late_s", [0.0, 0.0353, -0.012])
def test_a_lag_is_found_in_noise_and_in_beats(late_s: float) -> None:
    random = np.random.default_rng(3)
    for x in (random.normal(0, 0.1, 48000), np.repeat(random.normal(0, 0.1, 4800), 10)):
        y = np.roll(x, round(late_s * 48000)) * 0.5 + random.normal(0, 0.01, 48000)
        assert monitor.lag_s(x, y, 48000) == pytest.approx(late_s, abs=1e-4)
    assert monitor.lag_s(random.normal(0, 1, 48000), random.normal(0, 1, 48000), 48000) is None


@pytest.mark.audio
def test_raw_sound_is_in_the_output_block_within_15_ms_of_the_capture_block(
    audio_loop: AudioLoop,
    tmp_path: Path,
) -> None:
    """Through a real driver and sound server; what these add is told apart."""
    x = np.random.default_rng(1).uniform(-0.3, 0.3, 40 * 48000).astype(np.float32)
    player = audio_loop.play(write_sound(tmp_path / "noise.wav", x, 48000))
    try:
        run = listen("--microphone", MICROPHONE, "--output", HEADPHONES, "--back", EAR, "--seconds", "6")
    finally:
        player.kill()
        player.wait()
    assert run.returncode == 0, run.stdout + run.stderr
    found = re.search(r"capture block to output block: p50 ([\d.]+) ms \(limit 15.0 ms\)", run.stdout)
    assert found and float(found[1]) <= 15.0
    added = re.search(
        r"being heard again ([\d.]+) ms: driver, sound server and card add ([\d.]+) ms", run.stdout
    )
    assert added and float(added[1]) > float(found[1])
