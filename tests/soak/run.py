"""A long time with the stethoscope, accelerated: exams every minute, the broker going and coming.

    python -m tests.soak.run [--hours 8] [--write docs/results/soak.json]

The sound comes as fast as the daemon takes it, in the environment that its unit gives it. What would grow
with the months is looked at: resident memory, threads, descriptors, what lies in the outbox, and what is
written to the card besides recordings.

How memory's slope is told: a value each minute of sound; the first 30 % are warm-up and do not count. Until
then things fill that are made to fill: the last sixteen exams, the ring and its times, SQLite's pages, and
the heap up to the mark of the longest time without a broker. Over the rest the slope is Theil's and Sen's,
the median over all pairs; its interval (95 %) comes from drawing half hours of what is left beside the line
anew, because neighbouring minutes are not independent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.brokers import Mosquitto
from tests.device.hosts import Ingest

__all__ = ["MOST_WRITTEN_MB", "figures", "soak", "unit_environment", "wrong"]

ROOT = Path(__file__).resolve().parent.parent.parent
MOST_SLOPE_MB = 1.0
"""Of resident memory, for a day."""
MOST_WRITTEN_MB = 50.0
"""A day, besides recordings."""
_WARM = 0.3
"""Of the time: until then caches and pools fill."""
_BLOCK = 30
"""Minutes that stay together when the slope's interval is drawn."""
_DRAWS = 400
_UNIT = ROOT / "deploy/systemd/stethopi-device.service"


def soak(
    minutes: int, folder: Path, *, toggle_s: float = 20.0, most_s: float = float("inf")
) -> list[dict[str, Any]]:
    """Run it; what the daemon said after each minute of sound. AssertionError when it does not end well.

    most_s: end after so many seconds by the clock, however little was heard until then.
    """
    found: list[dict[str, Any]] = []
    broker = Mosquitto(folder).start()
    ingest = Ingest(broker.host, broker.port)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.stethoscope", folder / "state", str(broker.port), str(minutes)],
        cwd=ROOT,
        env={**os.environ, **unit_environment()},
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("w"),
        text=True,
    )
    assert process.stdout is not None
    there, began_s, toggled_s, toggles = True, time.monotonic(), time.monotonic(), 0
    try:
        for line in process.stdout:
            found.append(json.loads(line))
            # the ingest of the tests keeps everything; what the host keeps is not looked at here
            for kept in (ingest.heard, ingest.payloads):
                kept.clear()
            if time.monotonic() - began_s > most_s:
                process.terminate()
            if time.monotonic() - toggled_s > toggle_s:
                there = not there
                broker.start() if there else broker.kill()
                toggled_s, toggles = time.monotonic(), toggles + 1
        code = process.wait(120)
    finally:
        process.kill()
        process.wait()
        ingest.client.disconnect()
        ingest.client.loop_stop()
        broker.stop()
    log = (folder / "log").read_text()
    assert code == 0, log
    assert ingest.wrong == [], ingest.wrong[:3]
    assert "Traceback" not in log, log
    for one in found:
        one["toggles"] = toggles
    return found


def unit_environment() -> dict[str, str]:
    """What systemd puts into the environment of the daemon."""
    lines = _UNIT.read_text("utf-8").splitlines()
    words = [word for line in lines if line.startswith("Environment=") for word in line[12:].split()]
    return dict(word.split("=", 1) for word in words)


