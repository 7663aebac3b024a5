"""The networks that ours is measured against: their published sizes, any length, training that can go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.train


def test_sizes_are_those_published() -> None:
    import torch

    from models.lu_net import LUNet
    from models.unet_classic import UNetClassic
    from training.denoise.baselines import mac_per_s

    torch.manual_seed(0)
    classic, lu = UNetClassic(), LUNet()
    assert sum(p.numel() for p in classic.parameters()) == 19_425
    assert round(mac_per_s("unet-classic", classic) / 1e6) == 205
    assert round(sum(p.numel() for p in lu.parameters()) / 1e6, 2) == 1.32


@pytest.mark.parametrize("length", [4, 5, 6, 7, 101, 110, 1023])
def test_the_classic_net_answers_with_as_many_samples(length: int) -> None:
    import torch

    from models.unet_classic import MatchLength, UNetClassic

    net = UNetClassic((2, 3, 4))
    assert net(torch.randn(2, 1, 1, length)).shape == (2, 1, 1, length)
    match = MatchLength()
    assert match(torch.ones(1, 1, 1, 5), torch.ones(1, 2, 1, 7)).sum() == 5
    assert match(torch.ones(1, 1, 1, 5), torch.ones(1, 2, 1, 3)).shape[-1] == 3


def test_what_a_sample_hears_of_the_classic_net_is_about_a_millisecond() -> None:
    import torch

    from device.denoise.baseline import CLASSIC_RATE_HZ
    from models.unet_classic import UNetClassic

    torch.manual_seed(1)
    net = UNetClassic()
    x = torch.randn(1, 1, 1, 401, requires_grad=True)
    net(x)[0, 0, 0, 200].backward()
    heard = np.flatnonzero(x.grad[0, 0, 0].numpy())
    assert 0.5 < 1000 * (heard[-1] - heard[0] + 1) / CLASSIC_RATE_HZ < 1.5


def test_the_lu_net_looks_ahead() -> None:
    import torch

    from models.lu_net import LUNet

    torch.manual_seed(1)
    net = LUNet((2, 4, 4))
    x = torch.randn(1, 1, 200)
    later = x.clone()
    later[..., 150:] += 1
    assert not torch.allclose(net(x)[..., :100], net(later)[..., :100])
    assert net(x).shape == x.shape


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Training on drawn hearts in place of the data."""
    from training.data import mixing
    from training.data.mixing import NoisePool, Reference, drawn_heart
    from training.denoise import baselines

    refs = []
    for k in range(3):
        x, spans = drawn_heart(np.random.default_rng(k), 14_000)
        refs.append(Reference(f"r{k}", "a", f"g{k}", False, x, tuple(spans)))
    monkeypatch.setattr(baselines, "references", lambda *_a, **_k: refs)
    monkeypatch.setattr(mixing.NoisePool, "load", classmethod(lambda _cls, *_a, **_k: NoisePool({})))
    monkeypatch.setattr(baselines.data_room, "data_hashes", lambda _data: {})

    class Nothing:
        def __init__(self, *_a: Any) -> None: ...

        def __call__(self, clean_up: Any) -> dict[str, float]:
            clean_up(refs[0].sound[:3000])
            return {"all plain": 0.0, "all beyond": 0.0}

    monkeypatch.setattr(baselines, "Validation", Nothing)
    return {"seed": 3, "mix": {"batch": 2, "samples": 2000}, "train": {"rate": 1e-3, "keep_every": 2}}


def test_training_that_was_broken_off_ends_the_same(tmp_path: Path, small: dict[str, Any]) -> None:
    import torch

    from training.denoise.baselines import load_baseline, train_baseline

    recipe = {**small, "net": {"widths": [2, 4, 4]}}
    recipe["train"] = recipe["train"] | {"steps": 4, "warm_up": 1}
    one, two = tmp_path / "one", tmp_path / "two"
    train_baseline("lu-net", recipe, tmp_path, one, tmp_path)
    real, calls = torch.optim.Adam.step, []

    def stops(self: Any, *a: Any, **k: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, *a, **k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", stops)
        with pytest.raises(KeyboardInterrupt):
            train_baseline("lu-net", recipe, tmp_path, two, tmp_path)
    train_baseline("lu-net", recipe, tmp_path, two, tmp_path, resume=True)
    (a, _), (b, kept) = (load_baseline(p / "lu-net.pt") for p in (one, two))
    assert kept["step"] == 4
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y)


def test_windows_too_long_for_the_mixtures_are_told(tmp_path: Path, small: dict[str, Any]) -> None:
    from device.errors import BadInput
    from training.denoise.baselines import load_baseline, train_baseline

    with pytest.raises(BadInput, match=r"\[mix\] samples = 2000: too few for a window of 5 s; set 10000"):
        train_baseline("unet-classic", small, tmp_path, tmp_path, tmp_path)
    with pytest.raises(BadInput, match="no such network; there are unet-classic, lu-net"):
        train_baseline("unet", small, tmp_path, tmp_path, tmp_path)
    with pytest.raises(BadInput, match="stethopi train denoiser --model lu-net"):
        load_baseline(tmp_path / "lu-net.pt")


def test_the_classic_net_becomes_int8_tflite_of_its_window(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    import torch

    from device.denoise.baseline import WindowedFile, in_windows
    from training.denoise import baselines

    # the same graph with a window that is quick to convert; odd halves, so that lengths must be matched
    short = dataclasses.replace(baselines.DENOISING_BASELINES["unet-classic"], window=1106, overlap=110)
    monkeypatch.setitem(baselines.DENOISING_BASELINES, "unet-classic", short)
    recipe = {**small, "net": {"widths": [4, 6, 8]}, "export": {"windows": 8, "least_db": 10.0}}
    recipe["train"] = recipe["train"] | {"steps": 2, "warm_up": 1}
    path = baselines.train_baseline("unet-classic", recipe, tmp_path, tmp_path, tmp_path)
    about = baselines.export_classic(recipe, path, tmp_path, tmp_path, tmp_path / "out")
    assert about["export"]["operators"]["int8"].get("TRANSPOSE", 0) == 0
    net, _ = baselines.load_baseline(path)
    x = np.sin(np.arange(1106) / 20).astype(np.float32)
    with torch.no_grad():
        want = net(short.shaped(x[None])).numpy().reshape(-1)
    found = WindowedFile(tmp_path / "out" / "unet-classic.tflite", window=1106)
    got = in_windows(found._run, x, 1106, 110)
    assert np.mean((want - got) ** 2) < 0.05 * np.mean(want**2)


def test_the_commands_say_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training import cli

    assert cli.main(["train", "denoiser", "--model", "resnet", "--out", str(tmp_path)]) == 2
    assert "there are unet-classic, lu-net" in capsys.readouterr().err
    assert cli.main(["export", "denoiser", "--model", "lu-net", "--out", str(tmp_path)]) == 2
    assert "is not exported" in capsys.readouterr().err
