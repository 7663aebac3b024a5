"""Power cuts at every instant lose nothing that was acknowledged, and a forgotten sync would be found out."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.power.cuts import Recorded, record, replay
from tests.power.disk import Disk, Event, What

STATES = int(os.environ.get("STETHOPI_POWER_CUTS", "2000"))
"""`python -m tests.power.cuts` looks at 20,000."""


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module", params=[True, False], ids=["keep", "forget"])
def recorded(memory: Path, request: pytest.FixtureRequest) -> Recorded:
    folder = memory / str(request.param)
    folder.mkdir()
    return record(folder, request.param)


def test_the_record_is_complete(recorded: Recorded) -> None:
    """Replayed without a cut it gives just what stood on the disk; SQLite's index of its log, which lives in
    shared memory and is made anew at each start, apart."""
    disk = Disk()
    for event in recorded.events:
        disk.happen(event)
    now, left = disk.now, dict(recorded.left)
    for tree in (now, left):
        del tree["outbox/outbox.sqlite-shm"]
    assert now == left
    assert sum(words[0] == "put" for _, words in recorded.promises) == 9
    assert any(event.path.endswith("outbox.sqlite-wal") for event in recorded.events)


def test_no_cut_loses_what_was_acknowledged(recorded: Recorded, memory: Path) -> None:
    counts: Counter[str] = Counter()
    replay(recorded, STATES // 2, memory, counts)
    assert counts["states"] > 0.8 * STATES // 2
    assert counts["cuts"] == len(recorded.events) + 1


def forgets_files(event: Event) -> bool:
    return event.what is not What.SYNC


def forgets_the_folder_of_the_sounds(event: Event) -> bool:
    return not (event.what is What.SYNC_FOLDER and event.path == "outbox/sound")


def forgets_the_folder_of_all(event: Event) -> bool:
    return not (event.what is What.SYNC_FOLDER and event.path == "")


@pytest.mark.parametrize(
    "keeps", [forgets_files, forgets_the_folder_of_the_sounds, forgets_the_folder_of_all]
)
def test_a_forgotten_sync_is_found(recorded: Recorded, memory: Path, keeps: Callable[[Event], bool]) -> None:
    numbers = [0]
    for event in recorded.events:
        numbers.append(numbers[-1] + keeps(event))
    worse = replace(
        recorded,
        events=[event for event in recorded.events if keeps(event)],
        promises=[(numbers[at], words) for at, words in recorded.promises],
    )
    with pytest.raises(AssertionError, match="cut after"):
        replay(worse, 2000, memory, Counter())
