"""The note's tables say what the result file says, and where a figure is missing say so."""

from __future__ import annotations

from typing import Any

from training.reports.rhythm import rhythm_tables


def _section() -> dict[str, Any]:
    figure = {"value": 0.9712, "low": 0.9601, "high": 0.9805}
    databases = {"a": {**figure, "recordings": 5, "subjects": 3}}
    sounds = {"mean": figure, "sounds": figure, "databases": databases}
    rate = {
        "recordings": 5,
        "told": figure,
        "within_5_bpm": figure,
        "mean_absolute_error_bpm": {"value": None, "low": None, "high": None},
    }
    refusal = {
        "wrongly_segmented": 0,
        "of_those_refused": None,
        "rightly_segmented": 5,
        "of_those_told": 1.0,
    }
    row = {"f1_100_ms": sounds, "f1_60_ms": sounds, "heart_rate": rate, "refusal": refusal}
    return {
        "recordings": 5,
        "subjects": 3,
        "streaming": row,
        "unhurried": row,
        "offline": row,
        "autocorrelation": {"heart_rate": rate},
    }


def test_figures_become_cells() -> None:
    network = {
        "precision": "float32",
        "parameters": 51144,
        "mac_per_s": 2489600,
        "lag_ms": 290,
        "training_minutes": 30.2,
        "loss": [[10, 1.5], [20, 0.52]],
    }
    result = {
        "network": network,
        "all": _section(),
        "trained_on_folds": [2, 3, 4],
        "fold": 0,
        "seed": 1,
        "commit": "abcdef0123456789",
    }
    found = rhythm_tables(result)
    assert "| streaming, 100 ms | 97.1 [96.0, 98.0] | 97.1 [96.0, 98.0] | 97.1 |" in found["rhythm-sounds"]
    assert "| autocorrelation, as today | – | 97.1 [96.0, 98.0] | 97.1 [96.0, 98.0] |" in found["rhythm-rate"]
    assert "| streaming | 0 | – | 5 | 100 |" in found["rhythm-refused"]
    assert "| parameters | 51,144 |" in found["rhythm-network"]
    assert "| streaming, S1 and S2 within 100 ms, % | ≥ 97 | 97.1 | yes |" in found["rhythm-goals"]
    assert "| offline, within 100 ms, % | ≥ 98 | 97.1 | no |" in found["rhythm-goals"]
    assert "| heart rate, mean absolute error, bpm | ≤ 1.5 | – | no |" in found["rhythm-goals"]
    assert "2, 3, 4; 0" in found["rhythm-network"]
