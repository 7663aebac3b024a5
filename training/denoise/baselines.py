"""The networks that ours is measured against: trained on our mixtures, run on whole sounds, one exported.

    stethopi train denoiser --model unet-classic --out RUN     → RUN/unet-classic.pt, minutes on one core
    stethopi export denoiser --model unet-classic --out RUN    → RUN/unet-classic/unet-classic.tflite, int8
    stethopi train denoiser --model lu-net --out RUN           → RUN/lu-net.pt

unet-classic: models/unet_classic.py, 5-s windows at 22.05 kHz, mean absolute error. lu-net: models/lu_net.py,
windows of 0.8 s at 1 kHz, mean squared error. Both learn from training.data.mixing, folds 2 to 4 and free
noise, as ours does. A batch is a function of (seed, step), so a run can stop, go on (--resume) and be
repeated exactly on the same machine.

Both are trained for minutes, not to the end: the benchmark says for how many steps and minutes beside their
rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise import baseline
from device.denoise.baseline import denoise_windowed
from device.dsp.resample import resample
from device.errors import BadInput, StethopiError
from device.rates import WORKING_RATE_HZ
from models import lu_net, unet_classic
from training.core import loop
from training.core.recipe import settings
from training.data import recordings as data_room
from training.data.mixing import Mixer, MixSettings, NoisePool, references
from training.denoise.apply import HELD_BACK
from training.denoise.validation import Validation

__all__ = [
    "RIVALS",
    "Baseline",
    "export_classic",
    "load_baseline",
    "mac_per_s",
    "baseline_denoiser",
    "train_baseline",
]


@dataclass(frozen=True)
class Baseline:
    """How a rival hears: its rate, the length of its windows, how far they overlap in use, and its loss."""

    make: Callable[..., nn.Module]
    rate_hz: int
    window: int
    overlap: int
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    flat: bool
    """Whether its tensors are (B, 1, 1, T) and not (B, 1, T)."""

    @property
    def window_s(self) -> float:
        return self.window / self.rate_hz

    def shaped(self, windows: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(np.ascontiguousarray(windows, dtype=np.float32))
        return x[:, None, None] if self.flat else x[:, None]


RIVALS = {
    "unet-classic": Baseline(
        unet_classic.UNetClassic,
        baseline.CLASSIC_RATE_HZ,
        baseline.CLASSIC_WINDOW,
        baseline.CLASSIC_WINDOW // 10,
        nn.functional.l1_loss,
        True,
    ),
    "lu-net": Baseline(
        lu_net.LUNet, lu_net.RATE_HZ, lu_net.WINDOW, lu_net.WINDOW // 2, nn.functional.mse_loss, False
    ),
}


def _named(name: str) -> Baseline:
    try:
        return RIVALS[name]
    except KeyError:
        raise BadInput(f"--model {name}: no such network; there are {', '.join(RIVALS)}") from None


def _make(name: str, recipe: dict[str, Any]) -> nn.Module:
    widths = recipe.get("net", {}).get("widths")
    rival = _named(name)
    return rival.make(tuple(widths)) if widths else rival.make()


def windows_of(rival: Baseline, clean: np.ndarray, noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures (B, n) at the working rate → windows (k, window) at the rival's, each noisy one at peak 1."""
    pairs = []
    for c, x in zip(clean, noisy, strict=True):
        at_rate = [resample(v, WORKING_RATE_HZ, rival.rate_hz) for v in (c, x)]
        for start in range(0, len(at_rate[0]) - rival.window + 1, rival.window):
            pairs.append([v[start : start + rival.window] for v in at_rate])
    if not pairs:
        raise BadInput(f"recipe: [mix] samples: too few for a window of {rival.window_s:g} s")
    found = np.asarray(pairs, dtype=np.float32)
    peak = np.maximum(np.max(np.abs(found[:, 1]), axis=1), 1e-9)[:, None]
    return found[:, 0] / peak, found[:, 1] / peak


