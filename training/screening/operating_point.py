"""Thresholds, temperatures and the undecided zone, fitted where nothing is reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from device.inference.bundle import ModelEntry
from device.screening import quality, screen
from training.data import recordings as training_data
from training.data.recordings import Recording
from training.metrics.classification import auc, fit_platt, macc
from training.screening.corpus import targets
from training.screening.recipe import Recipe

__all__ = ["sound_logits", "screen_logits"]


class _Heard:
    """A network that remembers the logits it gave, one row a window."""

    def __init__(self, network: Callable[[np.ndarray], np.ndarray]) -> None:
        self.network = network
        self.logits: list[np.ndarray] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        logits = self.network(x)
        self.logits.append(logits)
        return logits


_NEUTRAL = {
    "combine": {"murmur": 0.0, "abnormal": 1.0},
    "bias": 0.0,
    "temperature": 1.0,
    "murmur_bias": 0.0,
    "murmur_temperature": 1.0,
    "threshold": 0.5,
    "undecided": [0.5, 0.5],
}


def sound_logits(x: np.ndarray, entry: ModelEntry, network: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean logits of the good windows (of all, where none is good) of a sound at 2 kHz, by the device's own
    screening.

    float64 (2,); nan for silence.
    """
    neutral = dataclasses.replace(entry, meta={**entry.meta, **_NEUTRAL})
    heard = _Heard(network)
    found = screen.screen_recording(x, neutral, network=heard)
    judged = [w for w in found.windows if w.probability is not None]
    good = [k for k, w in enumerate(judged) if w.quality >= quality.GOOD]
    logits = np.array(heard.logits, float).reshape(-1, 2)
    return logits[good or slice(None)].mean(axis=0) if len(logits) else np.full(2, np.nan)


def screen_logits(
    chosen: Sequence[Recording], entry: ModelEntry, network: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """`sound_logits` of recordings, float64 (recordings, 2)."""
    inner = network or screen.Int8Network(entry)
    return np.array([sound_logits(training_data.load(r), entry, inner) for r in chosen]).reshape(-1, 2)


_LEVELS = np.linspace(0.1, 0.9, 161)
"""Thresholds that are tried."""


_FEWEST_PATIENTS = 10
"""Of a class, for a threshold of their own."""


def _top(curve: np.ndarray) -> float:
    """The level at which a curve over _LEVELS, smoothed over 0.1, is highest: no lucky point is taken."""
    width = 21
    smooth = np.convolve(curve, np.ones(width) / width, "valid")
    return float(_LEVELS[width // 2 + int(smooth.argmax())]) if curve.any() else 0.5


def _murmur_by_patient(chosen: Sequence[Recording], murmur: np.ndarray) -> float:
    """From which probability, of a patient's surest position, a murmur is said to be present: of several
    positions one is soon wrongly sure, so it lies higher than for one. By MAcc over CirCor's patients.
    """
    surest: dict[str, float] = {}
    present: dict[str, bool] = {}
    for recording, probability in zip(chosen, murmur, strict=True):
        if recording.meta.get("murmur") in ("present", "absent"):
            name = recording.meta["patient"]
            surest[name] = max(surest.get(name, 0.0), float(probability))
            present[name] = recording.meta["murmur"] == "present"
    truth = np.array(list(present.values()), bool)
    if min(truth.sum(), (~truth).sum(), len(truth)) < _FEWEST_PATIENTS:
        return 0.5
    values = np.array(list(surest.values()))
    return round(_top(np.array([macc(values, truth, t) for t in _LEVELS])), 4)


def operating_point(logits: np.ndarray, chosen: Sequence[Recording], recipe: Recipe) -> dict[str, Any]:
    """How logits become the probability and the label: fitted on recordings of the fold that decides.

    Each source and label weighs the same in the scaling. The threshold is that of the best mean MAcc over
    the sources (a small one counts less), on a curve smoothed over 0.1, so that no lucky point is taken.
    """
    truth = np.array([targets(r, recipe) for r in chosen])
    database = np.array([r.database for r in chosen])
    usable = ~np.isnan(logits[:, 0])
    score = recipe.murmur_share * logits[:, 0] + (1 - recipe.murmur_share) * logits[:, 1]
    known = usable & (truth[:, 3] >= 1.0)
    positive = truth[:, 2] > 0.5
    weights = np.zeros(len(chosen))
    for name in set(database):
        for label in (False, True):
            cell = known & (database == name) & (positive == label)
            if cell.any():
                # a handful of recordings cannot speak as loudly as hundreds
                weights[cell] = min(1.0, cell.sum() / 20.0) / cell.sum()
    bias, temperature = fit_platt(score[known], positive[known].astype(float), weights[known])
    probability = 1.0 / (1.0 + np.exp(-np.clip(np.nan_to_num((score + bias) / temperature), -60.0, 60.0)))
    heard = usable & (truth[:, 1] >= 1.0)
    if heard.any():
        murmur_positive = truth[:, 0] > 0.5
        share = np.where(murmur_positive, 0.5 / max(1, (murmur_positive & heard).sum()), 0.0)
        share = np.where(murmur_positive, share, 0.5 / max(1, (~murmur_positive & heard).sum()))
        murmur_bias, murmur_temperature = fit_platt(
            logits[heard, 0], murmur_positive[heard].astype(float), share[heard]
        )
    else:
        murmur_bias, murmur_temperature = 0.0, 1.0
    heard_logit = np.clip((np.nan_to_num(logits[:, 0]) + murmur_bias) / murmur_temperature, -60.0, 60.0)
    by_patient = _murmur_by_patient(chosen, 1.0 / (1.0 + np.exp(-heard_logit)))
    curve = np.zeros(len(_LEVELS))
    for name in sorted(set(database)):
        own = known & (database == name)
        if positive[own].any() and not positive[own].all():
            row = [macc(probability[own], positive[own], t) for t in _LEVELS]
            heard_there = max(0.0, 2.0 * auc(probability[own], positive[own]) - 1.0)
            curve += heard_there * min(1.0, own.sum() / 50.0) * np.array(row)
    threshold = _top(curve)
    return {
        "combine": {"murmur": recipe.murmur_share, "abnormal": 1 - recipe.murmur_share},
        "bias": bias,
        "temperature": temperature,
        "murmur_bias": murmur_bias,
        "murmur_temperature": murmur_temperature,
        "murmur_by_patient": by_patient,
        "threshold": round(threshold, 4),
        "undecided": [round(threshold - recipe.undecided, 4), round(threshold + recipe.undecided, 4)],
        "fitted_on": {"fold": recipe.decide, "recordings": int(known.sum())},
    }
