"""Exams arrive in any order, twice, wrong, or across a restart, and are whole or partial."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.contract.chunks import Receipt, missing_chunks
from device.contract.codec import encode
from device.contract.exam import Finding, exam_hash
from device.contract.topics import Topic
from host.store import arrivals as arrivals_module
from host.store.arrivals import Arrival, Arrivals
from host.store.store import Store
from tests.device.exams import make_exam
from tests.host.arrivals import SOUNDS, chunks, topic


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


def deliver(store: Store, pieces: list[tuple[Topic, bytes]]) -> list[Arrival]:
    made = Arrivals(store)
    return [
        made.put_result(where, payload) if where.kind == "result" else made.put_chunk(where, payload)
        for where, payload in pieces
    ]


def test_an_exam_in_order_becomes_complete_with_its_last_chunk(store: Store) -> None:
    exam = make_exam(SOUNDS)
    payload = encode(exam)
    pieces = [(topic(exam), payload), *chunks(exam)]
    arrivals = deliver(store, pieces)
    assert arrivals[0] == Arrival(changed=True)
    assert [a.complete for a in arrivals] == [False] * (len(pieces) - 1) + [True]
    assert arrivals[-1].receipt == Receipt.of_stored(exam.id, exam_hash(payload))
    for site, sound in SOUNDS.items():
        path = store.sound_path(exam.id, site)
        assert path is not None and path.read_bytes() == sound
        assert path == store.folder / "sounds" / exam.id / f"{site}.flac"
    found = store.exam(exam.id)
    assert found is not None and found.complete and found.exam.result == payload
    assert [s.site for s in found.sites] == ["AV", "MV"]
    assert found.have == {"AV": 5, "MV": 3}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_any_order_repeats_and_restarts_give_the_same_exam_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    exam = make_exam(SOUNDS)
    pieces = [(topic(exam), encode(exam)), *chunks(exam)]
    pieces += chance.choices(pieces, k=4)
    chance.shuffle(pieces)
    store = Store(tmp_path / "store")
    complete = False
    for piece in pieces:
        if chance.random() < 0.2:
            store.close()
            store = Store(tmp_path / "store")
        (arrival,) = deliver(store, [piece])
        assert arrival.complete or not complete, "complete, then not"
        complete = arrival.complete
    assert complete
    assert sum(found.exam.id == exam.id for found in store.exams(limit=1000)) == 1
    for site, sound in SOUNDS.items():
        path = store.sound_path(exam.id, site)
        assert path is not None and path.read_bytes() == sound
    store.close()
    rows = sqlite3.connect(tmp_path / "store" / "exams.sqlite").execute("SELECT count(*) FROM chunks")
    assert rows.fetchone() == (0,), "chunks of a whole file are given back"


def test_a_partial_exam_says_what_is_missing(store: Store) -> None:
    exam = make_exam(SOUNDS)
    payload = encode(exam)
    pieces = chunks(exam)
    deliver(store, [(topic(exam), payload), pieces[1], pieces[3], pieces[6]])
    for arrival in (Arrivals(store).look_again(exam.id), Arrivals(store).put_result(topic(exam), payload)):
        assert arrival.receipt is not None and arrival.receipt.status == "missing"
        assert arrival.receipt.sha256 == exam_hash(payload)
        assert arrival.receipt.missing is not None
        lacking = {
            site.site: missing_chunks(arrival.receipt.missing[site.site], site.sound.chunks)
            for site in exam.sites
        }
        assert lacking == {"AV": [0, 2, 4], "MV": [0, 2]}
    assert [row.id for row in store.partial()] == [exam.id]
    assert store.sound_path(exam.id, "AV") is None
    found = store.exam(exam.id)
    assert found is not None and not found.complete and found.have == {"AV": 2, "MV": 1}


def test_chunks_before_their_result_are_kept_and_counted(store: Store) -> None:
    exam = make_exam(SOUNDS)
    pieces = chunks(exam)
    assert deliver(store, pieces) == [Arrival()] * len(pieces)
    assert store.exams() == []
    (arrival,) = deliver(store, [(topic(exam), encode(exam))])
    assert arrival.complete and arrival.receipt is not None and arrival.receipt.status == "stored"


def test_a_sound_whose_sha256_does_not_fit_is_asked_for_again(store: Store) -> None:
    exam = make_exam(SOUNDS)
    pieces = chunks(exam)
    wrong = [(where, bytes(len(data)) if where.chunk == 2 else data) for where, data in pieces]
    last = deliver(store, [(topic(exam), encode(exam)), *wrong])[-1]
    assert not last.complete and last.receipt is not None and last.receipt.missing is not None
    assert missing_chunks(last.receipt.missing["MV"], 3) == [0, 1, 2]
    assert not list(store.folder.glob("sounds/*/*"))
    assert deliver(store, pieces)[-1].complete


def test_another_exam_under_a_known_id_is_refused_and_goes_to_quarantine(store: Store) -> None:
    exam = make_exam(SOUNDS)
    payload = encode(exam)
    deliver(store, [(topic(exam), payload), *chunks(exam)])
    other = encode(replace(exam, verdict=Finding("abnormal", 0.9, 0.9, ())))
    arrival = Arrivals(store).put_result(topic(exam), other)
    assert arrival.receipt == Receipt.of_refused(
        exam.id, exam_hash(other), "another exam is stored under this id"
    )
    (refused,) = store.quarantine()
    assert refused.file is not None and (store.folder / "aside" / refused.file).read_bytes() == other
    found = store.exam(exam.id)
    assert found is not None and found.exam.result == payload and found.exam.label == "normal"
    again = Arrivals(store).put_result(topic(exam), payload)
    assert again.receipt == Receipt.of_stored(exam.id, exam_hash(payload))


def test_another_device_can_neither_replace_nor_complete_an_exam(store: Store) -> None:
    exam = make_exam(SOUNDS)
    deliver(store, [(topic(exam), encode(exam))])
    thief = replace(exam, device="stetho-2")
    arrival = Arrivals(store).put_result(topic(thief), encode(thief))
    assert arrival.receipt is not None and arrival.receipt.status == "refused"
    deliver(store, chunks(thief))
    found = store.exam(exam.id)
    assert found is not None and found.exam.device == "stetho-1" and found.have == {"AV": 0, "MV": 0}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "unreadable"),
        (b"\xff\xfe", "unreadable"),
        (b"[" * 100_000, "unreadable"),
        (b'{"id": NaN}', "unreadable"),
        (b" " * (1024 * 1024 + 1), "unreadable"),
        (encode(make_exam(SOUNDS)), "the result names another exam"),
    ],
)
def test_a_result_that_cannot_be_believed_is_refused(store: Store, payload: bytes, why: str) -> None:
    exam = make_exam(SOUNDS)
    arrival = Arrivals(store).put_result(topic(exam), payload)
    assert arrival.receipt is not None and arrival.receipt.status == "refused"
    assert why in (arrival.receipt.why or "")
    assert store.exams() == [] and len(store.quarantine()) == 1
    encode(arrival.receipt)  # may be sent


def test_chunks_that_do_not_fit_are_dropped(store: Store) -> None:
    exam = make_exam(SOUNDS)
    first = SOUNDS["AV"][:1024]
    early = [
        (topic(exam, "AV", 0), first + b"x"),
        (topic(exam, "TV", 0), first),
        (topic(exam, "AV", 900), first),
        (topic(exam, "AV", 1), b""),
    ]
    deliver(store, early)
    deliver(store, [(topic(exam), encode(exam))])
    late = [*early, (topic(exam, "AV", 4), first[:-1])]
    deliver(store, late)
    found = store.exam(exam.id)
    assert found is not None and found.have == {"AV": 0, "MV": 0}


def test_what_waits_for_its_exam_is_limited(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals_module, "MOST_WAITING_BYTES", 3000)
    exams = [make_exam(SOUNDS) for _ in range(5)]
    for exam in exams:
        deliver(store, chunks(exam)[:1])
    (arrival,) = deliver(store, [(topic(exams[1]), encode(exams[1]))])
    assert arrival.receipt is None
    assert [store.exam(e.id) is not None for e in exams] == [False, True, False, False, False]
    with sqlite3.connect(store.folder / "exams.sqlite") as database:
        assert database.execute("SELECT count(*) FROM chunks").fetchone() == (2,)


def test_kill_9_between_two_chunks_leaves_a_partial_that_can_be_finished(tmp_path: Path) -> None:
    exam = make_exam(SOUNDS, exam_id="00000000-0000-4000-8000-000000000001")
    script = """
