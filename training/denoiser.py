"""Train the denoiser, prune it, export it, and write its part of a bundle.

    python -m training.denoiser train   --data ../shared/data --out RUN   about an hour, one core
    python -m training.denoiser curve   --data ../shared/data --out RUN   what each pruning ratio would cost
    python -m training.denoiser prune   --data ../shared/data --out RUN   prune RUN's net, fine-tune
    python -m training.denoiser export  --data ../shared/data --out RUN   int8, parity gates, bundle part
    python -m training.denoiser validate --data ../shared/data --out RUN  fold 1 anew for each of its nets
    python -m training.denoiser figures --out RUN                         what the run has shown

All of it is in the recipe (TOML); a batch is a function of (seed, step), so a run can be stopped, resumed
(--resume) and repeated exactly on the same machine. A healthy run improves fold 1 by more than 9 dB in band
and leaves clean sound above 25 dB; both are printed while it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise import LOOK_AHEAD, hear, widen
from device.errors import BadInput, StethopiError
from device.rates import HOP, WORKING_RATE_HZ
from models.denoiser import SYNTHESIS, TIMES, Denoiser, Shape, tables
from training import data as data_room
from training import loop
from training.export import count_macs
from training.fake_int8 import EVERY, FakeInt8
from training.metrics import band, improvement, murmur_excess_db, snr_db
from training.mixing import Mixer, MixSettings, NoisePool, Reference, references
from training.muon import Muon
from training.recipe import read, settings, shipped
from training.release import commit_id

__all__ = [
    "Removal",
    "Validation",
    "denoise_whole",
    "export_denoiser",
    "for_int8",
    "inputs_of",
    "load_net",
    "prune_denoiser",
    "sounds_for_ranges",
    "train_denoiser",
]

RECIPE = shipped("denoiser")
BEHIND = LOOK_AHEAD // HOP
HELD_BACK = 5
"""Each fifth noise segment of a kind is not trained on: it decides (fold 1), the test part reports."""
STAGES_FROM = (10_000_000, 15_000_000, 17_000_000, 18_000_000)
"""Step numbers at which the stages after pruning begin, so that each draws its own batches."""
PLACED_AT = 4 * WORKING_RATE_HZ
"""Where in a validation sound the chest piece is put down."""


def _tables(recipe: dict[str, Any]) -> dict[str, np.ndarray]:
    return tables(int(recipe["net"].get("frame", 96)))


def _shape(recipe: dict[str, Any]) -> Shape:
    net = {k: v for k, v in recipe["net"].items() if k != "frame"}
    net["shares"] = _tables(recipe)["spread"].shape[1] + TIMES
    return settings(Shape, net, "net")


# ── the float part, for whole sounds ────────────────────────────────────────────────────────────────────────


class Removal(nn.Module):
    """Applies shares to whole sounds as device.denoise does hop by hop: (B, n), (B, shares, 1, n / 16) → (B,
    n).

    The last two hops of the result are the input's (their look-ahead has not come).
    """

    def __init__(self, coefficients: dict[str, np.ndarray]) -> None:
        super().__init__()
        for name in ("analysis", "synthesis", "spread", "interpolation"):
            self.register_buffer(name, torch.from_numpy(coefficients[name]), persistent=False)
        self.bands = coefficients["spread"].shape[1]

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        batch, n = x.shape
        hops = n // HOP
        frame = self.analysis.shape[1]
        wide = shares[:, :, 0].transpose(1, 2)  # (B, T, shares)
        wide = wide + (widen(wide) - wide).detach()  # a share pressed against its end still learns
        frames = nn.functional.pad(x, (frame - HOP, 0)).unfold(1, frame, HOP)
        found = (frames @ self.analysis.T) * (wide[..., : self.bands] @ self.spread.T)
        taken = (found @ self.synthesis.T).view(batch, hops, SYNTHESIS // HOP, HOP)
        removed = taken[:, 2:, 0] + taken[:, 1:-1, 1] + taken[:, :-2, 2]
        points = wide[..., self.bands :]
        before = nn.functional.pad(points[:, :-1, -1:], (0, 0, 1, 0))
        in_time = torch.cat([before, points], -1) @ self.interpolation.T
        grid = x.view(batch, hops, HOP)
        done = (grid[:, :-BEHIND] - removed) * (1 - in_time[:, BEHIND:])
        return torch.cat([done, grid[:, -BEHIND:]], 1).reshape(batch, n)


def inputs_of(x: np.ndarray, window: np.ndarray) -> dict[str, torch.Tensor]:
    """What the net hears of sounds (batch, n), by name."""
    wave, spectrum = hear(x, window)
    return {
        "wave": torch.from_numpy(wave)[:, :, None],
        "spectrum": torch.from_numpy(spectrum)[:, :, None],
    }


def _shares(net: Denoiser | FakeInt8, x: np.ndarray, window: np.ndarray) -> torch.Tensor:
    return net(*inputs_of(x, window).values(), *net.initial_states(x.shape[0]))[0]


def denoise_whole(
    net: Denoiser | FakeInt8, removal: nn.Module, coefficients: dict[str, np.ndarray], x: np.ndarray
) -> np.ndarray:
    """The float net on one whole sound (n,), same length out."""
    n = len(x)
    padded = np.zeros((1, (-(-n // HOP) + BEHIND) * HOP), dtype=np.float32)
    padded[0, :n] = x
    with torch.no_grad():
        y = removal(torch.from_numpy(padded), _shares(net, padded, coefficients["window"]))
    return y[0, :n].numpy()


# ── loss ────────────────────────────────────────────────────────────────────────────────────────────────────


class Loss(nn.Module):
    """Mean over examples of: minus SNR in band, minus SNR 90–420 Hz, plus spectral errors, all as dB ratios.

    Each ratio is capped at `cap_db` (an error below the references' own noise teaches nothing). The
    spectral terms (two resolutions, square-root magnitudes up to 450 Hz) count what was taken away too much
    again `over_suppression` times: faint murmur weighs as much as beats there. `identity` weighs the mean
    change in dB of what came in without any noise, every cell of 128 ms and 8 Hz alike: there a quiet
    diastole must pass as a loud systole does, or a murmur's excess grows.
    """

    def __init__(self, samples: int, weights: Mapping[str, float], where: str = "loss") -> None:
        super().__init__()
        f = torch.fft.rfftfreq(samples, 1 / WORKING_RATE_HZ)
        inside = ((f >= 25) & (f <= 400)).float()
        high = ((f >= 90) & (f <= 420)).float()
        outside = (f > 400).float()
        w = {
            "band": 1.0,
            "high_band": 0.5,
            "spectral": 0.3,
            "over_suppression": 1.0,
            "out_of_band": 0.1,
            "cap_db": 30.0,
            "identity": 0.0,
        }
        for key in weights:
            if key not in w:
                raise BadInput(f"recipe: [{where}] {key}: no such key; there are {', '.join(sorted(w))}")
        w.update(weights)
        self.weights = w
        self.cap = 10 ** (-w["cap_db"] / 10)
        self.register_buffer("inside", inside + w["out_of_band"] * outside)
        self.register_buffer("in_band", inside)
        self.register_buffer("high", high)
        for size in (64, 256):
            self.register_buffer(f"window_{size}", torch.hann_window(size))

    def forward(
        self, y: torch.Tensor, clean: torch.Tensor, quiet: torch.Tensor | None = None
    ) -> torch.Tensor:
        """y, clean: (B, samples). quiet: (B,) bool, the examples whose input was the clean sound itself."""
        s = torch.fft.rfft(clean)
        e = torch.fft.rfft(y - clean)
        s2, e2 = s.real**2 + s.imag**2, e.real**2 + e.imag**2
        loss = self.weights["band"] * _ratio_db(e2 @ self.inside, s2 @ self.in_band, self.cap)
        loss = loss + self.weights["high_band"] * _ratio_db(e2 @ self.high, s2 @ self.high, self.cap)
        for size in (64, 256):
            window = getattr(self, f"window_{size}")
            bins = round(450 / WORKING_RATE_HZ * size) + 1

            def magnitude(
                x: torch.Tensor, size: int = size, window: torch.Tensor = window, bins: int = bins
            ) -> torch.Tensor:
                z = torch.stft(x, size, size // 4, window=window, return_complex=True)[:, 1:bins]
                return (z.real**2 + z.imag**2 + 1e-4).pow(0.25)

            a, b = magnitude(clean), magnitude(y)
            d = a - b
            over = d.square() * (1 + self.weights["over_suppression"] * (d > 0))
            loss = loss + self.weights["spectral"] * _ratio_db(
                over.sum((1, 2)), a.square().sum((1, 2)), self.cap
            )
        total = loss.mean()
        if self.weights["identity"] and quiet is not None and bool(quiet.any()):
            changed = _cell_db(y[quiet], self.window_256) - _cell_db(clean[quiet], self.window_256)
            total = total + self.weights["identity"] * changed.abs().mean((1, 2)).sum() / len(y)
        return total


def _cell_db(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Power up to 450 Hz in dB, (B, samples) → (B, bins, frames), with a floor some 80 dB below the beats."""
    size = len(window)
    z = torch.stft(x, size, size // 4, window=window, return_complex=True)
    z = z[:, 1 : round(450 / WORKING_RATE_HZ * size) + 1]
    return 10 * torch.log10(z.real**2 + z.imag**2 + 1e-6)


def _ratio_db(error: torch.Tensor, signal: torch.Tensor, cap: float) -> torch.Tensor:
    return 10 * torch.log10(error / signal.clamp_min(1e-12) + cap)


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────────


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


def _headline(v: dict[str, float]) -> str:
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


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────


def _because(recipe: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """All that decides a fit, as plain values: a checkpoint of another recipe is not gone on with."""
    shared = {k: recipe.get(k) for k in ("seed", "net", "mix", "references", "loss")}
    train = {k: v for k, v in recipe["train"].items() if k not in ("steps", "rate", "warm_up")}
    found: dict[str, Any] = json.loads(json.dumps({**shared, "train": train, "table": table}))
    return found


def _kept(path: Path, because: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint at `path` if there is one of this very recipe."""
    if not path.is_file():
        return None
    kept: dict[str, Any] = loop.load(path)
    if kept.get("because", because) != because:
        print(f"{path.name}: of another recipe; beginning anew", flush=True)
        return None
    return kept


def _fit(
    net: Denoiser,
    recipe: dict[str, Any],
    table: dict[str, Any],
    data: Path,
    cache: Path,
    path: Path,
    resume: bool,
    offset: int,
    note: dict[str, Any],
    removal: nn.Module | None = None,
    int8: bool = False,
) -> dict[str, float]:
    """Train `net` by `table` (steps, rate …) and keep it in `path`; returns the last validation of the
    average. removal: what makes sound of the net's answer, instead of `Removal`. int8: from the table's step
    `rounded_from` on the net is trained as int8 computes it."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe["seed"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    seed = int(recipe["seed"])
    mixed = settings(MixSettings, recipe["mix"] | table.get("mix", {}), "mix")
    coefficients = _tables(recipe)
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK)
    mixer = Mixer(refs, pool, mixed, seed)
    removal = removal or Removal(coefficients)
    loss_of = Loss(mixed.samples - 2 * LOOK_AHEAD, recipe.get("loss", {}) | table.get("loss", {}))
    steps, rate = int(table["steps"]), float(table["rate"])
    validate_every = int(table.get("validate_every", recipe["train"].get("validate_every", 1000)))
    half = bool(recipe["train"].get("bfloat16", False))
    average_by = float(recipe["train"].get("average", 0.999))
    optimizer = _optimizer(str(table.get("optimizer", "adamw")), net, rate, recipe["train"])
    warm = int(table.get("warm_up", recipe["train"].get("warm_up", 100)))

    def rate_at(step: int) -> float:
        if step < warm:
            return rate * (step + 1) / warm
        return rate * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm)))))

    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    start, curve, seconds = 0, [], 0.0
    because = _because(recipe, table)
    kept = _kept(path, because) if resume else None
    if kept:
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        average, start, curve, seconds = kept["average"], kept["step"], kept["curve"], kept["seconds"]
    fake, rounded_from = None, int(table.get("rounded_from", 0))
    if int8:
        fake = FakeInt8(net, sounds_for_ranges(recipe, data, cache), coefficients["window"])
        if kept:
            fake.ranges = kept["ranges"]
    validation = Validation(data, cache, seed)
    print(
        f"{len(refs)} references, {sum(len(r.sound) for r in refs) / WORKING_RATE_HZ / 60:.0f} min; "
        f"{sum(p.numel() for p in net.parameters())} parameters; steps {start} to {steps}; "
        f"{len(validation.items)} for validation",
        flush=True,
    )
    eye = Denoiser.from_layout(net.layout()).eval()
    begun, saved, sums = time.monotonic() - seconds, time.monotonic(), []
    last: dict[str, float] = {}

    def checkpoint(step: int) -> None:
        loop.save(
            path,
            {
                "net": net.state_dict(),
                "average": average,
                "optimizer": optimizer.state_dict(),
                "step": step,
                "curve": curve,
                "seconds": time.monotonic() - begun,
                "layout": net.layout(),
                "recipe": recipe,
                "steps": steps,
                "because": because,
                **({"ranges": fake.ranges} if fake else {}),
                **note,
            },
        )

    for step in range(start, steps):
        clean, noisy = mixer.batch(offset + step)
        inputs = inputs_of(noisy, coefficients["window"])
        net.train()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        hearer: Denoiser | FakeInt8 = fake if fake and step >= rounded_from else net
        if fake and (step - rounded_from) % 100 == 0:
            fake.measure()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            shares = hearer(*inputs.values(), *net.initial_states(len(noisy)))[0]
        y = removal(torch.from_numpy(noisy), shares.float())
        inner = slice(LOOK_AHEAD, -LOOK_AHEAD)
        quiet = torch.from_numpy((clean == noisy).all(1))
        loss = loss_of(y[:, inner], torch.from_numpy(clean)[:, inner], quiet)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), float(table.get("clip", 3.0)))
        optimizer.step()
        blend = min(average_by, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in net.state_dict().items():
                average[k].lerp_(v, 1 - blend)
        sums.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1:6d}  loss {np.mean(sums):8.3f}  {(time.monotonic() - begun) / 60:6.1f} min",
                flush=True,
            )
            curve.append((step + 1, float(np.mean(sums))))
            sums = []
        if (step + 1) % validate_every == 0 or step + 1 == steps:
            eye.load_state_dict(average)
            last = validation(lambda x: denoise_whole(eye, removal, coefficients, x))
            print(f"step {step + 1:6d}  fold 1: {_headline(last)}", flush=True)
            note["validation"] = last
        if time.monotonic() - saved > 180 or step + 1 == steps:
            checkpoint(step + 1)
            saved = time.monotonic()
    return last


