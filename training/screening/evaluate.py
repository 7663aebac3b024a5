"""A trained network on recordings it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from device.screening import features
from models.classifier import Classifier
from training.metrics.classification import auc
from training.screening.corpus import Corpus

__all__ = ["recording_logits", "evaluate"]


def window_inputs(power: np.ndarray, view: features.View, every: int = features.FRAMES_EVERY) -> np.ndarray:
    """The windows of a recording on the device's grid: band powers (m, 32) → (windows, 1, bands, 248)."""
    starts = range(0, len(power) - features.FRAMES + 1, every)
    return np.stack([features.network_input(power[s : s + features.FRAMES], view) for s in starts])[:, None]


def recording_logits(net: Classifier, power: np.ndarray, every: int = features.FRAMES_EVERY) -> np.ndarray:
    """Logits of every window of a recording, float32 (windows, 2)."""
    with torch.no_grad():
        return net(torch.from_numpy(window_inputs(power, net.view, every))).numpy()


def evaluate(
    net: Classifier,
    corpus: Corpus,
    folds: Sequence[int],
    databases: Sequence[str] | None = None,
    every: int = features.FRAMES_EVERY,
) -> dict[str, dict[str, float]]:
    """AUC by database of both logits (mean over a recording's windows) for abnormal, and for murmur where
    known.
    """
    torch.set_num_threads(1)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for i, r in enumerate(corpus.recordings):
        if r.fold not in folds or not r.reportable or r.label is None:
            continue
        if databases is not None and r.database not in databases:
            continue
        logits = recording_logits(net, corpus.power(i), every).mean(0)
        murmur = {"yes": 1.0, "no": 0.0}.get(r.murmur_here or "", float("nan"))
        rows.setdefault(r.database, []).append((logits[0], logits[1], float(r.label == "abnormal"), murmur))
    table: dict[str, dict[str, float]] = {}
    for database, values in sorted(rows.items()):
        v = np.array(values)
        entry = {
            "n": float(len(v)),
            "abnormal": auc(v[:, 1], v[:, 2] > 0.5),
            "abnormal_by_murmur": auc(v[:, 0], v[:, 2] > 0.5),
            "abnormal_by_both": auc(v[:, :2].sum(1), v[:, 2] > 0.5),
        }
        known = ~np.isnan(v[:, 3])
        if known.any():
            entry["murmur"] = auc(v[known, 0], v[known, 3] > 0.5)
            entry["murmur_by_abnormal"] = auc(v[known, 1], v[known, 3] > 0.5)
        table[database] = entry
    return table


def describe(table: Mapping[str, Mapping[str, float]]) -> str:
    """The evaluation as lines to print."""
    lines = []
    for database, entry in table.items():
        cells = "  ".join(f"{key} {value:.3f}" for key, value in entry.items() if key != "n")
        lines.append(f"{database:<7} n {int(entry['n']):4d}  {cells}")
    return "\n".join(lines)
