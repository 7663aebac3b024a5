"""`stethopi-device bench`: what every stage costs on this machine, with the released models.

A synthetic heart goes through the stages of the daemon as fast as they take it, in one thread, in blocks of
20 ms: decimate, denoise, the classifier, and each second rhythm and quality of the last three. For each: p50,
p99 and p99.9 of a step, how many steps missed their budget, and how much faster than real time it is. Beside
it what does not depend on the machine: multiplications and, by callgrind, instructions for a second of sound.
A daemon with models and uplink is started too: how long until it is ready, and how much memory it takes after
its first exam.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from device.durable import replacing
from device.errors import BadInput, StethopiError

__all__ = ["MOST_MAC_PER_S", "MOST_MEMORY_MB", "daemon_figures", "measure", "run", "table", "write"]

MOST_MAC_PER_S = 45e6
"""Multiplications of all stages for a second of heart sound (DESIGN §2)."""

MOST_MEMORY_MB = 100.0
"""Resident memory of the daemon with its models and the uplink."""

_BLOCK_S = 0.02
_PATIENCE_S = 120.0


def _import_s(module: str) -> float:
    """Seconds that a fresh interpreter takes to import it, its own start left out."""
    # -P, here and below: never what lies in the folder that this was started in
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def daemon_figures(bundle: Path | None = None) -> dict[str, float | None]:
    """Start `stethopi-device run` as systemd does, with a synthetic heart and a broker that is not there.

    start_s: from the start of its process until it says that it is ready; memory_mb: resident after its first
    exam, None where that cannot be told. StethopiError when it does not come up.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        place = Path(folder)
        ready.bind(str(place / "notify"))
        ready.settimeout(_PATIENCE_S)
        lines = [
            f'[device]\nstate_dir = "{place / "state"}"',
            '[source]\nspec = "synthetic"',
            '[exam]\nsites = ["MV"]\nmin_s = 6\nmax_s = 6\nautostart = true',
            '[mqtt]\nhost = "127.0.0.1"\nport = 9',
            f'[bundle]\npath = "{bundle.absolute()}"' if bundle else "",
        ]
        (place / "device.toml").write_text("\n".join(lines), "utf-8")
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "device", "run", "--config", str(place / "device.toml")],
            env={**os.environ, "NOTIFY_SOCKET": str(place / "notify")},
            stderr=subprocess.DEVNULL,
        )
        try:
            while b"READY=1" not in ready.recv(4096):
                continue
            start_s = time.monotonic() - began
            while b", 0 waiting" in (said := ready.recv(4096)) or b" waiting" not in said:
                continue
            pages = int(Path(f"/proc/{process.pid}/statm").read_text("ascii").split()[1])
            memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        except TimeoutError:
            raise StethopiError("the daemon does not come up; see: stethopi-device doctor") from None
        except (OSError, ValueError, IndexError):
            memory = None
        finally:
            process.terminate()
            process.wait(30)
    return {"start_s": round(start_s, 2), "memory_mb": None if memory is None else round(memory, 1)}


def _mel_mac(frames: float) -> float:
    """Multiplications of so many mel frames: taper, real FFT (n log2 n), power, filters."""
    from math import log2

    from device.screening.features import GRID

    bins = GRID.fft // 2 + 1
    return frames * (GRID.frame + GRID.fft * log2(GRID.fft) + 2 * bins + bins * GRID.bands)


