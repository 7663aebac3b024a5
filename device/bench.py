"""`stethopi-device bench`: what every stage costs on this machine, with the released models.

A synthetic heart goes through the stages of the daemon as fast as they take it, in one thread, in blocks of
20 ms: decimate, denoise, the classifier. For each: p50, p99 and p99.9 of a step, how many steps missed their
budget, and how much faster than real time it is. Beside it the operations that the models need, for these do
not depend on the machine; resident memory; and how long import and loading took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from device.errors import BadInput

__all__ = ["measure", "run", "table"]

_BLOCK_S = 0.02


def _import_s() -> float:
    """Seconds that a fresh interpreter takes to import what the daemon needs, its own start left out."""
    code = "import time; t = time.perf_counter(); import device.daemon; print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def measure(seconds: float = 30.0, rate_hz: int = 48000, bundle: Path | None = None) -> dict[str, Any]:
    """Run `seconds` of sound at `rate_hz` through all stages; the figures as plain values.

    StethopiError when there is no bundle or no interpreter; BadInput for a rate that no source has.
    """
    import numpy as np

    from device import bundle as bundles
    from device.daemon import resident_bytes
    from device.denoise import Denoiser
    from device.rates import HOP, HOP_S, WINDOW_EVERY, WORKING_RATE_HZ
    from device.resample import Decimator
    from device.runtime import runtime_name
    from device.screen import Screener
    from device.sources.synthetic import HeartSettings, synthesise
    from device.timing import StageTimer

    import_s = _import_s()
    began = time.perf_counter()
    found = bundles.load(bundle)
    denoiser = Denoiser(found.model("denoiser"))
    screener = Screener(found.model("classifier"))
    load_s = time.perf_counter() - began

    sound = synthesise(HeartSettings(murmur="systolic", noise_db=10.0, rate_hz=rate_hz), seconds).samples
    decimator = Decimator(rate_hz)
    decimate = StageTimer("decimate", HOP_S / 4)
    classify = StageTimer("classify", 0.25 * WINDOW_EVERY / WORKING_RATE_HZ)
    block = max(round(_BLOCK_S * rate_hz), 1)
    windows, waiting = [], np.zeros(0, np.float32)
    for at in range(0, len(sound), block):
        began = time.perf_counter()
        raw = decimator.process(sound[at : at + block])
        decimate.add((time.perf_counter() - began) * HOP / max(len(raw), HOP))
        denoiser.process(raw)
        waiting = np.concatenate([waiting, raw])
        if len(waiting) >= WINDOW_EVERY:
            with classify:
                windows += screener.process(waiting)
            waiting = np.zeros(0, np.float32)
    windows += screener.process(waiting) + screener.flush()

    stages = []
    for timer, step_s in (
        (decimate, HOP_S),
        (denoiser.step_times, HOP_S),
        (classify, WINDOW_EVERY / WORKING_RATE_HZ),
    ):
        figures = timer.figures
        mean_s = figures.total_s / figures.count if figures.count else None
        stages.append(
            {
                "stage": figures.stage,
                "step_ms": 1e3 * step_s,
                "budget_ms": 1e3 * figures.budget_s,
                "steps": figures.count,
                **{
                    f"{name}_ms": None if value is None else round(1e3 * value, 4)
                    for name, value in (("p50", figures.p50), ("p99", figures.p99), ("p999", figures.p999))
                },
                "missed": figures.missed,
                "real_time_factor": None if not mean_s else round(step_s / mean_s, 1),
            }
        )
    meta = {name: found.model(name).meta for name in found.models}
    memory = resident_bytes()
    return {
        "schema": 1,
        "bundle": found.version,
        "interpreter": runtime_name(),
        "seconds": seconds,
        "rate_hz": rate_hz,
        "windows": len(windows),
        "stages": stages,
        "mac_per_s": {
            "decimate": decimator.mac_per_s,
            "denoise": meta["denoiser"].get("mac_per_s"),
            "classify": meta["classifier"].get("mac_per_window"),
        },
        "memory_mb": None if memory is None else round(memory / 1e6, 1),
        "import_s": round(import_s, 3),
        "load_s": round(load_s, 3),
    }


def table(found: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = [
        f"bundle {found['bundle']}, {found['interpreter']}, {found['seconds']:g} s at {found['rate_hz']} Hz",
        f"{'stage':<10}{'step ms':>9}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}{'budget':>8}{'missed':>16}"
        f"{'x real time':>13}{'MMAC/s':>8}",
    ]

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for stage in found["stages"]:
        mac = found["mac_per_s"][stage["stage"]]
        cells = [
            f"{stage['stage']:<10}{stage['step_ms']:>9.0f}",
            f"{number(stage['p50_ms'], '.3f'):>9}",
            f"{number(stage['p99_ms'], '.3f'):>9}",
            f"{number(stage['p999_ms'], '.3f'):>10}",
            f"{stage['budget_ms']:>8g}",
            f"{stage['missed']} of {stage['steps']}".rjust(16),
            f"{number(stage['real_time_factor'], '.1f'):>13}",
            f"{number(None if mac is None else mac / 1e6, '.1f'):>8}",
        ]
        lines.append("".join(cells))
    lines.append(
        f"resident {number(found['memory_mb'], '.0f')} MB, import {found['import_s']:.2f} s, "
        f"models loaded in {found['load_s']:.2f} s"
    )
    return "\n".join(lines)


def run(
    seconds: float = 30.0, rate_hz: int = 48000, *, as_json: bool = False, bundle: Path | None = None
) -> int:
    """Measure and print; exit code."""
    if not 2000 <= rate_hz <= 192000:
        raise BadInput(f"--rate {rate_hz}: not from 2000 to 192000 Hz")
    found = measure(seconds, rate_hz, bundle)
    print(json.dumps(found, indent=2) if as_json else table(found))
    return 0
