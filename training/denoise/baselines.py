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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise.baseline import CLASSIC_RATE_HZ, CLASSIC_WINDOW, denoise_windowed
from device.dsp.resample import resample
from device.errors import BadInput, StethopiError
from device.rates import WORKING_RATE_HZ
from models import lu_net, unet_classic
from training.core import checkpoint, loop
from training.core.recipe import known_keys, settings
from training.core.results import write_json
from training.core.schedules import warm_cosine
from training.data import recordings as data_room
from training.data.mixing import Mixer, MixSettings, NoisePool, references
from training.denoise.apply import HELD_BACK
from training.denoise.train import said
from training.denoise.validation import Validation

__all__ = [
    "DENOISING_BASELINES",
    "DenoisingBaseline",
    "export_classic",
    "load_baseline",
    "mac_per_s",
    "baseline_denoiser",
    "train_baseline",
]


@dataclass(frozen=True)
class DenoisingBaseline:
    """How a baseline hears: rate, length of its windows, how far they overlap in use; and its loss."""

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


DENOISING_BASELINES = {
    "unet-classic": DenoisingBaseline(
        unet_classic.UNetClassic,
        CLASSIC_RATE_HZ,
        CLASSIC_WINDOW,
        CLASSIC_WINDOW // 10,
        nn.functional.l1_loss,
        True,
    ),
    "lu-net": DenoisingBaseline(
        lu_net.LUNet,
        lu_net.LU_NET_RATE_HZ,
        lu_net.LU_NET_WINDOW,
        lu_net.LU_NET_WINDOW // 2,
        nn.functional.mse_loss,
        False,
    ),
}


def _named(name: str) -> DenoisingBaseline:
    try:
        return DENOISING_BASELINES[name]
    except KeyError:
        raise BadInput(
            f"--model {name}: no such network; there are {', '.join(DENOISING_BASELINES)}"
        ) from None


def _make(name: str, recipe: dict[str, Any]) -> nn.Module:
    widths = recipe.get("net", {}).get("widths")
    baseline = _named(name)
    return baseline.make(tuple(widths)) if widths else baseline.make()


