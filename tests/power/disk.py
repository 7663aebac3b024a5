"""What may be on a disk after a power cut: a model that reads what `record.c` wrote down.

A write counts as durable once its file was synced, a name once its folder was. Everything else may be there,
may not be there, may be there without what came before it, and a write may be there in part: with a torn
end, or with some of its sectors still as they were. Harsher than most file systems, as POSIX allows.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

__all__ = ["Disk", "Event", "Tree", "What", "read_events", "write_tree"]

_HEAD = struct.Struct("=IIIIQq")
_SECTOR = 512

Tree = dict[str, bytes | None]
"""Path below the folder → content; None is a folder."""


class What(IntEnum):
    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    SYNC_FOLDER = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8


@dataclass(frozen=True)
class Event:
    what: What
    node: int
    at: int
    path: str = ""
    into: str = ""
    data: bytes = b""
    end: int = 0
    """How many bytes of the record were read with it."""


def read_events(log: Path, below: Path) -> list[Event]:
    """The record of one process, in order; paths are counted from `below`, which itself is ''."""
    raw, at, found = log.read_bytes(), 0, []

    def bare(text: bytes) -> str:
        path = Path(text.decode())
        return "" if path == below else str(path.relative_to(below))

    while at < len(raw):
        kind, first, second, _, node, offset = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        one, two = raw[at : at + first], raw[at + first : at + first + second]
        at += first + second
        what = What(kind)
        path = bare(one) if what in _NAMED else ""
        into = bare(two) if what is What.RENAME else ""
        found.append(Event(what, node, offset, path, into, two if what is What.WRITE else b"", at))
    return found


_NAMED = (What.CREATE, What.SYNC_FOLDER, What.RENAME, What.UNLINK, What.MKDIR)


@dataclass
class _File:
    durable: bytes = b""
    pending: list[Event] = field(default_factory=list)

    def content(self, applied: list[tuple[Event, bytes | None]]) -> bytes:
        """With these of the pending events; beside each what of its data got there, None: all."""
        made = bytearray(self.durable)
        for event, data in applied:
            if event.what is What.TRUNCATE:
                if event.at < len(made):
                    del made[event.at :]
                else:
                    made.extend(bytes(event.at - len(made)))
                continue
            data = event.data if data is None else data
            if event.at > len(made):
                made.extend(bytes(event.at - len(made)))
            made[event.at : event.at + len(data)] = data
        return bytes(made)


_Name = tuple[str, "_File | bool | None"]
"""A path and what it names from now on: a file, True for a folder, None for nothing."""


class Disk:
    """`happen` takes what was asked of the disk; `after_a_cut` gives what may be on it now."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[str, _File | bool] = {}
        """As a running program sees them."""
        self._durable: dict[str, _File | bool] = {}
        self._pending: list[list[_Name]] = []
        """Changes of names that no sync of their folder has made durable; each is whole or not there."""

    def happen(self, event: Event) -> None:
        what = event.what
        if what in (What.WRITE, What.TRUNCATE):
            self._files[event.node].pending.append(event)
        elif what is What.SYNC:
            file = self._files[event.node]
            file.durable = file.content([(one, None) for one in file.pending])
            file.pending = []
        elif what is What.SYNC_FOLDER:
            kept = []
            for change in self._pending:
                if any(_folder(path) == event.path for path, _ in change):
                    _apply(self._durable, change)
                else:
                    kept.append(change)
            self._pending = kept
        else:
            if what is What.CREATE:
                file = self._files[event.node] = _File()
                change: list[_Name] = [(event.path, file)]
            elif what is What.RENAME:
                change = [(event.path, None), (event.into, self._names[event.path])]
            else:
                change = [(event.path, True if what is What.MKDIR else None)]
            _apply(self._names, change)
            self._pending.append(change)

    @property
    def now(self) -> Tree:
        """What a running program sees."""
        return {
            path: None if isinstance(thing, bool) else thing.content([(e, None) for e in thing.pending])
            for path, thing in self._names.items()
        }

    def after_a_cut(self, chance: random.Random, variants: int) -> Iterator[Tree]:
        """Trees that a power cut at this instant may leave: the four corners, then `variants` by chance."""
        for data in (False, True):
            for names in (False, True):
                yield self._tree(
                    lambda _, names=names: names, lambda events, data=data: events if data else []
                )
        for _ in range(variants):
            share = chance.choice((0.2, 0.5, 0.8))

            def survives(_: object, share: float = share) -> bool:
                return chance.random() < share

            def some(events: list[Event], share: float = share) -> list[Event | tuple[Event, bytes]]:
                return [_torn(e, chance) for e in events if chance.random() < share]

            yield self._tree(survives, some)

    def _tree(self, survives: object, some: object) -> Tree:
        names = dict(self._durable)
        for change in self._pending:
            if survives(change):  # type: ignore[operator]
                _apply(names, change)
        tree: Tree = {}
        for path, thing in names.items():
            above = _folder(path)
            if above and names.get(above) is not True:
                continue  # its folder is not there
            if isinstance(thing, bool):
                tree[path] = None
            else:
                applied = [e if isinstance(e, tuple) else (e, None) for e in some(thing.pending)]  # type: ignore[operator]
                tree[path] = thing.content(applied)
        return tree


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _apply(names: dict[str, _File | bool], change: list[_Name]) -> None:
    for path, thing in change:
        if thing is None:
            names.pop(path, None)
        else:
            names[path] = thing


def _torn(event: Event, chance: random.Random) -> Event | tuple[Event, bytes]:
    """The event as it was, or in half of the cases with an end or with sectors missing."""
    if event.what is not What.WRITE or chance.random() < 0.5:
        return event
    data = event.data
    if chance.random() < 0.5 or len(data) <= _SECTOR:
        return event, data[: chance.randrange(len(data) + 1)]
    # a sector that was not written holds what was there; as zeros it is the worst that a new file can have
    made = bytearray(data)
    for at in range(0, len(data), _SECTOR):
        if chance.random() < 0.3:
            made[at : at + _SECTOR] = bytes(len(made[at : at + _SECTOR]))
    return event, bytes(made)


def write_tree(tree: Tree, folder: Path) -> None:
    """Put a tree onto a real disk, into an empty folder."""
    for path, content in sorted(tree.items()):
        place = folder / path
        if content is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
