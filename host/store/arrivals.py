"""Exams as they come from the network, into the store.

An exam comes in pieces: the result and the chunks of its sounds, in any order, some twice, some never, with
restarts between. Each piece is durable when the call that took it returns. An exam is *complete* when the
sha256 of every sound is the one its result names, and not before.

Nothing that arrives is trusted: payloads and topics have been through `device.contract`, an exam belongs to
the device that brought it first, and what waits for its other half is limited in size. What is refused lies
in quarantine, for a person to look at.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from device.contract.chunks import Receipt, check_chunk
from device.contract.codec import BadMessage
from device.contract.exam import Exam, Site, SoundFile, exam_hash, files_of
from device.contract.topics import Topic, read
from device.contract.vocabulary import ecg_name
from device.durable import write_durably
from host.store.presence import device_row, note_clock
from host.store.store import QUARANTINE, Store, waiting_chunks
from host.store.tables import (
    ChunkRow,
    ExamRow,
    QuarantineRow,
    ReceiptRow,
    SiteRow,
    SoundRow,
    StartRow,
    WindowEntry,
)

__all__ = ["Arrival", "Arrivals"]

log = logging.getLogger(__name__)

MOST_WAITING_BYTES = 256 * 1024 * 1024
"""Chunks of one device that wait for the rest; more are turned away until some exam is whole."""

MOST_QUARANTINED_FILES = 1000
_KEPT_RECEIPTS = 20
_FORGET_ORPHANS_S = 30 * 86400.0


@dataclass(frozen=True)
class Arrival:
    """What came of one message."""

    receipt: Receipt | None = None
    """To be sent to the device; None when nothing is to be said yet."""
    changed: bool = False
    """Whether the exam is new, has a new piece, or has become complete."""
    complete: bool = False
    """Whether every sound of the exam is here now."""


class Arrivals:
    """Takes exams into a store, piece by piece. For one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put_result(self, topic: Topic, payload: bytes) -> Arrival:
        """Take a `result`. Repeats are answered, another content under a known id is refused, and goes to
        quarantine."""
        assert topic.exam is not None
        digest = exam_hash(payload)
        with self._store.database.writing() as session:
            known = session.get(ExamRow, topic.exam)
            if known is not None:
                if (known.fleet, known.device) != (topic.fleet, topic.device):
                    return self._refuse(session, topic, payload, "this exam came from another device")
                if known.sha256 != digest:
                    return self._refuse(session, topic, payload, "another exam is stored under this id")
                if known.complete_s is not None:
                    return Arrival(Receipt.of_stored(known.id, digest), complete=True)
                return self._look(session, known, answer=True)
            try:
                exam = read(Exam, payload)
            except BadMessage as error:
                return self._refuse(session, topic, payload, f"unreadable: {error}")
            if (exam.id, exam.fleet, exam.device) != (topic.exam, topic.fleet, topic.device):
                return self._refuse(session, topic, payload, "the result names another exam or device")
            row = self._add(session, topic, exam, payload, digest)
            self._drop_strangers(session, topic, exam)
            return self._look(session, row, answer=False, changed=True)

    def put_chunk(self, topic: Topic, payload: bytes) -> Arrival:
        """Take one chunk of sound. One that does not fit is dropped: the bitmap asks for it again."""
        assert topic.exam is not None and topic.site is not None and topic.chunk is not None
        with self._store.database.writing() as session:
            exam = session.get(ExamRow, topic.exam)
            if exam is not None:
                if (exam.fleet, exam.device) != (topic.fleet, topic.device):
                    return Arrival()
                if exam.complete_s is not None:
                    return Arrival(complete=True)
                sound = session.get(SoundRow, (topic.exam, topic.site))
                if sound is None or sound.complete_s is not None:
                    return Arrival()
                try:
                    check_chunk(_as_message(sound), topic.chunk, payload)
                except BadMessage as error:
                    log.warning("%s of exam %s: %s; dropped", topic.site, topic.exam, error)
                    return Arrival()
            elif not 0 < len(payload) <= 1024 * 1024:
                return Arrival()
            if not self._keep(session, topic, payload):
                return Arrival()
            if exam is None:
                return Arrival()
            return self._look(session, exam, answer=False, changed=True)

    def look_again(self, exam: str) -> Arrival:
        """What is missing of a partial exam, as a receipt to send; nothing when it is unknown."""
        with self._store.database.writing() as session:
            row = session.get(ExamRow, exam)
            return self._look(session, row, answer=True) if row is not None else Arrival()

    def note_receipt(self, receipt: Receipt) -> None:
        """Remember what was answered, the last few of each exam."""
        with self._store.database.writing() as session:
            session.add(
                ReceiptRow(
                    exam=receipt.exam,
                    sent_s=self._store.now(),
                    status=receipt.status,
                    sha256=receipt.sha256,
                    why=receipt.why,
                )
            )
            session.flush()
            kept = (
                select(ReceiptRow.id)
                .where(ReceiptRow.exam == receipt.exam)
                .order_by(ReceiptRow.id.desc())
                .limit(_KEPT_RECEIPTS)
            )
            session.execute(
                delete(ReceiptRow).where(ReceiptRow.exam == receipt.exam, ReceiptRow.id.not_in(kept))
            )

    def tidy(self) -> None:
        """Chunks whose result never came go after a month; so do the leavings of a crash while writing."""
        with self._store.database.writing() as session:
            known = select(ExamRow.id)
            session.execute(
                delete(ChunkRow).where(
                    ChunkRow.exam.not_in(known), ChunkRow.received_s < self._store.now() - _FORGET_ORPHANS_S
                )
            )
        leavings = (f"{place}/.*.{end}" for place in ("sounds/*", QUARANTINE) for end in ("part", "tmp"))
        for leaving in (path for pattern in leavings for path in self._store.folder.glob(pattern)):
            leaving.unlink(missing_ok=True)

    # ---- inside

    def _add(self, session: Session, topic: Topic, exam: Exam, payload: bytes, digest: str) -> ExamRow:
        row = ExamRow(
            id=exam.id,
            fleet=exam.fleet,
            device=exam.device,
            sha256=digest,
            result=payload,
            received_s=self._store.now(),
            complete_s=None,
            label=exam.verdict.label,
            probability=exam.verdict.probability,
            quality=exam.verdict.quality,
            started_s=exam.started.wall_s,
            clock_trust=exam.started.clock_trust,
            bundle=exam.bundle,
        )
        session.add(row)
        session.flush()
        for position, site in enumerate(exam.sites):
            _add_site(session, exam, position, site)
        start = exam.started
        session.add(StartRow(exam=exam.id, boot_id=start.boot_id, monotonic_s=start.monotonic_s))
        for moment in (exam.started, exam.finished):
            note_clock(session, topic, moment)
        device_row(session, topic).seen_s = self._store.now()
        session.flush()
        return row

    def _drop_strangers(self, session: Session, topic: Topic, exam: Exam) -> None:
        """Of the chunks that came before their result: drop those that are another's or do not fit."""
        sounds = files_of(exam)
        for chunk in session.scalars(select(ChunkRow).where(ChunkRow.exam == exam.id)):
            fits = (chunk.fleet, chunk.device) == (topic.fleet, topic.device) and chunk.site in sounds
            if fits:
                try:
                    check_chunk(sounds[chunk.site], chunk.number, chunk.data)
                    continue
                except BadMessage:
                    pass
            session.delete(chunk)
        session.flush()

    def _keep(self, session: Session, topic: Topic, payload: bytes) -> bool:
        """Store a chunk unless it is here already or too much waits; whether it was stored."""
        key = (topic.exam, topic.fleet, topic.device, topic.site, topic.chunk)
        if session.scalar(
            select(func.count())
            .select_from(ChunkRow)
            .where(
                ChunkRow.exam == topic.exam,
                ChunkRow.fleet == topic.fleet,
                ChunkRow.device == topic.device,
                ChunkRow.site == topic.site,
                ChunkRow.number == topic.chunk,
            )
        ):
            return False
        waiting = session.scalar(
            select(func.coalesce(func.sum(func.length(ChunkRow.data)), 0)).where(
                ChunkRow.fleet == topic.fleet, ChunkRow.device == topic.device
            )
        )
        if (waiting or 0) + len(payload) > MOST_WAITING_BYTES:
            log.error(
                "%s/%s: %d MB of sound wait for their exam; more is turned away",
                topic.fleet,
                topic.device,
                MOST_WAITING_BYTES >> 20,
            )
            return False
        names = ("exam", "fleet", "device", "site", "number")
        where = dict(zip(names, key, strict=True))
        session.add(ChunkRow(**where, received_s=self._store.now(), data=payload))
        session.flush()
        return True

    def _look(self, session: Session, exam: ExamRow, *, answer: bool, changed: bool = False) -> Arrival:
        """Join what is whole; then `stored`, or (when `answer`, or chunks came before their result) what is
        missing."""
        if exam.complete_s is not None:
            return Arrival(Receipt.of_stored(exam.id, exam.sha256), complete=True)
        here = waiting_chunks(session, exam)
        missing: dict[str, tuple[list[int], int]] = {}
        spoilt = False
        for sound in session.scalars(select(SoundRow).where(SoundRow.exam == exam.id)):
            if sound.complete_s is not None:
                continue
            lacking = [n for n in range(sound.chunks) if n not in here.get(sound.site, ())]
            if not lacking and not self._join(session, exam, sound):
                lacking, spoilt = list(range(sound.chunks)), True
            if lacking:
                missing[sound.site] = (lacking, sound.chunks)
        if missing:
            receipt = Receipt.of_missing(exam.id, exam.sha256, missing) if answer or spoilt else None
            return Arrival(receipt, changed=changed)
        exam.complete_s = self._store.now()
        session.flush()
        return Arrival(Receipt.of_stored(exam.id, exam.sha256), changed=True, complete=True)

    def _join(self, session: Session, exam: ExamRow, sound: SoundRow) -> bool:
        """Chunks → file. False, and the chunks thrown away, when the sha256 is not the promised one."""
        mine = (
            (ChunkRow.exam == exam.id)
            & (ChunkRow.fleet == exam.fleet)
            & (ChunkRow.device == exam.device)
            & (ChunkRow.site == sound.site)
        )
        query = select(ChunkRow.data).where(mine).order_by(ChunkRow.number)
        data = b"".join(session.scalars(query))
        if hashlib.sha256(data).hexdigest() != sound.sha256:
            sound.spoilt += 1
            log.warning(
                "%s of exam %s: the sha256 does not fit; asking for all of it again", sound.site, exam.id
            )
            session.execute(delete(ChunkRow).where(mine))
            session.flush()
            return False
        # first the file, durably, then the row that speaks of it: a crash between leaves the chunks
        path = self._store.sound_file(exam.id, sound.site)
        write_durably(path, data)
        sound.complete_s = self._store.now()
        session.execute(delete(ChunkRow).where(mine))
        session.flush()
        return True

    def _refuse(self, session: Session, topic: Topic, payload: bytes, why: str) -> Arrival:
        assert topic.exam is not None
        digest = exam_hash(payload)
        log.warning("exam %s of %s/%s refused: %s", topic.exam, topic.fleet, topic.device, why)
        if session.get(QuarantineRow, (topic.exam, digest)) is None:
            name: str | None = None
            kept = session.scalar(select(func.count()).select_from(QuarantineRow)) or 0
            if kept < MOST_QUARANTINED_FILES:
                name = f"{topic.exam}-{digest[:16]}.bin"
                write_durably(self._store.folder / QUARANTINE / name, payload)
            session.add(
                QuarantineRow(
                    exam=topic.exam,
                    sha256=digest,
                    fleet=topic.fleet,
                    device=topic.device,
                    received_s=self._store.now(),
                    why=why[:300],
                    file=name,
                )
            )
        return Arrival(Receipt.of_refused(topic.exam, digest, why))


