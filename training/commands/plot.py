"""`stethopi plot`: pictures of the comparison, and of what a network heard."""

from __future__ import annotations

import argparse
from pathlib import Path

from device.errors import BadInput
from training.commands.common import common_options, guarded, say

__all__ = ["add"]


def _today(word: str) -> str:
    """What was `looked` up to 0.3.0 is still understood."""
    return "saliency" if word == "looked" else word


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plot = commands.add_parser(
        "plot",
        help="draw what the benchmark of screening models found, or where a model looked",
        description="classify: training curves, ROC, confusion and reliability of the models that were"
        " compared, as PNG. saliency: what a model heard of a recording, and where it looked. positions: how"
        " sure the bundle is of a murmur at each position of a CirCor patient.",
        epilog="example: stethopi plot saliency --model melcnn-attention --recording 68379_MV",
    )
    plot.add_argument("what", type=_today, choices=("classify", "saliency", "positions"))
    plot.add_argument("--model", nargs="+", metavar="NAME", help="these models (default: all)")
    plot.add_argument(
        "--recording",
        metavar="NAME",
        help="saliency: a recording below DATA, or a sound file; positions: a patient's number",
    )
    plot.add_argument("--checkpoint", metavar="FILE", help="saliency: default what train has left in runs")
    plot.add_argument("--results", metavar="DIR", help="where classify.json lies (default: docs/results)")
    common_options(
        plot, out=None, holds="folder of the pictures, or the picture (default: plots, saliency.png)"
    )
    plot.set_defaults(func=guarded(_plot))


def _plot(options: argparse.Namespace) -> int:
    from training.core.provenance import RESULTS
    from training.reports import plots

    data, cache = Path(options.data), Path(options.cache).expanduser()
    if options.what == "classify":
        out = Path(options.out or "plots")
        results = Path(options.results) if options.results else RESULTS
        for path in plots.draw_comparison(data, cache, results, out, options.model or (), say):
            say(f"written: {path}")
        return 0
    if options.what == "positions":
        if not options.recording:
            raise BadInput("plot positions: whose? give --recording PATIENT, a number of CirCor's")
        plots.draw_positions(data, options.recording, Path(options.out or "positions.png"), say=say)
        return 0
    if not options.recording or len(options.model or ()) != 1:
        raise BadInput("plot saliency: which one? give --recording NAME and one --model NAME")
    (model,) = options.model
    usual = "runs/classifier-full.pt" if model == "ours" else f"runs/baselines/{model}-fold0/{model}.pt"
    checkpoint = Path(options.checkpoint or usual)
    out = Path(options.out or "saliency.png")
    plots.draw_saliency(data, cache, checkpoint, model, options.recording, out, say)
    return 0