def _optimizer(name: str, net: nn.Module, rate: float, train: dict[str, Any]) -> Any:
    decay = float(train.get("weight_decay", 0.0))
    if name == "muon":
        return Muon(net.parameters(), rate, weight_decay=decay)
    if name != "adamw":
        raise BadInput(f"recipe: optimizer {name}: no such one; there are adamw, muon")
    return torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=decay)


def train_denoiser(
    recipe: dict[str, Any], data: Path, out: Path, cache: Path, *, resume: bool = False
) -> Path:
    """Train the full net; writes out/denoiser-full.pt (checkpoint and result) and returns its path."""
    torch.manual_seed(recipe["seed"])
    net = Denoiser(_shape(recipe))
    path = out / "denoiser-full.pt"
    _fit(net, recipe, recipe["train"], data, cache, path, resume, 0, {"kind": "full"})
    return path


def load_net(path: Path) -> tuple[Denoiser, dict[str, Any]]:
    """The averaged net of a checkpoint, in evaluation mode, and the whole checkpoint. BadInput when there is
    none."""
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint; run: stethopi train denoiser --out {path.parent}")
    kept = loop.load(path)
    net = Denoiser.from_layout(kept["layout"])
    net.load_state_dict(kept["average"])
    return net.eval(), kept


def _real_sounds(recipe: dict[str, Any], data: Path, cache: Path, **mix: float) -> np.ndarray:
    """Forty training mixtures of 6 s that no step ever sees, (40, 12288): for scores, ranges and
    calibration. mix: other settings of MixSettings, as the share that begins softer (`jump`)."""
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK)
    mixed = settings(MixSettings, {"batch": 40, "samples": 12288, "low_db": -8.0, **mix}, "mix")
    return Mixer(refs, pool, mixed, int(recipe["seed"])).batch(20_000_000)[1]


