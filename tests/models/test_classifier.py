"""The screening network keeps its shapes and its budget."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.train


def test_shapes_and_budget_of_the_released_recipe() -> None:
    import torch

    from models.classifier import OUTPUTS, STATES, Classifier
    from training.export.export import count_macs
    from training.screening.recipe import load_recipe

    net = Classifier(load_recipe(None).channels).eval()
    x = torch.randn(3, 1, 32, 248)
    logits, states = net.forward_with_states(x)
    assert logits.shape == (3, len(OUTPUTS))
    # one step of the state head is four frames
    assert states.shape == (3, len(STATES), 62)
    assert sum(p.numel() for p in net.parameters()) <= 100_000
    assert count_macs(net, (net.example(),)) <= 10e6


def test_the_state_head_has_no_say_in_the_verdict() -> None:
    import torch

    from models.classifier import Classifier

    torch.manual_seed(0)
    net = Classifier((8, 8, 8, 8, 8, 8, 8)).eval()
    x = torch.randn(2, 1, 32, 248)
    with torch.no_grad():
        before = net(x)
        assert torch.equal(before, net.forward_with_states(x)[0])
        net.state_head = None
        assert torch.equal(before, net(x))


def test_a_wrong_number_of_channels_is_refused() -> None:
    from models.classifier import Classifier

    with pytest.raises(ValueError, match="7 numbers are needed"):
        Classifier((8, 8))
