"""Trials: what is compared differs in what it says and in nothing else; the figures are told as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.errors import BadInput

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[a]\nkind = "pruuned"\nsteps = 1\nrate = 1e-3', r"\[a\] kind"),
        ('[a]\nkind = "design"\nsteps = 1\nrate = 1e-3\nahed = 3', r"\[a\] ahed: no such key"),
        ('[a]\nkind = "pruned"\nsteps = 1\nrate = 1e-3', r"\[a\] ratio"),
        ('[a]\nkind = "scratch"\nrate = 1e-3', r"\[a\] steps"),
        ('[a]\nkind = "design"\nsteps = 1\nrate = 1e-3\noutput = "noise"', r"\[a\] output"),
    ],
)
def test_a_wrong_trial_is_named(tmp_path: Path, text: str, named: str) -> None:
    from training.denoiser_trials import read_trials

    (tmp_path / "trials.toml").write_text(text)
    with pytest.raises(BadInput, match=named):
        read_trials(tmp_path / "trials.toml")


def test_an_unknown_trial_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from training.denoiser_trials import main, read_trials

    assert main(["run", "--resume", "prund-20"]) == 2
    assert "no trial prund-20; there are pruned-20" in capsys.readouterr().err
    assert {t["kind"] for t in read_trials().values()} == {"pruned", "scratch", "further", "design"}


def test_a_teacher_applies_what_it_hears_later() -> None:
    import torch

    from models.denoiser import tables
    from training.denoiser import Removal
    from training.denoiser_trials import Ahead

    removal = Removal(tables())
    x = torch.randn(1, 64 * 16, generator=torch.Generator().manual_seed(1))
    shares = torch.rand(1, 35, 1, 64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Ahead(removal, 0)(x, shares), removal(x, shares))
    later = torch.cat([torch.zeros(1, 35, 1, 8), shares[..., :-8]], -1)  # what a net 8 hops behind gives
    assert torch.allclose(Ahead(removal, 8)(x, later)[:, : 50 * 16], removal(x, shares)[:, : 50 * 16])


def test_a_direct_answer_is_the_sound_of_two_hops_before_at_its_level() -> None:
    import torch

    from training.denoiser_trials import Direct, _tracked

    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 64 * 16)).astype(np.float32)
    x[1] *= 0.01
    level = _tracked(x)
    assert level[1, -1] / level[0, -1] == pytest.approx(0.01, rel=0.3)
    wanted = np.zeros((2, 16, 1, 64), dtype=np.float32)
    grid = x.reshape(2, 64, 16)
    wanted[:, :, 0, 2:] = grid[:, :-2].transpose(0, 2, 1) / level[:, None, 2:]
    y = Direct()(torch.from_numpy(x), torch.from_numpy(0.5 + wanted / (2 * Direct.MOST)))
    assert np.allclose(y.numpy(), x, atol=1e-4)


def test_a_net_from_scratch_begins_as_an_unpruned_one_does() -> None:
    import torch

    from models.denoiser import Denoiser, Shape
    from training.denoiser_trials import begin_anew

    layout = Denoiser(Shape(front=8, trunk=12, spectrum_width=8, head=8, dilations=(1, 2))).layout()
    layout["convolutions"]["blocks.0.mix"] = [12, 8, 1]
    layout["convolutions"]["blocks.1.time.conv"] = [8, 8, 8]
    layout["convolutions"]["blocks.1.mix"] = [8, 12, 1]
    torch.manual_seed(1)
    net = begin_anew(Denoiser.from_layout(layout))
    for block in net.blocks:
        mix, time = block.mix.weight.detach()[:, :, 0, 0], block.time.conv.weight.detach()[:, 0, 0]
        assert float(torch.diagonal(mix).mean()) == pytest.approx(1.0, abs=0.15)
        assert float(time[:, -1].mean()) == pytest.approx(1.0, abs=0.15)
        assert float(time[:, :-1].abs().max()) < 0.2
    assert net(*net.examples().values())[0].max() < 0.3
