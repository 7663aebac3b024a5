"""What outlives a power cut: files whole or not at all, folders that are fsynced, sha256.

The one place that writes under a temporary name and renames.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from device.errors import StethopiError

__all__ = [
    "fsync_file",
    "fsync_folder",
    "make_folder",
    "move_into",
    "put_in_place",
    "replacing",
    "sha256_of",
    "temporary_name",
    "whole_file",
    "write_durably",
]


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_file(path: Path) -> None:
    """Make what a file holds outlive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make renames within a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that they outlive a power cut."""
    if not folder.is_dir():
        if folder.exists():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def move_into(folder: Path, path: Path, name: str) -> Path:
    """Move a file into `folder` under this name or, where there is one, the next; where it is now."""
    make_folder(folder)
    target = folder / name
    number = 1
    while target.exists():
        number += 1
        target = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
    os.replace(path, target)
    fsync_folder(folder)
    return target


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other thread uses: for what is written until it is whole."""
    name = path.name
    if len(os.fsencode(name)) > 200:  # a file system gives a name 255 bytes
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.part")


def put_in_place(temporary: Path, path: Path, *, durable: bool = True) -> None:
    """Let a finished file have its name; durable: fsynced before, and its folder after."""
    if durable:
        fsync_file(temporary)
    os.replace(temporary, path)
    if durable:
        fsync_folder(path.parent)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A name to write to beside `path`; it becomes `path` when all went well and vanishes when not. OSError
    when the disk does not take it.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        put_in_place(temporary, path, durable=durable)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """`replacing`, for a file that can be made again: its folder is made, nothing is fsynced, and a
    StethopiError tells what to do when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=False) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or error
        raise StethopiError(
            f"{path}: cannot be written ({reason}); choose a folder with room that you may write"
        ) from error


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, its folder too. Raises OSError."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
