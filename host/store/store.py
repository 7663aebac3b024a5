"""What has arrived: devices, exams and their sound, in SQLite and plain files under one folder.

    STORE/
        exams.sqlite            SQLite, WAL, synchronous=FULL; everything but the finished sound files
        sounds/<exam>/<site>.flac   a sound file, byte for byte the device's, once its sha256 fitted;
                                <site>.ecg.flac is the ECG beside it
        aside/<exam>-<sha>.bin  results that were refused: unreadable, or another exam under a known id
        cache/                  what can be computed again (clean sound, WAV for the browser)
        lock                    held by the one program that writes here

An exam comes in pieces: the result and the chunks of its sounds, in any order, some twice, some never, with
restarts between. Each piece is durable when the call that took it returns. An exam is *complete* when the
sha256 of every sound is the one its result names, and not before.

Nothing that arrives is trusted: payloads and topics have been through `device.contract`, an exam belongs to
the device that brought it first, and what waits for its other half is limited in size.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from device.contract.chunks import Receipt, check_chunk
from device.contract.codec import BadMessage
from device.contract.control import Health, State
from device.contract.exam import Exam, SoundFile, exam_hash, files_of
from device.contract.topics import Topic, read
from device.contract.vocabulary import Moment, ecg_name
from device.durable import write_durably
from device.errors import BadInput, StethopiError
from host.store.clocks import Instant, Pair, better, instant, pair_of
from host.store.database import StoreError, first, open
from host.store.tables import (
    AboutRow,
    ChunkRow,
    ClockRow,
    DeviceRow,
    ExamRow,
    QuarantineRow,
    ReceiptRow,
    SiteRow,
    SoundRow,
    StartRow,
    WindowEntry,
)

__all__ = ["Arrival", "Found", "Store"]

log = logging.getLogger(__name__)


MOST_WAITING_BYTES = 256 * 1024 * 1024
"""Chunks of one device that wait for the rest; more are turned away until some exam is whole."""

MOST_ASIDE_FILES = 1000
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
    """The exams under one folder. Writing is for one thread (ingest); reading for any.

    Opening it creates the folder, and takes its lock: a second program on the same folder is a BadInput.
    `now` gives seconds since 1970, for tests.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._now = now
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("a+")
        except OSError as error:
            why = "it is a file" if self.folder.is_file() else error.strerror
            raise BadInput(f"{self.folder}: cannot be the store ({why}); give another with --store") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise BadInput(
                f"{self.folder}: another stethopi serve writes there; stop it, or give another --store"
            ) from None
        try:
            self._engine = open(self.folder / "exams.sqlite")
            self.id = self._about("store", lambda: uuid.uuid4().hex)
        except (DatabaseError, StethopiError) as error:
            self._lock.close()
            if isinstance(error, StethopiError):
                raise
            raise StoreError(
                f"{self.folder / 'exams.sqlite'}: {first(error)}; move the file away to start anew"
            ) from None
        self._tidy()

    def close(self) -> None:
        """Give the folder back. Safe to call twice."""
        self._engine.dispose()
        self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what arrives

    def put_result(self, topic: Topic, payload: bytes) -> Arrival:
        """Take a `result`. Repeats are answered, another content under a known id is refused and kept
        aside."""
        assert topic.exam is not None
        digest = exam_hash(payload)
        with self._writing() as session:
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
        with self._writing() as session:
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
        with self._writing() as session:
            row = session.get(ExamRow, exam)
            return self._look(session, row, answer=True) if row is not None else Arrival()

    def put_state(self, topic: Topic, state: State) -> None:
        """A device says who and how it is; its last will says that it is away."""
        with self._writing() as session:
            row = self._device(session, topic)
            row.online, row.why = state.online, state.why
            row.software, row.source = state.software, state.source
            # a will was written when the device started, and does not know a later bundle
            row.bundle = state.bundle or row.bundle
            if state.online:
                row.seen_s = self._now()

    def put_health(self, topic: Topic, payload: bytes) -> None:
        """Counters of a device; `payload` has been checked."""
        with self._writing() as session:
            row = self._device(session, topic)
            row.health, row.health_s = payload.decode(), self._now()
            row.seen_s = self._now()
            try:
                now = read(Health, payload).now
            except BadMessage:
                return
            self._note_clock(session, topic, now, self._now())

    def forget_online(self) -> None:
        """Nobody's state is known: the broker is away, or has not told yet."""
        with self._writing() as session:
            for row in session.scalars(select(DeviceRow).where(DeviceRow.online.is_(True))):
                row.online = None

    def note_receipt(self, receipt: Receipt) -> None:
        """Remember what was answered, the last few of each exam."""
        with self._writing() as session:
            session.add(
                ReceiptRow(
                    exam=receipt.exam,
                    sent_s=self._now(),
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

    # ---- what is here

    def devices(self) -> list[DeviceRow]:
        """Every device that ever spoke, by name."""
        with self._reading() as session:
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
        with self._reading() as session:
            return [self._found(session, row) for row in session.scalars(query)]

    def count(self) -> int:
        """Exams in all, complete or not."""
        with self._reading() as session:
            return int(session.scalar(select(func.count()).select_from(ExamRow)) or 0)

    def exam(self, exam: str) -> Found | None:
        """One exam by id."""
        with self._reading() as session:
            row = session.get(ExamRow, exam)
            return None if row is None else self._found(session, row)

    def partial(self) -> list[ExamRow]:
        """Exams whose sound is not all here."""
        with self._reading() as session:
            return list(session.scalars(select(ExamRow).where(ExamRow.complete_s.is_(None))))

    def when(self, fleet: str, device: str, moment: Moment) -> Instant:
        """When a moment of this device was, as well as is known by now."""
        with self._reading() as session:
            return self._when(session, fleet, device, moment)

    @staticmethod
    def _when(session: Session, fleet: str, device: str, moment: Moment) -> Instant:
        row = session.get(ClockRow, (fleet, device, moment.boot_id))
        return instant(moment, None if row is None else Pair(row.offset_s, row.by_device))

    def receipts(self, exam: str) -> list[ReceiptRow]:
        """What was answered about an exam, the oldest first."""
        with self._reading() as session:
            query = select(ReceiptRow).where(ReceiptRow.exam == exam).order_by(ReceiptRow.id)
            return list(session.scalars(query))

    def aside(self) -> list[QuarantineRow]:
        """Results that were refused."""
        with self._reading() as session:
            return list(session.scalars(select(QuarantineRow).order_by(QuarantineRow.received_s)))

    def sound_path(self, exam: str, site: str) -> Path | None:
        """The FLAC file of a site; None while it is not whole, or when there is no such exam or site."""
        with self._reading() as session:
            sound = session.get(SoundRow, (exam, site))
        if sound is None or sound.complete_s is None:
            return None
        # the names come from the database, where only checked ids are
        path = self._sound_file(sound.exam, sound.site)
        return path if path.is_file() else None

    # ---- inside

    def _sound_file(self, exam: str, site: str) -> Path:
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
                site: len(numbers) for site, numbers in self._numbers(session, row).items() if site in have
            }
        start = session.get(StartRow, row.id)
        # without a start it came before starts were kept: no boot has such a name
        boot_id, monotonic_s = (start.boot_id, start.monotonic_s) if start else ("", 0.0)
        moment = Moment(boot_id, monotonic_s, row.started_s, row.clock_trust)
        return Found(row, sites, sounds, have, self._when(session, row.fleet, row.device, moment))

    def _add(self, session: Session, topic: Topic, exam: Exam, payload: bytes, digest: str) -> ExamRow:
        row = ExamRow(
            id=exam.id,
            fleet=exam.fleet,
            device=exam.device,
            sha256=digest,
            result=payload,
            received_s=self._now(),
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
        files = files_of(exam)
        for position, site in enumerate(exam.sites):
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
        start = exam.started
        session.add(StartRow(exam=exam.id, boot_id=start.boot_id, monotonic_s=start.monotonic_s))
        for moment in (exam.started, exam.finished):
            self._note_clock(session, topic, moment)
        self._device(session, topic).seen_s = self._now()
        session.flush()
        return row

    def _note_clock(
        self, session: Session, topic: Topic, moment: Moment, received_s: float | None = None
    ) -> None:
        """Keep the pair of clocks that a moment gives, where it is better than what is known."""
        new = pair_of(moment, received_s)
        if new is None:
            return
        row = session.get(ClockRow, (topic.fleet, topic.device, moment.boot_id))
        if row is None:
            session.add(
                ClockRow(
                    fleet=topic.fleet,
                    device=topic.device,
                    boot_id=moment.boot_id,
                    offset_s=new.offset_s,
                    by_device=new.by_device,
                )
            )
            session.flush()
            return
        best = better(Pair(row.offset_s, row.by_device), new)
        row.offset_s, row.by_device = best.offset_s, best.by_device

    def _device(self, session: Session, topic: Topic) -> DeviceRow:
        row = session.get(DeviceRow, (topic.fleet, topic.device))
        if row is None:
            row = DeviceRow(fleet=topic.fleet, device=topic.device)
            session.add(row)
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
        session.add(ChunkRow(**dict(zip(names, key, strict=True)), received_s=self._now(), data=payload))
        session.flush()
        return True

    def _numbers(self, session: Session, exam: ExamRow) -> dict[str, set[int]]:
        """Site → numbers of the chunks that wait."""
        found: dict[str, set[int]] = {}
        query = select(ChunkRow.site, ChunkRow.number).where(
            ChunkRow.exam == exam.id, ChunkRow.fleet == exam.fleet, ChunkRow.device == exam.device
        )
        for site, number in session.execute(query):
            found.setdefault(site, set()).add(number)
        return found

    def _look(self, session: Session, exam: ExamRow, *, answer: bool, changed: bool = False) -> Arrival:
        """Join what is whole; then `stored`, or (when `answer`, or chunks came before their result) what is
        missing."""
        if exam.complete_s is not None:
            return Arrival(Receipt.of_stored(exam.id, exam.sha256), complete=True)
        here = self._numbers(session, exam)
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
        exam.complete_s = self._now()
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
        path = self._sound_file(exam.id, sound.site)
        write_durably(path, data)
        sound.complete_s = self._now()
        session.execute(delete(ChunkRow).where(mine))
        session.flush()
        return True

    def _refuse(self, session: Session, topic: Topic, payload: bytes, why: str) -> Arrival:
        assert topic.exam is not None
        digest = exam_hash(payload)
        log.warning("exam %s of %s/%s refused: %s", topic.exam, topic.fleet, topic.device, why)
        if session.get(QuarantineRow, (topic.exam, digest)) is None:
            name: str | None = None
            if (session.scalar(select(func.count()).select_from(QuarantineRow)) or 0) < MOST_ASIDE_FILES:
                name = f"{topic.exam}-{digest[:16]}.bin"
                write_durably(self.folder / "aside" / name, payload)
            session.add(
                QuarantineRow(
                    exam=topic.exam,
                    sha256=digest,
                    fleet=topic.fleet,
                    device=topic.device,
                    received_s=self._now(),
                    why=why[:300],
                    file=name,
                )
            )
        return Arrival(Receipt.of_refused(topic.exam, digest, why))

    def _about(self, key: str, make: Callable[[], str]) -> str:
        with self._writing() as session:
            row = session.get(AboutRow, key)
            if row is None:
                row = AboutRow(key=key, value=make())
                session.add(row)
            return row.value

    def _tidy(self) -> None:
        """Chunks whose result never came go after a month; so do the leavings of a crash while writing."""
        with self._writing() as session:
            known = select(ExamRow.id)
            session.execute(
                delete(ChunkRow).where(
                    ChunkRow.exam.not_in(known), ChunkRow.received_s < self._now() - _FORGET_ORPHANS_S
                )
            )
        for leaving in (*self.folder.glob("sounds/*/.*.tmp"), *self.folder.glob("aside/.*.tmp")):
            leaving.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A transaction: everything or nothing. StoreError when the disk or the database fails."""
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (DatabaseError, OSError) as error:
            raise StoreError(
                f"{self.folder}: cannot write the store ({first(error)}); free some disk"
            ) from error

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        try:
            with Session(self._engine, expire_on_commit=False) as session:
                yield session
        except DatabaseError as error:
            raise StoreError(f"{self.folder}: cannot read the store ({first(error)})") from error


def _as_message(sound: SoundRow) -> SoundFile:
    return SoundFile(
        file=sound.file,
        size=sound.size,
        sha256=sound.sha256,
        chunk_size=sound.chunk_size,
        chunks=sound.chunks,
    )