def sounds_for_ranges(recipe: dict[str, Any], data: Path, cache: Path, **mix: float) -> np.ndarray:
    """What int8 ranges are taken from: clean and noisy. Loud and quiet is one, as the net hears all at a
    steady level: only a jump differs. mix: other settings, to see what they are worth."""
    jump = float(recipe.get("settle", {}).get("mix", {}).get("jump", 0.0))
    return _real_sounds(recipe, data, cache, **{"jump": jump, **mix})


def contributions(net: Denoiser, sounds: np.ndarray, window: np.ndarray) -> dict[nn.Module, torch.Tensor]:
    """What each output channel of each layer brings to the layers that hear it, on real sound (batch, n).

    The deviation of the channel times the norm of the weights that take it up, squared, as a share of all
    that the taking layer hears; summed over the takers. A dead channel scores 0.
    """
    width = net.down.conv.out_channels
    last = net.blocks[-1].mix.out_channels  # type: ignore[union-attr]
    mixes = [net.mix, *(b.mix for b in net.blocks)]  # type: ignore[union-attr]
    takers: list[tuple[nn.Module, list[tuple[nn.Module, slice]]]] = [
        (net.down.conv, [(net.front.conv, slice(None))]),
        (net.mix, [(net.down.conv, slice(0, width)), (net.spectrum, slice(width, None))]),
        *((b, [(a, slice(None))]) for a, b in zip(mixes[:-1], mixes[1:], strict=True)),
        (net.head, [(mixes[-1], slice(0, last)), (net.down.conv, slice(last, None))]),
        (net.shares, [(net.head, slice(None))]),
    ]
    heard: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        heard[module] = args[0].std((0, 2, 3))

    hooks = [taker.register_forward_pre_hook(note) for taker, _ in takers]
    try:
        with torch.no_grad():
            _shares(net, sounds, window)
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[nn.Module, torch.Tensor] = {}
    for taker, makers in takers:
        weight = taker.weight.detach()
        worth = (heard[taker] ** 2) * weight.square().sum((0, 2, 3))
        worth = worth / worth.sum()
        for maker, where in makers:
            found[maker] = found.get(maker, torch.zeros(())) + worth[where]
    return found


