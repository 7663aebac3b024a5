"""Do two machines compute the same? Every step of every model in the bundle, and what comes out in the end.

    python -m tests.arm64.numbers record FILE.npz        on the one: what went in and came out at each step
    python -m tests.arm64.numbers compare FILE.npz       on the other: the same inputs; differences as JSON

Each step is compared by itself, with the first machine's inputs and states, so that a difference of one step
does not grow; then both run freely, and their denoised sound is compared with the clean heart beneath.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from device.denoise.stream import Denoiser, denoise
from device.inference import bundle as bundles
from device.inference.interpreter import Interpreter, runtime_name
from device.screening.screen import Screener
from device.settings.specs import HeartSettings
from device.sources.synthetic import synthesise

__all__ = ["compare", "record"]

SECONDS = 8.0
SEED = 16


def _sounds() -> tuple[np.ndarray, np.ndarray]:
    """(noisy, clean) heart sound at the working rate, float32."""
    noisy = HeartSettings(rate_hz=2000, murmur="systolic", noise_db=3.0, seed=SEED)
    clean = HeartSettings(rate_hz=2000, murmur="systolic", noise_db=float("inf"), seed=SEED)
    return synthesise(noisy, SECONDS).samples, synthesise(clean, SECONDS).samples


class _Recorder:
    """Keeps what every interpreter is given and gives, by the name of its model file."""

    def __init__(self) -> None:
        self.kept: dict[str, list[np.ndarray]] = {}
        make, put = Interpreter.__init__, Interpreter.set
        kept = self.kept

        def made(self: Any, path: Path, threads: int = 1) -> None:
            make(self, path, threads)
            self.name, self.given = path.stem, {}
            invoke = self.invoke
            self.invoke = lambda: invoked(self, invoke)

        def given(self: Any, position: int | str, array: np.ndarray) -> None:
            put(self, position, array)
            where = self.input_position(position) if isinstance(position, str) else position
            self.given[where] = np.array(array)

        def invoked(self: Any, invoke: Callable[[], None]) -> None:
            invoke()
            for position in range(len(self.inputs)):
                kept.setdefault(f"{self.name}/in/{position}", []).append(self.given[position])
            for position in range(len(self.outputs)):
                kept.setdefault(f"{self.name}/out/{position}", []).append(self.get(position))

        Interpreter.__init__, Interpreter.set = made, given  # type: ignore[method-assign, assignment]
        Interpreter.setter = lambda self, position: partial(given, self, position)  # type: ignore[method-assign]


def record(path: Path) -> None:
    """Run every model of the bundle as the device does, and write all its inputs and outputs to `path`."""
    recorder = _Recorder()
    bundle = bundles.load()
    noisy, clean = _sounds()
    vectors = bundle.vectors()
    free = {}
    for name in bundle.models:
        entry = bundle.model(name)
        if not entry.meta.get("states"):
            screener = Screener(entry)
            screener.process(noisy)
            screener.flush()
        else:
            free[name] = denoise(entry, noisy if name == "denoiser" else vectors[f"{name}/x"])
    arrays = {key: np.stack(many) for key, many in recorder.kept.items()}
    np.savez(path, **arrays, **{f"{name}/free": y for name, y in free.items()}, noisy=noisy, clean=clean)


def _snr_db(y: np.ndarray, clean: np.ndarray) -> float:
    error = y.astype(np.float64) - clean
    return float(10 * np.log10(np.sum(clean.astype(np.float64) ** 2) / np.sum(error**2)))


def compare(path: Path) -> dict[str, Any]:
    """The same steps here; how far they differ from what `path` holds."""
    bundle = bundles.load()
    there = np.load(path)
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "interpreter": runtime_name(),
        "bundle": bundle.version,
        "models": {},
    }
    for name in bundle.models:
        entry = bundle.model(name)
        net = Interpreter(entry.tflite)
        stem = entry.tflite.stem
        given = [there[f"{stem}/in/{n}"] for n in range(len(net.inputs))]
        wanted = [there[f"{stem}/out/{n}"] for n in range(len(net.outputs))]
        worst = differing = values = 0
        for step in range(len(given[0])):
            for position, arrays in enumerate(given):
                net.set(position, arrays[step])
            net.invoke()
            for position, arrays in enumerate(wanted):
                apart = np.abs(net.get(position).astype(np.int32) - arrays[step].astype(np.int32))
                worst = max(worst, int(apart.max(initial=0)))
                differing += int(np.count_nonzero(apart))
                values += apart.size
        found["models"][name] = {
            "steps": len(given[0]),
            "values": values,
            "differing": differing,
            "worst_lsb": worst,
        }
        if entry.meta.get("states"):
            x = there["noisy"] if name == "denoiser" else bundle.vectors()[f"{name}/x"]
            # as the device runs it: its own states, hop by hop
            stage = Denoiser(entry)
            y = np.concatenate([stage.process(x), stage.flush()])
            free = there[f"{name}/free"]
            apart_db = min(_snr_db(y, free), 200.0) if not np.array_equal(y, free) else None
            found["models"][name]["free_running_difference_db"] = apart_db
            if name == "denoiser":
                here_db, there_db = _snr_db(y, there["clean"]), _snr_db(free, there["clean"])
                found["models"][name] |= {
                    "snr_db_here": round(here_db, 3),
                    "snr_db_there": round(there_db, 3),
                    "snr_apart_db": round(abs(here_db - there_db), 4),
                }
    return found


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]))
    else:
        print(json.dumps(compare(Path(sys.argv[2]))))
