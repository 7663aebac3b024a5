"""ECG for tests: made from a seed, with its R peaks; a denoiser that changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device.ecg.replay import SyntheticEcg
from device.settings.specs import SyntheticLead
from device.timing import StageTimer

__all__ = ["Through", "beating", "write_record"]


class Through:
    """Gives the ECG back as it came, 20 samples late, as a causal denoiser with a look-ahead would."""

    hop_s = 4 / 360
    look_ahead_s = 16 / 360

    def __init__(self, gain: float = 1.0) -> None:
        self.strength = 1.0
        self.step_times = StageTimer("denoise ecg", 0.003)
        self._gain = np.float32(gain)
        self._held = np.zeros(0, np.float32)

    def process(self, x: np.ndarray) -> np.ndarray:
        self._held = np.concatenate([self._held, np.asarray(x, np.float32)])
        ready = max(len(self._held) - 20, 0)
        out, self._held = self._held[:ready], self._held[ready:]
        return out * self._gain

    def flush(self) -> np.ndarray:
        out, self._held = self._held, np.zeros(0, np.float32)
        return out * self._gain


def beating(
    seconds: float, rate_hz: int = 360, noise_mv: float = 0.01, rate: float = 72.0, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(mV float32 (n,), seconds of the R peaks)."""
    lead = SyntheticEcg(
        SyntheticLead(rate=rate, noise_mv=noise_mv, wander_mv=0.05, rate_hz=rate_hz, seed=seed), pace="fast"
    )
    x, _ = lead._samples(0, round(seconds * rate_hz))
    return x, np.array(lead.r_peaks_s(0.0, seconds))


def write_record(folder: Path, name: str, leads: list[np.ndarray], rate_hz: int = 360, fmt: int = 16) -> Path:
    """A WFDB record of format 16 or 212, gain 200 a mV, baseline 0; its header."""
    digital = np.array([np.rint(x * 200) for x in leads]).astype(np.int64)
    data = digital.T.reshape(-1)
    if fmt == 16:
        payload = data.astype("<i2").tobytes()
    else:
        bits = (data & 0xFFF).reshape(-1, 2)
        payload = bytes(v for a, b in bits.tolist() for v in (a & 0xFF, a >> 8 | (b >> 8) << 4, b & 0xFF))
    (folder / f"{name}.dat").write_bytes(payload)
    lines = [f"{name} {len(leads)} {rate_hz} {digital.shape[1]}"]
    for n, row in enumerate(digital):
        total = int(row.sum()) & 0xFFFF
        total -= 0x10000 if total & 0x8000 else 0
        lines.append(f"{name}.dat {fmt} 200(0)/mV 12 0 {int(row[0])} {total} 0 lead {n + 1}")
    header = folder / f"{name}.hea"
    header.write_text("\n".join([*lines, "# 40 F"]) + "\n")
    return header