def _because(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """All that decides a fit: a checkpoint of another recipe is not gone on with."""
    kept = {k: recipe.get(k) for k in ("seed", "net", "mix", "references", "train")}
    found: dict[str, Any] = json.loads(json.dumps({"name": name, **kept}))
    return found


def train_baseline(
    name: str, recipe: dict[str, Any], data: Path, out: Path, cache: Path, *, resume: bool = False
) -> Path:
    """Train the rival of that name and write out/<name>.pt; returns its path. Prints the loss as it goes."""
    rival = _named(name)
    seed = int(recipe["seed"])
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    mixed = settings(MixSettings, recipe["mix"], "mix")
    if mixed.samples < rival.window_s * WORKING_RATE_HZ:
        raise BadInput(
            f"recipe: [mix] samples = {mixed.samples}: too few for a window of {rival.window_s:g} s;"
            f" set {round(rival.window_s * WORKING_RATE_HZ)} or more"
        )
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    mixer = Mixer(refs, NoisePool.load(data, "train", free_only=True, every=HELD_BACK), mixed, seed)
    net = _make(name, recipe)
    table = recipe["train"]
    steps, rate, warm = int(table["steps"]), float(table["rate"]), int(table.get("warm_up", 50))
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    because = _because(name, recipe)
    path = out / f"{name}.pt"
    start, seconds, curve = 0, 0.0, []
    if resume and path.is_file():
        kept = loop.load(path)
        if kept["because"] == because:
            net.load_state_dict(kept["net"])
            optimizer.load_state_dict(kept["optimizer"])
            start, seconds, curve = kept["step"], kept["seconds"], kept["curve"]
        else:
            print(f"{path.name}: of another recipe; beginning anew", flush=True)
    print(
        f"{name}: {len(refs)} references; {sum(p.numel() for p in net.parameters()):,} parameters;"
        f" steps {start} to {steps}",
        flush=True,
    )
    begun = time.process_time() - seconds

    def keep(step: int, **more: Any) -> None:
        loop.save(
            path,
            {
                "name": name,
                "net": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "steps": steps,
                "seconds": seconds,
                "curve": curve,
                "recipe": recipe,
                "because": because,
                "data": data_room.data_hashes(data),
                **more,
            },
        )

    sums: list[float] = []
    every = int(table.get("keep_every", 100))
    net.train()
    for step in range(start, steps):
        clean, noisy = windows_of(rival, *mixer.batch(20_000_000 + step))
        for group in optimizer.param_groups:
            fall = 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))
            group["lr"] = rate * (step + 1) / warm if step < warm else rate * (0.01 + 0.99 * fall)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(table.get("bfloat16", False))):
            y = net(rival.shaped(noisy))
        loss = rival.loss(y.float(), rival.shaped(clean))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 3.0)
        optimizer.step()
        sums.append(float(loss.detach()))
        if (step + 1) % every == 0 or step + 1 == steps:
            seconds = time.process_time() - begun
            curve.append((step + 1, float(np.mean(sums))))
            sums = []
            print(
                f"step {step + 1:6d}  loss {curve[-1][1]:.5f}  {seconds / 60:.1f} core min",
                flush=True,
            )
            keep(step + 1)
    net.eval()
    found = Validation(data, cache, seed)(baseline_denoiser(name, net))
    print(
        f"fold 1: {found['all plain']:+.2f} plain, {found['all beyond']:+.2f} beyond volume",
        flush=True,
    )
    keep(steps, validation=found)
    return path


def load_baseline(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained net, ready to run, and what its checkpoint holds. BadInput when it is missing or none."""
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint; run: stethopi train denoiser --model {path.stem}")
    try:
        kept: dict[str, Any] = loop.load(path)
        net = _make(kept["name"], kept["recipe"])
        net.load_state_dict(kept["net"])
    except (KeyError, RuntimeError, EOFError, TypeError) as problem:
        raise StethopiError(f"{path}: no checkpoint of a rival ({problem}); train it again") from None
    return net.eval(), kept


def baseline_denoiser(name: str, net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Working-rate sound (n,), any n → the same, cleaned by the float net."""
    rival = _named(name)

    def run(windows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(rival.shaped(windows)).numpy().reshape(windows.shape)

    return lambda x: denoise_windowed(run, x, rival.rate_hz, rival.window, rival.overlap)


def mac_per_s(name: str, net: nn.Module) -> int:
    """Multiply-accumulates of one second's windows without overlap, LSTMs included."""
    from training.export.export import count_macs

    rival = _named(name)
    window = rival.shaped(np.zeros((1, rival.window), dtype=np.float32))
    total = count_macs(net, (window,))
    steps: dict[nn.Module, int] = {}
    hooks = [
        m.register_forward_hook(lambda m, args, _out: steps.__setitem__(m, args[0].shape[1]))
        for m in net.modules()
        if isinstance(m, nn.LSTM)
    ]
    with torch.no_grad():
        net(window)
    for hook in hooks:
        hook.remove()
    for layer, length in steps.items():
        weights = sum(p.numel() for k, p in layer.named_parameters() if k.startswith("weight"))
        total += length * weights
    return round(total / rival.window_s)


def export_classic(
    recipe: dict[str, Any], source: Path, data: Path, cache: Path, out: Path
) -> dict[str, Any]:
    """The trained classic U-Net → unet-classic.tflite (int8), .float.tflite and .json in `out`; the report.

    Calibrated on mixtures of the training folds. ExportRefused when a file does not compute what the net
    does.
    """
    import os

    from training.export.export import Limits, export

    net, kept = load_baseline(source)
    rival = RIVALS["unet-classic"]
    recipe = kept["recipe"] | {"export": recipe.get("export", {})}
    table = recipe["export"]
    mixed = settings(MixSettings, recipe["mix"], "mix")
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK)
    mixer = Mixer(refs, pool, mixed, int(recipe["seed"]))
    windows: list[np.ndarray] = []
    wanted = int(table.get("windows", 32))
    while len(windows) < wanted:
        windows += list(windows_of(rival, *mixer.batch(30_000_000 + len(windows)))[1])
    calibration = rival.shaped(np.stack(windows[:wanted])).numpy()
    made = export(
        net,
        {"x": torch.zeros(1, 1, 1, rival.window)},
        ["y"],
        {"x": calibration},
        out,
        "unet-classic",
        limits=Limits(int8_db=float(table.get("least_db", 6.0))),
        checked=8,
        seed=int(recipe["seed"]),
    )
    about = {
        "what": "the classic U-Net, int8, to be measured beside ours",
        "rate_hz": rival.rate_hz,
        "window": rival.window,
        "parameters": made.report["parameters"],
        "mac_per_s": mac_per_s("unet-classic", net),
        "kilobytes": round(made.kilobytes, 1),
        "steps": kept["step"],
        "minutes": round(kept["seconds"] / 60, 1),
        "seed": int(recipe["seed"]),
        "data": kept["data"],
        "export": made.report,
    }
    temporary = out / "unet-classic.json.tmp"
    temporary.write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    os.replace(temporary, out / "unet-classic.json")
    return about
