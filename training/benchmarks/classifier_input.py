"""How should the classifier hear in noise: the raw sound, the cleaned one, or both? Tried on fold 1.

    python -m training.benchmarks.classifier_input --data ../shared/data   → docs/results/denoise-hearing.json

The benchmark says on fold 0 what the classifier gains from cleaned sound; here, on the fold that decides, the
other ways of letting it hear that sound stand beside each other: the same recordings, the same noise (kinds
of the training part in turn, segments held back from training), paired.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device.denoise.stream import denoise
from device.durable import sha256_of
from device.errors import BadInput, StethopiError
from device.inference import bundle as bundles
from device.inference.bundle import Bundle
from device.screening.screen import Int8Network, screen_recording
from training.benchmarks.denoise_material import HEARD, suited_to_judge
from training.core.provenance import RESULTS
from training.core.results import write_json
from training.data import recordings as data_room
from training.data.mixing import NoisePool
from training.metrics.classification import auc, macc
from training.metrics.denoising import band, paired_bootstrap
from training.reports.classifier_input import INPUT_NAMES, inputs_table

__all__ = ["compare_inputs", "hear_each_way", "main"]


Said = tuple[float, float]
"""Probability of abnormal, of a murmur."""


def hear_each_way(bundle: Bundle, network: Int8Network, x: np.ndarray) -> dict[str, Said]:
    """What the classifier says of x float32 (n,) at 2 kHz: heard "raw", and in each of WAYS."""
    entry = bundle.model("classifier")
    denoiser = bundle.model("denoiser")

    def judge(sound: np.ndarray) -> tuple[Said, float]:
        found = screen_recording(sound, entry, network=network)
        return (found.probability or 0.0, found.murmur or 0.0), found.quality or 0.0  # silence is neither

    raw, raw_quality = judge(x)
    cleaned, cleaned_quality = judge(denoise(denoiser, x))
    half, _ = judge(denoise(denoiser, x, 0.5))
    mean = tuple(_probability((_logit(a) + _logit(b)) / 2) for a, b in zip(raw, cleaned, strict=True))
    return {
        "raw": raw,
        "cleaned": cleaned,
        "half": half,
        "mean": (mean[0], mean[1]),
        "better": cleaned if cleaned_quality > raw_quality else raw,
    }


def _logit(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return float(np.log(p / (1 - p)))


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def compare_inputs(
    said: Sequence[Mapping[str, Said]],
    recordings: Sequence[data_room.Recording],
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """MAcc of abnormal at the threshold and AUC of murmurs (CirCor) of each way, beside raw: paired, with
    95 % intervals over subjects."""
    groups = [r.group for r in recordings]
    abnormal = np.array([r.label == "abnormal" for r in recordings])
    here = np.array([r.murmur_here == "yes" for r in recordings])
    circor = np.flatnonzero([r.database == "circor" for r in recordings])
    everyone = np.arange(len(recordings))
    found: dict[str, Any] = {}
    for way in INPUT_NAMES:
        one = np.array([s[way] for s in said])
        raw = np.array([s["raw"] for s in said])
        found[way] = {
            "macc": paired_bootstrap(
                lambda v, k: macc(v[k], abnormal[k], threshold), one[:, 0], raw[:, 0], groups, seed=seed
            ),
            "murmur_auc": paired_bootstrap(
                lambda v, k: auc(v[k], here[circor[k]]),
                one[circor, 1],
                raw[circor, 1],
                [groups[k] for k in circor],
                seed=seed,
            ),
        }
    return {"recordings": len(everyone), "subjects": len(set(groups)), "ways": found}


def _heard(
    bundle: Bundle, data: Path, recordings: Sequence[data_room.Recording], level_db: float, seed: int
) -> list[dict[str, Said]]:
    from training.denoise.apply import HELD_BACK

    pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK, others=False)
    network = Int8Network(bundle.model("classifier"))
    found = []
    begun = told = time.monotonic()
    for k, r in enumerate(recordings):
        sound = data_room.load(r)[:HEARD]
        rng = np.random.default_rng([seed, 9, k])
        noise = pool.draw(rng, pool.kinds[k % len(pool.kinds)], len(sound)).astype(np.float32)
        ratio = float(np.std(band(sound))) / max(float(np.std(band(noise))), 1e-9)
        x = (sound + ratio * 10 ** (-level_db / 20) * noise).astype(np.float32)
        found.append(hear_each_way(bundle, network, x))
        if time.monotonic() - told > 20:
            told = time.monotonic()
            print(f"{k + 1} of {len(recordings)}, {(told - begun) / 60:.1f} min", file=sys.stderr, flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.classifier_input",
        description="What the classifier gains from cleaned sound, heard in several ways; fold 1.",
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest there is)")
    parser.add_argument("--every", type=int, default=2, help="each so many-th recording (default 2)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    started = time.monotonic()
    try:
        if options.every < 1:
            raise BadInput(f"--every {options.every}: wanted is 1 or more")
        bundle = bundles.load(options.bundle)
        recordings = suited_to_judge(options.data, 1)[:: options.every]
        said = _heard(bundle, options.data, recordings, 0.0, options.seed)
        threshold = float(bundle.model("classifier").meta["threshold"])
        result = {
            "what": "ways to let the classifier hear cleaned sound, 0 dB, fold 1",
            "command": "python -m training.benchmarks.classifier_input"
            f" --every {options.every} --seed {options.seed}",
            "sha256": {name: sha256_of(bundle.model(name).tflite) for name in ("denoiser", "classifier")},
            "seed": options.seed,
            "took_minutes": round((time.monotonic() - started) / 60, 1),
            **compare_inputs(said, recordings, threshold, options.seed),
        }
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    path = options.results / "denoise-hearing.json"
    write_json(path, result)
    print(inputs_table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