def equalise(net: Denoiser, sounds: np.ndarray, window: np.ndarray, power: float = 0.75) -> None:
    """Scale the trunk's channels to like ranges, in place; the net computes the same (ReLU passes a factor
    on).

    One int8 scale serves all channels of an activation, so a single loud channel would coarsen the others.
    Each channel's range on real sound, to the `power`, goes over into the weights of the layer that hears
    it. After
    Nagel et al. 2019, with measured ranges instead of weights.
    """
    blocks = list(net.blocks)
    heard: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        heard[module] = args[0].abs().amax((0, 2, 3))

    hooks = [b.mix.register_forward_pre_hook(note) for b in blocks]  # type: ignore[union-attr]
    try:
        with torch.no_grad():
            _shares(net, sounds, window)
    finally:
        for hook in hooks:
            hook.remove()
    maker = net.mix
    with torch.no_grad():
        for block in blocks:
            most = heard[block.mix].clamp_min(1e-3)  # type: ignore[index]
            scale = ((most / most.median()) ** power).clamp(1 / 16, 16)
            maker.weight.div_(scale[:, None, None, None])
            maker.bias.div_(scale)  # type: ignore[union-attr]
            block.time.conv.bias.div_(scale)  # type: ignore[union-attr]
            block.mix.weight.mul_(scale[None, :, None, None])  # type: ignore[union-attr]
            maker = block.mix  # type: ignore[assignment]


