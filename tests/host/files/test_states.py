"""Where S1 and S2 lie: both layouts of the table, what is wrong in one, and that they are drawn."""

from __future__ import annotations

import shutil
import subprocess
import sys
from math import inf
from pathlib import Path

import numpy as np
import pytest

from device.errors import BadInput
from host.files import plots
from host.files.states import HeartState, read_states


def table(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    read_states.cache_clear()
    return path


def stethopi(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "host.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_both_layouts(tmp_path: Path) -> None:
    with_ends = "record,start_s,end_s,state\na,0.1,0.2,S1\nb,0,0.5,S2\na,0.4,0.5,S2\n"
    found = read_states(table(tmp_path / "1.csv", with_ends))
    assert found == {
        "a": [HeartState(0.1, 0.2, "S1"), HeartState(0.4, 0.5, "S2")],
        "b": [HeartState(0.0, 0.5, "S2")],
    }
    starts = "record,start_s,state\r\na,0.4,S2\r\na,0.1,S1\r\nb,0,S2\r\na,0.2,systole\r\n"
    assert read_states(table(tmp_path / "2.csv", starts)) == {
        "a": [HeartState(0.1, 0.2, "S1"), HeartState(0.2, 0.4, "systole"), HeartState(0.4, inf, "S2")],
        "b": [HeartState(0.0, inf, "S2")],
    }


def test_the_sample_beside_the_recordings(normal_recording: Path) -> None:
    found = read_states(normal_recording.with_name("states.csv"))
    states = found[normal_recording.stem]
    assert [state.state for state in states[:4]] == ["S2", "diastole", "S1", "systole"]
    assert all(a.end_s <= b.start_s for a, b in zip(states, states[1:], strict=False))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no table of states; its columns are record,start_s,end_s,state or record,start_s,state"),
        ("record,state\na,S1\n", "no table of states"),
        ("record,start_s,state\na,0,S1\na,soon,S2\n", "line 3: no state of a recording"),
        ("record,start_s,end_s,state\na,0.5,0.4,S1\n", "line 2: no state of a recording"),
        ("record,start_s,state\na,nan,S1\n", "line 2"),
        ("record,start_s,state\na,0.5\n", "line 2"),
    ],
)
def test_what_is_no_table_is_told_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_states(table(tmp_path / "states.csv", text))
    assert says in str(caught.value) and str(tmp_path) in str(caught.value)


def test_the_picture_marks_s1_and_s2(tmp_path: Path, normal_recording: Path) -> None:
    x = np.random.default_rng(1).uniform(-0.3, 0.3, 8000).astype(np.float32)
    pictures = []
    for n, states in enumerate(
        [
            [],
            [HeartState(0.0, 4.0, "diastole")],
            [HeartState(0.5, 0.6, "S1"), HeartState(0.9, 1.0, "S2")],
            [HeartState(0.5, 0.6, "S1"), HeartState(0.9, inf, "S2"), HeartState(7.0, 8.0, "S1")],
        ]
    ):
        plots.before_after(tmp_path / f"{n}.png", x, x / 2, "x", states)
        pictures.append((tmp_path / f"{n}.png").read_bytes())
    assert pictures[0] == pictures[1], "nothing is known of S1 and S2"
    assert len(set(pictures)) == 3


def test_denoise_draws_what_lies_beside_or_is_given(tmp_path: Path, normal_recording: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    copy = Path(shutil.copy(normal_recording, alone))
    known = normal_recording.with_name("states.csv")
    pictures = []
    for number, arguments in enumerate(
        [(copy,), (copy, "--states", known), (normal_recording,), (copy, "--states", tmp_path / "other.csv")]
    ):
        table(tmp_path / "other.csv", "record,start_s,state\nanother,0.1,S1\n")
        picture = tmp_path / f"{number}.png"
        run = stethopi("denoise", *arguments[:1], tmp_path / "o.wav", "--plot", picture, *arguments[1:])
        assert run.returncode == 0, run.stderr
        pictures.append(picture.read_bytes())
    assert run.stderr.strip().endswith("S1 and S2 are not drawn") and run.stderr.count("\n") == 1
    assert pictures[1] == pictures[2] != pictures[0] == pictures[3]


def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, normal_recording: Path) -> None:
    broken = table(tmp_path / "broken.csv", "nothing\n")
    out, picture = tmp_path / "o.wav", tmp_path / "o.png"
    for arguments in (
        ("--plot", picture, "--states", broken),
        ("--plot", picture, "--states", tmp_path / "nothing.csv"),
        ("--states", normal_recording.with_name("states.csv")),
    ):
        run = stethopi("denoise", normal_recording, out, *arguments)
        assert run.returncode == 2 and run.stderr.startswith("stethopi: ") and run.stderr.count("\n") == 1
        assert not out.exists()
    copy = Path(shutil.copy(normal_recording, tmp_path))
    table(tmp_path / "states.csv", "of the union\n")
    run = stethopi("denoise", copy, out, "--plot", picture)
    assert run.returncode == 0 and "S1 and S2 are not drawn" in run.stderr and picture.exists()
