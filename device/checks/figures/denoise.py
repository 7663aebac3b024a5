"""The denoiser on a recording: chopped against whole, delay, time a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device.checks.figures.one_line import one_line_errors
from device.denoise.stream import Denoiser, vector_difference_db
from device.rates import WORKING_RATE_HZ


def _figures(path: str, folder: Path | None) -> tuple[str, bool]:
    from device.dsp.resample import Decimator
    from device.inference.bundle import load
    from device.sources.files import read_working_rate

    bundle = load(folder)
    entry = bundle.model("denoiser")
    x, _ = read_working_rate(path)
    stage = Denoiser(entry)
    whole = np.concatenate([stage.process(x), stage.flush()])
    times = stage.step_times
    chopped = Denoiser(entry)
    rng = np.random.default_rng(0)
    parts, at = [], 0
    while at < len(x):
        size = int(rng.integers(0, 700))
        parts.append(chopped.process(x[at : at + size]))
        at += size
    parts.append(chopped.flush())
    apart = float(np.max(np.abs(np.concatenate(parts) - whole), initial=0.0))
    vector_db = vector_difference_db(bundle)
    worst = max(
        Decimator(rate).delay_s
        for rate in (2000, 4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000)
    )
    total = worst + stage.delay_s
    p50, p99 = times.p50 or 0.0, times.p99 or 0.0
    fine = apart == 0.0 and len(whole) == len(x) and vector_db >= 30.0 and total <= 0.040
    text = (
        f"bundle {bundle.version}, {len(x) / WORKING_RATE_HZ:.1f} s of sound\n"
        f"chopped vs whole: max difference {apart:g} (limit 0)\n"
        f"stored vectors: error {vector_db:.1f} dB below the expected (limit 30; 100: bit by bit)\n"
        f"delay {total * 1e3:.1f} ms (limit 40): decimator {worst * 1e3:.2f} at the worst rate, hop "
        f"{stage.hop_s * 1e3:.0f}, look-ahead {stage.look_ahead_s * 1e3:.0f}\n"
        f"step p50 {p50 * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms of {stage.hop_s * 1e3:.0f}; budget "
        f"{times.budget_s * 1e3:.0f} ms, missed {times.missed} of {times.count}"
    )
    return text, fine


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run it from the command line; gives the exit code."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -I -m device.checks.figures.denoise", description="Check the denoiser on a recording."
    )
    parser.add_argument("file", help="WAV or FLAC")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest there is)")
    options = parser.parse_args(argv)
    text, fine = _figures(options.file, options.bundle)
    print(text)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
