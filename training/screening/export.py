"""From a trained network to the bundle's int8 file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from device.errors import BadInput
from device.inference.bundle import ModelEntry
from device.rates import WINDOW, WORKING_RATE_HZ
from device.screening import features, screen
from models.classifier import OUTPUTS
from training.core.say import Say
from training.data import recordings as training_data
from training.screening.corpus import Corpus
from training.screening.operating_point import operating_point, screen_logits
from training.screening.recipe import Recipe
from training.screening.train import load_checkpoint

__all__ = ["calibration_inputs", "export_classifier"]


def calibration_inputs(corpus: Corpus, recipe: Recipe, count: int = 300) -> np.ndarray:
    """Windows of training recordings of all databases for the converter, float32 (count, 1, bands, 248)."""
    rng = np.random.default_rng([recipe.seed, 77])
    by_database: dict[str, list[int]] = {}
    for i, r in enumerate(corpus.recordings):
        if r.fold in recipe.folds:
            by_database.setdefault(r.database, []).append(i)
    names = sorted(by_database)
    windows = []
    for k in range(count):
        choice = by_database[names[k % len(names)]]
        power = corpus.power(choice[rng.integers(len(choice))])
        start = int(rng.integers(0, len(power) - features.FRAMES + 1))
        windows.append(features.network_input(power[start : start + features.FRAMES], recipe.view))
    return np.stack(windows)[:, None]


def export_classifier(
    recipe: Recipe,
    source: Path,
    corpus: Corpus,
    out: Path,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Checkpoint → int8 with both gates → operating point → the classifier's part of a bundle in `out`.

    Raises training.export.export.ExportRefused when a gate does not hold; then no part is written.
    """
    from training.export.export import Limits, export
    from training.export.part import write_part

    net, kept = load_checkpoint(source)
    net.state_head = None
    calibration = calibration_inputs(corpus, recipe)
    result = export(
        net,
        {"x": net.example()},
        ["logits"],
        {"x": calibration},
        out,
        "classifier",
        limits=Limits(int8_db=recipe.int8_db),
        seed=recipe.seed,
    )
    say(f"int8: {result.kilobytes:.0f} kB, logits {result.report['int8_db']['logits']:.1f} dB above error")
    meta: dict[str, Any] = {
        "input": "raw",
        "rate_hz": WORKING_RATE_HZ,
        "window_s": WINDOW / WORKING_RATE_HZ,
        "every_s": features.FRAMES_EVERY * features.FRAME_HOP / WORKING_RATE_HZ,
        "outputs_are": list(OUTPUTS),
        "bands": recipe.bands,
        "range_db": recipe.range_db,
        "inputs": result.inputs,
        "outputs": result.outputs,
        "states": [],
        "parameters": result.report["parameters"],
        "mac_per_window": result.report["macs"],
        "kilobytes": round(result.kilobytes, 1),
        "recipe": dataclasses.asdict(recipe),
        "recipe_sha256": recipe.digest(),
        "seed": recipe.seed,
        "data": corpus.hashes,
        "trained_on": {
            "folds": list(recipe.folds),
            "databases": sorted({r.database for r in corpus.recordings} - set(recipe.hold_out)),
            "noise": "part = train and noncommercial = no only",
        },
        "pruned": not kept["has_states"],
        "export": result.report,
    }
    entry = ModelEntry("classifier", result.int8_tflite, meta)
    chosen = [
        r for r in corpus.recordings if r.fold == recipe.decide and r.reportable and r.label is not None
    ]
    if not chosen:
        raise BadInput(f"no labelled recordings in fold {recipe.decide}, which sets the threshold; add some")
    say(f"operating point from {len(chosen)} recordings of fold {recipe.decide}")
    meta.update(operating_point(screen_logits(chosen, entry), chosen, recipe))
    network = screen.Int8Network(entry)
    examples = calibration[:: max(1, len(calibration) // 8)][:8, 0]
    sounds = _example_sounds(corpus, recipe)
    found = [screen.screen_recording(s.astype(np.float32) / 32768.0, entry) for s in sounds]
    vectors = {
        "x": examples,
        "logits": np.stack([network(x) for x in examples]),
        "sound": sounds,
        "probability": np.array([f.probability if f.probability is not None else np.nan for f in found]),
    }
    write_part(out, "classifier", meta, vectors=vectors)
    return meta


def _example_sounds(corpus: Corpus, recipe: Recipe, count: int = 4) -> np.ndarray:
    """Five seconds of some training recordings, int16 (count, 10000)."""
    chosen = [r for r in corpus.recordings if r.fold in recipe.folds and r.seconds >= 5.0][::97][:count]
    sounds = [features.at_least_a_window(training_data.load(r))[:WINDOW] for r in chosen]
    return np.clip(np.rint(np.stack(sounds) * 32768.0), -32768, 32767).astype(np.int16)