def _as_message(sound: SoundRow) -> SoundFile:
    return SoundFile(
        file=sound.file,
        size=sound.size,
        sha256=sound.sha256,
        chunk_size=sound.chunk_size,
        chunks=sound.chunks,
    )


def _add_site(session: Session, exam: Exam, position: int, site: Site) -> None:
    """The rows of one site: itself, what its sound and its ECG will be, its windows."""
    files = files_of(exam)
    session.add(
        SiteRow(
            exam=exam.id,
            position=position,
            site=site.site,
            seconds=site.seconds,
            heart_rate_bpm=site.heart_rate_bpm,
            good_windows=site.good_windows,
        )
    )
    for name in (site.site, ecg_name(site.site)):
        if name not in files:
            continue
        sound = files[name]
        session.add(
            SoundRow(
                exam=exam.id,
                site=name,
                position=position,
                file=sound.file,
                size=sound.size,
                sha256=sound.sha256,
                chunk_size=sound.chunk_size,
                chunks=sound.chunks,
                complete_s=None,
                spoilt=0,
            )
        )
    session.add_all(
        WindowEntry(
            exam=exam.id,
            position=position,
            number=number,
            start=window.start,
            probability=window.probability,
            quality=window.quality,
            reasons=json.dumps(window.reasons),
        )
        for number, window in enumerate(site.windows)
    )
