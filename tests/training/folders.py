"""A tiny folder of recordings and noise in the compact layout, made of synthetic hearts."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile

RATE = 2000
STATES = ("S1", "systole", "S2", "diastole")


def heart(
    rng: np.random.Generator, seconds: float, murmur: bool
) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Sound at 2 kHz and the starts of its states."""
    t = np.arange(int(seconds * RATE)) / RATE
    x = 1e-4 * rng.standard_normal(len(t))
    states: list[tuple[float, str]] = []
    period, start = rng.uniform(0.6, 0.95), 0.05
    while start + period < seconds:
        s2 = start + 0.38 * period
        for offset, gain, hertz in ((start, 0.4, 45.0), (s2, 0.3, 60.0)):
            x += (
                gain * np.exp(-(((t - offset - 0.05) / 0.02) ** 2)) * np.sin(2 * np.pi * hertz * (t - offset))
            )
        if murmur:
            inside = (t > start + 0.1) & (t < s2)
            x[inside] += 0.05 * np.sin(2 * np.pi * 180 * t[inside]) * rng.standard_normal(int(inside.sum()))
        states += [(start, "S1"), (start + 0.1, "systole"), (s2, "S2"), (s2 + 0.1, "diastole")]
        start += period
    return (x / np.abs(x).max() * 0.5).astype(np.float32), states


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make(data: Path, per_fold: int = 4, seconds: float = 10.0) -> Path:
    """Sources a, f and circor in five folds, `per_fold` recordings of each, and noise. Gives `data`."""
    rng = np.random.default_rng(1)
    physionet: list[dict[str, object]] = []
    circor: list[dict[str, object]] = []
    states: list[dict[str, object]] = []
    circor_states: list[dict[str, object]] = []
    for database in ("a", "f", "circor"):
        for fold in range(5):
            for k in range(per_fold):
                name, abnormal = f"{database}{fold}{k}", k % 2 == 1
                x, marks = heart(rng, seconds, abnormal)
                folder = data / ("circor2022" if database == "circor" else "physionet2016") / "audio"
                folder.mkdir(parents=True, exist_ok=True)
                soundfile.write(folder / f"{name}.flac", x, RATE, subtype="PCM_16")
                common: dict[str, object] = {"record": name, "group": name, "fold": fold}
                common |= {"seconds": seconds, "sha256": "-"}
                label = "abnormal" if abnormal else "normal"
                if database == "circor":
                    murmur = "present" if abnormal else "absent"
                    here = "yes" if abnormal else "no"
                    own = {"patient": name, "murmur": murmur, "murmur_here": here, "outcome": label}
                    circor.append({**common, **own})
                    ends = [start for start, _ in marks[1:]] + [seconds]
                    circor_states += [
                        {"record": name, "start_s": start, "end_s": end, "state": state}
                        for (start, state), end in zip(marks, ends, strict=True)
                    ]
                else:
                    own = {
                        "database": database,
                        "label": label,
                        "quality": "good",
                        "subject_basis": "subject",
                    }
                    physionet.append({**common, **own})
                    states += [{"record": name, "start_s": start, "state": state} for start, state in marks]
    _write(data / "physionet2016" / "index.csv", physionet)
    _write(data / "physionet2016" / "states.csv", states)
    _write(data / "circor2022" / "index.csv", circor)
    _write(data / "circor2022" / "states.csv", circor_states)
    noises: list[dict[str, object]] = []
    kinds = (
        "speech_babble",
        "crying",
        "household",
        "environment",
        "breath",
        "hospital",
        "stethoscope_handling",
    )
    for kind in kinds:
        (data / "noise" / kind).mkdir(parents=True)
        for k in range(8):
            file = f"{kind}/{k}.flac"
            soundfile.write(data / "noise" / file, 0.05 * rng.standard_normal(16_000), 4000)
            free = "unknown" if kind in ("hospital", "stethoscope_handling") else "no"
            part = "test" if k % 4 == 3 else "train"
            noises.append(
                {
                    "file": file,
                    "kind": kind,
                    "noncommercial": free,
                    "seconds": 4.0,
                    "part": part,
                    "sha256": "-",
                }
            )
    _write(data / "noise" / "index.csv", noises)
    return data
