"""From PyTorch over pruning to int8, on a tiny net; and what the gates must refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.train, pytest.mark.timeout(600)]


def tiny_net():  # type: ignore[no-untyped-def]
    import torch

    from models.denoiser import BANDS, TIMES, DenoiserNet, Shape

    torch.set_num_threads(1)
    torch.manual_seed(4)
    shape = Shape(front=8, trunk=16, spectrum_width=8, head=16, shares=BANDS + TIMES, dilations=(1, 4))
    return DenoiserNet(shape).eval()


def noisy(seconds: float = 2.0, batch: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    n = int(seconds * 2000)
    t = np.arange(n) / 2000
    beat = np.sin(2 * np.pi * 50 * t) * np.exp(-((t % 0.8) / 0.05))
    return (beat + rng.uniform(0, 0.5, (batch, 1)) * rng.standard_normal((batch, n))).astype(np.float32)


def test_a_net_goes_the_whole_way_and_runs_in_the_device(tmp_path: Path) -> None:
    import torch

    from device.denoise.stream import denoise
    from device.inference.bundle import ModelEntry
    from device.inference.interpreter import Interpreter
    from models.denoiser import DenoiserNet, tables
    from training.denoise.apply import MaskLayer, denoise_whole, inputs_of
    from training.export.export import calibration_stream, export
    from training.export.prune import prune

    net, coefficients = tiny_net(), tables()
    examples = tuple(net.examples().values())
    prune(net, examples, 0.25, keep=[net.shares], renew=lambda: tuple(net.examples().values()))
    net = DenoiserNet.from_layout(layout := net.layout())
    assert layout["convolutions"]["blocks.0.mix"][:2] == [12, 12]
    with torch.no_grad():
        net.shares.weight.mul_(5.0)
        net.shares.bias.fill_(0.0)
    net.eval()
    sounds = noisy()
    calibration = calibration_stream(net, inputs_of(sounds, coefficients["window"]))
    states = [(f"state_{k:02d}", f"new_{k:02d}") for k in range(4)]
    made = export(net, net.examples(), net.output_names(), calibration, tmp_path, "denoiser", states=states)
    report = made.report
    assert max(report["float_error"].values()) < 1e-4
    assert min(report["int8_db"].values()) > 15
    assert "TRANSPOSE" not in report["operators"]["int8"]
    assert report["operators"]["int8"]["DEPTHWISE_CONV_2D"] == 2
    for pair in made.states:
        source, result = made.inputs[pair["input"]], made.outputs[pair["output"]]
        assert (source["scale"], source["zero_point"]) == (result["scale"], result["zero_point"])
    assert all(t.dtype == np.int8 for t in Interpreter(made.int8_tflite).inputs)
    meta = {
        "rate_hz": 2000,
        "hop": 16,
        "look_ahead": 32,
        "inputs": made.inputs,
        "outputs": made.outputs,
        "states": made.states,
    }
    entry = ModelEntry("denoiser", made.int8_tflite, meta, coefficients)
    want = denoise_whole(net, MaskLayer(coefficients), coefficients, sounds[1])
    found = denoise(entry, sounds[1])
    assert 10 * np.log10(np.sum(want**2) / np.sum((want - found) ** 2)) > 20


def test_int8_worse_than_the_limit_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from training.export.export import ExportRefused, Limits, export

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(5, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    calibration = {"x": np.random.default_rng(0).standard_normal((32, 5, 1, 8)).astype(np.float32)}
    with pytest.raises(ExportRefused, match=r"int8 output y is only .* dB above its error \(limit 90 dB\)"):
        export(
            net,
            {"x": torch.zeros(1, 5, 1, 8)},
            ["y"],
            calibration,
            tmp_path,
            "net",
            limits=Limits(int8_db=90),
        )
    assert not list(tmp_path.iterdir())


def test_a_float_file_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torch import nn

    from training.export import export as room

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(5, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    calibration = {"x": np.random.default_rng(0).standard_normal((16, 5, 1, 8)).astype(np.float32)}
    real = room._convert

    def broken(model: nn.Module, *rest: object) -> tuple[Path, Path]:
        files = real(model, *rest)  # type: ignore[arg-type]
        with torch.no_grad():
            next(model.parameters()).add_(0.01)  # as if the converter had lost something
        return files

    monkeypatch.setattr(room, "_convert", broken)
    with pytest.raises(room.ExportRefused, match="float output y is .* away from PyTorch"):
        room.export(net, {"x": torch.zeros(1, 5, 1, 8)}, ["y"], calibration, tmp_path, "net")
    assert not list(tmp_path.iterdir())


def test_calibration_of_another_shape_is_refused(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from training.export.export import ExportRefused, export

    with pytest.raises(ExportRefused, match="calibration of x has shape"):
        export(
            nn.Conv2d(5, 2, 1),
            {"x": torch.zeros(1, 5, 1, 8)},
            ["y"],
            {"x": np.zeros((4, 5, 1, 9), np.float32)},
            tmp_path,
            "net",
        )


def test_outputs_are_found_by_their_values() -> None:
    from training.export.export import ExportRefused, match_outputs

    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.standard_normal((4, 5))
    noisy_ones = [c, b + 0.01, a - 0.01]
    assert match_outputs([a, b, c], noisy_ones) == [2, 1, 0]
    with pytest.raises(ExportRefused, match="output 0"):
        match_outputs([np.zeros((4, 7))], [a])
