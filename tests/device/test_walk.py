"""What a folder of recordings holds: links, shadows, other kinds, folders that cannot be looked into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device.walk import is_folder, walk


def names(folder: Path, **more: Any) -> list[str]:
    return [str(path.relative_to(folder)) for path in walk(folder, (".wav",), **more).files]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    touch(folder / "a.wav", folder / "sub" / "B.WAV", far / "c.wav", tmp_path / "outside.wav")
    (folder / "linked").symlink_to(far)
    (folder / "again").symlink_to(folder / "sub")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (far / "back").symlink_to(folder)
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere")
    assert names(folder) == ["a.wav", "gone.wav", "linked/c.wav", "sub/B.WAV"]


def test_other_kinds_are_counted_and_shadows_are_not(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.wav", "b.m4a", "c.M4A", "d.mp3")))
    touch(*(tmp_path / name for name in ("._a.wav", ".DS_Store", "Thumbs.db", "states.csv", "r.dat")))
    found = walk(tmp_path, (".wav",), beside=("states.csv", ".dat"))
    assert [path.name for path in found.files] == ["a.wav"]
    assert found.left_out == "3 files of other kinds left out (.m4a, .mp3)"
    assert walk(tmp_path, (".wav", ".m4a", ".mp3"), beside=(".csv", ".dat")).left_out == ""
    (tmp_path / "README").touch()
    assert (
        walk(tmp_path, (".wav", ".m4a", ".mp3"), beside=(".csv", ".dat")).left_out
        == "1 file of another kind left out (no ending)"
    )


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.wav", tmp_path / "shut" / "b.wav")
    look = os.scandir

    def shut(path: Path) -> Iterator[Any]:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr(os, "scandir", shut)
    found = walk(tmp_path, (".wav",))
    assert [path.name for path in found.files] == ["a.wav"]
    assert found.unreadable == [
        f"{tmp_path / 'shut'}: cannot be looked into (Permission denied); check its permissions"
    ]


def test_a_name_that_cannot_even_be_asked_is_no_folder() -> None:
    assert not is_folder(Path("/" + "n" * 300))