import os, signal, sys
sys.path.insert(0, ".")
from tests.host.store.test_arrivals import *
exam = make_exam(SOUNDS, exam_id="00000000-0000-4000-8000-000000000001")
store = Store(Path(sys.argv[1]))
deliver(store, [(topic(exam), encode(exam)), *chunks(exam)[:6]])
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).resolve().parents[3]
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], cwd=root, check=False)
    assert killed.returncode == -9
    with Store(tmp_path / "store") as store:
        (row,) = store.partial()
        found = store.exam(row.id)
        assert found is not None and found.have == {"AV": 5, "MV": 1}
        assert hashlib.sha256(found.exam.result).hexdigest() == row.sha256
        assert store.sound_path(row.id, "AV") is not None, "a whole sound is there"
        assert store.sound_path(row.id, "MV") is None
        assert deliver(store, chunks(exam)[6:])[-1].complete


def test_the_last_receipts_are_remembered(store: Store) -> None:
    exam = make_exam(SOUNDS)
    receipts = [Receipt.of_missing(exam.id, "0" * 64, {"AV": ([n], 40)}) for n in range(30)]
    for receipt in [*receipts, Receipt.of_stored(exam.id, "0" * 64)]:
        Arrivals(store).note_receipt(receipt)
    kept = store.receipts(exam.id)
    assert len(kept) == 20 and kept[-1].status == "stored"