def measure(seconds: float = 30.0, rate_hz: int = 48000, bundle: Path | None = None) -> dict[str, Any]:
    """Run `seconds` of sound at `rate_hz` through all stages; the figures as plain values.

    StethopiError when there is no bundle or no interpreter; BadInput for a rate that no source has.
    """
    import numpy as np

    from device.checks.instruction_count import where
    from device.daemon.machine import resident_bytes
    from device.denoise.stream import Denoiser
    from device.dsp.resample import Decimator
    from device.inference import bundle as bundles
    from device.inference.interpreter import runtime_name
    from device.rates import HOP, HOP_S, WINDOW_EVERY, WORKING_RATE_HZ
    from device.screening import features, quality
    from device.screening.rhythm import heart_rate
    from device.screening.screen import WINDOW_BUDGET_S, Screener
    from device.settings.specs import HeartSettings
    from device.sources.synthetic import synthesise
    from device.timing import StageTimer

    import_s, daemon_import_s = _import_s("device"), _import_s("device.daemon.daemon")
    began = time.perf_counter()
    found = bundles.load(bundle)
    denoiser = Denoiser(found.model("denoiser"))
    screener = Screener(found.model("classifier"))
    load_s = time.perf_counter() - began

    sound = synthesise(HeartSettings(murmur="systolic", noise_db=10.0, rate_hz=rate_hz), seconds).samples
    decimator = Decimator(rate_hz)
    decimate = StageTimer("decimate", HOP_S / 4)
    second_s = WINDOW_EVERY / WORKING_RATE_HZ
    classify, rhythm, contact = (
        StageTimer(name, WINDOW_BUDGET_S) for name in ("classify", "rhythm", "quality")
    )
    last = np.zeros(3 * WORKING_RATE_HZ, np.float32)
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
            last = np.concatenate([last, waiting])[-len(last) :]
            with rhythm:
                heart_rate(last)
            with contact:
                quality.assess(last)
            waiting = np.zeros(0, np.float32)
    windows += screener.process(waiting) + screener.flush()

    stages = []
    for timer, step_s in (
        (decimate, HOP_S),
        (denoiser.step_times, HOP_S),
        (classify, second_s),
        (rhythm, second_s),
        (contact, second_s),
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
    frames_per_s = WORKING_RATE_HZ / features.FRAME_HOP
    mac = {
        "decimate": decimator.mac_per_s,
        "denoise": meta["denoiser"].get("mac_per_s"),
        "classify": (meta["classifier"].get("mac_per_window") or 0) + round(_mel_mac(frames_per_s)),
        "rhythm": round(_mel_mac(3 * frames_per_s)),
        "quality": round(_mel_mac(3 * frames_per_s)),
    }
    return {
        "schema": 1,
        "where": where(),
        "bundle": found.version,
        "interpreter": runtime_name(),
        "seconds": seconds,
        "rate_hz": rate_hz,
        "windows": len(windows),
        "stages": stages,
        "mac_per_s": {**mac, "all": sum(count or 0 for count in mac.values())},
        "memory_mb": None if memory is None else round(memory / 1e6, 1),
        "import_s": round(import_s, 5),
        "daemon_import_s": round(daemon_import_s, 3),
        "load_s": round(load_s, 3),
        "daemon": daemon_figures(bundle),
    }


def table(found: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = [
        f"bundle {found['bundle']}, {found['interpreter']}, {found['seconds']:g} s at {found['rate_hz']} Hz",
        f"{'stage':<10}{'step ms':>9}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}{'budget':>8}{'missed':>16}"
        f"{'x real time':>13}{'MMAC/s':>8}{'Minstr/s':>10}",
    ]
    counted = found.get("instructions") or {}

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
            f"{number(counted[stage['stage']] / 1e6 if stage['stage'] in counted else None, '.1f'):>10}",
        ]
        lines.append("".join(cells))
    every = f"{number(sum(counted.values()) / 1e6 if counted else None, '.1f'):>10}"
    lines.append(f"{'all':<87}{found['mac_per_s']['all'] / 1e6:>8.1f}{every}")
    daemon = found["daemon"]
    lines.append(
        f"daemon ready after {number(daemon['start_s'], '.1f')} s, resident after an exam "
        f"{number(daemon['memory_mb'], '.0f')} MB; this process {number(found['memory_mb'], '.0f')} MB"
    )
    lines.append(
        f"import device {found['import_s']:.2f} s, device.daemon.daemon {found['daemon_import_s']:.2f} s, "
        f"models loaded in {found['load_s']:.2f} s"
    )
    return "\n".join(lines)


def write(found: dict[str, Any], path: Path) -> None:
    """Put the figures into a file that holds those of other interpreters too, each under its versions."""
    whole: dict[str, Any] = {"schema": 1, "command": "stethopi-device bench --instructions --write FILE"}
    if path.exists():
        try:
            whole["figures"] = json.loads(path.read_text("utf-8"))["figures"]
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{path}: holds no figures of a bench; name another file") from None
    figures = {**whole.get("figures", {}), found["where"]: found}
    # what another version of the same interpreter once needed is of no use any more
    stale = [key for key in figures if key != found["where"] and _kind(key) == _kind(found["where"])]
    whole["figures"] = {key: value for key, value in sorted(figures.items()) if key not in stale}
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); name another file") from error


def _kind(where: str) -> tuple[str, ...]:
    """Python, interpreter and machine of `device.checks.instruction_count.where`, without the versions of the
    last two.
    """
    parts = where.split(", ")
    return parts[0], parts[1].split()[0], parts[-1]


def run(
    seconds: float = 30.0,
    rate_hz: int = 48000,
    *,
    as_json: bool = False,
    bundle: Path | None = None,
    instructions: bool = False,
    to: Path | None = None,
) -> int:
    """Measure and print; exit code."""
    if not 2000 <= rate_hz <= 192000:
        raise BadInput(f"--rate {rate_hz}: not from 2000 to 192000 Hz")
    found = measure(seconds, rate_hz, bundle)
    if instructions:
        from device.checks import instruction_count as cost

        found["instructions"] = cost.instructions(bundle=bundle)
    if to is not None:
        write(found, to)
    print(json.dumps(found, indent=2) if as_json else table(found))
    return 0
