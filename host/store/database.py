"""Opening the database, and its version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event

from device.errors import StethopiError
from host.store.tables import Base

__all__ = ["StoreError"]


VERSION = 1
"""Layout of the database (PRAGMA user_version)."""


class StoreError(StethopiError):
    """The store cannot be read or written (disk full, broken file); the text says which and what to do."""


def first(error: BaseException) -> str:
    """The first line of what a database or the system says, without the statement."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def open(path: Path) -> Engine:
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
