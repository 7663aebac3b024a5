"""What a stethoscope does to its disk in a few exams; run by tests/power under `record.c`.

    python -m tests.power.workload FOLDER keep|forget

Each line on stdout is a promise made to a person: `put ID HASH` (the light is green), `delivered ID`. The
number of disk records so far stands in front of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from device.contract.exam import Exam
from device.storage.outbox import Outbox
from device.storage.recorder import Recorder
from tests.device.exams import make_exam

__all__ = ["main"]


def _exam(box: Outbox, sites: list[str], seed: int) -> tuple[Exam, dict[str, Path]]:
    """Record some sites as the examiner does; the exam that names them."""
    chance = np.random.default_rng(seed)
    exam_id = f"{seed:08x}-0000-4000-8000-000000000000"
    files, sounds = {}, {}
    for site in sites:
        recorder = Recorder(box.sounds, f"{exam_id}-{site}")
        for _ in range(3):
            recorder.append(chance.uniform(-0.5, 0.5, 700).astype(np.float32))
        files[site] = recorder.finish().path
        sounds[site] = files[site].read_bytes()
    return make_exam(sounds, exam_id=exam_id), files


def main(folder: Path, keep: bool) -> None:
    log = os.open(os.environ["STETHOPI_RECORD_TO"], os.O_RDONLY)

    def promise(text: str) -> None:
        print(os.fstat(log).st_size, text, flush=True)

    box = Outbox(folder / "outbox", keep_delivered=keep, quota_bytes=60_000 if keep else None)
    hashes: dict[str, str] = {}
    for n in range(9):
        exam, files = _exam(box, ["AV", "MV"][: 1 + n % 2], n)
        hashes[exam.id] = box.put(exam, files)
        promise(f"put {exam.id} {hashes[exam.id]}")
        if n % 3 == 1:
            parcel = box.claim()
            assert parcel is not None
            box.pushed(parcel.id)
            assert box.delivered(parcel.id, hashes[parcel.id])
            promise(f"delivered {parcel.id}")
        if n == 4:
            box.admit(20_000)  # sounds of delivered exams may have to go
        if n == 2:  # a clean end and a new start
            box.close()
            box = Outbox(folder / "outbox", keep_delivered=keep)
        if n == 5:  # a crash in a recording, and the start after it
            Recorder(box.sounds, f"crashed-{n}").append(np.zeros(1500, np.float32))
            box._lock.close()
            box = Outbox(folder / "outbox", keep_delivered=keep)
    # and one that is still running when all ends
    recorder = Recorder(box.sounds, "running")
    recorder.append(np.full(1500, 0.25, np.float32))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "keep")
    os._exit(0)
