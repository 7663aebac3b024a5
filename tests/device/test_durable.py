"""Files whole or not at all, and on disk before they have their name."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from device.durable import move_into, replacing, temporary_name, write_durably


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was fsynced or renamed, in this order, by name."""
    found: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        found.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def replaced(old: Path, new: Path) -> None:
        found.append(f"rename {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return found


def test_a_file_is_on_disk_before_it_has_its_name_and_its_folders_after(
    tmp_path: Path, done: list[str]
) -> None:
    path = tmp_path / "a" / "b" / "x.bin"
    write_durably(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert done == [
        f"fsync {tmp_path.name}",
        "fsync a",
        f"fsync {temporary_name(path).name}",
        "rename x.bin",
        "fsync b",
    ]


def test_what_can_be_made_again_costs_no_fsync(tmp_path: Path, done: list[str]) -> None:
    with replacing(tmp_path / "x", durable=False) as temporary:
        temporary.write_text("whole")
    assert done == ["rename x"]


def test_what_is_broken_off_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("ha")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_disk_that_cannot_keep_it_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(tmp_path / "x", b"whole")
    assert list(tmp_path.iterdir()) == []


def test_two_threads_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    """Pages ask for the same sound at once; the last of them has its say, whole."""
    path = tmp_path / "x"
    with replacing(path) as mine:
        mine.write_bytes(b"mine")
        other = threading.Thread(target=write_durably, args=(path, b"theirs"))
        other.start()
        other.join()
        assert path.read_bytes() == b"theirs"
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


def test_what_is_put_away_replaces_nothing(tmp_path: Path, done: list[str]) -> None:
    apart = tmp_path / "apart"
    names = []
    for n in range(3):
        (tmp_path / "x.flac").write_bytes(bytes([n]))
        names.append(move_into(apart, tmp_path / "x.flac", "x.flac").name)
    assert names == ["x.flac", "x-2.flac", "x-3.flac"]
    assert [(apart / name).read_bytes() for name in names] == [b"\0", b"\1", b"\2"]
    assert done[-2:] == ["rename x-3.flac", "fsync apart"]
