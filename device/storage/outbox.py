"""Exams that wait for their delivery: what they say in SQLite, how they sound in files. Nothing put is
lost.

`put` is the moment of truth. The sound files are whole on disk before it (device.storage.recorder writes,
syncs and renames them inside `Outbox.sounds`); `put` proves that by size and sha256, then one transaction
(WAL, synchronous=FULL) makes the exam exist. A crash before that transaction leaves files that belong to no
exam: the next start moves them to `sound/partial` and says so. A crash after it changes nothing.

    waiting ──claim──▶ (claimed, in memory only) ──receipt──▶ delivered | refused
    torn: its result or a sound file is missing or damaged; what is left of it is in quarantine

A card wears by what is written, and SQLite writes whole rows in whole pages, twice. So what an exam says is
packed and lies in a table of its own, which no change of state touches, and pages are small.

Nothing is deleted that was not delivered. When space runs short, sounds of delivered exams go first, the
oldest before the others; after that new exams are refused, before they begin.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from device.contract.codec import encode
from device.contract.control import Backlog
from device.contract.exam import Exam, SoundFile, exam_hash, files_of
from device.contract.vocabulary import Moment, chunk_count
from device.durable import fsync_folder, make_folder, move_into, replacing, sha256_of
from device.errors import StethopiError
from device.storage.recorder import Partial, rescue

__all__ = ["Outbox", "OutboxFull", "Parcel", "StoredSound"]

log = logging.getLogger("outbox")

_TABLES = """
CREATE TABLE IF NOT EXISTS exams (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,                        -- of the result's bytes: what a receipt must name
    bytes INTEGER NOT NULL,                      -- of all its sounds
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'refused', 'torn')),
    pushed INTEGER NOT NULL DEFAULT 0,           -- 1: every chunk has reached the broker once
    why TEXT,                                    -- of refused and torn
    boot_id TEXT NOT NULL,
    monotonic_s REAL NOT NULL,
    wall_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS exams_here ON exams (seq) WHERE state <> 'delivered';
