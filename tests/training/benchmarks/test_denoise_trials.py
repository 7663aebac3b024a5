"""Trials: what is compared differs in what it says and in nothing else; the figures are told as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.errors import BadInput

pytestmark = pytest.mark.train
DESIGN = '[a]\nkind = "design"\nsteps = 1\nrate = 1e-3\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[a]\nkind = "pruuned"\nsteps = 1\nrate = 1e-3', r"\[a\] kind"),
        ('[a]\nkind = "design"\nsteps = 1\nrate = 1e-3\nahed = 3', r"\[a\] ahed: no such key"),
        ('[a]\nkind = "pruned"\nsteps = 1\nrate = 1e-3', r"\[a\] ratio"),
        ('[a]\nkind = "scratch"\nrate = 1e-3', r"\[a\] steps"),
        ('[a]\nkind = "design"\nsteps = 1\nrate = 1e-3\noutput = "noise"', r"\[a\] output"),
        (DESIGN + "net = { trunc = 8 }", r'trials.toml: \[a.net\] trunc: no such key. Did you mean "trunk"'),
        (DESIGN + "mix = { colours = 0.1 }", r'\[a.mix\] colours: no such key. Did you mean "colour"'),
        (DESIGN + "loss = { high = 0.0 }", r'\[a.loss\] high: no such key. Did you mean "high_band"'),
        ('[a]\nlike = "b"\n[b]\nkind = "design"\nsteps = 1\nrate = 1e-3', r"\[a\] like = b: no such trial"),
    ],
)
def test_a_wrong_trial_is_named(tmp_path: Path, text: str, named: str) -> None:
    from training.benchmarks.denoise_trials import read_trials

    (tmp_path / "trials.toml").write_text(text)
    with pytest.raises(BadInput, match=named):
        read_trials(tmp_path / "trials.toml")


def test_an_unknown_trial_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from training.benchmarks.denoise_trials import main, read_trials

    assert main(["run", "--resume", "prund-20"]) == 2
    assert "no trial prund-20; there are pruned-20" in capsys.readouterr().err
    assert {t["kind"] for t in read_trials().values()} == {"pruned", "scratch", "further", "design"}


def test_a_trial_is_like_another_but_for_what_it_says(tmp_path: Path) -> None:
    from training.benchmarks.denoise_trials import read_trials

    text = DESIGN + 'net = { trunk = 8, front = 4 }\n[b]\nlike = "a"\nseed = 2\nnet = { trunk = 16 }\n'
    (tmp_path / "trials.toml").write_text(text + '[c]\nlike = "b"\nloss = { spectral = 0.0 }\n')
    found = read_trials(tmp_path / "trials.toml")
    assert found["c"]["net"] == {"trunk": 16, "front": 4}
    assert found["a"]["net"] == {"trunk": 8, "front": 4}
    assert (found["c"]["kind"], found["c"]["steps"], found["c"]["seed"]) == ("design", 1, 2)
    assert found["c"]["like"] == "b"
    shipped = [t for t in read_trials().values() if t["kind"] == "design"]
    assert len(shipped) > 20
    assert all("like" in t for t in shipped[1:])  # each is compared with something


def test_a_trial_trains_by_its_own_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.benchmarks import denoise_trials
    from training.core.recipe import read
    from training.denoise.__main__ import RECIPE

    seen: dict[str, object] = {}

    def fit(net, recipe, *rest, **more):  # type: ignore[no-untyped-def]
        seen.update(trunk=net.sizes.trunk, dilations=net.sizes.dilations, recipe=recipe)

    monkeypatch.setattr(denoise_trials, "fit_denoiser", fit)
    recipe = read(RECIPE)
    table = denoise_trials.read_trials()["shallow"] | {
        "mix": {"murmur": 0.0},
        "loss": {"band": 0.5},
        "seed": 7,
    }
    denoise_trials.run_trial("shallow", table, recipe, tmp_path, tmp_path, tmp_path)
    used = seen["recipe"]
    assert isinstance(used, dict)
    assert (seen["trunk"], seen["dilations"]) == (48, (1, 2, 4, 8, 16, 32, 64))
    assert (used["mix"]["murmur"], used["loss"]["band"], used["seed"]) == (0.0, 0.5, 7)
    assert used["mix"]["clean"] == recipe["mix"]["clean"]
    assert recipe == read(RECIPE)  # the shipped recipe is as it was


def test_two_nets_are_compared_item_by_item_over_subjects() -> None:
    from training.benchmarks.denoise_designs import against, by_database, figures_of

    names = ("all beyond", "murmur clean", "clean out")
    one = {k: [(float(n), f"s{n % 4}", "ab"[n % 2]) for n in range(12)] for k in names}
    other = {k: [(v - 1.0 - 9.0 * (n == 11), s, d) for n, (v, s, d) in enumerate(one[k])] for k in names}
    found = against(one, other, seed=1)
    assert found["murmur clean"] == {"value": 1.0, "low": 1.0, "high": 1.0}  # the median of the differences
    assert found["all beyond"]["value"] == pytest.approx(1.75)
    assert found["all beyond"]["low"] == 1.0
    assert figures_of(one)["clean out p5"] == pytest.approx(0.55)
    assert by_database(one) == {"a": 5.0, "b": 6.0}


def test_sound_is_tilted_and_placed_as_told() -> None:
    from training.benchmarks.denoise_designs import placed, tilted

    t = np.arange(8000) / 2000
    x = (np.sin(2 * np.pi * 50 * t) + np.sin(2 * np.pi * 400 * t)).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(tilted(x, 6.0))) / np.abs(np.fft.rfft(x)).max()
    assert 20 * np.log10(spectrum[[200, 1600]]) == pytest.approx([-6.0, 12.0], abs=0.1)
    soft = placed(x, 24.0)
    assert np.array_equal(soft[4000:], x[4000:])
    assert 20 * np.log10(np.std(soft[:4000]) / np.std(x[:4000])) == pytest.approx(-24.0, abs=0.1)


def test_a_teacher_applies_what_it_hears_later() -> None:
    import torch

    from models.denoiser import tables
    from training.benchmarks.denoise_trials import Ahead
    from training.denoise.apply import MaskLayer

    removal = MaskLayer(tables())
    x = torch.randn(1, 64 * 16, generator=torch.Generator().manual_seed(1))
    shares = torch.rand(1, 35, 1, 64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Ahead(removal, 0)(x, shares), removal(x, shares))
    later = torch.cat([torch.zeros(1, 35, 1, 8), shares[..., :-8]], -1)  # what a net 8 hops behind gives
    assert torch.allclose(Ahead(removal, 8)(x, later)[:, : 50 * 16], removal(x, shares)[:, : 50 * 16])


def test_a_direct_answer_is_the_sound_of_two_hops_before_at_its_level() -> None:
    import torch

    from training.benchmarks.denoise_trials import Direct, _tracked

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

    from models.denoiser import DenoiserNet, Shape
    from training.benchmarks.denoise_trials import begin_anew

    layout = DenoiserNet(Shape(front=8, trunk=12, spectrum_width=8, head=8, dilations=(1, 2))).layout()
    layout["convolutions"]["blocks.0.mix"] = [12, 8, 1]
    layout["convolutions"]["blocks.1.time.conv"] = [8, 8, 8]
    layout["convolutions"]["blocks.1.mix"] = [8, 12, 1]
    torch.manual_seed(1)
    net = begin_anew(DenoiserNet.from_layout(layout))
    for block in net.blocks:
        mix, time = block.mix.weight.detach()[:, :, 0, 0], block.time.conv.weight.detach()[:, 0, 0]
        assert float(torch.diagonal(mix).mean()) == pytest.approx(1.0, abs=0.15)
        assert float(time[:, -1].mean()) == pytest.approx(1.0, abs=0.15)
        assert float(time[:, :-1].abs().max()) < 0.2
    assert net(*net.examples().values())[0].max() < 0.3