def equalise_head(net: Denoiser, sounds: np.ndarray, window: np.ndarray, power: float = 0.75) -> None:
    """The same for what the head hears from the trunk, against what comes past it, in place.

    Both are joined before the head, and the file gives one scale to what is joined: with a trunk of ten times
    the range, what comes past it (and goes into the trunk, too) would have a tenth of its steps left.
    """
    heard: list[torch.Tensor] = []
    hook = net.head.register_forward_pre_hook(
        lambda _module, args: heard.append(args[0].abs().amax((0, 2, 3)))
    )
    try:
        with torch.no_grad():
            _shares(net, sounds, window)
    finally:
        hook.remove()
    last = net.blocks[-1].mix
    most = heard[0].clamp_min(1e-3)
    with torch.no_grad():
        count = last.out_channels  # type: ignore[union-attr]
        scale = ((most[:count] / most.median()) ** power).clamp(1 / 16, 16)
        last.weight.div_(scale[:, None, None, None])  # type: ignore[union-attr]
        last.bias.div_(scale)  # type: ignore[union-attr]
        net.head.weight[:, :count].mul_(scale[None, :, None, None])


def for_int8(net: Denoiser, recipe: dict[str, Any], data: Path, cache: Path) -> None:
    """Even out the trunk's channels, in place, as the recipe's [export] says."""
    power = float(recipe.get("export", {}).get("equalise", 0.75))
    equalise(net, sounds_for_ranges(recipe, data, cache), _tables(recipe)["window"], power)


