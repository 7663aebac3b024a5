"""The net as int8 computes it: values on the grid of their scale, ranges from real sound, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def small() -> tuple[Any, np.ndarray, np.ndarray]:
    import torch

    from models.denoiser import DenoiserNet, Shape, tables

    torch.manual_seed(3)
    net = DenoiserNet(Shape(front=8, trunk=12, spectrum_width=8, head=8, dilations=(1, 2))).eval()
    sounds = np.random.default_rng(3).standard_normal((2, 1600)).astype(np.float32)
    return net, sounds, tables()["window"]


def _heard(sounds: np.ndarray, window: np.ndarray) -> tuple[Any, Any]:
    import torch

    from device.denoise.front_end import analyse

    wave, spectrum = analyse(sounds, window)
    return torch.from_numpy(wave)[:, :, None], torch.from_numpy(spectrum)[:, :, None]


def test_answers_lie_on_the_grid_and_near_those_in_float(small: Any) -> None:
    import torch

    from training.export.fake_int8 import FakeInt8

    net, sounds, window = small
    heard = (*_heard(sounds, window), *net.initial_states(2))
    with torch.no_grad():
        wanted = net(*heard)[0]
        found = FakeInt8(net, sounds, window)(*heard)[0]
    steps = found.numpy() * 256
    assert np.array_equal(steps, np.round(steps))
    assert 0 < float((found - wanted).abs().max()) < 0.05


def test_ranges_follow_the_weights_and_an_answer_beyond_them_is_cut_off(small: Any) -> None:
    import torch

    from training.export.fake_int8 import FakeInt8

    net, sounds, window = small
    fake = FakeInt8(net, sounds, window)
    before = fake.ranges
    assert before["front"][0] == before["mix_01"][0] == 0.0  # a ReLU follows
    assert before["time_00"][0] <= 0.0 < before["time_00"][1]
    with torch.no_grad():
        net.front.conv.weight.mul_(2.0)
        net.front.conv.bias.mul_(2.0)
        fake.measure()
        assert fake.ranges["front"][1] == pytest.approx(2 * before["front"][1])
        net.front.conv.weight.mul_(0.5)
        net.front.conv.bias.mul_(0.5)
        fake.ranges = {k: (low, 1e-3 * high) for k, (low, high) in before.items()}
        heard = (*_heard(sounds, window), *net.initial_states(2))
        cut, *states = fake(*heard)
    assert float(states[1].max()) <= 1.01e-3 * before["front"][1]
    assert torch.isfinite(cut).all()


def test_every_weight_learns_through_the_rounding(small: Any) -> None:
    from training.export.fake_int8 import FakeInt8

    net, sounds, window = small
    net.zero_grad()
    fake = FakeInt8(net, sounds, window)
    fake(*_heard(sounds, window), *net.initial_states(2))[0].mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and float(p.grad.abs().max()) > 0, name


def test_weights_have_a_scale_for_each_output_channel() -> None:
    import torch

    from training.export.fake_int8 import _rounded_weight

    w = torch.tensor([1.0, 0.5, 100.0, 30.0]).reshape(2, 2, 1, 1)
    assert torch.allclose(_rounded_weight(w)[0], w[0], atol=0.5 / 127)
    assert torch.allclose(_rounded_weight(w)[1], w[1], atol=50 / 127)