def figures(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What it says of weeks."""
    minutes = np.array([one["minute"] for one in found], float)
    resident = np.array([one["resident"] for one in found], float)
    late = minutes >= _WARM * minutes[-1]
    first, last = found[int(np.argmax(late))], found[-1]
    exams = max(last["exams"] - first["exams"], 1)
    besides = (last["written"] - last["recorded"]) - (first["written"] - first["recorded"])
    per_exam = besides / exams
    return {
        "hours_of_sound": round(minutes[-1] / 60, 2),
        "exams": last["exams"],
        "broker_toggles": last["toggles"],
        "resident_mb_after_warm_up": round(first["resident"] / 1e6, 2),
        "resident_mb_at_the_end": round(last["resident"] / 1e6, 2),
        "resident_mb_most": round(float(resident.max()) / 1e6, 2),
        "warm_up_minutes_of_sound": round(float(minutes[int(np.argmax(late))])),
        "resident_slope_mb_a_day": round(_slope(minutes[late], resident[late]) * 1440 / 1e6, 3),
        "resident_slope_95": [round(end * 1440 / 1e6, 3) for end in _interval(minutes[late], resident[late])],
        "threads": [min(o["threads"] for o in found), max(o["threads"] for o in found), last["threads"]],
        "descriptors": [
            min(o["descriptors"] for o in found),
            max(o["descriptors"] for o in found),
            last["descriptors"],
        ],
        "dropped_blocks": last["dropped_blocks"],
        "most_waiting": max(o["backlog"] for o in found),
        "recorded_mb_a_day_of_exams": round((last["recorded"] - first["recorded"]) / exams * 1440 / 1e6, 1),
        "written_besides_kb_an_exam": round(per_exam / 1e3, 2),
        "written_besides_mb_a_day_of_exams": round(per_exam * 1440 / 1e6, 2),
    }


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """By Theil and Sen, the median of the slopes between all pairs: a single step does not move it."""
    if len(x) < 2:
        return 0.0
    a, b = np.triu_indices(len(x), 1)
    return float(np.median((y[b] - y[a]) / (x[b] - x[a])))


def _interval(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """95 % of the slope, by a bootstrap of blocks of what the line leaves over."""
    slope = _slope(x, y)
    left = y - slope * x
    left -= np.median(left)
    block = min(_BLOCK, max(len(x) // 4, 1))
    chance = np.random.default_rng(16)
    step = max(len(x) // 100, 1)
    drawn = []
    for _ in range(_DRAWS):
        starts = chance.integers(0, max(len(x) - block, 0) + 1, -(-len(x) // block))
        again = np.concatenate([left[start : start + block] for start in starts])[: len(x)]
        drawn.append(slope + _slope(x[: len(again)][::step], again[::step]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def wrong(found: dict[str, Any], *, long: bool = True) -> list[str]:
    """What breaks a bar, one line each. long: enough time has passed for a slope to mean something."""
    lines = []
    if found["dropped_blocks"]:
        lines.append(f"{found['dropped_blocks']} blocks or windows were dropped")
    if long and found["resident_slope_mb_a_day"] >= MOST_SLOPE_MB:
        lines.append(f"memory grows by {found['resident_slope_mb_a_day']} MB a day")
    for what in ("threads", "descriptors"):
        least, most, last = found[what]
        if last > least + 8 or most > least + 16:
            lines.append(f"{what} grow: at least {least}, at most {most}, {last} at the end")
    if found["written_besides_mb_a_day_of_exams"] > MOST_WRITTEN_MB:
        lines.append(f"{found['written_besides_mb_a_day_of_exams']} MB a day written besides recordings")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=8.0, help="of sound (default 8)")
    parser.add_argument(
        "--most-minutes", type=float, default=float("inf"), help="by the clock; end then with what was heard"
    )
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(
            round(60 * arguments.hours), Path(folder), most_s=60 * arguments.most_minutes, toggle_s=60.0
        )
    told: dict[str, Any] = {"schema": 1, "command": " ".join(["python -m tests.soak.run", *sys.argv[1:]])}
    told |= figures(found) | {"minutes": round((time.monotonic() - began) / 60, 1)}
    told["samples"] = [
        [one["minute"], round(one["resident"] / 1e6, 2)] for one in found[:: max(len(found) // 48, 1)]
    ]
    if arguments.write:
        arguments.write.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    for line in wrong(told):
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong(told) else 0


if __name__ == "__main__":
    raise SystemExit(main())