def prune_denoiser(
    recipe: dict[str, Any],
    data: Path,
    out: Path,
    cache: Path,
    *,
    resume: bool = False,
    ratio: float | None = None,
    steps: int | None = None,
    source: Path | None = None,
    name: str = "denoiser-pruned",
) -> Path:
    """Prune the channels of out/denoiser-full.pt and fine-tune; writes out/<name>.pt and returns its path.

    With a [polish] table in the recipe a second round of fine-tuning follows, from the average of the first
    (out/<name>-first.pt), and with [settle] another (out/<name>-polish.pt). [blend] settle: the result's
    weights lie that share of the way from the round before to the last (out/<name>-settle.pt). With
    [quantised] a last round follows in which the net computes as int8 does (before it: out/<name>-blend.pt).
    """
    from training.prune import prune

    net, full = load_net(source or out / "denoiser-full.pt")
    table = dict(recipe["prune"])
    table["ratio"] = table["ratio"] if ratio is None else ratio
    table["steps"] = table["steps"] if steps is None else steps
    torch.manual_seed(recipe["seed"])
    sounds = _real_sounds(recipe, data, cache)
    report = prune(
        net,
        tuple(net.examples().values()),
        float(table["ratio"]),
        keep=[net.shares],
        renew=lambda: tuple(net.examples().values()),
        scores=contributions(net, sounds, _tables(recipe)["window"]),
        globally=True,
        most=float(table.get("most", 0.75)),
    )
    rebuilt = Denoiser.from_layout(net.layout())
    rebuilt.load_state_dict(net.state_dict())
    print(f"pruned: {report['before']} to {report['after']}", flush=True)
    about = {"kind": "pruned", "pruning": report, "full_validation": full.get("validation")}
    # each stage of fine-tuning goes on from the average of the one before; the last has the plain name
    stages = [("first", table), *((k, recipe[k]) for k in ("polish", "settle") if k in recipe)]
    final = out / f"{name}.pt"
    path = out / f"{name}-blend.pt" if "quantised" in recipe else final
    share = float(recipe.get("blend", {}).get("settle", 1.0)) if "settle" in recipe else 1.0
    if not 0.0 <= share <= 1.0:
        raise BadInput(f"recipe: [blend] settle = {share}: not in 0 to 1")
    for k, (stage, fit) in enumerate(stages):
        last = k + 1 == len(stages) and share == 1.0
        here = path if last else out / f"{name}-{stage}.pt"
        kept = _kept(here, _because(recipe, fit)) if resume and not last else None
        if not (kept and kept["step"] >= int(fit["steps"])):
            _fit(rebuilt, recipe, fit, data, cache, here, resume, STAGES_FROM[k], dict(about))
        if not last:
            rebuilt, _ = load_net(here)
    if share != 1.0:
        before = out / f"{name}-{stages[-2][0]}.pt"
        _blend(recipe, before, out / f"{name}-settle.pt", share, data, cache, path)
    if path != final:
        net, _ = load_net(path)
        equalise(
            net, sounds, _tables(recipe)["window"], float(recipe.get("export", {}).get("equalise", 0.75))
        )
        about["int8_aware"] = True
        _fit(net, recipe, recipe["quantised"], data, cache, final, resume, STAGES_FROM[3], about, int8=True)
    return final


def _blend(
    recipe: dict[str, Any], before: Path, after: Path, share: float, data: Path, cache: Path, path: Path
) -> None:
    """The net whose weights lie between two of one training, kept in `path` with its own validation.

    A short fine-tuning for a rare case costs a little elsewhere; between the two there is most of the gain
    for a part of the cost (Wortsman et al. 2022, robust fine-tuning).
    """
    one, two = load_net(before)[1], load_net(after)[1]
    average = {k: torch.lerp(v, two["average"][k], share) for k, v in one["average"].items()}
    net = Denoiser.from_layout(two["layout"]).eval()
    net.load_state_dict(average)
    coefficients = _tables(recipe)
    found = Validation(data, cache, int(recipe["seed"]))(
        partial(denoise_whole, net, Removal(coefficients), coefficients)
    )
    print(f"{path.name}: {share:g} of the way, fold 1: {_headline(found)}", flush=True)
    loop.save(path, {**two, "average": average, "recipe": recipe, "validation": found, "blend": share})


