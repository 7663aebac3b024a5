"""The rhythm network: streaming equals whole, its answers lie where they say, it is as small as promised."""

from __future__ import annotations

import pytest

from device.screening.segmentation import BANDS, EARLY, FRAMES_PER_S, LATE

pytestmark = pytest.mark.train


@pytest.fixture
def net():  # type: ignore[no-untyped-def]
    import torch

    from models.rhythm import RhythmNet, RhythmShape

    torch.set_num_threads(1)
    torch.manual_seed(4)
    return RhythmNet(RhythmShape(width=16, dilations=(1, 4, 2))).eval()


def test_streaming_equals_whole_and_each_answer_is_for_its_own_frame(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    frames = 80
    torch.manual_seed(0)
    bands = torch.randn(1, BANDS, frames)
    with torch.no_grad():
        early, late = net.whole(bands)
        states, found = net.initial_states(), []
        for t in range(frames):
            a, b, *states = net(bands[:, :, None, t : t + 1], *states)
            found.append((a[0, :, 0, 0], b[0, :, 0, 0]))
    for t in range(EARLY, frames):
        assert torch.allclose(found[t][0], early[0, :, t - EARLY], atol=1e-5)
    for t in range(LATE, frames):
        assert torch.allclose(found[t][1], late[0, :, t - LATE], atol=1e-5)


def test_an_answer_never_waits_for_more_than_its_look_ahead(net) -> None:  # type: ignore[no-untyped-def]
    import torch

    bands = torch.randn(1, BANDS, 100)
    later = bands.clone()
    later[..., 70:] += 1.0
    with torch.no_grad():
        (early, late), (early_then, late_then) = net.whole(bands), net.whole(later)
    assert torch.equal(early[..., : 70 - EARLY], early_then[..., : 70 - EARLY])
    assert torch.equal(late[..., : 70 - LATE], late_then[..., : 70 - LATE])
    assert not torch.equal(early[..., 70 - EARLY], early_then[..., 70 - EARLY])


def test_the_shipped_recipe_keeps_the_budget() -> None:
    from models.rhythm import RhythmNet, RhythmShape
    from training.core.recipe import read, settings, shipped

    net = RhythmNet(settings(RhythmShape, read(shipped("rhythm"))["net"], "net"))
    assert sum(p.numel() for p in net.parameters()) <= 80_000
    assert net.macs_per_frame() * FRAMES_PER_S <= 3e6


def test_a_layout_gives_the_same_network_again(net) -> None:  # type: ignore[no-untyped-def]
    from models.rhythm import RhythmNet

    again = RhythmNet.from_layout(net.layout())
    assert again.sizes == net.sizes
    again.load_state_dict(net.state_dict())
    assert list(net.examples()) == ["bands", "state_00", "state_01", "state_02", "state_03"]
    assert len(net.output_names()) == 2 + len(net.initial_states())
