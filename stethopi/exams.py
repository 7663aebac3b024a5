"""Exams that have arrived at a host, read from the folder that `stethopi serve --store` keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from device.contract.exam import Exam
    from host.store.tables import ExamRow

__all__ = ["ExamStore", "StoredExam", "open_store"]


@dataclass(frozen=True)
class StoredExam:
    """One exam as it arrived."""

    result: Exam
    """Verdict, sites, windows, gaps, delays: the message `result` of the wire contract (deploy/schemas)."""
    started: datetime | None
    """When it began, UTC, corrected where the device did not know the time then; None where nobody knows."""
    complete: bool
    """Whether all of its sound is here."""
    sounds: dict[str, Path]
    """Site (AV, MV …) → its FLAC file at 2 kHz, for `stethopi.read`; `MV.ecg` → the ECG beside it. Only
    what is here."""

    def to_dict(self) -> dict[str, Any]:
        """A row for a table: plain values, one exam a row."""
        exam = self.result
        return {
            "exam": exam.id,
            "fleet": exam.fleet,
            "device": exam.device,
            "subject": exam.subject,
            "started": self.started.isoformat() if self.started else None,
            "label": exam.verdict.label,
            "probability": exam.verdict.probability,
            "murmur_probability": exam.verdict.murmur,
            "quality": exam.verdict.quality,
            "reasons": list(exam.verdict.reasons),
            "heart_rate_bpm": exam.heart_rate_bpm,
            "sites": [site.site for site in exam.sites],
            "bundle": exam.bundle,
            "complete": self.complete,
        }


class ExamStore:
    """The exams of one store, read only: `stethopi serve` may go on writing there. A context manager."""

    def __init__(self, folder: Path) -> None:
        """See `open_store`."""
        from sqlalchemy import create_engine
        from sqlalchemy.exc import DatabaseError

        from device.errors import BadInput, StethopiError
        from host.store.database import VERSION, first_line

        self.folder = folder
        file = folder / "exams.sqlite"
        if not file.is_file():
            raise BadInput(f"{folder}: no store of exams; give the folder of stethopi serve --store")
        self._engine = create_engine(f"sqlite:///file:{file.absolute().as_uri()[7:]}?mode=ro&uri=true")
        try:
            with self._engine.connect() as connection:
                version = int(connection.exec_driver_sql("PRAGMA user_version").scalar() or 0)
        except DatabaseError as error:
            self.close()
            raise StethopiError(f"{file}: cannot be read ({first_line(error)}); give another store") from None
        if version != VERSION:
            self.close()
            raise StethopiError(
                f"{file}: layout {version}, but this program reads {VERSION}; use the stethopi that wrote it"
            )

    def close(self) -> None:
        """Let go of the database. Safe to call twice."""
        self._engine.dispose()

    def __enter__(self) -> ExamStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exams(self, limit: int | None = None) -> list[StoredExam]:
        """The exams, the newest arrival first; `limit`: so many at most. StethopiError when the database
        fails.
        """
        from sqlalchemy import select

        from host.store.tables import ExamRow

        query = select(ExamRow).order_by(ExamRow.received_s.desc(), ExamRow.id.desc()).limit(limit)
        with self._session() as session:
            return [self._stored(session, row) for row in session.scalars(query)]

    def exam(self, exam: str) -> StoredExam:
        """The exam of that id. BadInput when there is none."""
        from device.errors import BadInput
        from host.store.tables import ExamRow

        with self._session() as session:
            row = session.get(ExamRow, exam)
            if row is None:
                raise BadInput(f"{exam}: no such exam in {self.folder}; look at exams()")
            return self._stored(session, row)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        from sqlalchemy.exc import DatabaseError
        from sqlalchemy.orm import Session

        from device.errors import StethopiError
        from host.store.database import first_line

        try:
            with Session(self._engine) as session:
                yield session
        except DatabaseError as error:
            raise StethopiError(f"{self.folder}: cannot read the store ({first_line(error)})") from error

    def _stored(self, session: Session, row: ExamRow) -> StoredExam:
        from sqlalchemy import select

        from device.contract.exam import Exam
        from device.contract.topics import read
        from host.store.clocks import Pair, instant
        from host.store.tables import ClockRow, SoundRow

        exam = read(Exam, row.result)
        clock = session.get(ClockRow, (row.fleet, row.device, exam.started.boot_id))
        pair = None if clock is None else Pair(clock.offset_s, clock.by_device)
        seconds = instant(exam.started, pair).seconds
        here = select(SoundRow).where(SoundRow.exam == row.id, SoundRow.complete_s.is_not(None))
        sounds = session.scalars(here.order_by(SoundRow.position, SoundRow.site))
        return StoredExam(
            result=exam,
            started=None if seconds is None else datetime.fromtimestamp(seconds, UTC),
            complete=row.complete_s is not None,
            sounds={s.site: self.folder / "sounds" / row.id / f"{s.site}.flac" for s in sounds},
        )


def open_store(path: str | Path) -> ExamStore:
    """The exams in the folder of `stethopi serve --store`, read only; use it in a `with` block.

    Raises BadInput where no store is, StethopiError for one that cannot be read or of another layout.
    """
    return ExamStore(Path(path).expanduser())
