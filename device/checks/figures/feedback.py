"""The watch over feedback on a recording."""

from __future__ import annotations

from device.checks.figures.one_line import of_a_file
from device.listening.feedback import STEP, FeedbackWatch
from device.rates import WORKING_RATE_HZ


@of_a_file("feedback")
def main(path: str) -> int:
    """Run it from the command line; gives the exit code."""
    from device.sources.files import read_working_rate

    x, _ = read_working_rate(path)
    watch = FeedbackWatch()
    for at in range(0, len(x), STEP):
        if watch.process(x[at : at + STEP], x[at : at + STEP]):
            print(f"{at / WORKING_RATE_HZ:6.1f} s  {watch.found:.0f} Hz")
    print(f"{watch.times} times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
