"""The outbox: whatever was put is there, whole, after any crash; nothing undelivered is ever deleted."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from device.contract.codec import encode
from device.contract.exam import Exam, exam_hash
from device.contract.topics import read
from device.contract.vocabulary import Moment
from device.errors import StethopiError
from device.storage import outbox
from device.storage.outbox import Outbox, OutboxFull
from tests.device.exams import make_exam, moment

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def record(
    box: Outbox, sounds: dict[str, bytes] | None = None, **options: Any
) -> tuple[Exam, dict[str, Path]]:
    """An exam and its sound files, as a recorder leaves them in the folder of the outbox."""
    sounds = {"AV": b"first sound " * 300, "MV": b"other" * 700} if sounds is None else sounds
    exam = make_exam(sounds, **options)
    files = {}
    for site, content in sounds.items():
        files[site] = box.sounds / f"{exam.id}-{site}.flac"
        files[site].write_bytes(content)
    return exam, files


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "outbox")
    yield made
    made.close()


def reopened(box: Outbox, **options: Any) -> Outbox:
    box.close()
    return Outbox(box.folder, **options)


def test_what_was_put_is_claimed_whole(box: Outbox) -> None:
    exam, files = record(box)
    digest = box.put(exam, files)
    parcel = box.claim()
    assert parcel is not None
    assert read(Exam, parcel.result) == exam
    assert exam_hash(parcel.result) == parcel.sha256 == digest
    for stored, site in zip(parcel.sounds, exam.sites, strict=True):
        assert (stored.site, stored.sha256, stored.chunks) == (
            site.site,
            site.sound.sha256,
            site.sound.chunks,
        )
        assert stored.path.read_bytes() == files[site.site].read_bytes()
    assert box.claim() is None
    box.release(exam.id)
    assert box.claim() == parcel


def test_a_change_of_state_does_not_write_the_result_again(box: Outbox) -> None:
    exam, files = record(box, windows=60)
    digest = box.put(exam, files)
    log = box.folder / "outbox.sqlite-wal"
    before = log.stat().st_size
    box.pushed(exam.id)
    assert box.delivered(exam.id, digest)
    # frames of a page and its head; the row of the exam, and where it stood among those that wait
    assert 0 < log.stat().st_size - before <= 4 * (1024 + 24)


def test_the_outbox_of_an_older_version_is_taken_over(box: Outbox) -> None:
    sent, waits = record(box), record(box, {"AV": b"old"})
    hashes = [box.put(*sent), box.put(*waits)]
    box.delivered(sent[0].id, hashes[0])
    db = box._db
    db.execute("ALTER TABLE exams ADD COLUMN result BLOB")
    for seq, packed in db.execute("SELECT seq, packed FROM results").fetchall():
        db.execute("UPDATE exams SET result = ? WHERE seq = ?", (zlib.decompress(packed), seq))
    db.executescript(
        "DROP TABLE results; DROP INDEX exams_here; CREATE INDEX exams_by_state ON exams (state, seq);"
        "PRAGMA user_version = 0;"
    )
    new = reopened(box)
    parcel = new.claim()
    assert parcel is not None and parcel.id == waits[0].id and parcel.sha256 == hashes[1]
    assert exam_hash(parcel.result) == hashes[1]
    assert new.claim() is None and new.state(sent[0].id) == "delivered"
    assert "result" not in {row[1] for row in new._db.execute("PRAGMA table_info(exams)")}
    again = reopened(new, keep_delivered=False)
    assert again._db.execute("SELECT count(*) FROM results").fetchone() == (1,)
    again.close()


def test_the_outbox_of_a_newer_version_is_left_alone(box: Outbox) -> None:
    box._db.execute("PRAGMA user_version = 9")
    with pytest.raises(StethopiError, match="outbox.sqlite: written by a newer stethopi .*; install that"):
        reopened(box)


def test_a_sound_from_elsewhere_is_taken_in_and_the_original_stays(box: Outbox, tmp_path: Path) -> None:
    exam = make_exam({"AV": b"abc"})
    elsewhere = tmp_path / "elsewhere.flac"
    elsewhere.write_bytes(b"abc")
    box.put(exam, {"AV": elsewhere})
    parcel = box.claim()
    assert parcel is not None and parcel.sounds[0].path.parent == box.sounds
    assert elsewhere.exists()


def test_put_again_changes_nothing_but_another_exam_of_the_id_is_refused(box: Outbox) -> None:
    exam, files = record(box)
    assert box.put(exam, files) == box.put(exam, files)
    assert box.backlog().exams == 1
    other, files = record(box, {"AV": b"different"}, exam_id=exam.id)
    with pytest.raises(StethopiError, match="another exam of this id"):
        box.put(other, files)


@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
def test_put_takes_only_the_sound_that_the_exam_names(box: Outbox, damage: str) -> None:
    exam, files = record(box)
    path = files["MV"]
    {
        "missing": path.unlink,
        "short": lambda: os.truncate(path, 5),
        "changed": lambda: path.write_bytes(b"o" * 3500),
    }[damage]()
    with pytest.raises(StethopiError):
        box.put(exam, files)
    assert box.state(exam.id) is None


def test_a_receipt_counts_only_with_the_right_hash(box: Outbox) -> None:
    exam, files = record(box)
    digest = box.put(exam, files)
    assert not box.delivered(exam.id, "0" * 64)
    assert not box.delivered("0" * 36, digest)
    assert box.state(exam.id) == "waiting"
    assert box.delivered(exam.id, digest) and box.delivered(exam.id, digest)
    assert box.state(exam.id) == "delivered"
    assert box.claim() is None
    # a refusal that comes late does not undo a delivery
    assert box.refused(exam.id, digest, "late")
    assert box.state(exam.id) == "delivered"


def test_a_refused_exam_is_kept_told_and_not_tried_again(box: Outbox) -> None:
    exam, files = record(box)
    digest = box.put(exam, files)
    assert box.refused(exam.id, digest, "cannot be read")
    assert box.claim() is None
    assert (box.backlog().exams, box.backlog().refused) == (0, 1)
    assert all(path.exists() for path in files.values())
    # the host thought better of it
    assert box.delivered(exam.id, digest)
    assert box.backlog().refused == 0


def test_exams_come_in_the_order_in_which_they_were_put_and_can_be_skipped(box: Outbox) -> None:
    ids = []
    for _ in range(3):
        exam, files = record(box)
        box.put(exam, files)
        ids.append(exam.id)
    first = box.claim(skip={ids[0]})
    second = box.claim()
    assert first is not None and second is not None
    assert [first.id, second.id] == [ids[1], ids[0]]


def test_a_claim_ends_with_the_process_and_pushed_is_remembered(box: Outbox) -> None:
    exam, files = record(box)
    box.put(exam, files)
    assert box.claim() is not None
    box.pushed(exam.id)
    again = reopened(box)
    parcel = again.claim()
    assert parcel is not None and parcel.id == exam.id and parcel.pushed
    again.close()


def test_only_the_exam_that_was_pushed_is_noted_as_such(box: Outbox) -> None:
    """Of the other, the sound would never be sent before the host asks for it."""
    for _ in range(2):
        box.put(*record(box))
    first, second = box.claim(), box.claim()
    assert first is not None and second is not None
    box.pushed(second.id)
    again = reopened(box)
    pushed = {parcel.id: parcel.pushed for parcel in (again.claim(), again.claim()) if parcel}
    assert pushed == {first.id: False, second.id: True}
    again.close()


def test_a_sound_that_grew_is_not_whole_either(box: Outbox) -> None:
    exam, files = record(box)
    box.put(exam, files)
    with files["AV"].open("ab") as file:
        file.write(b"more")
    again = reopened(box)
    assert again.state(exam.id) == "torn" and again.backlog().refused == 1
    again.close()


def test_recordings_without_an_exam_are_kept_and_told(box: Outbox) -> None:
    import numpy as np

    from device.storage.recorder import Recorder

    record(box)
    cut_off = Recorder(box.sounds, "cut-off-AV")
    cut_off.append(np.zeros(3000, np.float32))
    cut_off.close()
    again = reopened(box)
    assert len(again.partials) == 3
    assert any("partial recording of 1.5 s found" in str(partial) for partial in again.partials)
    assert again.kept_partials() == 3
    assert again.backlog().exams == 0 and again.claim() is None
    last = reopened(again)
    assert (last.partials, last.kept_partials()) == ([], 3)
    last.close()


def test_a_rotten_result_holds_up_no_other_exam_and_its_sound_is_kept(box: Outbox) -> None:
    exam, files = record(box)
    good, good_files = record(box)
    box.put(exam, files)
    box.put(good, good_files)
    box.close()
    with sqlite3.connect(box.folder / "outbox.sqlite") as db:
        changed = db.execute("UPDATE results SET packed = x'00112233' WHERE seq = 1").rowcount
    db.close()
    assert changed == 1
    again = Outbox(box.folder)
    parcel = again.claim()
    assert parcel is not None and parcel.id == good.id
    assert again.state(exam.id) == "torn"
    assert len(list(again.quarantine.iterdir())) == len(files)
    again.close()


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_torn_exam_is_set_aside_at_the_start_and_nothing_is_deleted(box: Outbox, damage: str) -> None:
    exam, files = record(box)
    good, good_files = record(box)
    box.put(exam, files)
    box.put(good, good_files)
    if damage == "missing":
        files["AV"].unlink()
    else:
        os.truncate(files["AV"], 17)
    again = reopened(box)
    assert again.state(exam.id) == "torn"
    assert any(exam.id in line and "cannot be delivered" in line for line in again.found)
    kept = sorted(path.read_bytes() for path in again.quarantine.iterdir())
    assert kept == sorted([b"first sound first"] * (damage == "short") + [b"other" * 700])
    parcel = again.claim()
    assert parcel is not None and parcel.id == good.id
    assert again.claim() is None
    again.close()


def test_a_sound_damaged_in_place_is_found_before_it_is_sent(box: Outbox) -> None:
    exam, files = record(box)
    box.put(exam, files)
    files["AV"].write_bytes(files["AV"].read_bytes()[::-1])
    assert box.claim() is None
    assert box.state(exam.id) == "torn"


def test_a_damaged_database_is_kept_and_a_new_one_begun(box: Outbox) -> None:
    exam, files = record(box)
    box.put(exam, files)
    box.close()
    path = box.folder / "outbox.sqlite"
    path.write_bytes(b"not a database" * 1000)
    again = Outbox(box.folder)
    assert (again.quarantine / "outbox.sqlite").read_bytes().startswith(b"not a database")
    assert len(again.partials) == 2 and again.backlog().exams == 0
    again.close()


def test_two_processes_cannot_have_the_same_outbox(box: Outbox) -> None:
    with pytest.raises(StethopiError, match="in use by another stethopi-device"):
        Outbox(box.folder)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StethopiError, match="state_dir"):
        Outbox(tmp_path / "file" / "outbox")


# ---- room


def test_the_quota_lets_delivered_sounds_go_first_and_then_refuses_new_exams(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox", quota_bytes=3000)
    delivered, files = record(box, {"AV": bytes(1000)})
    box.delivered(delivered.id, box.put(delivered, files))
    waiting, waiting_files = record(box, {"AV": bytes(1000)})
    box.put(waiting, waiting_files)
    box.admit(1000)
    assert files["AV"].exists()
    box.admit(2000)
    assert not files["AV"].exists()
    with pytest.raises(OutboxFull, match="still wait for delivery"):
        box.admit(2001)
    assert waiting_files["AV"].exists()
    assert box.state(delivered.id) == "delivered"
    assert box.put(delivered, files) == exam_hash(encode(delivered))
    box.close()


def test_the_oldest_delivered_sound_goes_first(tmp_path: Path) -> None:
    """The newest is what somebody may still want to hear on the device."""
    box = Outbox(tmp_path / "outbox", quota_bytes=3000)
    kept = []
    for _ in range(3):
        exam, files = record(box, {"AV": bytes(1000)})
        box.delivered(exam.id, box.put(exam, files))
        kept.append(files["AV"])
    box.admit(1000)
    assert [path.exists() for path in kept] == [False, True, True]
    box.close()


def test_a_delivered_sound_that_a_hand_took_away_makes_room_all_the_same(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox", quota_bytes=3000)
    exam, files = record(box, {"AV": bytes(2000)})
    box.delivered(exam.id, box.put(exam, files))
    files["AV"].unlink()
    box.admit(3000)
    assert box.state(exam.id) == "delivered"
    box.close()


def test_delivered_sounds_are_no_shortage(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go when the room is needed: a light that says error for them would send a person for nothing."""
    exam, files = record(box, {"AV": bytes(3_000_000)}, chunk_size=65536)
    digest = box.put(exam, files)
    usage = shutil.disk_usage(box.folder)
    free = outbox._SPARE_BYTES + 1_000_000
    monkeypatch.setattr(outbox.shutil, "disk_usage", lambda _: usage._replace(free=free))
    assert "are free on the disk" in (box.shortage(2_000_000) or "")
    box.delivered(exam.id, digest)
    assert box.shortage(2_000_000) is None
    assert files["AV"].exists(), "asking changes nothing"


