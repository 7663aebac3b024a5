"""The daemon of a soak: sound as fast as it goes, exam after exam; says how it is after each minute of sound.

    python -m tests.soak.stethoscope FOLDER BROKER_PORT MINUTES

Each line on stdout is a JSON object; tests/soak/run.py starts it and reads them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

from device.daemon.daemon import Daemon
from device.daemon.machine import resident_bytes
from device.delivery.uplink import Pace
from device.rates import WORKING_RATE_HZ
from device.settings.settings import Settings

__all__ = ["main"]

EXAM_S = 60
PACE = Pace(reconnect_first_s=0.2, reconnect_most_s=2.0, announce_first_s=1.0, announce_most_s=10.0)


def _written() -> int:
    """Bytes handed to write(2) so far, files and pipes; sockets are not counted by the kernel."""
    lines = Path("/proc/self/io").read_text("ascii").split()
    return int(lines[lines.index("wchar:") + 1])


def main(folder: Path, port: int, minutes: int) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)-7s %(name)s: %(message)s")
    settings = Settings.parse(
        {
            "device": {"id": "soak", "fleet": "soak", "state_dir": str(folder)},
            "source": {"spec": "synthetic:rate_hz=2000,noise_db=12,seed=3", "pace": "fast"},
            # never good enough: every exam lasts just so long
            "exam": {"sites": ["MV"], "min_s": EXAM_S, "max_s": EXAM_S, "autostart": True},
            "outbox": {"keep_delivered": False},
            "mqtt": {"host": "127.0.0.1", "port": port},
        }
    )
    daemon = Daemon(settings, pace=PACE)
    said = recorded = 0

    def tell() -> None:
        nonlocal said, recorded
        counted: list[str] = []
        minute = 0
        while minute < minutes:
            time.sleep(0.2)
            examiner, outbox, chain = daemon.examiner, daemon.outbox, daemon.parts.chain
            if examiner is None or outbox is None or chain is None:
                continue
            if examiner.heard < (minute + 1) * 60 * WORKING_RATE_HZ:
                continue
            minute = examiner.heard // (60 * WORKING_RATE_HZ)
            exams = list(daemon.exams)
            for exam in exams:
                if exam.id not in counted:
                    # the spool of 3 bytes a sample, then the FLAC file
                    recorded += sum(3 * site.samples + site.sound.size for site in exam.sites)
            counted = [exam.id for exam in exams]
            line = json.dumps(
                {
                    "minute": minute,
                    "resident": resident_bytes(),
                    "threads": threading.active_count(),
                    "descriptors": len(os.listdir("/proc/self/fd")),
                    "exams": examiner.finished,
                    "backlog": outbox.backlog().exams,
                    "dropped_blocks": chain.lost + examiner.windows_dropped + daemon.parts.source.blocks_lost,
                    "written": _written() - said,
                    "recorded": recorded,
                }
            )
            said += len(line) + 1
            print(line, flush=True)
        daemon.request_stop()

    threading.Thread(target=tell, daemon=True, name="tell").start()
    return daemon.run()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
