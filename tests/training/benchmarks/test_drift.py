"""A state that drifts shows in the minute-by-minute figures; one that does not, does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.denoise.stream import denoise
from device.inference import bundle as bundles
from training.benchmarks import drift as benchmark_drift
from training.benchmarks.drift import drift, main
from training.reports.drift import drift_table

RATE = 2000


def sound(seconds: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    t = np.arange(seconds * RATE) / RATE
    beat = np.sin(2 * np.pi * 50 * t) * np.exp(-(t % 0.8) / 0.03)
    clean = (0.1 * beat).astype(np.float32)
    return clean, (clean + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def test_the_released_state_does_not_drift_in_a_short_run() -> None:
    clean, noisy = sound(16)
    entry = bundles.load().model("denoiser")
    rows = drift(entry, clean, noisy, minute=4 * RATE, lead=8 * RATE)
    assert [r["minute"] for r in rows] == [1, 2, 3, 4]
    assert rows[0]["anew_db"] == rows[2]["anew_db"] == 100.0  # begun at the same sample: the same bits
    assert all(float(r["anew_db"] or 0) > 30 for r in rows)  # begun later: what the level still remembers
    assert all(r["float_db"] is None for r in rows)


def test_a_state_that_drifts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, noisy = sound(16)
    entry = bundles.load().model("denoiser")
    kept: dict[str, np.ndarray] = {}

    def drifting(entry: bundles.ModelEntry, x: np.ndarray) -> np.ndarray:
        y = kept.setdefault(f"{len(x)}-{x[:100].tobytes()!r}", denoise(entry, x))
        return y * np.linspace(1, 1 + len(x) / RATE / 40, len(x), dtype=np.float32)

    monkeypatch.setattr(benchmark_drift, "denoise", drifting)
    rows = drift(entry, clean, noisy, lambda x: denoise(entry, x), minute=4 * RATE, lead=4 * RATE)
    against_anew = [float(r["anew_db"] or 0) for r in rows]
    against_float = [float(r["float_db"] or 0) for r in rows]
    assert against_anew[3] < against_anew[2] < 25
    assert against_float == sorted(against_float, reverse=True)
    text = drift_table({"rows": rows, "sha256": "0123456789abcdef"})
    assert text.count("\n") == 7
    assert f"{against_anew[3]:.1f}" in text


def test_no_minutes_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "0"]) == 2
    assert "--minutes 0" in capsys.readouterr().err


def test_a_missing_export_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--part", str(tmp_path / "none")]) == 2
    assert "stethopi export denoiser" in capsys.readouterr().err
