"""The ECG's networks: streaming equals whole, int8 equals the stream, a broken-off training goes on as it
would have."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.errors import BadInput
from device.inference.bundle import ModelEntry
from tests.training.ecg_folders import ecg_folder, lead
from tests.training.rewritten import rewrite

pytestmark = pytest.mark.train

TINY: dict[str, Any] = {
    "seed": 3,
    "mix": {"batch": 2, "samples": 1440},
    "train": {"steps": 4, "validate_every": 4, "validate_on": 7, "optimizer": "muon"},
    "ours": {"net": {"front": 8, "trunk": 16, "head": 16, "fast": [1], "dilations": [1, 4], "again": [2]}},
    "autoencoder": {"net": {"channels": [4, 4, 4, 4]}, "mix": {"samples": 512}, "loss": {"kind": "mse"}},
    "diffusion": {
        "net": {"width": 8, "dilations": [1, 2], "steps": 2, "among": [0]},
        "mix": {"samples": 1440},
    },
    "export": {"least_db": -50.0, "most_lost_db": 50.0},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ecg_folder(tmp_path_factory.mktemp("ecg"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with ours trained for four steps and exported."""
    from training.ecg.export import export_ecg
    from training.ecg.systems import checkpoint_path
    from training.ecg.train import train_ecg

    out = tmp_path_factory.mktemp("run")
    train_ecg(TINY, "ours", data, out)
    export_ecg(TINY, checkpoint_path(out, "ours"), data, out / "ecg")
    return out


@pytest.fixture(scope="module")
def entry(run: Path) -> ModelEntry:
    folder = run / "ecg"
    with np.load(folder / "ecg.npz") as arrays:
        kept = dict(arrays)
    return ModelEntry("ecg", folder / "ecg.tflite", json.loads((folder / "ecg.json").read_text()), kept)


def test_the_released_recipe_keeps_the_budget() -> None:
    from models.ecg import ECG_RATE_HZ, HOP, LOOK_AHEAD
    from training.core.recipe import read, shipped
    from training.ecg.systems import system, tables_of_model

    parameters, macs = system(tables_of_model(read(shipped("ecg")), "ours")).parameters_and_macs()
    assert parameters <= 70_000
    assert macs <= 10e6
    assert 1000 * (HOP + LOOK_AHEAD) / ECG_RATE_HZ <= 150


def test_streaming_equals_whole() -> None:
    import torch

    from models.ecg import HOP, EcgDenoiser, EcgShape

    torch.manual_seed(1)
    net = EcgDenoiser(EcgShape(front=8, trunk=12, head=10, fast=(1, 2), dilations=(1, 3), again=(4,))).eval()
    wave = torch.randn(1, 3, 1, 40 * HOP)
    with torch.no_grad():
        whole = net(wave, *net.initial_states())[:3]
        states, found = net.initial_states(), []
        for t in range(40):
            (*answers,) = net(wave[..., t * HOP : (t + 1) * HOP], *states)
            states = tuple(answers[3:])
            found.append(answers[:3])
    for k, want in enumerate(whole):
        assert float((torch.cat([f[k] for f in found], -1) - want).abs().max()) < 1e-5


def test_the_front_end_hears_the_same_hop_by_hop() -> None:
    from device.denoise.front_end import LeadFrontEnd, analyse_lead
    from models.ecg import ECG_RATE_HZ, HOP
    from training.ecg.systems import DEFAULT_FRONT

    x = (lead(np.random.default_rng(2), 8)[0] + 1.7).astype(np.float32)[: 300 * HOP]
    wave, passed, level = analyse_lead(x[None], HOP, ECG_RATE_HZ, DEFAULT_FRONT)
    stage = LeadFrontEnd(HOP, ECG_RATE_HZ, DEFAULT_FRONT)
    for t in range(len(x) // HOP):
        here = slice(t * HOP, (t + 1) * HOP)
        heard = stage.process(x[None, here])
        assert np.allclose(heard.inputs[0][0, 0, 0].T, wave[0, :, here], atol=1e-4)
        assert np.allclose(heard.passed[0], passed[0, here], atol=1e-4)
        assert heard.levels[0] == pytest.approx(float(level[0, t]), rel=1e-3)
    assert float(np.abs(passed[0, :9]).max()) < 0.1  # an electrode's offset is no step


X = lead(np.random.default_rng(4), 6.0)[0].astype(np.float32)[:2003]


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 300), max_size=15))
def test_any_chopping_gives_the_same_bits(entry: ModelEntry, sizes: list[int]) -> None:
    from device.denoise.stream import Denoiser, denoise

    stage, parts, at = Denoiser(entry), [], 0
    for size in sizes:
        parts.append(stage.process(X[at : at + size]))
        at += size
    parts += [stage.process(X[at:]), stage.flush()]
    assert np.array_equal(np.concatenate(parts), denoise(entry, X))


def test_the_stream_computes_what_was_trained(run: Path, entry: ModelEntry) -> None:
    from device.denoise.stream import Denoiser, denoise
    from training.ecg.systems import checkpoint_path, load_system

    made, _ = load_system(checkpoint_path(run, "ours"))
    want, found = made.whole(X), denoise(entry, X)
    assert len(found) == len(X)
    error = float(np.sum((found - want) ** 2) / np.sum(want**2))
    assert error < 0.02
    stage = Denoiser(entry)
    assert stage.rate_hz == 360
    assert stage.delay_s == pytest.approx(0.150)
    assert np.allclose(denoise(entry, X, 0.0), X)
    # neither an offset nor the amplitude matters
    moved = denoise(entry, 3 * X + np.float32(2.5))
    assert float(np.sum((moved / 3 - found) ** 2) / np.sum(found**2)) < 0.02


