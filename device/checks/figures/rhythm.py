"""The heart rate of a recording."""

from __future__ import annotations

from device.checks.figures.one_line import of_a_file
from device.screening import features
from device.screening.rhythm import SURE, beat


@of_a_file("rhythm")
def main(path: str) -> int:
    """Run it from the command line; gives the exit code."""
    from device.sources.files import read_working_rate

    x, _ = read_working_rate(path)
    rate, sure = beat(features.screening_frames_of(x))
    told = f"{rate:.0f} beats/min" if rate is not None and sure >= SURE else "unknown"
    print(f"heart rate {told} (repetition {sure:.2f}, believed from {SURE})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