def test_sound_without_a_result_waits_a_month_and_that_of_an_exam_for_ever(tmp_path: Path) -> None:
    """A device that was switched off between the two is not always back within a week."""
    now = [0.0]
    orphan, partial = make_exam(SOUNDS), make_exam(SOUNDS)

    def opened(day: float) -> Store:
        now[0] = 1e9 + day * 86400
        return Store(tmp_path / "store", now=lambda: now[0])

    def waiting() -> int:
        with sqlite3.connect(tmp_path / "store" / "exams.sqlite") as database:
            return int(database.execute("SELECT count(*) FROM chunks").fetchone()[0])

    with opened(0) as store:
        deliver(store, chunks(orphan)[:2])
        deliver(store, [(topic(partial), encode(partial)), *chunks(partial)[:1]])
    for day, kept in ((29.9, 3), (30.1, 1), (1000, 1)):
        with opened(day) as store:
            Arrivals(store).tidy()
            assert waiting() == kept
            found = store.exam(partial.id)
            assert found is not None and found.have["AV"] == 1


def test_refused_results_do_not_fill_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit they are told and listed, but no longer kept."""
    monkeypatch.setattr(arrivals_module, "MOST_QUARANTINED_FILES", 2)
    for n in range(4):
        arrival = Arrivals(store).put_result(topic(make_exam(SOUNDS)), b"%d" % n)
        assert arrival.receipt is not None and arrival.receipt.status == "refused"
    assert len(store.quarantine()) == 4 and len(list((store.folder / "aside").iterdir())) == 2


def test_what_a_stranger_sent_before_the_result_is_given_back(store: Store) -> None:
    """No exam will ever take it; kept, it would fill the disk with every guess of an id."""
    exam = make_exam(SOUNDS)
    deliver(store, chunks(replace(exam, device="stetho-2"))[:2])
    deliver(store, [*chunks(exam)[:1], (topic(exam), encode(exam))])
    with sqlite3.connect(store.folder / "exams.sqlite") as database:
        kept = database.execute("SELECT device, count(*) FROM chunks GROUP BY device").fetchall()
    assert kept == [("stetho-1", 1)]


@pytest.mark.parametrize(("size", "kept"), [(0, 0), (1, 1), (1024 * 1024, 1), (1024 * 1024 + 1, 0)])
def test_a_chunk_without_its_result_is_no_longer_than_any_may_be(store: Store, size: int, kept: int) -> None:
    deliver(store, [(topic(make_exam(SOUNDS), "AV", 0), bytes(size))])
    with sqlite3.connect(store.folder / "exams.sqlite") as database:
        assert database.execute("SELECT count(*) FROM chunks").fetchone() == (kept,)
