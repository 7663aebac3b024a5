"""Power cuts: record what a stethoscope does to its disk, cut at every instant, start again, look.

    python -m tests.power.cuts [--states 20000] [--write docs/results/power.json]

Every exam whose light was green must be there and whole, every delivery that was noted must be known, every
recording that the cut left must still be somewhere, and the next exam must go in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from device.contract.exam import Exam, exam_hash
from device.contract.topics import read
from device.storage.outbox import Outbox
from tests.device.exams import make_exam
from tests.power.disk import Disk, Event, Tree, read_events, write_tree

__all__ = ["Recorded", "record", "replay", "shim"]

ROOT = Path(__file__).resolve().parent.parent.parent
SEED = 16


@dataclass(frozen=True)
class Recorded:
    """One run of the workload."""

    keep: bool
    events: list[Event]
    promises: list[tuple[int, list[str]]]
    """(how many events came before it, its words)."""
    left: Tree
    """What really stood on the disk at its end."""


def shim(folder: Path) -> Path:
    """`record.c`, compiled into this folder."""
    made = folder / "record.so"
    if not made.exists():
        source = Path(__file__).with_name("record.c")
        subprocess.run(
            ["gcc", "-O1", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True, capture_output=True
        )
    return made


def record(folder: Path, keep: bool) -> Recorded:
    """Run the workload below `folder`, an empty one, and write down what it did."""
    below, log = folder / "state", folder / "log"
    below.mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "tests.power.workload", str(below), "keep" if keep else "forget"],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": str(shim(folder)),
            "STETHOPI_RECORD_BELOW": str(below),
            "STETHOPI_RECORD_TO": str(log),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    events = read_events(log, below)
    numbers = {event.end: number + 1 for number, event in enumerate(events)}
    promises = []
    for line in run.stdout.splitlines():
        at, *words = line.split()
        promises.append((numbers[int(at)], words))
    left: Tree = {
        str(path.relative_to(below)): None if path.is_dir() else path.read_bytes()
        for path in below.rglob("*")
    }
    return Recorded(keep, events, promises, left)


def _check(folder: Path, tree: Tree, recorded: Recorded, before: int, try_put: bool) -> None:
    """Start the outbox on what the cut left; AssertionError for what is lost."""
    write_tree(tree, folder)
    promised = [words for at, words in recorded.promises if at <= before]
    put = {words[1]: words[2] for words in promised if words[0] == "put"}
    delivered = {words[1] for words in promised if words[0] == "delivered"}
    box = Outbox(folder / "outbox", keep_delivered=recorded.keep)
    try:
        assert box.found == [], box.found
        found = {}
        while (parcel := box.claim()) is not None:
            found[parcel.id] = parcel.sha256
            assert exam_hash(parcel.result) == parcel.sha256
            exam = read(Exam, parcel.result)
            assert [site.site for site in exam.sites] == [sound.site for sound in parcel.sounds]
            for sound in parcel.sounds:
                content = sound.path.read_bytes()
                assert len(content) == sound.size
                assert hashlib.sha256(content).hexdigest() == sound.sha256
        assert box.found == [], box.found
        for exam_id, digest in put.items():
            state = box.state(exam_id)
            if exam_id in delivered:
                assert state == "delivered", f"{exam_id} was delivered, is {state}"
            else:
                assert state == "delivered" or found.get(exam_id) == digest, f"{exam_id} is {state}"
        if not recorded.keep:
            kept = {path.name[:36] for path in folder.rglob("*") if path.suffix in (".flac", ".wav")}
            assert not kept & delivered, "a recording came back after its delivery"
        _nothing_is_gone(folder, tree, box, delivered)
        if try_put:
            exam = make_exam({"AV": b"the next one"})
            path = box.sounds / f"{exam.id}-AV.flac"
            path.write_bytes(b"the next one")
            assert box.put(exam, {"AV": path}) and box.state(exam.id) == "waiting"
    finally:
        box.close()


def _nothing_is_gone(folder: Path, tree: Tree, box: Outbox, delivered: set[str]) -> None:
    """Every recording that the cut left is still somewhere, as it was but for a spool's header."""
    now = {path.read_bytes()[44:] for path in (folder / "outbox").rglob("*") if path.is_file()}
    for path, content in tree.items():
        name = Path(path).name
        if content is None or Path(path).suffix not in (".flac", ".partial", ".wav"):
            continue
        if name[:36] in delivered or box.state(name[:36]) == "delivered":
            continue
        whole = Path(path).suffix == ".partial" and path.removesuffix(".partial") + ".flac" in tree
        assert whole or content[44:] in now, f"{path} is gone"


def replay(recorded: Recorded, states: int, scratch: Path, counts: Counter[str]) -> None:
    """Cut after every event, about `states` different ones in all; AssertionError at the first loss."""
    disk, chance, seen = Disk(), random.Random(SEED), set()
    variants = max(-(-states // (len(recorded.events) + 1)), 1)
    for before in range(len(recorded.events) + 1):
        if before:
            disk.happen(recorded.events[before - 1])
        for tree in disk.after_a_cut(chance, 2 * variants):
            promises = sum(at <= before for at, _ in recorded.promises)
            key = hash((promises, frozenset(tree.items())))
            if key in seen:
                counts["twice"] += 1
                continue
            if counts["here"] >= states * (before + 1) / (len(recorded.events) + 1) + 4:
                break
            seen.add(key)
            place = Path(tempfile.mkdtemp(dir=scratch))
            try:
                _check(place, tree, recorded, before, try_put=counts["here"] % 10 == 0)
            except Exception as error:
                said = f"cut after {before} of {len(recorded.events)} events"
                raise AssertionError(f"{said}, keep={recorded.keep}: {error!r}") from error
            finally:
                shutil.rmtree(place)
            counts["here"] += 1
    counts["states"] += counts.pop("here")
    counts["cuts"] += len(recorded.events) + 1
    counts["exams"] += sum(words[0] == "put" for _, words in recorded.promises)


def run(states: int) -> dict[str, object]:
    """The whole: both settings of what becomes of delivered recordings; figures as plain values."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for keep in (True, False):
            place = Path(folder) / ("keep" if keep else "forget")
            place.mkdir()
            recorded = record(place, keep)
            scratch = place / "scratch"
            scratch.mkdir()
            replay(recorded, states // 2, scratch, counts)
    return {
        "states": counts["states"],
        "cuts": counts["cuts"],
        "exams": counts["exams"],
        "acknowledged_exams_lost": 0,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--states", type=int, default=20000)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # of some thousand partial recordings
    found = {"schema": 1, "command": " ".join(["python -m tests.power.cuts", *sys.argv[1:]]), "seed": SEED}
    found |= run(arguments.states)
    if arguments.write:
        arguments.write.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