def pruning_curve(
    recipe: dict[str, Any],
    source: Path,
    data: Path,
    cache: Path,
    ratios: Sequence[float] = (0.2, 0.32, 0.42, 0.5, 0.6),
) -> dict[str, Any]:
    """Fold 1 right after pruning, before any fine-tuning, by what channels bring and by magnitude of
    weights."""
    from training.prune import prune

    sounds = _real_sounds(recipe, data, cache)
    validation = Validation(data, cache, int(recipe["seed"]))
    coefficients = _tables(recipe)
    removal = Removal(coefficients)
    rows = []
    for way in ("full", "contribution", "magnitude"):
        for ratio in (0.0,) if way == "full" else ratios:
            net, kept = load_net(source)
            if way != "full":
                prune(
                    net,
                    tuple(net.examples().values()),
                    ratio,
                    keep=[net.shares],
                    renew=lambda net=net: tuple(net.examples().values()),  # type: ignore[misc]
                    scores=contributions(net, sounds, coefficients["window"])
                    if way == "contribution"
                    else None,
                    globally=way == "contribution",
                    most=float(recipe["prune"].get("most", 0.75)) if way == "contribution" else 1.0,
                )
            found = validation(partial(denoise_whole, net, removal, coefficients))
            macs = count_macs(net, tuple(net.examples().values())) * (WORKING_RATE_HZ // HOP)
            parameters = int(sum(p.numel() for p in net.parameters()))
            rows.append(
                {"by": way, "ratio": ratio, "parameters": parameters, "mac_per_s": macs, "fold_1": found}
            )
            print(f"{way} {ratio}: {macs / 1e6:.1f} MMAC/s, {_headline(found)}", file=sys.stderr, flush=True)
    return {
        "what": "pruned, before fine-tuning, fold 1",
        "steps": kept["step"],
        "seed": recipe["seed"],
        "commit": commit_id(),
        "data": data_room.data_hashes(data),
        "rows": rows,
    }


_CHECKPOINTS = ("full", "pruned-first", "pruned-polish", "pruned-settle", "pruned-blend", "pruned")


def validate_anew(out: Path, data: Path, cache: Path) -> None:
    """Fold 1 once more for every net in `out`, kept in its checkpoint: for figures it was born without."""
    for name in _CHECKPOINTS:
        path = out / f"denoiser-{name}.pt"
        if path.is_file():
            net, kept = load_net(path)
            coefficients = _tables(kept["recipe"])
            validation = Validation(data, cache, int(kept["recipe"]["seed"]))
            kept["validation"] = validation(partial(denoise_whole, net, Removal(coefficients), coefficients))
            print(f"{path.name}: {_headline(kept['validation'])}", flush=True)
            loop.save(path, kept)


def training_figures(out: Path) -> dict[str, Any]:
    """What the run in `out` has shown: curve, validation on fold 1, minutes; full, pruned, exported."""
    found: dict[str, Any] = {"what": "training of the denoiser; fold 1 decides", "commit": commit_id()}
    for name in _CHECKPOINTS:
        path = out / f"denoiser-{name}.pt"
        if path.is_file():
            _, kept = load_net(path)
            found[name] = {
                "steps": kept["step"],
                "minutes": round(kept["seconds"] / 60, 1),
                "curve": [[step, round(loss, 3)] for step, loss in kept["curve"][4::5]],
                "fold_1": kept.get("validation"),
                "pruning": kept.get("pruning"),
                "blend": kept.get("blend"),
                "recipe": kept["recipe"],
            }
    part = out / "denoiser" / "denoiser.json"
    if part.is_file():
        found["export"] = json.loads(part.read_text("utf-8"))["export"]
    return found


# ── export ──────────────────────────────────────────────────────────────────────────────────────────────────


def export_denoiser(
    recipe: dict[str, Any], source: Path, data: Path, cache: Path, out: Path
) -> dict[str, Any]:
    """Checkpoint → denoiser.tflite, .npz, .vectors.npz, .json in `out`, or ExportRefused. Returns the report.

    Gates beside those of training.export: the float file over 1000 streamed hops, and int8 against float on
    fold 1:
    at most `most_lost_db` of the improvement.
    """
    from device.bundle import ModelEntry
    from device.denoise import Denoiser as Stage
    from device.denoise import denoise
    from training.export import ExportRefused, Limits, calibration_stream, export, streamed_error
    from training.release import write_part

    net, kept = load_net(source)
    recipe = kept["recipe"] | {"export": recipe.get("export", {})}
    gate = recipe["export"]
    coefficients = _tables(recipe)
    seed = int(recipe["seed"])
    sounds = sounds_for_ranges(recipe, data, cache)
    if not kept.get("int8_aware"):  # such a net has learned with the channels as they are
        for_int8(net, recipe, data, cache)
    equalise_head(net, sounds, coefficients["window"], float(gate.get("equalise", 0.75)))
    calibration = calibration_stream(net, inputs_of(sounds, coefficients["window"]), EVERY)
    states = [(f"state_{k:02d}", f"new_{k:02d}") for k in range(len(net.looking_back()))]
    least = float(gate.get("least_db", 12.0))
    made = export(
        net,
        net.examples(),
        net.output_names(),
        calibration,
        out,
        "denoiser",
        states=states,
        limits=Limits(int8_db=least),
        seed=seed,
    )
    report = made.report
    long = sounds.reshape(1, -1)[:, : 1000 * HOP]
    worst = streamed_error(made, net, inputs_of(long, coefficients["window"]))
    report["float_streamed_error"] = worst
    if not worst < 1e-3:
        raise ExportRefused(
            f"denoiser: the float file is {worst:.2g} away from PyTorch after 1000 streamed hops"
        )
    per_second = WORKING_RATE_HZ // HOP
    meta = {
        "rate_hz": WORKING_RATE_HZ,
        "hop": HOP,
        "look_ahead": LOOK_AHEAD,
        "delay_ms": 1000 * (HOP + LOOK_AHEAD) / WORKING_RATE_HZ,
        "inputs": made.inputs,
        "outputs": made.outputs,
        "states": made.states,
        "parameters": report["parameters"],
        "mac_per_s": report["macs"] * per_second,
        "float_mac_per_s": float_part_macs(coefficients) * per_second,
        "kilobytes": round(made.kilobytes, 1),
        "seed": seed,
        "data": data_room.data_hashes(data),
        "layout": kept["layout"],
        "recipe": recipe,
        "steps": kept["steps"],
        "minutes": round(kept["seconds"] / 60, 1),
        "pruning": kept.get("pruning"),
    }
    entry = ModelEntry("denoiser", made.int8_tflite, meta, coefficients)
    removal = Removal(coefficients)
    validation = Validation(data, cache, seed)
    as_float = validation(lambda x: denoise_whole(net, removal, coefficients, x))
    as_int8 = validation(lambda x: denoise(entry, x))
    report["fold_1_float"], report["fold_1_int8"] = as_float, as_int8
    lost = as_float["all plain"] - as_int8["all plain"]
    report["int8_loss_db"] = round(lost, 3)
    if not lost <= float(gate.get("most_lost_db", 0.5)):
        raise ExportRefused(
            f"denoiser: int8 loses {lost:.2f} dB of {as_float['all plain']:.2f}; calibrate better"
        )
    meta["export"] = report
    vector = np.tile(sounds[:2].reshape(-1), 1)[:12000].astype(np.float32)
    vector *= np.float32(0.5 / np.max(np.abs(vector)))
    stage = Stage(entry)
    y = np.concatenate([stage.process(vector), stage.flush()])
    write_part(out, "denoiser", meta, arrays=coefficients, vectors={"x": vector, "y": y})
    return report


def float_part_macs(coefficients: dict[str, np.ndarray]) -> int:
    """Multiply-accumulates a hop of what NumPy does around the net: the products with the coefficient
    tables."""
    from device.level import hop_high_pass

    tables_used = sum(coefficients[k].size for k in ("analysis", "synthesis", "interpolation", "window"))
    fft = 128 * 7 * 2  # real FFT of 128 points, generously
    return int(tables_used + hop_high_pass().size + fft)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.denoiser", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "prune", "export", "curve", "validate", "figures"))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/denoiser"))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stethopi")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument(
        "--ratio", type=float, help="prune: share of channels to take, instead of the recipe's"
    )
    parser.add_argument("--steps", type=int, help="steps, instead of the recipe's")
    parser.add_argument("--net", type=Path, help="checkpoint to prune or export, instead of that in --out")
    parser.add_argument(
        "--name", help="name of the result, instead of denoiser-pruned or the folder denoiser"
    )
    options = parser.parse_args(argv)
    try:
        recipe = read(options.recipe)
        if options.what == "train":
            if options.steps:
                recipe["train"]["steps"] = options.steps
            train_denoiser(recipe, options.data, options.out, options.cache, resume=options.resume)
        elif options.what == "prune":
            prune_denoiser(
                recipe,
                options.data,
                options.out,
                options.cache,
                resume=options.resume,
                ratio=options.ratio,
                steps=options.steps,
                source=options.net,
                name=options.name or "denoiser-pruned",
            )
        elif options.what == "curve":
            curve = pruning_curve(
                recipe, options.net or options.out / "denoiser-full.pt", options.data, options.cache
            )
            print(json.dumps(curve, indent=1))
        elif options.what == "validate":
            validate_anew(options.out, options.data, options.cache)
        elif options.what == "figures":
            print(json.dumps(training_figures(options.out), indent=1))
        else:
            net = options.net or options.out / "denoiser-pruned.pt"
            report = export_denoiser(
                recipe, net, options.data, options.cache, options.out / (options.name or "denoiser")
            )
            print(json.dumps(report, indent=1))
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
