"""The network: streaming equals whole, what removal does at its ends, a pruned layout can be rebuilt."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.train

SMALL = {"front": 8, "trunk": 16, "spectrum_width": 8, "head": 12, "dilations": (1, 3, 8)}


@pytest.fixture
def net():  # type: ignore[no-untyped-def]
    import torch

    from models.denoiser import BANDS, TIMES, DenoiserNet, Shape

    torch.set_num_threads(1)
    torch.manual_seed(4)
    return DenoiserNet(Shape(**SMALL, shares=BANDS + TIMES)).eval()  # type: ignore[arg-type]


def test_streaming_equals_whole(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    hops = 60
    torch.manual_seed(0)
    wave, spectrum = torch.randn(1, 2, 1, 16 * hops), torch.randn(1, 64, 1, hops)
    with torch.no_grad():
        whole = net(wave, spectrum, *net.initial_states())[0]
        states, found = net.initial_states(), []
        for t in range(hops):
            y, *states = net(wave[..., 16 * t : 16 * t + 16], spectrum[..., t : t + 1], *states)
            found.append(y)
    assert float((torch.cat(found, -1) - whole).abs().max()) < 1e-6


def test_a_later_sample_never_changes_an_earlier_answer(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    wave, spectrum = torch.randn(1, 2, 1, 16 * 40), torch.randn(1, 64, 1, 40)
    changed = wave.clone()
    changed[..., 16 * 20 :] += 1.0
    with torch.no_grad():
        a = net(wave, spectrum, *net.initial_states())[0]
        b = net(changed, spectrum, *net.initial_states())[0]
    assert torch.equal(a[..., :20], b[..., :20])
    assert not torch.equal(a[..., 20:], b[..., 20:])


@pytest.mark.parametrize("frame", [48, 96, 128])
def test_removing_all_leaves_nothing_and_removing_nothing_leaves_all(frame: int) -> None:
    import torch

    from models.denoiser import TIMES, tables
    from training.denoise.apply import MaskLayer

    coefficients = tables(frame)
    bands = coefficients["spread"].shape[1]
    removal = MaskLayer(coefficients)
    x = torch.randn(2, 16 * 50)
    keep, take = torch.zeros(2, bands + TIMES, 1, 50), torch.zeros(2, bands + TIMES, 1, 50)
    take[:, :bands] = 1.0
    assert torch.equal(removal(x, keep), x)
    assert float(removal(x, take)[:, 96:-32].abs().max()) < 1e-4
    take[:, :bands], take[:, bands:] = 0.0, 1.0
    assert float(removal(x, take)[:, 16:-32].abs().max()) == 0.0


def test_the_float_net_on_a_whole_sound_is_aligned(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    from models.denoiser import tables
    from training.denoise.apply import MaskLayer, denoise_whole

    coefficients = tables()
    x = np.random.default_rng(0).standard_normal(1001).astype(np.float32)
    with torch.no_grad():
        net.shares.bias.fill_(-50.0)
        net.shares.weight.zero_()
    assert np.array_equal(denoise_whole(net, MaskLayer(coefficients), coefficients, x), x)


def test_a_pruned_net_can_be_rebuilt_and_streams(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    from models.denoiser import DenoiserNet
    from training.export.prune import prune

    def examples():  # type: ignore[no-untyped-def]
        return tuple(net.examples().values())

    report = prune(net, examples(), 0.5, keep=[net.shares], round_to=2, renew=examples)
    assert report["after"]["macs"] < 0.5 * report["before"]["macs"]
    again = DenoiserNet.from_layout(net.layout()).eval()
    again.load_state_dict(net.state_dict())
    inputs = tuple(torch.randn_like(v) for v in net.examples().values())
    assert [v.shape for v in again.examples().values()] == [v.shape for v in inputs]
    with torch.no_grad():
        for a, b in zip(net(*inputs), again(*inputs), strict=True):
            assert torch.equal(a, b)


def test_equalising_changes_no_answer_and_evens_the_ranges(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    from device.denoise.front_end import analyse
    from models.denoiser import tables
    from training.denoise.int8 import equalise

    with torch.no_grad():
        net.mix.weight[3] *= 20.0  # one loud channel
        net.mix.bias[3] = 1.0
    window = tables()["window"]
    sounds = np.random.default_rng(0).standard_normal((3, 3200)).astype(np.float32)
    wave, spectrum = (torch.from_numpy(v)[:, :, None] for v in analyse(sounds, window))

    def answer_and_spread():  # type: ignore[no-untyped-def]
        heard = []
        hook = net.blocks[0].time.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
        with torch.no_grad():
            y = net(wave, spectrum, *net.initial_states(3))[0]
        hook.remove()
        most = heard[0].amax((0, 2, 3))
        most = most[most > 0]
        return y, float(most.max() / most.median())

    before, uneven = answer_and_spread()
    equalise(net, sounds, window, power=1.0)
    after, even = answer_and_spread()
    assert float((before - after).abs().max()) < 1e-5
    assert uneven > 5
    assert even < 0.5 * uneven


def test_what_brings_nothing_is_pruned_first(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    from models.denoiser import tables
    from training.denoise.prune import contributions
    from training.export.prune import prune

    dead = [1, 4, 6, 7]
    with torch.no_grad():
        net.blocks[0].mix.bias[dead] = -1e3
    sounds = np.random.default_rng(0).standard_normal((3, 3200)).astype(np.float32)
    scores = contributions(net, sounds, tables()["window"])
    assert float(scores[net.blocks[0].mix][dead].max()) == 0.0
    examples = tuple(net.examples().values())
    inputs = (*(torch.randn_like(v) for v in examples[:2]), *net.initial_states())
    with torch.no_grad():
        before = net(*inputs)[0]
    dense = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1]
    others = [m for m in dense if m is not net.blocks[0].mix]
    prune(
        net,
        examples,
        0.25,
        keep=[net.shares],
        scores=scores,
        round_to=1,
        per_layer=dict.fromkeys(others, 0.0),
        renew=lambda: tuple(net.examples().values()),
    )
    assert net.blocks[0].mix.out_channels == 12
    with torch.no_grad():
        after = net(*inputs[:2], *net.initial_states())[0]
    assert float((before - after).abs().max()) < 1e-5
