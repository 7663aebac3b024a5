"""Does the streaming denoiser's state drift? Ten minutes of sound in one stream, minute by minute.

    python -m training.benchmarks.drift --data ../shared/data --out RUN   → docs/results/denoiser-drift.json

The sound is fold 0's recordings one after the other (0.1 s cross-fade), each at a level of its own and with
noise of the test part at an SNR of its own, so that state and level tracker have something to follow. The
int8 stream of the bundle, as the device runs it, is compared in every minute

- with the same stage started anew `LEAD_S` before that minute: what the state has gathered by then;
- with the float net of RUN's checkpoint over the whole ten minutes, when there is one: what rounding has
  gathered;
- with the clean sound: whether it denoises in the tenth minute as in the first.

A state that drifts shows as a figure that falls from minute to minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from device.denoise.stream import denoise
from device.durable import sha256_of
from device.errors import BadInput, StethopiError
from device.inference import bundle as bundles
from device.inference.bundle import ModelEntry
from device.inference.interpreter import runtime_name
from device.rates import WORKING_RATE_HZ
from training.core.provenance import RESULTS
from training.core.results import write_json
from training.metrics.denoising import band, snr_db
from training.reports.drift import drift_table

__all__ = ["drift", "main", "ten_minutes"]

MINUTE = 60 * WORKING_RATE_HZ
LEAD_S = 20
"""Seconds that a fresh stage hears before its minute: ten time constants of the level tracker."""


def ten_minutes(data: Path, cache: Path, minutes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy sound, float32 (minutes * 120000,) each, of fold 0 and test noise."""
    from training.data.mixing import NoisePool, references

    refs = references(data, cache, (0,), least_db=14.0, share=1.0, most=20)
    if not refs:
        raise BadInput(f"{data}: no clean recording in fold 0; is --data complete?")
    pool = NoisePool.load(data, "test", free_only=False)
    rng = np.random.default_rng([seed, 4])
    n, fade = minutes * MINUTE, WORKING_RATE_HZ // 10
    clean, noisy = np.zeros(n, np.float32), np.zeros(n, np.float32)
    at, k = 0, 0
    while at < n:
        sound = refs[int(rng.integers(len(refs)))].sound
        kind = pool.kinds[k % len(pool.kinds)]
        noise = pool.draw(rng, kind, len(sound), speed=False).astype(np.float32)
        level = 10 ** (rng.uniform(-40, -10) / 20)
        ratio = np.std(band(sound)) / max(float(np.std(band(noise))), 1e-9)
        gain = ratio * 10 ** (-rng.uniform(0, 20) / 20)
        edge = np.minimum(1.0, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / fade)
        m = min(len(sound), n - at)
        clean[at : at + m] += (level * edge * sound).astype(np.float32)[:m]
        noisy[at : at + m] += (level * edge * (sound + gain * noise)).astype(np.float32)[:m]
        at += len(sound) - fade
        k += 1
    return clean, noisy


def drift(
    entry: ModelEntry,
    clean: np.ndarray,
    noisy: np.ndarray,
    as_float: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    minute: int = MINUTE,
    lead: int = LEAD_S * WORKING_RATE_HZ,
) -> list[dict[str, float | int | None]]:
    """One row a minute of `noisy` (n,): dB of the int8 stream over its difference from each comparison.

    Figures are capped at 100 dB (not one bit differs). as_float: the float net on a whole sound. minute,
    lead: in samples, whole hops.
    """
    stream = denoise(entry, noisy)
    whole = as_float(noisy) if as_float else None
    rows: list[dict[str, float | int | None]] = []
    for k in range(len(noisy) // minute):
        begin, end = k * minute, (k + 1) * minute
        start = max(0, begin - lead)
        anew = denoise(entry, noisy[start : min(len(noisy), end + 64)])[begin - start : end - start]
        here = stream[begin:end]
        s, x, y = (band(v[begin:end]) for v in (clean, noisy, stream))
        rows.append(
            {
                "minute": k + 1,
                "anew_db": round(snr_db(anew, here), 2),
                "float_db": None if whole is None else round(snr_db(whole[begin:end], here), 2),
                "improvement_db": round(snr_db(s, y) - snr_db(s, x), 2),
                "float_improvement_db": None
                if whole is None
                else round(snr_db(s, band(whole[begin:end])) - snr_db(s, x), 2),
            }
        )
    return rows


def _float_net(checkpoint: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    if not checkpoint.is_file():
        return None
    from functools import partial

    from models.denoiser import tables
    from training.denoise.apply import MaskLayer, denoise_whole, load_net

    net, kept = load_net(checkpoint)
    coefficients = tables(int(kept["recipe"]["net"].get("frame", 96)))
    return partial(denoise_whole, net, MaskLayer(coefficients), coefficients)


def _exported(part: Path) -> ModelEntry:
    """The denoiser of an export's folder."""
    about = part / "denoiser.json"
    if not about.is_file():
        raise BadInput(f"{about}: no such export; run: stethopi export denoiser --out {part.parent}")
    with np.load(part / "denoiser.npz") as arrays:
        return ModelEntry(
            "denoiser", part / "denoiser.tflite", json.loads(about.read_text("utf-8")), dict(arrays)
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.drift", description="Ten minutes of streaming, minute by minute."
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/stethopi"))
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest there is)")
    parser.add_argument("--part", type=Path, help="an export that is not yet in a bundle, instead")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="run folder with denoiser-pruned.pt")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    started = time.monotonic()
    try:
        if options.minutes < 1:
            raise BadInput(f"--minutes {options.minutes}: wanted is 1 or more")
        entry = _exported(options.part) if options.part else bundles.load(options.bundle).model("denoiser")
        clean, noisy = ten_minutes(options.data, options.cache.expanduser(), options.minutes, options.seed)
        as_float = _float_net(options.out / "denoiser-pruned.pt")
        rows = drift(entry, clean, noisy, as_float)
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    result = {
        "what": "drift of the denoiser's state in one long stream, fold 0",
        "command": f"python -m training.benchmarks.drift --minutes {options.minutes} --seed {options.seed}",
        "sha256": sha256_of(entry.tflite),
        "runtime": runtime_name(),
        "seed": options.seed,
        "took_minutes": round((time.monotonic() - started) / 60, 1),
        "rows": rows,
    }
    path = options.results / "denoiser-drift.json"
    write_json(path, result)
    print(drift_table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