def windows_of(
    baseline: DenoisingBaseline, clean: np.ndarray, noisy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures (B, n) at the working rate → windows (k, window) at its own, each noisy one at peak 1."""
    pairs = []
    for c, x in zip(clean, noisy, strict=True):
        at_rate = [resample(v, WORKING_RATE_HZ, baseline.rate_hz) for v in (c, x)]
        for start in range(0, len(at_rate[0]) - baseline.window + 1, baseline.window):
            pairs.append([v[start : start + baseline.window] for v in at_rate])
    if not pairs:
        raise BadInput(f"recipe: [mix] samples: too few for a window of {baseline.window_s:g} s")
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
    """Train the baseline of that name and write out/<name>.pt; returns its path. Prints the loss."""
    baseline = _named(name)
    seed = int(recipe["seed"])
    loop.repeatable()
    torch.manual_seed(seed)
    mixed = settings(MixSettings, recipe["mix"], "mix")
    if mixed.samples < baseline.window_s * WORKING_RATE_HZ:
        raise BadInput(
            f"recipe: [mix] samples = {mixed.samples}: too few for a window of {baseline.window_s:g} s;"
            f" set {round(baseline.window_s * WORKING_RATE_HZ)} or more"
        )
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    mixer = Mixer(refs, NoisePool.load(data, "train", free_only=True, every=HELD_BACK), mixed, seed)
    net = _make(name, recipe)
    table = recipe["train"]
    known_keys(table, ("steps", "rate", "warm_up", "keep_every", "bfloat16"), "train")
    steps, rate = int(table["steps"]), float(table["rate"])
    half = bool(table.get("bfloat16", False))

    def loss_of(batch: tuple[np.ndarray, np.ndarray], step: int) -> torch.Tensor:
        clean, noisy = windows_of(baseline, *batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = net(baseline.shaped(noisy))
        return baseline.loss(y.float(), baseline.shaped(clean))

    def validate(weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return Validation(data, cache, seed)(baseline_denoiser(name, net.eval()))

    def more(progress: loop.Progress) -> dict[str, Any]:
        last = {"validation": progress.validation} if progress.validations else {}
        return {"name": name, "recipe": recipe, "data": data_room.data_hashes(data), **last}

    said(f"{name}: {len(refs)} references; {sum(p.numel() for p in net.parameters()):,} parameters")
    path = out / f"{name}.pt"
    loop.learn(
        net,
        mixer.batch,
        loss_of,
        torch.optim.Adam(net.parameters(), lr=rate),
        warm_cosine(rate, int(table.get("warm_up", 50)), steps),
        loop.TrainingPlan(
            steps, seed, every=int(table.get("keep_every", 100)), first_draw=20_000_000, clip=3.0
        ),
        checkpoint=loop.Checkpoint(path, _because(name, recipe), resume, more),
        validate=validate,
        describe=lambda found: (
            f"fold 1: {found['all plain']:+.2f} plain, {found['all beyond']:+.2f} beyond volume"
        ),
        files=lambda: mixer.drawn,
        name=name,
        say=said,
    )
    return path


def load_baseline(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained net, ready to run, and what its checkpoint holds. BadInput when it is missing or none."""
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint; run: stethopi train denoiser --model {path.stem}")
    try:
        kept: dict[str, Any] = checkpoint.load(path)
        net = _make(kept["name"], kept["recipe"])
        net.load_state_dict(kept["net"])
    except (KeyError, RuntimeError, EOFError, TypeError) as problem:
        raise StethopiError(f"{path}: no checkpoint of a baseline ({problem}); train it again") from None
    return net.eval(), kept


def baseline_denoiser(name: str, net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Working-rate sound (n,), any n → the same, cleaned by the float net."""
    baseline = _named(name)

    def run(windows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(baseline.shaped(windows)).numpy().reshape(windows.shape)

    return lambda x: denoise_windowed(run, x, baseline.rate_hz, baseline.window, baseline.overlap)


def mac_per_s(name: str, net: nn.Module) -> int:
    """Multiply-accumulates of one second's windows without overlap, LSTMs included."""
    from training.export.export import count_macs

    baseline = _named(name)
    window = baseline.shaped(np.zeros((1, baseline.window), dtype=np.float32))
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
    return round(total / baseline.window_s)


def export_classic(
    recipe: dict[str, Any], source: Path, data: Path, cache: Path, out: Path
) -> dict[str, Any]:
    """The trained classic U-Net → unet-classic.tflite (int8), .float.tflite and .json in `out`; the report.

    Calibrated on mixtures of the training folds. ExportRefused when a file does not compute what the net
    does.
    """
    from training.export.export import Limits, export

    net, kept = load_baseline(source)
    baseline = DENOISING_BASELINES["unet-classic"]
    recipe = kept["recipe"] | {"export": recipe.get("export", {})}
    table = recipe["export"]
    mixed = settings(MixSettings, recipe["mix"], "mix")
    refs = references(data, cache, (2, 3, 4), **recipe.get("references", {}))
    pool = NoisePool.load(data, "train", free_only=True, every=HELD_BACK)
    mixer = Mixer(refs, pool, mixed, int(recipe["seed"]))
    windows: list[np.ndarray] = []
    wanted = int(table.get("windows", 32))
    while len(windows) < wanted:
        windows += list(windows_of(baseline, *mixer.batch(30_000_000 + len(windows)))[1])
    calibration = baseline.shaped(np.stack(windows[:wanted])).numpy()
    made = export(
        net,
        {"x": torch.zeros(1, 1, 1, baseline.window)},
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
        "rate_hz": baseline.rate_hz,
        "window": baseline.window,
        "parameters": made.report["parameters"],
        "mac_per_s": mac_per_s("unet-classic", net),
        "kilobytes": round(made.kilobytes, 1),
        "steps": kept["step"],
        "minutes": round(kept["seconds"] / 60, 1),
        "seed": int(recipe["seed"]),
        "data": kept["data"],
        "export": made.report,
    }
    write_json(out / "unet-classic.json", about)
    return about