CREATE TABLE IF NOT EXISTS results (             -- no row once delivered and forgotten
    seq INTEGER PRIMARY KEY REFERENCES exams (seq),
    packed BLOB NOT NULL                         -- zlib of the result's bytes
);
CREATE TABLE IF NOT EXISTS sounds (
    exam TEXT NOT NULL REFERENCES exams (id),
    site TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,                   -- file in the folder `sound`
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    chunk_size INTEGER NOT NULL,
    PRIMARY KEY (exam, site)
);
"""

_FORMAT = 2
"""Of the database (PRAGMA user_version). 0 and 1 had each result in the row of its exam."""

_CACHE_KB = 256
"""Of pages that SQLite keeps in memory; left alone it takes eight times as much, bit by bit over weeks."""

_WAITING = "state <> 'delivered' AND state = 'waiting'"
"""In the words of the index, so that it is used: the exams of former months are many."""

_SPARE_BYTES = 32 * 1024 * 1024
"""Left free on the disk beside the exam that is about to be recorded."""


class OutboxFull(StethopiError):
    """No room for a new exam, and everything that is there still waits for its delivery."""


@dataclass(frozen=True)
class StoredSound:
    """The sound of one site, whole on disk."""

    site: str
    path: Path
    size: int
    sha256: str
    chunk_size: int

    @property
    def chunks(self) -> int:
        return chunk_count(self.size, self.chunk_size)


@dataclass(frozen=True)
class Parcel:
    """One exam to deliver."""

    id: str
    result: bytes
    """The payload, byte for byte as its hash was taken."""
    sha256: str
    sounds: tuple[StoredSound, ...]
    pushed: bool
    """Every chunk has reached the broker before: announce it, send only what the host lacks."""


class Outbox:
    """The outbox in `folder`. One process at a time; any thread of it.

    quota_bytes: most bytes of sound kept, delivered ones included; None for what the disk allows.
    keep_delivered: keep the sound of a delivered exam until the room is needed.

    Raises StethopiError when another process has it, or when the folder cannot be written.
    """

    def __init__(self, folder: Path, *, quota_bytes: int | None = None, keep_delivered: bool = True) -> None:
        self.folder = folder
        self.sounds = folder / "sound"
        self.quarantine = folder / "quarantine"
        self.quota_bytes = quota_bytes
        self.keep_delivered = keep_delivered
        self.found: list[str] = []
        """What was torn and had to go to quarantine, one line each."""
        self.partials: list[Partial] = []
        """Recordings that a crash had cut off before `put`; found, kept and told by this start."""
        self._claimed: set[str] = set()
        self._mutex = threading.RLock()
        try:
            for place in (folder, self.sounds, self.quarantine):
                make_folder(place)
            self._lock = (folder / "lock").open("w")
        except OSError as error:
            raise StethopiError(
                f"{folder}: the outbox cannot be opened ({error.strerror}); check [device] state_dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise StethopiError(
                f"{folder}: the outbox is in use by another stethopi-device; stop it, or set another "
                "[device] state_dir"
            ) from None
        self._db = self._open()
        fsync_folder(folder)
        self._sort_out()

    # ---- opening

    def _open(self) -> sqlite3.Connection:
        """The database, made or brought to this format where need be; a damaged one goes to quarantine."""
        path = self.folder / "outbox.sqlite"
        try:
            return self._connect(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                # locked, unreadable, disk full: nothing is wrong with the file itself
                raise StethopiError(
                    f"{path}: cannot be opened ({error}); free space or check rights"
                ) from error
            for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                if part.exists():
                    self._quarantine(part, "the database is damaged")
            return self._connect(path)

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            db.execute("PRAGMA page_size = 1024")
            db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            if (state := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(f"malformed: {state}")
            _bring_to_format(db, path)
        except BaseException:
            db.close()
            raise
        return db

    def _sort_out(self) -> None:
        """Rescue what belongs to no exam; mark exams whose sound is not whole."""
        known = {name for (name,) in self._db.execute("SELECT name FROM sounds")}
        self.partials = rescue(self.sounds, known)
        for partial in self.partials:
            log.warning("%s", partial)
        waiting = self._db.execute(
            f"SELECT id, name, size FROM exams JOIN sounds ON exam = id WHERE {_WAITING}"
        ).fetchall()
        for exam, name, size in waiting:
            path = self.sounds / name
            if not path.exists():
                self._mark_torn(exam, f"{name} is not there")
            elif path.stat().st_size != size:
                self._mark_torn(exam, f"{name} has {path.stat().st_size} bytes, must have {size}")
        if not self.keep_delivered:
            for (exam,) in self._db.execute(
                "SELECT id FROM results JOIN exams USING (seq) WHERE state = 'delivered'"
            ).fetchall():
                self._forget(exam)

    def _quarantine(self, path: Path, why: str) -> None:
        target = move_into(self.quarantine, path, path.name)
        line = f"{path.name}: {why}; kept as {target}"
        self.found.append(line)
        log.warning("%s", line)

    def _mark_torn(self, exam: str, why: str) -> None:
        for (name,) in self._db.execute("SELECT name FROM sounds WHERE exam = ?", (exam,)).fetchall():
            if (self.sounds / name).exists():
                self._quarantine(self.sounds / name, f"exam {exam} is not whole")
        self._db.execute(
            "UPDATE exams SET state = 'torn', why = ? WHERE id = ? AND state = 'waiting'", (why, exam)
        )
        self._claimed.discard(exam)
        line = f"exam {exam} cannot be delivered: {why}"
        self.found.append(line)
        log.error("%s", line)

    # ---- putting

    def admit(self, size: int) -> None:
        """Make sure that an exam of about `size` bytes has room; OutboxFull when it has none.

        To be asked before an exam begins. Sounds of delivered exams make room, the oldest first.
        """
        with self._mutex:
            while (trouble := self._shortage(size)) is not None:
                oldest = self._db.execute(
                    "SELECT id FROM results JOIN exams USING (seq) WHERE state = 'delivered'"
                    " ORDER BY seq LIMIT 1"
                ).fetchone()
                if oldest is None:
                    raise OutboxFull(
                        f"{self.folder}: {trouble}, and all exams in it still wait for delivery; bring the "
                        "device to its network, or enlarge the space"
                    )
                self._forget(oldest[0])

    def shortage(self, size: int) -> str | None:
        """Why an exam of about `size` bytes could not be kept now; None when it could. Changes nothing."""
        try:
            if os.statvfs(self.folder).f_flag & os.ST_RDONLY:
                return f"{self.folder}: the disk has become read-only; check the card"
            with self._mutex:
                why = self._shortage(size, spare_delivered=False)
        except (sqlite3.Error, OSError) as error:
            return f"{self.folder}: {error}; check the disk"
        return why and f"{self.folder}: {why}"

    def _shortage(self, size: int, spare_delivered: bool = True) -> str | None:
        """Why there is no room; spare_delivered: as if sounds of delivered exams had to stay."""
        kept, delivered = self._db.execute(
            "SELECT total(bytes), total(bytes * (state = 'delivered')) FROM results JOIN exams USING (seq)"
        ).fetchone()
        if spare_delivered:
            delivered = 0
        if self.quota_bytes is not None and kept - delivered + size > self.quota_bytes:
            return f"the quota of {self.quota_bytes / 1e6:.0f} MB is used up"
        if (free := shutil.disk_usage(self.folder).free) + delivered < size + _SPARE_BYTES:
            return f"only {free / 1e6:.0f} MB are free on the disk"
        return None

    def put(self, exam: Exam, files: Mapping[str, Path]) -> str:
        """Make the exam durable; returns its hash. After this returns it survives any crash.

        files: site (`site.ecg`) → its sound (ECG) file, whole and synced, as device.storage.recorder leaves
        it. Putting the same exam again changes nothing. StethopiError when a file is not what the exam says,
        when another exam has the same id, or when the disk is full (put again when there is room).
        """
        result = encode(exam)
        digest = exam_hash(result)
        with self._mutex:
            known = self._db.execute("SELECT sha256 FROM exams WHERE id = ?", (exam.id,)).fetchone()
            if known is not None:
                if known[0] != digest:
                    raise StethopiError(f"exam {exam.id}: another exam of this id is in the outbox already")
                return digest
            with self._told(f"exam {exam.id} cannot be written"):
                rows = []
                for name, sound in files_of(exam).items():
                    path = self._adopt(exam.id, name, sound, files)
                    rows.append((exam.id, name, path.name, *_promise(sound)))
                fsync_folder(self.sounds)
            with self._told(f"exam {exam.id} cannot be written"), self._transaction():
                row = self._db.execute(
                    "INSERT INTO exams (id, sha256, bytes, state, boot_id, monotonic_s, wall_s)"
                    " VALUES (?, ?, ?, 'waiting', ?, ?, ?)",
                    (
                        exam.id,
                        digest,
                        sum(sound.size for sound in files_of(exam).values()),
                        exam.finished.boot_id,
                        exam.finished.monotonic_s,
                        exam.finished.wall_s,
                    ),
                )
                self._db.execute("INSERT INTO results VALUES (?, ?)", (row.lastrowid, zlib.compress(result)))
                self._db.executemany("INSERT INTO sounds VALUES (?, ?, ?, ?, ?, ?)", rows)
        return digest

    def _adopt(self, exam: str, name: str, sound: SoundFile, files: Mapping[str, Path]) -> Path:
        """A site's sound, or its ECG, inside `sounds`, proved to be what the exam says."""
        path = files.get(name)
        if path is None or not path.is_file():
            raise StethopiError(f"exam {exam}: the sound of {name} is not there ({path})")
        if path.parent != self.sounds:
            target = self.sounds / f"{exam}-{name}{path.suffix}"
            with replacing(target) as temporary:
                shutil.copyfile(path, temporary)
            path = target
        if path.stat().st_size != sound.size or sha256_of(path) != sound.sha256:
            raise StethopiError(f"exam {exam}: {path} is not the sound that the exam names")
        return path

    # ---- delivering

    def claim(self, skip: Container[str] = ()) -> Parcel | None:
        """The oldest waiting exam that nobody has claimed and that is not in `skip`; None when there is
        none.

        A claim lives in memory: after a crash the exam simply waits again.
        """
        with self._mutex:
            while (exam := self._oldest(skip)) is not None:
                packed, digest, pushed = self._db.execute(
                    "SELECT packed, sha256, pushed FROM exams JOIN results USING (seq) WHERE id = ?", (exam,)
                ).fetchone()
                sounds = tuple(
                    StoredSound(site, self.sounds / name, size, sha256, chunk_size)
                    for site, name, size, sha256, chunk_size in self._db.execute(
                        "SELECT site, name, size, sha256, chunk_size FROM sounds WHERE exam = ?"
                        " ORDER BY rowid",
                        (exam,),
                    )
                )
                if not pushed and (torn := next((s for s in sounds if not _is_whole(s)), None)):
                    self._mark_torn(exam, f"{torn.path.name} is damaged")
                    continue
                try:
                    result = zlib.decompress(packed)
                except zlib.error:  # one rotten exam must not hold up those behind it
                    self._mark_torn(exam, "its result is damaged")
                    continue
                self._claimed.add(exam)
                return Parcel(exam, result, digest, sounds, bool(pushed))
            return None

    def _oldest(self, skip: Container[str]) -> str | None:
        """The oldest waiting exam that is neither claimed nor in `skip`. Reads no further than that: what
        waits may be a season's.
        """
        cursor = self._db.execute(f"SELECT id FROM exams WHERE {_WAITING} ORDER BY seq")
        try:
            return next((id for (id,) in cursor if id not in self._claimed and id not in skip), None)
        finally:
            cursor.close()

    def release(self, exam: str) -> None:
        """Give a claim back; the exam waits again."""
        with self._mutex:
            self._claimed.discard(exam)

    def pushed(self, *exams: str) -> None:
        """Note that every chunk of these has reached the broker once."""
        with self._mutex, self._told("exams cannot be noted as sent"), self._transaction():
            self._db.executemany(
                "UPDATE exams SET pushed = 1 WHERE id = ? AND pushed = 0", [(exam,) for exam in exams]
            )

    def torn(self, exam: str, why: str) -> None:
        """A sound file turned out to be missing or damaged: the exam goes to quarantine, which is told."""
        with self._mutex, self._told(f"exam {exam} cannot be put in quarantine"):
            self._mark_torn(exam, why)

    def delivered(self, exam: str, sha256: str) -> bool:
        """The host has stored the exam under this hash. False when the exam or the hash is not ours: then
        nothing changes. True again for a receipt that comes twice.
        """
        return self._settle(exam, sha256, "delivered", None)

    def refused(self, exam: str, sha256: str, why: str) -> bool:
        """The host will not take the exam; it is kept and not tried again. False as for `delivered`."""
        return self._settle(exam, sha256, "refused", why)

    def _settle(self, exam: str, sha256: str, state: str, why: str | None) -> bool:
        with self._mutex, self._told(f"exam {exam} cannot be noted as {state}"):
            row = self._db.execute("SELECT sha256, state FROM exams WHERE id = ?", (exam,)).fetchone()
            if row is None or row[0] != sha256:
                return False
            if row[1] == "waiting" or (row[1], state) == ("refused", "delivered"):
                self._db.execute("UPDATE exams SET state = ?, why = ? WHERE id = ?", (state, why, exam))
            self._claimed.discard(exam)
            if state == "delivered" and not self.keep_delivered:
                self._forget(exam)
            return True

    def _forget(self, exam: str) -> None:
        """Drop the sound of a delivered exam; that it was delivered stays known."""
        names = self._db.execute("SELECT name FROM sounds WHERE exam = ?", (exam,)).fetchall()
        for (name,) in names:
            (self.sounds / name).unlink(missing_ok=True)
        # before it is forgotten whose they were: what a power cut brought back would be nobody's, and stay
        fsync_folder(self.sounds)
        with self._transaction():
            self._db.execute("DELETE FROM sounds WHERE exam = ?", (exam,))
            self._db.execute("DELETE FROM results WHERE seq = (SELECT seq FROM exams WHERE id = ?)", (exam,))

    # ---- looking

    def state(self, exam: str) -> str | None:
        """waiting, delivered, refused or torn; None for an exam that was never put."""
        with self._mutex:
            row = self._db.execute("SELECT state FROM exams WHERE id = ?", (exam,)).fetchone()
        return row[0] if row else None

    def kept_partials(self) -> int:
        """Recordings cut off before `put`, of this start and of earlier ones, that nobody has taken away."""
        place = self.sounds / "partial"
        return sum(1 for _ in place.iterdir()) if place.is_dir() else 0

    def backlog(self, now: Moment | None = None) -> Backlog:
        """What waits. The age of the oldest is null where no clock can tell it."""
        with self._mutex:
            count, size = self._db.execute(
                f"SELECT count(*), total(bytes) FROM exams WHERE {_WAITING}"
            ).fetchone()
            (refused,) = self._db.execute(
                "SELECT count(*) FROM exams WHERE state <> 'delivered' AND state IN ('refused', 'torn')"
            ).fetchone()
            oldest = self._db.execute(
                f"SELECT boot_id, monotonic_s, wall_s FROM exams WHERE {_WAITING} ORDER BY seq LIMIT 1"
            ).fetchone()
        age = None
        if oldest and now:
            same_boot = oldest[0] == now.boot_id
            age = now.monotonic_s - oldest[1] if same_boot else now.wall_s - oldest[2]
            age = age if age >= 0 else None
        return Backlog(count, int(size), refused, age)

    def close(self) -> None:
        """Safe twice."""
        with self._mutex:
            self._db.close()
            self._lock.close()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Where files or database cannot be written, the disk being full or worn out: StethopiError."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise StethopiError(f"{what} in {self.folder} ({error}); free space on the disk") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def _bring_to_format(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or move an older outbox into them, in one transaction."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found > _FORMAT:
        raise StethopiError(
            f"{path}: written by a newer stethopi (format {found}, here {_FORMAT}); install that one again"
        )
    if found == _FORMAT:
        return
    old = db.execute("SELECT 1 FROM pragma_table_info('exams') WHERE name = 'result'").fetchone()
    db.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";"):
        db.execute(statement)
    if old:
        for seq, result in db.execute("SELECT seq, result FROM exams WHERE result IS NOT NULL"):
            db.execute("INSERT INTO results VALUES (?, ?)", (seq, zlib.compress(result)))
        db.execute("DROP INDEX IF EXISTS exams_by_state")
        db.execute("ALTER TABLE exams DROP COLUMN result")
    db.execute(f"PRAGMA user_version = {_FORMAT}")
    db.execute("COMMIT")


def _promise(sound: SoundFile) -> tuple[int, str, int]:
    return sound.size, sound.sha256, sound.chunk_size


def _is_whole(sound: StoredSound) -> bool:
    return (
        sound.path.is_file()
        and sound.path.stat().st_size == sound.size
        and sha256_of(sound.path) == sound.sha256
    )