def test_samples_that_are_not_known_hold_the_one_before(entry: ModelEntry) -> None:
    from device.denoise.stream import denoise

    holed, held = X.copy(), X.copy()
    holed[700:820] = np.nan
    held[700:820] = X[699]
    assert np.array_equal(denoise(entry, holed), denoise(entry, held))
    nothing = denoise(entry, np.full(500, np.nan, dtype=np.float32))
    assert np.isfinite(nothing).all()
    flat = denoise(entry, np.full(900, 0.8, dtype=np.float32))
    assert float(np.abs(flat).max()) < 1e-5  # a flat line stays one


def test_state_can_be_taken_out_and_put_into_another(entry: ModelEntry) -> None:
    from device.denoise.stream import Denoiser

    first, second = Denoiser(entry), Denoiser(entry)
    first.process(X[:777])
    kept = first.snapshot()
    rest = np.concatenate([first.process(X[777:]), first.flush()])
    second.process(X[:300])
    second.restore(kept)
    assert np.array_equal(np.concatenate([second.process(X[777:]), second.flush()]), rest)


@pytest.mark.parametrize("model", ["ours", "autoencoder"])
def test_a_broken_off_training_goes_on_as_it_would_have(data: Path, tmp_path: Path, model: str) -> None:
    import torch

    from training.data.ecg import Mixtures
    from training.ecg.systems import checkpoint_path
    from training.ecg.train import train_ecg

    whole = torch.load(train_ecg(TINY, model, data, tmp_path / "a"), weights_only=True)
    path = checkpoint_path(tmp_path / "b", model)
    draw = Mixtures.batch

    def ctrl_c_in_the_second(self: Mixtures, step: int) -> Any:
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mixtures, "batch", ctrl_c_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train_ecg(TINY, model, data, tmp_path / "b")
    assert torch.load(path, weights_only=True)["step"] == 2
    train_ecg(TINY, model, data, tmp_path / "b", resume=True)
    again = torch.load(path, weights_only=True)
    assert again["step"] == whole["step"] == 4
    for name, value in whole["average"].items():
        assert torch.equal(value, again["average"][name]), name


def test_the_refiner_starts_from_ours(run: Path, data: Path, tmp_path: Path) -> None:
    import torch

    from training.ecg.systems import load_system
    from training.ecg.train import train_ecg

    with pytest.raises(BadInput, match="stethopi train ecg-denoiser --model ours"):
        train_ecg(TINY, "diffusion", data, tmp_path)
    path = train_ecg(TINY, "diffusion", data, run)
    made, kept = load_system(path)
    ours, _ = load_system(run / "ecg-ours.pt")
    for name, value in ours.net.state_dict().items():
        assert torch.equal(value, kept["average"][f"first.{name}"])
    out = made.whole(X)
    assert out.shape == X.shape
    assert np.isfinite(out).all()
    assert np.allclose(made.whole(-X), -out, atol=1e-5)  # heard in both polarities


def test_what_a_recipe_gets_wrong_is_named(data: Path, tmp_path: Path) -> None:
    from training.ecg.export import export_ecg
    from training.ecg.train import train_ecg

    with pytest.raises(BadInput, match=r"nobody: no such model; there are ours, autoencoder"):
        train_ecg(TINY, "nobody", data, tmp_path)
    with pytest.raises(BadInput, match=r"\[mix\] bach: no such key"):
        train_ecg({**TINY, "mix": {"bach": 3}}, "ours", data, tmp_path)
    path = train_ecg(TINY, "autoencoder", data, tmp_path)
    with pytest.raises(BadInput, match="only --model ours goes into the bundle"):
        export_ecg(TINY, path, data, tmp_path / "ecg")


def test_benchmark_writes_figures_and_goes_on_where_it_was(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.benchmarks import ecg as benchmark
    from training.benchmarks.ecg import benchmark_ecg
    from training.reports.ecg import ecg_tables

    said: list[str] = []
    found = benchmark_ecg(
        data, tmp_path, checkpoints=run, results=tmp_path / "results", limit=1, say=said.append
    )
    assert json.loads((tmp_path / "results" / "ecg.json").read_text()) == found
    nothing = found["rows"]["nothing"]
    assert nothing["kinds"]["mixed"]["plain"]["value"] == 0.0
    assert nothing["clean_in"]["st_shift_mv"]["value"] == 0.0
    assert found["rows"]["float"]["parameters"] > 0
    kept = sorted((tmp_path / "ecg-benchmark").iterdir())
    times = [p.stat().st_mtime_ns for p in kept]
    again = benchmark_ecg(
        data, tmp_path, checkpoints=run, results=tmp_path / "results", limit=1, say=said.append
    )
    assert again["rows"] == found["rows"]
    assert [p.stat().st_mtime_ns for p in sorted((tmp_path / "ecg-benchmark").iterdir())] == times
    # a rename costs nothing; systems that compute otherwise are measured anew, and they alone
    rewrite(monkeypatch, tmp_path)
    benchmark_ecg(data, tmp_path, checkpoints=run, results=tmp_path / "results", limit=1, say=said.append)
    assert sorted((tmp_path / "ecg-benchmark").iterdir()) == kept
    monkeypatch.setattr(benchmark, "SYSTEMS_VERSION", benchmark.SYSTEMS_VERSION + 1)
    benchmark_ecg(data, tmp_path, checkpoints=run, results=tmp_path / "results", limit=1, say=said.append)
    systems = [name for name in found["rows"] if "steps" in found["rows"][name]]
    assert len(list((tmp_path / "ecg-benchmark").iterdir())) == len(kept) + len(systems)
    assert "ours, float" in ecg_tables(found)["ecg"]
