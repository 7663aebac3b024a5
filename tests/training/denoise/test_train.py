"""Training of the denoiser: a checkpoint is gone on with only under the recipe that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from device.errors import BadInput

pytestmark = pytest.mark.train


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from training.core.checkpoint import of_recipe
    from training.core.recipe import read
    from training.denoise.__main__ import RECIPE
    from training.denoise.train import cause_of

    recipe = read(RECIPE)
    because = cause_of(recipe, recipe["train"])
    path = tmp_path / "denoiser-full.pt"
    assert of_recipe(path, because, print) is None
    torch.save({"step": 7, "because": because}, path)
    kept = of_recipe(path, because, print)
    assert kept is not None
    assert kept["step"] == 7
    recipe["mix"]["clean"] = 0.5
    assert of_recipe(path, cause_of(recipe, recipe["train"]), print) is None
    assert "of another recipe" in capsys.readouterr().out


def test_a_wrong_key_in_a_recipe_is_named() -> None:
    from training.core.recipe import read
    from training.denoise.__main__ import RECIPE
    from training.denoise.apply import shape_of

    recipe = read(RECIPE)
    recipe["net"]["trunc"] = 3
    with pytest.raises(BadInput, match=r"\[net\] trunc"):
        shape_of(recipe)


def test_a_wrong_key_of_a_round_is_named_before_anything_is_read(tmp_path: Path) -> None:
    from training.core.recipe import read
    from training.denoise.__main__ import RECIPE
    from training.denoise.train import train_denoiser

    recipe = read(RECIPE)
    recipe["train"]["warmup"] = 3
    with pytest.raises(BadInput, match=r'denoiser.toml: \[train\] warmup: no such key. .* "warm_up"'):
        train_denoiser(recipe, tmp_path, tmp_path, tmp_path)


def test_a_missing_checkpoint_is_one_line(tmp_path: Path) -> None:
    from training.denoise.apply import load_net

    with pytest.raises(BadInput, match="stethopi train denoiser"):
        load_net(tmp_path / "denoiser-full.pt")


def test_an_unknown_weight_of_the_loss_is_named() -> None:
    from training.denoise.loss import Loss

    with pytest.raises(BadInput, match=r"\[loss\] identitty: no such key"):
        Loss(1024, {"identitty": 1.0})


def test_identity_counts_what_a_clean_sound_loses_where_it_is_faint() -> None:
    """The other terms are capped far above a quiet diastole; identity is not, and judges clean input only."""
    import torch

    from training.denoise.loss import Loss

    generator = torch.Generator().manual_seed(1)
    loud = torch.randn(2, 4096, generator=generator)
    loud[:, 2048:] *= 1e-2
    thinned = loud.clone()
    thinned[:, 2048:] *= 0.5
    plain, strict = Loss(4096, {"cap_db": 25.0}), Loss(4096, {"cap_db": 25.0, "identity": 2.0})
    quiet, noisy = torch.tensor([True, True]), torch.tensor([False, False])

    def extra(y: torch.Tensor, which: torch.Tensor) -> float:
        return float(strict(y, loud, which) - plain(y, loud, which))

    assert extra(loud, quiet) == pytest.approx(0.0, abs=1e-5)
    assert extra(thinned, noisy) == 0.0
    assert extra(thinned, quiet) == pytest.approx(2.0 * 6.02 / 2, rel=0.1)  # 6 dB in half of the cells
    assert float(plain(thinned, loud, quiet) - plain(loud, loud, quiet)) < 1.0


def test_a_blend_lies_between_two_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from models.denoiser import DenoiserNet, Shape
    from training.core import checkpoint
    from training.core import recipe as core_recipe
    from training.denoise import __main__, apply, prune

    recipe = core_recipe.read(__main__.RECIPE)
    for seed, name in ((1, "polish"), (2, "settle")):
        torch.manual_seed(seed)
        net = DenoiserNet(Shape(front=8, trunk=8, spectrum_width=8, head=8, dilations=(1,)))
        kept = {"average": net.state_dict(), "layout": net.layout(), "step": seed, "recipe": recipe}
        checkpoint.save(tmp_path / f"{name}.pt", kept)
    monkeypatch.setattr(prune, "Validation", lambda *_: lambda clean_up: {"all plain": 1.5})
    path = tmp_path / "net.pt"
    prune._blend(recipe, tmp_path / "polish.pt", tmp_path / "settle.pt", 0.25, tmp_path, tmp_path, path)
    nets = [apply.load_net(tmp_path / f"{n}.pt") for n in ("polish", "settle", "net")]
    for one, two, between in zip(*(n.parameters() for n, _ in nets), strict=True):
        assert torch.allclose(between, 0.75 * one + 0.25 * two, atol=1e-6)
    assert nets[2][1]["validation"] == {"all plain": 1.5}
    assert nets[2][1]["blend"] == 0.25
    assert nets[2][1]["step"] == 2


def test_what_the_head_hears_is_evened_out_and_the_answer_stays() -> None:
    import numpy as np
    import torch

    from models.denoiser import DenoiserNet, Shape, tables
    from training.denoise.apply import inputs_of
    from training.denoise.int8 import equalise_head

    torch.manual_seed(2)
    net = DenoiserNet(Shape(front=8, trunk=12, spectrum_width=8, head=8, dilations=(1, 2))).eval()
    sounds = np.random.default_rng(2).standard_normal((2, 800)).astype(np.float32)
    window = tables()["window"]
    heard: list[torch.Tensor] = []
    net.head.register_forward_pre_hook(lambda _module, args: heard.append(args[0]))
    inputs = (*inputs_of(sounds, window).values(), *net.initial_states(2))
    with torch.no_grad():
        net.blocks[-1].mix.weight.mul_(30.0)  # type: ignore[union-attr,operator]
        before = net(*inputs)[0]
        equalise_head(net, sounds, window)
        after = net(*inputs)[0]
    assert torch.allclose(before, after, atol=1e-5)
    loud, _, calm = (float(x[:, :12].max()) for x in heard)
    past = float(heard[0][:, 12:].max())
    assert loud > 10 * past
    assert calm < 3 * past
