"""Pictures of the ECG's trainings, by program: loss curves, and before and after in time and frequency.

python -m training.reports.ecg_plots --out runs --to docs   → docs/ecg-curves.png, docs/ecg-before-after.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device.errors import BadInput, StethopiError
from training.core.results import write_json

__all__ = ["before_after", "draw_ecg_training", "main", "write_trials"]


def _trained(out: Path, models: Sequence[str] | None = None) -> dict[str, tuple[Any, dict[str, Any]]]:
    from training.ecg.systems import ECG_MODELS, checkpoint_path, load_system

    found = {}
    for name in models or ECG_MODELS:
        path = checkpoint_path(out, name)
        if path.is_file() or models:
            found[name] = load_system(path)
    if not found:
        raise BadInput(f"{out}: no trained ECG network; run: stethopi train ecg-denoiser --out {out}")
    return found


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")


def draw_ecg_training(out: Path, to: Path, models: Sequence[str] | None = None) -> Path:
    """Loss over steps, and what it brought on the dev part, of every network trained in `out`."""
    figure, axes = _figure(1, 2, 11, 4)
    for name, (_, kept) in _trained(out, models).items():
        steps, losses = np.array(kept["curve"]).T
        kind = kept["of"]["loss"].get("kind", "db")
        # losses of both kinds in one picture: each from 1 at its start to 0 at its end
        span = max(losses.max() - losses.min(), 1e-9)
        axes[0, 0].plot(steps / kept["steps"], (losses - losses.min()) / span, label=f"{name} ({kind})", lw=1)
        at = [s for s, _ in kept["validations"]]
        axes[0, 1].plot(at, [v["mixed plain"] for _, v in kept["validations"]], "o-", label=name, lw=1, ms=3)
    axes[0, 0].set(xlabel="share of the steps", ylabel="loss, from its highest to its lowest")
    axes[0, 1].set(xlabel="step", ylabel="dev, mixed noise: dB plain")
    for ax in axes[0]:
        ax.legend(fontsize=7)
        ax.grid(alpha=0.3)
    figure.savefig(to, dpi=110)
    return to


def before_after(out: Path, data: Path, to: Path, models: Sequence[str] | None = None) -> Path:
    """A dev lead with mixed noise at 0 dB: before and after each network, in time and in frequency."""
    from PIL import Image
    from scipy import signal

    from device.rates import ECG_RATE_HZ
    from training.ecg.validation import LEAD_IN_S, EcgValidation

    trained = _trained(out, models)
    validation = EcgValidation(data, 1)
    mixed = [item for k, item in enumerate(validation.items) if item[0] == "mixed" and k % 4 == 1]
    _, clean, noisy = mixed[0]
    where = slice(LEAD_IN_S * ECG_RATE_HZ, (LEAD_IN_S + 5) * ECG_RATE_HZ)
    rows = {"noisy": noisy, **{name: made.whole(noisy) for name, (made, _) in trained.items()}}
    figure, axes = _figure(len(rows), 2, 12, 1.6 * len(rows) + 0.6)
    t = np.arange(where.stop - where.start) / ECG_RATE_HZ
    for (name, y), (left, right) in zip(rows.items(), axes, strict=True):
        left.plot(t, y[where], lw=0.8, label=name)
        left.plot(t, clean[where], lw=0.8, alpha=0.7, label="clean")
        left.set(ylabel="mV")
        for x in (y, clean):
            f, p = signal.welch(x[LEAD_IN_S * ECG_RATE_HZ :], ECG_RATE_HZ, nperseg=1024)
            right.semilogx(f[1:], 10 * np.log10(p[1:] + 1e-12), lw=0.8)
        right.set(ylabel="dB mV²/Hz", ylim=(-90, 10))
        left.legend(fontsize=7, loc="upper right")
    axes[-1, 0].set(xlabel="s")
    axes[-1, 1].set(xlabel="Hz")
    figure.savefig(to, dpi=90)
    with Image.open(to) as drawn:
        few = drawn.convert("RGB").quantize(64)
    few.save(to, optimize=True)
    return to


def write_trials(folder: Path, to: Path) -> Path:
    """What trainings in the subfolders of `folder` had shown when the dev part was last asked, by the
    subfolder's name, as JSON."""
    from training.ecg.systems import load_system

    rows = []
    for path in sorted(folder.glob("*/ecg-*.pt")):
        made, kept = load_system(path)
        parameters, macs = made.parameters_and_macs()
        rows.append(
            {
                "name": path.parent.name,
                "parameters": parameters,
                "mac_per_s": round(macs),
                "steps": kept["validations"][-1][0],
                "net": kept["of"]["net"],
                "dev": kept["validations"][-1][1],
            }
        )
    if not rows:
        raise BadInput(f"{folder}: no folder with an ecg-….pt in it; run: stethopi train ecg-denoiser")
    content = {"what": "short trials of the ECG's network; dev decides", "rows": rows}
    write_json(to, content)
    return to


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.reports.ecg_plots", description="Loss curves; before and after."
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs"), help="run folder with the checkpoints")
    parser.add_argument("--to", type=Path, default=Path("docs"), help="folder for the pictures")
    parser.add_argument("--model", nargs="*", help="only these networks")
    parser.add_argument("--trials", type=Path, metavar="DIR", help="write docs/results/ecg-trials.json")
    options = parser.parse_args(argv)
    try:
        if options.trials:
            print(write_trials(options.trials, options.to / "results" / "ecg-trials.json"))
            return 0
        options.to.mkdir(parents=True, exist_ok=True)
        print(draw_ecg_training(options.out, options.to / "ecg-curves.png", options.model))
        print(before_after(options.out, options.data, options.to / "ecg-before-after.png", options.model))
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
