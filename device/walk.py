"""The recordings below a folder: the one walker for every command that takes folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Walk", "is_folder", "walk"]

_LITTER = ("thumbs.db", "desktop.ini")
"""What file managers leave in every folder."""


@dataclass(frozen=True)
class Walk:
    """What lies below a folder."""

    files: list[Path]
    """Of the wanted kinds, sorted; links that lead nowhere too, for reading them says so."""
    others: dict[str, int] = field(default_factory=dict)
    """How many files of each other kind, by ending."""
    unreadable: list[str] = field(default_factory=list)
    """A sentence for each folder that could not be looked into."""

    @property
    def left_out(self) -> str:
        """`3 files of other kinds left out (.m4a, .mp3)`; empty for none."""
        count = sum(self.others.values())
        if not count:
            return ""
        kinds = sorted(self.others, key=lambda kind: (-self.others[kind], kind))
        named = ", ".join(sorted(kinds[:_MOST_NAMED])) + (", …" if len(kinds) > _MOST_NAMED else "")
        what = "file of another kind" if count == 1 else "files of other kinds"
        return f"{count} {what} left out ({named})"


_MOST_NAMED = 6


def is_folder(path: Path) -> bool:
    """As Path.is_dir, but False where that may not be asked: opening it says why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def walk(folder: Path, wanted: Collection[str], beside: Collection[str] = ()) -> Walk:
    """Everything below `folder` whose ending is `wanted`, links followed, each real folder once.

    A link upwards, to what holds `folder`, is not followed. macOS's shadow files (._NAME) are passed over;
    names and endings `beside` belong to what is wanted.
    """
    files: list[Path] = []
    others: Counter[str] = Counter()
    unreadable: list[str] = []
    seen: set[tuple[int, int]] = set()
    above = folder.resolve().parents
    # folders before links to folders: what can be reached without a link has its plain name
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        try:
            about = here.stat()
            if (about.st_dev, about.st_ino) in seen or (here != folder and here.resolve() in above):
                continue
            seen.add((about.st_dev, about.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append(f"{here}: cannot be looked into ({error.strerror}); check its permissions")
            continue
        for entry in entries:
            path = here / entry.name
            if is_folder(path):
                (links if entry.is_symlink() else folders).append(path)
            elif entry.name.startswith("._"):
                continue  # macOS's shadow of another file
            elif path.suffix.lower() in wanted:
                files.append(path)
            elif not (
                {path.name, path.suffix.lower()} & set(beside)
                or entry.name.startswith(".")
                or entry.name.lower() in _LITTER
            ):
                others[path.suffix.lower() or "no ending"] += 1
    return Walk(sorted(files), dict(others), unreadable)
