"""From a trained denoiser to the bundle's int8 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from device.denoise.stream import LOOK_AHEAD
from device.rates import HOP, WORKING_RATE_HZ
from training.data import recordings as data_room
from training.denoise.apply import MaskLayer, denoise_whole, inputs_of, load_net, tables_of
from training.denoise.int8 import equalise_head, for_int8, sounds_for_ranges
from training.denoise.validation import Validation
from training.export.fake_int8 import EVERY

__all__ = ["export_denoiser"]


def export_denoiser(
    recipe: dict[str, Any], source: Path, data: Path, cache: Path, out: Path
) -> dict[str, Any]:
    """Checkpoint → denoiser.tflite, .npz, .vectors.npz, .json in `out`, or ExportRefused. Returns the report.

    Gates beside those of training.export.export: the float file over 1000 streamed hops, and int8 against
    float on fold 1: at most `most_lost_db` of the improvement.
    """
    from device.denoise.stream import Denoiser as Stage
    from device.denoise.stream import denoise
    from device.inference.bundle import ModelEntry
    from training.export.export import ExportRefused, Limits, calibration_stream, export, streamed_error
    from training.export.part import write_part

    net, kept = load_net(source)
    recipe = kept["recipe"] | {"export": recipe.get("export", {})}
    gate = recipe["export"]
    coefficients = tables_of(recipe)
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
    removal = MaskLayer(coefficients)
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
    tables.
    """
    from device.dsp.level import hop_high_pass

    tables_used = sum(coefficients[k].size for k in ("analysis", "synthesis", "interpolation", "window"))
    fft = 128 * 7 * 2  # real FFT of 128 points, generously
    return int(tables_used + hop_high_pass().size + fft)