def test_a_full_disk_refuses_new_exams(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(box.folder)
    monkeypatch.setattr(outbox.shutil, "disk_usage", lambda _: usage._replace(free=33 * 1024 * 1024))
    box.admit(1024 * 1024)
    with pytest.raises(OutboxFull, match="are free on the disk"):
        box.admit(2 * 1024 * 1024)


def test_a_disk_that_cannot_sync_is_told_and_the_exam_can_be_put_again(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam, files = record(box)
    with monkeypatch.context() as patch:
        patch.setattr(
            outbox, "fsync_folder", lambda folder: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(StethopiError, match="cannot be written .*No space left.*free space"):
            box.put(exam, files)
    assert box.state(exam.id) is None and all(path.exists() for path in files.values())
    box.put(exam, files)
    assert box.state(exam.id) == "waiting"


def test_delivered_sounds_can_be_set_to_go_at_once(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox", keep_delivered=False)
    exam, files = record(box)
    box.delivered(exam.id, box.put(exam, files))
    assert not any(path.exists() for path in files.values())
    assert box.state(exam.id) == "delivered"
    box.close()


def test_the_age_of_the_backlog_needs_a_clock(box: Outbox) -> None:
    exam, files = record(box)
    box.put(exam, files)
    assert box.backlog().oldest_s is None
    assert box.backlog(moment(1100.0)).oldest_s == 40.0
    # a wall clock that was set meanwhile ages nothing within one boot
    assert box.backlog(replace(moment(1100.0), wall_s=9e9)).oldest_s == 40.0
    rebooted = Moment("another boot", 5.0, moment(1090.0).wall_s, "set")
    assert box.backlog(rebooted).oldest_s == 30.0
    fifty_years_back = Moment("another boot", 5.0, 0.0, "none")
    assert box.backlog(fifty_years_back).oldest_s is None


# ---- crashes


class Killed(BaseException):
    """Stands for kill -9: no handler of the code under test may catch it."""


def put_killed_at(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Exam, bool, bool]:
    """Put one exam, dying before the step-th change of the disk: (exam, acknowledged, died)."""
    calls = 0

    def dying(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return real(*args, **options)

        return call

    box = Outbox(folder)
    exam, files = record(box)

    class Dying:
        """The connection, dying at a statement."""

        def __init__(self, db: sqlite3.Connection) -> None:
            self._db = db
            self.execute = dying(db.execute)
            self.executemany = dying(db.executemany)

        @property
        def in_transaction(self) -> bool:
            return False  # a dead process rolls nothing back

    real_db = box._db
    acknowledged = False
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(box, "_db", Dying(real_db))
        try:
            box.put(exam, files)
            acknowledged = True
        except Killed:
            pass
    real_db.close()
    box._lock.close()
    return exam, acknowledged, not acknowledged


def test_killed_at_any_step_of_put_the_exam_is_whole_or_a_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, died = 0, True
    while died:
        folder = tmp_path / str(step)
        exam, acknowledged, died = put_killed_at(folder, step, monkeypatch)
        again = Outbox(folder)
        parcel = again.claim()
        if parcel is None:
            assert not acknowledged
            assert len(again.partials) == 2, "both sounds are kept, and told"
        else:
            assert read(Exam, parcel.result) == exam
            assert again.partials == []
        again.close()
        step += 1
    assert step > 5


@pytest.mark.process
def test_kill_9_while_putting_loses_no_acknowledged_exam(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from device.storage.outbox import Outbox
        from tests.device.storage.test_outbox import record
        box = Outbox(Path(sys.argv[1]))
        while True:
            exam, files = record(box)
            print(exam.id, box.put(exam, files), flush=True)
        """
    )
    acknowledged = {}
    for acks in (1, 3, 8, 2):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "outbox")], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acks)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        # the last line may be cut off in the middle: then nobody has read it
        acknowledged |= {
            line.split()[0].decode(): line.split()[1].decode() for line in lines if line.endswith(b"\n")
        }
    box = Outbox(tmp_path / "outbox")
    while (parcel := box.claim()) is not None:
        assert acknowledged.pop(parcel.id, parcel.sha256) == parcel.sha256
    assert acknowledged == {}
    assert box.found == []
    box.close()


class OutboxMachine(RuleBasedStateMachine):
    """Puts, claims, receipts of every kind, crashes, damage, full disk: against a model of three sets."""

    exams: Bundle[tuple[Exam, dict[str, Path]]] = Bundle("exams")

    @initialize(keep=st.booleans())
    def begin(self, keep: bool) -> None:
        memory = Path("/dev/shm")  # thousands of syncs
        self.place = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.keep = keep
        self.box = Outbox(Path(self.place.name), keep_delivered=keep)
        self.waiting: list[str] = []
        self.claimed: set[str] = set()
        self.settled: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self.orphans = 0
        self.full = False

    def teardown(self) -> None:
        if hasattr(self, "box"):
            self.box.close()
            self.place.cleanup()

    @rule(target=exams, content=st.binary(min_size=1, max_size=3000))
    def recorded(self, content: bytes) -> tuple[Exam, dict[str, Path]]:
        return record(self.box, {"AV": content})

    @rule(recording=exams)
    def put(self, recording: tuple[Exam, dict[str, Path]]) -> None:
        exam, files = recording
        known = exam.id in self.hashes
        if not known and not files["AV"].exists():
            with pytest.raises(StethopiError):
                self.box.put(exam, files)
            return
        digest = self.box.put(exam, files)
        if not known:
            self.hashes[exam.id] = digest
            self.waiting.append(exam.id)
        assert digest == self.hashes[exam.id]

    @rule(recording=exams)
    def put_on_a_full_disk(self, recording: tuple[Exam, dict[str, Path]]) -> None:
        exam, files = recording
        if exam.id in self.hashes or not files["AV"].exists():
            return
        pages = self.box._db.execute("PRAGMA page_count").fetchone()[0]
        self.box._db.execute(f"PRAGMA max_page_count = {pages}")
        try:
            self.hashes[exam.id] = self.box.put(exam, files)
            self.waiting.append(exam.id)  # it still fitted into the last page
        except StethopiError as error:
            assert "free space" in str(error)
            assert self.box.state(exam.id) is None
        finally:
            self.box._db.execute("PRAGMA max_page_count = 1073741823")

    @rule()
    def claim(self) -> None:
        parcel = self.box.claim()
        free = [exam for exam in self.waiting if exam not in self.claimed]
        assert (parcel.id if parcel else None) == (free[0] if free else None)
        if parcel:
            assert exam_hash(parcel.result) == self.hashes[parcel.id]
            for sound in parcel.sounds:
                assert len(sound.path.read_bytes()) == sound.size
            self.claimed.add(parcel.id)

    @rule(recording=exams)
    def release(self, recording: tuple[Exam, Any]) -> None:
        self.box.release(recording[0].id)
        self.claimed.discard(recording[0].id)

    @rule(recording=exams, status=st.sampled_from(["delivered", "refused"]), right=st.booleans())
    def receipt(self, recording: tuple[Exam, Any], status: str, right: bool) -> None:
        exam = recording[0].id
        digest = self.hashes.get(exam, "0" * 64) if right else "f" * 64
        if status == "delivered":
            taken = self.box.delivered(exam, digest)
        else:
            taken = self.box.refused(exam, digest, "because")
        assert taken == (right and exam in self.hashes)
        if taken:
            self.claimed.discard(exam)
            if exam in self.waiting:
                self.waiting.remove(exam)
            before = self.settled.get(exam)
            if before is None or (before, status) == ("refused", "delivered"):
                self.settled[exam] = status

    @rule()
    def crash(self) -> None:
        self.box._db.close()
        self.box._lock.close()
        self.box = Outbox(Path(self.place.name), keep_delivered=self.keep)
        self.claimed.clear()

    @invariant()
    def nothing_undelivered_is_gone(self) -> None:
        if not hasattr(self, "box"):
            return
        assert self.box.backlog().exams == len(self.waiting)
        assert self.box.backlog().refused == sum(s == "refused" for s in self.settled.values())
        for exam in self.waiting:
            assert self.box.state(exam) == "waiting"
            assert (self.box.sounds / f"{exam}-AV.flac").exists()
        for exam, state in self.settled.items():
            assert self.box.state(exam) == state
            if state == "refused":
                assert (self.box.sounds / f"{exam}-AV.flac").exists()


OutboxMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
TestOutboxMachine = OutboxMachine.TestCase
