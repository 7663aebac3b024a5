"""A tiny WFDB folder of synthetic leads, noise and a table of parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE = 360


def lead(rng: np.random.Generator, seconds: float, rate: int = RATE) -> tuple[np.ndarray, np.ndarray]:
    """A plain lead in mV, P, QRS and T as bumps, and its R peaks (samples)."""
    t = np.arange(int(seconds * rate)) / rate
    x = np.zeros(len(t))
    beats = np.arange(0.4, seconds - 0.4, rng.uniform(0.7, 0.95))
    for b in beats:
        for offset, size, width in ((-0.16, 0.12, 0.02), (-0.03, -0.1, 0.01), (0.0, 1.0, 0.012),
                                    (0.03, -0.2, 0.012), (0.25, 0.25, 0.04)):  # fmt: skip
            x += size * np.exp(-0.5 * ((t - b - offset) / width) ** 2)
    x += 0.003 * rng.standard_normal(len(t))
    return x, np.round(beats * rate).astype(int)


def write_record(
    folder: Path, name: str, samples: np.ndarray, rate: int = RATE, beats: np.ndarray | None = None
) -> None:
    """(n, leads) in mV as a WFDB record of format 16, with `atr` annotations if there are beats."""
    import wfdb

    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=rate,
        units=["mV"] * samples.shape[1],
        sig_name=[f"lead{k}" for k in range(samples.shape[1])],
        p_signal=samples.astype(np.float64),
        fmt=["16"] * samples.shape[1],
        adc_gain=[1000.0] * samples.shape[1],
        baseline=[0] * samples.shape[1],
        write_dir=str(folder),
    )
    if beats is not None:
        wfdb.wrann(name, "atr", beats, symbol=["N"] * len(beats), write_dir=str(folder))


def ecg_folder(root: Path, seconds: float = 70.0) -> Path:
    """root/ecg with two records of train, one of dev, two of test, noise of 1300 s and splits.csv."""
    rng = np.random.default_rng(5)
    folder = root / "ecg"
    rows = ["record,database,patient,part,benchmark_test"]
    for k, part in enumerate(("train", "train", "dev", "test", "test")):
        x, beats = lead(rng, seconds)
        write_record(folder / "own", f"r{k}", x[:, None], beats=beats)
        rows.append(f"own/r{k},own,p{k},{part},{'yes' if k == 4 else 'no'}")
    for name in ("bw", "em", "ma"):
        n = 1300 * RATE
        x = rng.standard_normal((n, 2))
        if name != "ma":
            x = np.cumsum(x, 0)
            x = x - np.apply_along_axis(lambda v: np.convolve(v, np.ones(721) / 721, "same"), 0, x)
        write_record(folder / "nstdb", name, np.clip(0.2 * x / x.std(), -5, 5))
        rows.append(f"nstdb/{name},nstdb,,noise,")
    (folder / "splits.csv").write_text("\n".join(rows) + "\n")
    return root
