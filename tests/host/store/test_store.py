"""The store: what it lists, and folders that cannot be one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.contract.codec import encode
from device.errors import BadInput
from host.store import database as store_database
from host.store.arrivals import Arrivals
from host.store.database import StoreError
from host.store.store import Store
from tests.device.exams import make_exam
from tests.host.arrivals import topic


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


def test_a_broken_database_is_one_line_and_a_newer_one_is_left_alone(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "exams.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"exams\.sqlite: .*not a database; move the file away"):
        Store(broken)
    Store(tmp_path / "new").close()
    with sqlite3.connect(tmp_path / "new" / "exams.sqlite") as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="newer stethopi"):
        Store(tmp_path / "new")


def test_a_second_program_on_the_same_folder_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="another stethopi serve writes there"):
        Store(store.folder)


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be the store"):
        Store(tmp_path / "file")


def test_lists_are_paged_by_arrival(tmp_path: Path) -> None:
    times = iter(range(1000, 10000))
    with Store(tmp_path / "store", now=lambda: float(next(times))) as store:
        made = [make_exam({"AV": bytes([n])}) for n in range(7)]
        for exam in made:
            Arrivals(store).put_result(topic(exam), encode(exam))
        assert store.count() == 7
        first = store.exams(limit=4)
        rest = store.exams(limit=4, before=(first[-1].exam.received_s, first[-1].exam.id))
        assert [f.exam.id for f in first + rest] == [e.id for e in reversed(made)]
        assert store.exams(device=("village", "nobody")) == []


def test_exams_that_came_at_one_instant_are_each_on_one_page(tmp_path: Path) -> None:
    """A device that comes back brings its whole outbox; a coarse clock gives many the same time."""
    with Store(tmp_path / "store", now=lambda: 1e9) as store:
        made = [make_exam({"AV": bytes([n])}) for n in range(5)]
        for exam in made:
            Arrivals(store).put_result(topic(exam), encode(exam))
        seen: list[str] = []
        before = None
        while page := store.exams(limit=2, before=before):
            seen += [found.exam.id for found in page]
            before = (page[-1].exam.received_s, page[-1].exam.id)
            assert len(seen) <= len(made)
        assert sorted(seen) == sorted(exam.id for exam in made)


def test_a_newer_layout_is_not_touched_even_by_one_version(tmp_path: Path) -> None:
    Store(tmp_path / "store").close()
    with sqlite3.connect(tmp_path / "store" / "exams.sqlite") as database:
        database.execute(f"PRAGMA user_version = {store_database.VERSION + 1}")
    with pytest.raises(StoreError, match="newer stethopi"):
        Store(tmp_path / "store")
