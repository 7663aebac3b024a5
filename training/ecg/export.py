"""The ECG's streaming denoiser to int8, through its gates, as a part of a bundle.

stethopi export ecg-denoiser --out RUN
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise.front_end import analyse_lead
from device.errors import BadInput
from device.rates import ECG_RATE_HZ
from models.ecg import HOP, LOOK_AHEAD, EcgDenoiser, lead_tables
from training.core.recipe import merged, settings
from training.data.ecg import EcgMixSettings, Mixtures, NoiseTracks, Piece, ecg_hashes, load_pieces
from training.ecg.systems import Stream, load_system
from training.ecg.validation import EcgValidation
from training.export.export import Exported, ExportRefused, Limits, export
from training.export.part import write_part

__all__ = ["export_ecg"]


def _real_leads(of: Mapping[str, Any], data: Path, pieces: Sequence[Piece] | None = None) -> np.ndarray:
    """Forty-eight training mixtures of 16 s that no step ever sees, (48, 5760): for ranges and
    calibration."""
    mixed = settings(EcgMixSettings, merged(of["mix"], {"batch": 48, "samples": 640 * HOP}), "mix")
    mixer = Mixtures(
        pieces if pieces is not None else load_pieces(data, ("train",)),
        NoiseTracks(data, "train"),
        mixed,
        int(of["seed"]),
    )
    return mixer.batch(20_000_000)[1]


def _over_time(net: EcgDenoiser, block: nn.Module) -> list[Any]:
    """The convolutions over time before the 1x1 of a block: its own, and that of a second pass."""
    again = dict(zip(net.blocks, net.again, strict=False))
    return [block.time, *([again[block]] if block in again else [])]


def equalise_lead_net(made: Stream, leads: np.ndarray, power: float = 0.75) -> None:
    """Scale the channels that the dilated blocks hand on to like ranges, in place; the net computes the same.

    One int8 scale serves all channels of an activation, so a single loud one would coarsen the others. After
    Nagel et al. 2019, with ranges measured on real leads.
    """
    net = made.net
    assert isinstance(net, EcgDenoiser)
    heard: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        most = args[0].abs().amax((0, 2, 3))
        heard[module] = torch.maximum(heard[module], most) if module in heard else most

    fast, slow = list(net.fast), list(net.blocks)
    hooks = [b.mix.register_forward_pre_hook(note) for b in (*fast, *slow)]  # type: ignore[union-attr]
    try:
        with torch.no_grad():
            made.answer(leads)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        # the trunk's first input is heard by the head too (skip), so only what lies between blocks is scaled
        for blocks in (fast, slow):
            for maker, block in zip(blocks[:-1], blocks[1:], strict=True):
                most = heard[block.mix].clamp_min(1e-3)  # type: ignore[index]
                scale = ((most / most.median()) ** power).clamp(1 / 16, 16)
                maker.mix.weight.div_(scale[:, None, None, None])  # type: ignore[union-attr, operator]
                maker.mix.bias.div_(scale)  # type: ignore[union-attr, operator]
                for time_of in _over_time(net, block):
                    time_of.conv.bias.div_(scale)  # type: ignore[union-attr]
                block.mix.weight.mul_(scale[None, :, None, None])  # type: ignore[union-attr, operator]


def export_ecg(
    recipe: Mapping[str, Any],
    source: Path,
    data: Path,
    out: Path,
    *,
    pieces: Sequence[Piece] | None = None,
) -> dict[str, Any]:
    """Checkpoint → ecg.tflite, .npz, .vectors.npz, .json in `out`, or ExportRefused. Returns the report.

    Gates beside those of training.export.export: the float file over 600 streamed hops, and int8 against
    float on the dev part: at most `most_lost_db` of the improvement on mixed noise.
    """
    from device.denoise.stream import denoise
    from device.inference.bundle import ModelEntry
    from training.export.export import calibration_stream, streamed_error

    made, kept = load_system(source)
    if not isinstance(made, Stream):
        raise BadInput(f"{source}: not a network that streams; only --model ours goes into the bundle")
    net = made.net
    assert isinstance(net, EcgDenoiser)
    of = kept["of"]
    gate = recipe.get("export", {})
    leads = _real_leads(of, data, pieces)
    equalise_lead_net(made, leads, float(gate.get("equalise", 0.75)))
    wave = torch.from_numpy(analyse_lead(leads, HOP, ECG_RATE_HZ, made.front)[0])[:, :, None]
    states = [(f"state_{k:02d}", f"new_{k:02d}") for k in range(len(net.looking_back()))]
    exported: Exported = export(
        net,
        net.examples(),
        net.output_names(),
        calibration_stream(net, {"wave": wave}),
        out,
        "ecg",
        states=states,
        limits=Limits(int8_db=float(gate.get("least_db", 12.0))),
        seed=int(of["seed"]),
    )
    report = exported.report
    worst = streamed_error(exported, net, {"wave": wave[:1, ..., : 600 * HOP]})
    report["float_streamed_error"] = worst
    if not worst < 1e-3:
        raise ExportRefused(f"ecg: the float file is {worst:.2g} away from PyTorch after streaming 600 hops")
    coefficients = lead_tables()
    parameters, macs = made.parameters_and_macs()
    meta = {
        "rate_hz": ECG_RATE_HZ,
        "unit": "mV",
        "hop": HOP,
        "look_ahead": LOOK_AHEAD,
        "delay_ms": 1000 * (HOP + LOOK_AHEAD) / ECG_RATE_HZ,
        "front": made.front,
        "form": {"kind": "blend"},
        "inputs": exported.inputs,
        "outputs": exported.outputs,
        "states": exported.states,
        "parameters": parameters,
        "mac_per_s": round(macs),
        "kilobytes": round(exported.kilobytes, 1),
        "seed": of["seed"],
        "data": ecg_hashes(data),
        "layout": net.layout(),
        "recipe": of,
        "steps": kept["steps"],
        "minutes": round(kept["seconds"] / 60, 1),
    }
    entry = ModelEntry("ecg", exported.int8_tflite, meta, coefficients)
    validation = EcgValidation(data, int(of["seed"]))
    as_float, as_int8 = validation(made.whole), validation(lambda x: denoise(entry, x))
    report["dev_float"], report["dev_int8"] = as_float, as_int8
    lost = as_float["mixed plain"] - as_int8["mixed plain"]
    report["int8_loss_db"] = round(lost, 3)
    if not lost <= float(gate.get("most_lost_db", 0.3)):
        raise ExportRefused(
            f"ecg: int8 loses {lost:.2f} dB of {as_float['mixed plain']:.2f}; calibrate better"
        )
    meta["export"] = report
    vector = leads[0]
    write_part(out, "ecg", meta, arrays=coefficients, vectors={"x": vector, "y": denoise(entry, vector)})
    return report
