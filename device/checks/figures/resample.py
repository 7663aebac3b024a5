"""The decimator's response, delay and cost."""

from __future__ import annotations

from math import inf

import numpy as np

from device.checks.figures.one_line import of_a_file
from device.dsp.resample import PASS_HZ, STOP_HZ, Decimator, response
from device.rates import WORKING_RATE_HZ


def _figures(path: str) -> str:
    """What this stage does to one recording, as text of a few lines."""
    from pathlib import Path
    from time import perf_counter

    from device.sources.files import read_sound

    sound = read_sound(Path(path))
    started = perf_counter()
    stage = Decimator(sound.rate_hz)
    whole = np.concatenate([stage.process(sound.samples), stage.flush()])
    took = perf_counter() - started

    chopped_stage = Decimator(sound.rate_hz)
    random = np.random.default_rng(1)
    pieces, at = [], 0
    while at < len(sound.samples):
        n = int(random.integers(0, sound.rate_hz // 20))
        pieces.append(chopped_stage.process(sound.samples[at : at + n]))
        at += n
    chopped = np.concatenate([*pieces, chopped_stage.flush()])
    same = len(chopped) == len(whole)
    difference = float(np.max(np.abs(chopped - whole), initial=0.0)) if same else inf

    ripple, stop = response(sound.rate_hz)
    seconds = len(sound.samples) / sound.rate_hz
    return "\n".join(
        [
            f"{path}: {sound.rate_hz} Hz, {seconds:.3f} s → {WORKING_RATE_HZ} Hz, {len(whole)} samples",
            f"chopped vs whole: max difference {difference:g} (limit 0)   "
            f"delay {stage.delay_s * 1e3:.2f} ms (limit 12.5)",
            "passes untouched"
            if sound.rate_hz == WORKING_RATE_HZ
            else f"0 to {PASS_HZ:.0f} Hz: ripple {ripple:.4f} dB (limit 0.1)   "
            f"from {STOP_HZ:.0f} Hz: {stop:.1f} dB (limit -80)",
            f"{stage.mac_per_s / 1e6:.2f} MMAC/s   "
            f"{seconds / max(took, 1e-9):.0f} times as fast as the sound",
        ]
    )


@of_a_file("resample")
def main(path: str) -> int:
    """Run it from the command line; gives the exit code."""
    print(_figures(path))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
