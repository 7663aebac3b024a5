"""The mel bands of a recording: chopped against whole, time a second."""

from __future__ import annotations

import numpy as np

from device.checks.figures.one_line import of_a_file
from device.rates import WORKING_RATE_HZ
from device.screening.features import BANDS, ScreeningFrames, screening_frames_of


@of_a_file("features")
def main(path: str) -> int:
    """Run it from the command line; gives the exit code."""
    import time

    from device.sources.files import read_working_rate

    x, _ = read_working_rate(path)
    started = time.perf_counter()
    whole = screening_frames_of(x)
    seconds = time.perf_counter() - started
    stream, pieces = ScreeningFrames(), []
    for start in range(0, len(x), 333):
        pieces.append(stream.process(x[start : start + 333]))
    chopped = np.concatenate([*pieces, stream.flush()])
    same = len(chopped) == len(whole) and bool((chopped == whole).all())
    print(f"{len(whole)} frames of {BANDS} bands; chopped equals whole: {'yes' if same else 'NO'}")
    print(f"{seconds * 1e3:.1f} ms for {len(x) / WORKING_RATE_HZ:.1f} s of sound")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
