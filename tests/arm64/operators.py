"""Where two machines begin to differ: each operator of each model, given the same inputs on both.

    python -m tests.arm64.operators record STEPS.npz FILE.npz     on the one: every tensor of some steps
    python -m tests.arm64.operators compare STEPS.npz FILE.npz    on the other: the operators that differ

STEPS.npz is what tests.arm64.numbers recorded. An operator is compared in those steps alone in which all its
inputs have the same bits on both machines: what differs there is its own doing, not what it was handed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from device.inference import bundle as bundles
from device.inference import interpreter as runtime

__all__ = ["STEPS", "compare", "record"]

STEPS = 100
"""Of each model, from the middle of its run on."""


def _runs(model: Path, steps: Path) -> Iterator[tuple[list[dict[str, Any]], dict[int, np.ndarray]]]:
    """After each step: the model's operators, and all tensors that can be read, by their index."""
    _, make = runtime._find()
    net = make(model_path=str(model), num_threads=1, experimental_preserve_all_tensors=True)
    net.allocate_tensors()
    operators = net._get_ops_details()
    inputs = [detail["index"] for detail in net.get_input_details()]
    with np.load(steps) as there:
        given = [there[f"{model.stem}/in/{n}"] for n in range(len(inputs))]
    first = max((len(given[0]) - STEPS) // 2, 0)
    for step in range(first, min(first + STEPS, len(given[0]))):
        for index, arrays in zip(inputs, given, strict=True):
            net.set_tensor(index, arrays[step])
        net.invoke()
        tensors = {}
        for index in {int(i) for o in operators for i in (*o["inputs"], *o["outputs"]) if i >= 0}:
            try:
                tensors[index] = net.get_tensor(index)
            except ValueError:  # a constant that was packed away, or a tensor of no size
                continue
        yield operators, tensors


def record(steps: Path, to: Path) -> None:
    """Every tensor of every model's steps into `to`."""
    bundle = bundles.load()
    kept: dict[str, np.ndarray] = {}
    for name in bundle.models:
        many: dict[int, list[np.ndarray]] = {}
        for _, tensors in _runs(bundle.model(name).tflite, steps):
            for index, tensor in tensors.items():
                many.setdefault(index, []).append(tensor)
        kept |= {f"{name}/{index}": np.stack(arrays) for index, arrays in many.items()}
    np.savez_compressed(to, **kept)


def compare(steps: Path, there: Path) -> dict[str, Any]:
    """By model and operator: in how many of its runs on equal inputs it gives other values, and how far."""
    bundle, found = bundles.load(), {}
    with np.load(there) as file:
        for name in bundle.models:
            wanted = {key.partition("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/")}
            tally: dict[str, dict[str, Any]] = {}
            for step, (operators, tensors) in enumerate(_runs(bundle.model(name).tflite, steps)):
                for number, operator in enumerate(operators):
                    _tally(tally, number, operator, tensors, {k: many[step] for k, many in wanted.items()})
            for one in tally.values():
                one["at"] = sorted(one["at"])
            found[name] = tally
    return found


def _tally(
    tally: dict[str, dict[str, Any]],
    number: int,
    operator: dict[str, Any],
    here: dict[int, np.ndarray],
    there: dict[str, np.ndarray],
) -> None:
    known = [int(i) for i in operator["inputs"] if i in here and str(i) in there]
    if not all(np.array_equal(here[i], there[str(i)]) for i in known):
        return
    one = tally.setdefault(
        operator["op_name"], {"runs": 0, "values": 0, "differing": 0, "worst_lsb": 0, "at": set()}
    )
    one["runs"] += 1
    for index in (int(i) for i in operator["outputs"]):
        apart = np.abs(here[index].astype(np.float64) - there[str(index)])
        one["values"] += apart.size
        differing = int(np.count_nonzero(apart))
        if differing:
            one["differing"] += differing
            one["worst_lsb"] = max(one["worst_lsb"], float(apart.max()))
            one["at"].add(number)


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(compare(Path(sys.argv[2]), Path(sys.argv[3]))))
