"""The figure by which a training is followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from device.rates import WORKING_RATE_HZ
from training.data.mixing import NoisePool, Reference, references
from training.denoise.apply import HELD_BACK
from training.metrics.denoising import band, improvement, murmur_excess_db, snr_db

__all__ = ["Validation"]


PLACED_AT = 4 * WORKING_RATE_HZ
"""Where in a validation sound the chest piece is put down."""


class Validation:
    """Fixed mixtures of fold 1 and noise held back from training; real murmurs clean and in noise.

    `jump`: what is gained at 10 dB in the two seconds after the sound has become 12 or 24 dB louder at once,
    as when the chest piece is put down.
    """

    def __init__(
        self, data: Path, cache: Path, seed: int, *, noisy: int = 66, murmurs: int = 20, jumps: int = 16
    ) -> None:
        rng = np.random.default_rng([seed, 77])
        refs = references(data, cache, (1,), least_db=13.0, share=1.0, most=40)
        pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK, others=False)
        normal = [r for r in refs if not r.murmur and len(r.sound) >= 8192]
        by_database: dict[str, list[Reference]] = {}
        for r in normal:
            by_database.setdefault(r.database, []).append(r)
        names = sorted(by_database)
        self.items: list[tuple[str, float, Reference, np.ndarray]] = []
        for k in range(noisy):
            members = by_database[names[k % len(names)]]
            r = members[int(rng.integers(len(members)))]
            kind = pool.kinds[k % len(pool.kinds)]
            level = (-6.0, -3.0, 0.0, 3.0, 6.0)[k % 5]
            self.items.append((kind, level, r, self._mix(rng, pool, r.sound[:16384], kind, level)))
        for k in range(12):
            members = by_database[names[k % len(names)]]
            r = members[int(rng.integers(len(members)))]
            self.items.append(("clean", np.inf, r, r.sound[:16384]))
        heard = [r for r in refs if r.murmur]
        heard = [r for r in heard if murmur_excess_db(r.sound, r.spans) >= 6.0]
        for k, r in enumerate(heard[:murmurs]):
            kind = pool.kinds[k % len(pool.kinds)]
            self.items.append(("murmur clean", np.inf, r, r.sound))
            for level in (10.0, 0.0):
                self.items.append((f"murmur {level:g}", level, r, self._mix(rng, pool, r.sound, kind, level)))
        placed = [r for r in normal if len(r.sound) >= 2 * PLACED_AT]
        for k in range(jumps if placed else 0):
            r = placed[int(rng.integers(len(placed)))]
            sound = r.sound[: 2 * PLACED_AT]
            gain = np.ones(len(sound), dtype=np.float32)
            gain[:PLACED_AT] = 10 ** (-(12.0, 24.0)[k % 2] / 20)
            noisy_sound = self._mix(rng, pool, sound, pool.kinds[k % len(pool.kinds)], 10.0)
            self.items.append(("jump", 10.0, replace(r, sound=gain * sound), gain * noisy_sound))

    @staticmethod
    def _mix(
        rng: np.random.Generator, pool: NoisePool, x: np.ndarray, kind: str, level_db: float
    ) -> np.ndarray:
        noise = pool.draw(rng, kind, len(x)).astype(np.float32)
        gain = np.std(band(x)) / max(float(np.std(band(noise))), 1e-9) * 10 ** (-level_db / 20)
        return (x + gain * noise).astype(np.float32)

    def __call__(self, clean_up: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        rows: dict[str, list[float]] = {}
        for kind, _level, r, noisy in self.items:
            out = clean_up(noisy)
            if kind.startswith("murmur"):
                change = murmur_excess_db(out, r.spans) - murmur_excess_db(r.sound, r.spans)
                rows.setdefault(kind, []).append(change)
                continue
            s, x, y = (band(v) for v in (r.sound[: len(noisy)], noisy, out))
            if kind == "jump":
                after = slice(PLACED_AT, PLACED_AT + 2 * WORKING_RATE_HZ)
                rows.setdefault("jump", []).append(improvement(s[after], x[after], y[after])[0])
            elif kind == "clean":
                rows.setdefault("clean out", []).append(snr_db(s, y))
            else:
                plain, beyond = improvement(s, x, y)
                for name in ("all", kind):
                    rows.setdefault(f"{name} plain", []).append(plain)
                    rows.setdefault(f"{name} beyond", []).append(beyond)
        found = {}
        for name, values in rows.items():
            v = np.array(values)
            found[name] = float(np.nanmedian(v) if name.startswith("murmur") else np.nanmean(v))
            if name.startswith("murmur"):
                found[f"{name} p10"] = float(np.nanpercentile(v, 10))
            elif name == "clean out":
                found["clean out p5"] = float(np.nanpercentile(v, 5))
        return {k: round(v, 3) for k, v in found.items()}


def headline(v: Mapping[str, float]) -> str:
    parts = [
        f"{v.get('all plain', np.nan):+.2f} plain",
        f"{v.get('all beyond', np.nan):+.2f} beyond",
        f"clean {v.get('clean out', np.nan):.1f} (p5 {v.get('clean out p5', np.nan):.1f})",
    ]
    for k in ("murmur clean", "murmur 10", "murmur 0"):
        if k in v:
            parts.append(f"{k} {v[k]:+.2f}/{v[k + ' p10']:+.1f}")
    if "jump" in v:
        parts.append(f"after a jump {v['jump']:+.2f}")
    return ", ".join(parts)
