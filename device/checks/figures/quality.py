"""The judge of quality on a recording, second by second."""

from __future__ import annotations

from device.checks.figures.one_line import of_a_file
from device.rates import WINDOW, WINDOW_EVERY, WORKING_RATE_HZ
from device.screening.quality import QualityJudge, assess, troubles


@of_a_file("quality")
def main(path: str) -> int:
    """Run it from the command line; gives the exit code."""
    from device.inference import bundle as bundles
    from device.sources.files import read_working_rate

    x, gaps = read_working_rate(path)
    judge = QualityJudge.of(bundles.load().model("classifier").arrays)
    heard: list[tuple[int, tuple[str, ...]]] = []
    for start in range(0, max(1, len(x) - WINDOW + 1), WINDOW_EVERY):
        piece = x[start : start + WINDOW]
        quality = assess(piece, [(a - start, b - start) for a, b in gaps], judge=judge)
        heard.append((start, quality.reasons))
        reasons = ", ".join(quality.reasons) or "good"
        print(f"{start / WORKING_RATE_HZ:6.1f} s  {quality.score:.2f}  {reasons}")
    for trouble in troubles(heard):
        print(trouble)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
