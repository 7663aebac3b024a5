"""The figures by which a training of an ECG denoiser is followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from device.rates import ECG_RATE_HZ
from training.data.ecg import EcgMixSettings, Mixtures, NoiseTracks, load_pieces
from training.metrics.denoising import improvement, snr_db
from training.metrics.ecg import cosine

__all__ = ["EcgValidation", "ecg_headline"]

LEAD_IN_S, MEASURED_S = 4, 10


class EcgValidation:
    """Fixed mixtures of the dev patients with the dev noise, at −6 … 12 dB and clean; the last 10 of 14 s
    count."""

    def __init__(self, data: Path, seed: int, noisy: int = 64, quiet: int = 16) -> None:
        rng = np.random.default_rng([seed, 77])
        noises = NoiseTracks(data, "dev")
        n = (LEAD_IN_S + MEASURED_S) * ECG_RATE_HZ
        mixer = Mixtures(load_pieces(data, ("dev",)), noises, EcgMixSettings(samples=n), seed)
        self.items: list[tuple[str, np.ndarray, np.ndarray]] = []
        for k in range(noisy + quiet):
            clean = mixer.cut(rng).astype(np.float32)
            kind = "clean" if k >= noisy else ("mixed", "mixed", "bw", "mixed", "em", "mixed", "ma")[k % 7]
            x = clean.astype(np.float64)
            if kind != "clean":
                level = (-6.0, 0.0, 6.0, 12.0)[k % 4]
                noise = noises.draw(rng, kind, n)
                x = x + np.std(clean[LEAD_IN_S * ECG_RATE_HZ :]) * 10 ** (-level / 20) * noise
            self.items.append((kind, clean, x.astype(np.float32)))

    def __call__(self, clean_up: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        rows: dict[str, list[float]] = {}
        where = slice(LEAD_IN_S * ECG_RATE_HZ, None)
        for kind, clean, noisy in self.items:
            out = clean_up(noisy)
            s, x, y = clean[where], noisy[where], out[where]
            if kind == "clean":
                rows.setdefault("clean out", []).append(snr_db(s, y))
                continue
            plain, beyond = improvement(s, x - x.mean(), y)
            for figure, value in (("plain", plain), ("beyond", beyond), ("cosine", cosine(s, y))):
                rows.setdefault(f"{kind} {figure}", []).append(value)
        found = {k: float(np.mean(v)) for k, v in rows.items()}
        found["clean out p5"] = float(np.percentile(rows["clean out"], 5))
        return {k: round(v, 4) for k, v in found.items()}


def ecg_headline(v: Mapping[str, float]) -> str:
    return (
        f"mixed {v['mixed plain']:+.2f} plain, {v['mixed beyond']:+.2f} beyond, "
        f"cosine {v['mixed cosine']:.3f}; "
        + ", ".join(f"{k} {v[f'{k} plain']:+.1f}" for k in ("bw", "em", "ma"))
        + f"; clean {v['clean out']:.1f} (p5 {v['clean out p5']:.1f})"
    )
