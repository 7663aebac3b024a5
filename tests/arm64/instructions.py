"""What a second of sound costs on arm64, in instructions: counted under qemu, for both interpreters.

    python -m tests.arm64.instructions [--write docs/results/bench-arm64.json] [--only ai-edge-litert]

The emulated machine is that of tests.arm64.emulate, a Pi Zero 2 W's core; count.c is compiled into a plug-in
of qemu-user that counts, and tests.arm64.stages marks where a stage begins and ends. A stage is warm before
its first mark, and a mark costs the same before and after it, so a count holds neither start-up nor the
counting. Instructions are no times: a Cortex-A53 does about one a cycle in such code, less where it waits
for memory. Needs qemu-user (the static one has no plug-ins), mmdebstrap and gcc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.arm64.emulate import ROOT, VERSION, Arm64
from tests.arm64.stages import SECONDS, START

__all__ = ["ALARM", "RUNTIMES", "WHOLE", "count", "dearer", "main"]

RUNTIMES = ("tflite-runtime", "ai-edge-litert")
ALARM = 0.05
"""So much more than the committed count is an alarm. The same code and versions repeat within 1 %."""
WHOLE = (
    "decimate",
    "denoise",
    "listen",
    "ring",
    "waveform",
    "record",
    "classify",
    "rhythm",
    "quality",
)
"""The stages that together are the device at work on an exam, less the ECG. `classify` holds `mel`."""
_HOPS_PER_S = 125


def count(machine: Arm64, runtime: str) -> dict[str, Any]:
    """Counts with one interpreter: start-up as it is, stages for a second of sound, steps for a hop."""
    environment = {**os.environ, "STETHOPI_RUNTIME": runtime, "PYTHONHASHSEED": "0"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in ("LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        plugin, marks = Path(folder) / "count.so", Path(folder) / "marks"
        source = ROOT / "tests/arm64/count.c"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(plugin), str(source)], check=True)
        counted = machine.command("qemu-aarch64", "-plugin", f"file={plugin},out={marks}")
        told: list[str] = []
        # the first run compiles Python's modules, as the first start on a Pi does
        for command in (machine.command("qemu-aarch64"), counted):
            run = subprocess.run(
                [*command, "-W", "ignore", "-m", "tests.arm64.stages"],
                cwd=ROOT,
                env=environment,
                text=True,
                check=True,
                stdout=subprocess.PIPE,
            )
            told = json.loads(run.stdout.splitlines()[-1])
        at = [int(line) for line in marks.read_text().split()]
    pairs = at[len(START) : len(START) + 2 * len(told)]
    costs = {
        name: (pairs[2 * n + 1] - pairs[2 * n]) / SECONDS / (_HOPS_PER_S if "step" in name else 1)
        for n, name in enumerate(told)
    }
    del costs["nothing"]
    stages = {name: round(cost) for name, cost in costs.items()}
    return {
        "interpreter": f"{runtime} {metadata.version(runtime)}",
        "python": VERSION,
        "numpy": metadata.version("numpy"),
        "start": dict(zip(START, at, strict=False)),
        "second": {name: cost for name, cost in stages.items() if not name.startswith("step")},
        "whole": sum(stages[name] for name in WHOLE),
        "step": {
            "whole": round(stages["denoise"] / _HOPS_PER_S),
            **{name.removeprefix("step: "): c for name, c in stages.items() if name.startswith("step")},
        },
    }


def dearer(found: dict[str, Any], committed: dict[str, Any]) -> list[str]:
    """The stages that cost more than ALARM above what was committed, one line each."""
    return [
        f"{found['interpreter']}: {name} costs {cost:,} arm64 instructions for a second of sound, "
        f"{100 * (cost / committed['second'][name] - 1):.0f} % more than committed; "
        "where it is meant, run: make bench-arm64"
        for name, cost in found["second"].items()
        if cost > (1 + ALARM) * committed["second"].get(name, cost)
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the counts there")
    parser.add_argument("--only", choices=RUNTIMES, help="one interpreter")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/stethopi/arm64", metavar="DIR")
    arguments = parser.parse_args(argv)
    for program in ("qemu-aarch64", "gcc"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing; type: apt-get install -y qemu-user gcc")
    machine = Arm64(arguments.cache)
    to = arguments.write
    kept = json.loads(to.read_text())["counts"] if to is not None and to.exists() else {}
    for runtime in [arguments.only] if arguments.only else RUNTIMES:
        kept[runtime] = count(machine, runtime)
        whole, step = kept[runtime]["whole"], kept[runtime]["step"]["whole"]
        print(f"{runtime}: {whole / 1e6:.1f} million a second of sound, {step:,} a step of the denoiser")
    if to is not None:
        text = json.dumps(
            {"schema": 1, "command": "make bench-arm64", "core": machine.core, "counts": kept}, indent=2
        )
        temporary = to.with_name(f".{to.name}.part")
        temporary.write_text(text + "\n")
        os.replace(temporary, to)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
