"""What has arrived: devices, exams and their sound, in SQLite and plain files under one folder.

    STORE/
        exams.sqlite            SQLite, WAL, synchronous=FULL; everything but the finished sound files
        sounds/<exam>/<site>.flac   a sound file, byte for byte the device's, once its sha256 fitted;
                                <site>.ecg.flac is the ECG beside it
        aside/<exam>-<sha>.bin  the quarantine: results that were refused, being unreadable, or another exam
                                under a known id
        cache/                  what can be computed again (clean sound, WAV for the browser)
        lock                    held by the one program that writes here

Here it is read; `host.store.arrivals` and `host.store.presence` write.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from device.contract.vocabulary import Moment
from host.store.clocks import Instant, Pair, instant
from host.store.database import Database
from host.store.tables import (
    ChunkRow,
    ClockRow,
    DeviceRow,
    ExamRow,
    QuarantineRow,
    ReceiptRow,
    SiteRow,
    SoundRow,
    StartRow,
)

__all__ = ["QUARANTINE", "Found", "Store", "waiting_chunks"]

QUARANTINE = "aside"
"""The folder of refused results, under the name that stores have always had."""


@dataclass(frozen=True)
class Found:
    """One exam with what belongs to it."""

    exam: ExamRow
    sites: Sequence[SiteRow]
    sounds: Sequence[SoundRow]
    have: dict[str, int]
    """Site → chunks that are here."""
    started: Instant
    """When it began, as well as is known by now."""

    @property
    def complete(self) -> bool:
        return self.exam.complete_s is not None


class Store:
    """The exams under one folder, to be read by any thread.

    Opening it creates the folder and takes its lock: a second program on the same folder is a BadInput.
    `now` gives seconds since 1970, for tests.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.now = now
        self.database = Database(self.folder)
        self.id = self.database.about("store", lambda: uuid.uuid4().hex)

    def close(self) -> None:
        """Give the folder back. Safe to call twice."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def devices(self) -> list[DeviceRow]:
        """Every device that ever spoke, by name."""
        with self.database.reading() as session:
            return list(session.scalars(select(DeviceRow).order_by(DeviceRow.fleet, DeviceRow.device)))

    def exams(
        self, limit: int = 50, before: tuple[float, str] | None = None, device: tuple[str, str] | None = None
    ) -> list[Found]:
        """Exams, the newest arrival first. `before`: (received_s, id) of the last one seen."""
        query = select(ExamRow).order_by(ExamRow.received_s.desc(), ExamRow.id.desc()).limit(limit)
        if before is not None:
            arrived, name = before
            query = query.where(
                (ExamRow.received_s < arrived) | ((ExamRow.received_s == arrived) & (ExamRow.id < name))
            )
        if device is not None:
            query = query.where(ExamRow.fleet == device[0], ExamRow.device == device[1])
        with self.database.reading() as session:
            return [self._found(session, row) for row in session.scalars(query)]

    def count(self) -> int:
        """Exams in all, complete or not."""
        with self.database.reading() as session:
            return int(session.scalar(select(func.count()).select_from(ExamRow)) or 0)

    def exam(self, exam: str) -> Found | None:
        """One exam by id."""
        with self.database.reading() as session:
            row = session.get(ExamRow, exam)
            return None if row is None else self._found(session, row)

    def partial(self) -> list[ExamRow]:
        """Exams whose sound is not all here."""
        with self.database.reading() as session:
            return list(session.scalars(select(ExamRow).where(ExamRow.complete_s.is_(None))))

    def when(self, fleet: str, device: str, moment: Moment) -> Instant:
        """When a moment of this device was, as well as is known by now."""
        with self.database.reading() as session:
            return self._when(session, fleet, device, moment)

    @staticmethod
    def _when(session: Session, fleet: str, device: str, moment: Moment) -> Instant:
        row = session.get(ClockRow, (fleet, device, moment.boot_id))
        return instant(moment, None if row is None else Pair(row.offset_s, row.by_device))

    def receipts(self, exam: str) -> list[ReceiptRow]:
        """What was answered about an exam, the oldest first."""
        with self.database.reading() as session:
            query = select(ReceiptRow).where(ReceiptRow.exam == exam).order_by(ReceiptRow.id)
            return list(session.scalars(query))

    def quarantine(self) -> list[QuarantineRow]:
        """Results that were refused."""
        with self.database.reading() as session:
            return list(session.scalars(select(QuarantineRow).order_by(QuarantineRow.received_s)))

    def sound_path(self, exam: str, site: str) -> Path | None:
        """The FLAC file of a site; None while it is not whole, or when there is no such exam or site."""
        with self.database.reading() as session:
            sound = session.get(SoundRow, (exam, site))
        if sound is None or sound.complete_s is None:
            return None
        # the names come from the database, where only checked ids are
        path = self.sound_file(sound.exam, sound.site)
        return path if path.is_file() else None

    def sound_file(self, exam: str, site: str) -> Path:
        """Where the FLAC file of a site belongs, whether it is there or not."""
        return self.folder / "sounds" / exam / f"{site}.flac"

    def _found(self, session: Session, row: ExamRow) -> Found:
        sites = session.scalars(
            select(SiteRow).where(SiteRow.exam == row.id).order_by(SiteRow.position)
        ).all()
        sounds = session.scalars(
            select(SoundRow).where(SoundRow.exam == row.id).order_by(SoundRow.position, SoundRow.site)
        ).all()
        have = {sound.site: sound.chunks if sound.complete_s is not None else 0 for sound in sounds}
        if row.complete_s is None:
            have |= {
                site: len(numbers) for site, numbers in waiting_chunks(session, row).items() if site in have
            }
        start = session.get(StartRow, row.id)
        # without a start it came before starts were kept: no boot has such a name
        boot_id, monotonic_s = (start.boot_id, start.monotonic_s) if start else ("", 0.0)
        moment = Moment(boot_id, monotonic_s, row.started_s, row.clock_trust)
        return Found(row, sites, sounds, have, self._when(session, row.fleet, row.device, moment))


def waiting_chunks(session: Session, exam: ExamRow) -> dict[str, set[int]]:
    """Site → numbers of the chunks that wait."""
    found: dict[str, set[int]] = {}
    query = select(ChunkRow.site, ChunkRow.number).where(
        ChunkRow.exam == exam.id, ChunkRow.fleet == exam.fleet, ChunkRow.device == exam.device
    )
    for site, number in session.execute(query):
        found.setdefault(site, set()).add(number)
    return found
