"""The database of a store: its lock, its version, its transactions."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from device.errors import BadInput, StethopiError
from host.store.tables import AboutRow, Base

__all__ = ["Database", "StoreError"]


VERSION = 1
"""Layout of the database (PRAGMA user_version)."""


class StoreError(StethopiError):
    """The disk or the file fails the store; the text tells which, with the remedy."""


def first_line(error: BaseException) -> str:
    """The first line of what a database or the system says, without the statement."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


class Database:
    """The SQLite file of one folder, held by one program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / "exams.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("a+")
        except OSError as error:
            why = "it is a file" if folder.is_file() else error.strerror
            raise BadInput(f"{folder}: cannot be the store ({why}); give another with --store") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise BadInput(
                f"{folder}: another stethopi serve writes there; stop it, or give another --store"
            ) from None
        try:
            self._engine = _open(path)
        except StethopiError:
            self._lock.close()
            raise
        except DatabaseError as error:
            self._lock.close()
            raise StoreError(f"{path}: {first_line(error)}; move the file away to start anew") from None

    def close(self) -> None:
        """Safe to call twice."""
        self._engine.dispose()
        self._lock.close()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction: everything or nothing. StoreError when the disk or the database fails."""
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (DatabaseError, OSError) as error:
            raise StoreError(
                f"{self._folder}: cannot write the store ({first_line(error)}); free some disk"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """StoreError when the database fails."""
        try:
            with Session(self._engine, expire_on_commit=False) as session:
                yield session
        except DatabaseError as error:
            raise StoreError(f"{self._folder}: cannot read the store ({first_line(error)})") from error

    def about(self, key: str, make: Callable[[], str]) -> str:
        """A fact of the store itself, made where it is not known yet."""
        with self.writing() as session:
            row = session.get(AboutRow, key)
            if row is None:
                row = AboutRow(key=key, value=make())
                session.add(row)
            return row.value


def _open(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30.0})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    with engine.begin() as connection:
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar() or 0)
        if version > VERSION:
            raise StoreError(f"{path}: written by a newer stethopi (layout {version}); update this one")
        Base.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")
    return engine
