"""Instructions that each stage needs for a second of sound, counted by callgrind (valgrind).

Unlike times, they hardly depend on what else the machine does: a stage that became dearer shows, on any
x86-64 machine. One process loads the models, warms up, then runs each stage over the same seconds of sound;
calls of an otherwise unused C function mark where one stage ends and the next begins.

    python -I -m device.checks.instruction_count [SECONDS]     the table, for 3 s by default
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from device.checks.figures.one_line import one_line_errors
from device.errors import StethopiError

if TYPE_CHECKING:
    from device.arrays import Samples

__all__ = ["ALARM", "STAGES", "instructions", "stages_of", "where"]

ALARM = 0.05
"""So much more than the committed count is an alarm. The same code and versions repeat within 1 %."""

RATE_HZ = 48000
STAGES = ("decimate", "denoise", "classify", "rhythm", "quality")

_WARM_S = 5
_MARK = "getpgid"
"""Called between stages, and by nobody else in between."""


def where() -> str:
    """What a count depends on: it is compared with counts of the same versions only."""
    import numpy as np

    from device.inference.interpreter import runtime_name

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"python {version}, {runtime_name()}, numpy {np.__version__}, {platform.machine()}"


def stages_of(bundle: Path | None = None) -> list[tuple[str, Callable[[Samples, Samples], object]]]:
    """(name, work) of each stage; work takes the same second at the source's rate and at the working rate."""
    import numpy as np

    from device.denoise.stream import Denoiser
    from device.dsp.resample import Decimator
    from device.inference import bundle as bundles
    from device.rates import WORKING_RATE_HZ
    from device.screening import quality
    from device.screening.rhythm import heart_rate
    from device.screening.screen import Screener

    found = bundles.load(bundle)
    decimator = Decimator(RATE_HZ)
    denoiser = Denoiser(found.model("denoiser"))
    screener = Screener(found.model("classifier"))
    last = np.zeros(3 * WORKING_RATE_HZ, np.float32)

    def in_blocks(x: Samples) -> None:
        for at in range(0, len(x), RATE_HZ // 50):
            decimator.process(x[at : at + RATE_HZ // 50])

    def of_the_last_seconds(work: Callable[[Samples], object]) -> Callable[[Samples], object]:
        def done(x: Samples) -> object:
            last[: -len(x)], last[-len(x) :] = last[len(x) :].copy(), x
            return work(last)

        return done

    rhythm = of_the_last_seconds(heart_rate)
    contact = of_the_last_seconds(quality.assess)
    return [
        ("decimate", lambda source, x: in_blocks(source)),
        ("denoise", lambda source, x: denoiser.process(x)),
        ("classify", lambda source, x: screener.process(x)),
        ("rhythm", lambda source, x: rhythm(x)),
        ("quality", lambda source, x: contact(x)),
    ]


def _run(seconds: int, bundle: Path | None) -> None:
    """What valgrind watches."""
    from device.rates import WORKING_RATE_HZ
    from device.settings.specs import HeartSettings
    from device.sources.synthetic import synthesise

    heart = HeartSettings(murmur="systolic", noise_db=10.0, rate_hz=WORKING_RATE_HZ)
    sound = synthesise(heart, _WARM_S + seconds).samples
    # what lies between two samples does not change the count
    source = sound.repeat(RATE_HZ // WORKING_RATE_HZ)
    pieces = [
        (source[s * RATE_HZ : (s + 1) * RATE_HZ], sound[s * WORKING_RATE_HZ : (s + 1) * WORKING_RATE_HZ])
        for s in range(_WARM_S + seconds)
    ]
    stages = stages_of(bundle)
    for name, work in stages:
        # the classifier speaks from its first whole window on
        for piece in pieces[: _WARM_S if name == "classify" else 1]:
            work(*piece)
    for _, work in stages:
        os.getpgid(0)
        for piece in pieces[_WARM_S:]:
            work(*piece)
    os.getpgid(0)


def instructions(seconds: int = 3, bundle: Path | None = None) -> dict[str, int]:
    """Stage → instructions for one second of sound. StethopiError where valgrind is missing or fails."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise StethopiError("valgrind is missing; run: apt-get install -y valgrind")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        chosen = str(bundle) if bundle else None
        code = f"from device.checks.instruction_count import _run; _run({seconds}, {chosen!r})"
        run = subprocess.run(
            [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={_MARK}"]
            + ["--error-limit=no", sys.executable, "-P", "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise StethopiError(f"callgrind failed: {(run.stderr.strip().splitlines() or ['?'])[-1]}")
        # one dump at each mark, holding what came after the mark before it; then one at the end
        counts = [_total(out.with_name(f"{out.name}.{n}")) for n in range(2, len(STAGES) + 2)]
    return {stage: round(count / seconds) for stage, count in zip(STAGES, counts, strict=True)}


def _total(dump: Path) -> int:
    text = dump.read_text("utf-8")
    found = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
    if found is None:
        raise StethopiError(f"{dump.name}: callgrind wrote no total; is its version known?")
    return int(found[1])


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    found = instructions(int(arguments[0]) if arguments else 3)
    print(where())
    for stage, count in {**found, "all": sum(found.values())}.items():
        print(f"{stage:<10}{count / 1e6:>10.1f} million instructions for a second of sound")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
