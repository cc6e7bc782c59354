import pytest
import torch
from torchvision.ops import SqueezeExcitation

from histotransfer.models.se import SqueezeExcite


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(32, 16, 4), (64, 16, 4), (256, 16, 16), (1, 1, 4)])
def test_hidden_width_is_at_least_four(channels, reduction, hidden):
    se = SqueezeExcite(channels, reduction)
    assert se.reduce.weight.shape == (hidden, channels)
    assert se.expand.weight.shape == (channels, hidden)


def test_identity_gates_are_exactly_one_at_the_start():
    x = torch.randn(3, 24, 5, 7) * 100
    se = SqueezeExcite(24)
    assert torch.equal(se.gates(x), torch.ones(3, 24))
    assert torch.equal(se(x), x)


@pytest.mark.parametrize(("gate", "scale"), [("identity", 2), ("standard", 1)])
def test_gates_follow_the_papers_equations(gate, scale):
    torch.manual_seed(0)
    se = SqueezeExcite(8, 2, gate)
    torch.nn.init.normal_(se.expand.weight)
    torch.nn.init.normal_(se.expand.bias)
    x = torch.randn(2, 8, 3, 4)
    for image in range(2):
        z = torch.tensor([x[image, c].sum() / 12 for c in range(8)])  # equation 2
        s = torch.relu(se.reduce.weight @ z + se.reduce.bias)
        s = scale / (1 + torch.exp(-(se.expand.weight @ s + se.expand.bias)))  # equation 3
        torch.testing.assert_close(se.gates(x)[image], s)
        for c in range(8):
            torch.testing.assert_close(se(x)[image, c], x[image, c] * s[c])  # equation 4


def test_standard_gates_are_not_the_identity():
    torch.manual_seed(0)
    gates = SqueezeExcite(16, 4, "standard").gates(torch.randn(4, 16, 2, 2))
    assert ((gates > 0) & (gates < 1)).all()
    assert gates.std() > 0


def test_standard_gates_are_torchvisions_for_the_same_weights():
    torch.manual_seed(0)
    ours, published = SqueezeExcite(32, 4, "standard"), SqueezeExcitation(32, 8)
    for layer, convolution in ((ours.reduce, published.fc1), (ours.expand, published.fc2)):
        convolution.weight.data = layer.weight.data[:, :, None, None]
        convolution.bias.data = layer.bias.data
    x = torch.randn(2, 32, 6, 5)
    torch.testing.assert_close(ours(x), published(x))


def test_gates_of_se_resnet_50_add_what_the_se_paper_says():
    """Section 4: 2 / r times the sum over stages of blocks times channels squared: "about 2.5 million" at r = 16."""
    stages = {256: 3, 512: 4, 1024: 6, 2048: 3}
    added = sum(
        blocks * sum(p.numel() for name, p in SqueezeExcite(channels).named_parameters() if name.endswith("weight"))
        for channels, blocks in stages.items()
    )
    assert added == 2 / 16 * sum(blocks * channels**2 for channels, blocks in stages.items())
    assert round(added / 1e6, 1) == 2.5
