"""The verdict on a recording: its windows, chopped against whole, time a window."""

from __future__ import annotations

from pathlib import Path

from device.rates import WORKING_RATE_HZ
from device.screening.screen import Screener, screen_recording
from device.screening.verdict import Window
from device.sources.files import read_working_rate


def main(argv: list[str] | None = None) -> int:
    """Run it from the command line; gives the exit code."""
    import argparse
    import sys
    import time

    from device.errors import StethopiError
    from device.inference import bundle as bundles

    parser = argparse.ArgumentParser(
        prog="python -I -m device.checks.figures.screen", description="Screen a recording, show figures."
    )
    parser.add_argument("file")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest)")
    options = parser.parse_args(argv)
    try:
        x, gaps = read_working_rate(options.file)
        entry = bundles.load(options.bundle).model("classifier")
        found = screen_recording(x, entry, gaps)
        stream = Screener(entry)
        for start, end in gaps:
            stream.mark_gap(start, end)
        windows: list[Window] = []
        started = time.perf_counter()
        for start in range(0, len(x), 333):
            windows += stream.process(x[start : start + 333])
        windows += stream.flush()
        seconds = time.perf_counter() - started
    except StethopiError as error:
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code
    same = windows == found.windows
    for window in found.windows:
        probability = "unknown" if window.probability is None else f"{window.probability:.2f}"
        reasons = ", ".join(window.reasons) or "good"
        second = window.start / WORKING_RATE_HZ
        print(f"{second:6.1f} s  p {probability}  quality {window.quality:.2f}  {reasons}")
    probability = "unknown" if found.probability is None else f"{found.probability:.3f}"
    print(f"{found.label.value}  p(abnormal) {probability}  {', '.join(found.reasons)}")
    print(f"chopped equals whole: {'yes' if same else 'NO'}")
    if windows:
        print(f"{1e3 * seconds / len(windows):.1f} ms a window, quality and features included")
    print("It screens; it does not diagnose. Not a medical device.")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
