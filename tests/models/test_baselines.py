"""The networks that ours is compared with: shapes, sizes, where they look, published weights."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.train

PARAMETERS = {
    "cnn1d": (50_000, 200_000),
    "melcnn": (400_000, 600_000),
    "melcnn-light": (5_000, 30_000),
    "melcnn-attention": (20_000, 60_000),
    "resnet18": (11_000_000, 11_300_000),
}


@pytest.mark.parametrize("model", sorted(PARAMETERS))
def test_two_logits_a_window_and_the_size_that_was_meant(model: str) -> None:
    import torch

    from device.screening.baseline_features import FRONT_ENDS
    from training.screening.baselines import BaselineRecipe, build_screening_baseline, front_end_name

    net = build_screening_baseline(BaselineRecipe(model=model)).eval()
    low, high = PARAMETERS[model]
    assert low < sum(p.numel() for p in net.parameters()) < high
    with torch.no_grad():
        assert net(torch.zeros(3, 1, *FRONT_ENDS[front_end_name(model)].shape)).shape == (3, 2)


def test_attention_is_a_share_of_each_place_and_decides_what_counts() -> None:
    import torch

    from models.melcnn import MelCnnAttention

    torch.manual_seed(1)
    net = MelCnnAttention().eval()
    x = torch.randn(2, 1, 128, 99)
    with torch.no_grad():
        map_ = net.attention(x)
        logits = net.head(net.features(x))
        by_hand = (logits * map_[:, None]).sum((2, 3))
        assert map_.shape == (2, 8, 12)
        assert torch.allclose(map_.sum((1, 2)), torch.ones(2), atol=1e-5)
        assert torch.allclose(by_hand, net(x), atol=1e-5)


def test_resnet18_has_the_names_and_shapes_of_the_published_weights() -> None:
    from models.resnet18 import ResNet18

    shapes = {name: tuple(v.shape) for name, v in ResNet18().state_dict().items()}
    assert len(shapes) == 122
    assert shapes["conv1.weight"] == (64, 1, 7, 7)
    assert shapes["layer1.1.bn2.running_var"] == (64,)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["layer4.1.conv2.weight"] == (512, 512, 3, 3)


def test_the_first_layer_is_summed_over_its_channels_and_the_last_stays() -> None:
    import torch

    from models.resnet18 import ResNet18, adapted

    torch.manual_seed(1)
    net, other = ResNet18(8), ResNet18(8)
    published = dict(other.state_dict())
    published["conv1.weight"] = torch.randn(8, 3, 7, 7)
    published["fc.weight"], published["fc.bias"] = torch.zeros(1000, 64), torch.zeros(1000)
    made = adapted(net, published)
    assert torch.equal(made["conv1.weight"], published["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(made["layer3.0.conv1.weight"], other.state_dict()["layer3.0.conv1.weight"])
    assert torch.equal(made["fc.weight"], net.state_dict()["fc.weight"])
    del published["bn1.weight"]
    with pytest.raises(ValueError, match="bn1.weight is missing"):
        adapted(net, published)
    with pytest.raises(ValueError, match="shape"):
        adapted(net, ResNet18(16).state_dict())


@pytest.mark.parametrize("model", ["Cnn1d", "MelCnn", "MelCnnLight", "MelCnnAttention"])
def test_a_wrong_number_of_channels_is_told(model: str) -> None:
    from models import cnn1d, melcnn

    make = getattr(cnn1d if model == "Cnn1d" else melcnn, model)
    with pytest.raises(ValueError, match="numbers are needed"):
        make([8])
