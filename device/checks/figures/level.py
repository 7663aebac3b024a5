"""The level tracker on a recording."""

from __future__ import annotations

import numpy as np

from device.checks.figures.one_line import of_a_file
from device.denoise.front_end import Level
from device.rates import HOP, HOP_S


@of_a_file("level")
def main(path: str) -> int:
    """Run it from the command line; gives the exit code."""
    from device.sources.files import read_working_rate

    x, _ = read_working_rate(path)
    tracker = Level()
    for t in range(len(x) // HOP):
        value = tracker.step(float(np.sqrt(np.mean(x[t * HOP : (t + 1) * HOP] ** 2))))
        if (t + 1) % 125 == 0:
            print(f"{(t + 1) * HOP_S:7.1f} s  {20 * np.log10(value) if value else -np.inf:7.1f} dB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
