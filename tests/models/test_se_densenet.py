from itertools import chain, combinations

import pytest
import torch
from torchvision import models
from torchvision.models import densenet121

from histotransfer.models.se import SqueezeExcite
from histotransfer.models.se_densenet import CONFIGURATIONS, BasicLayer, SEDenseNet, WithFeatures

POSITIONS = ("layer", "block", "transition")
SUBSETS = list(chain.from_iterable(combinations(POSITIONS, n) for n in range(4)))


@pytest.fixture(scope="module")
def published():
    """torchvision's network with random weights and statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    model = densenet121(num_classes=5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def ours(published, positions):
    model = SEDenseNet(5, positions=positions)
    missing, unexpected = model.load_state_dict(published.state_dict(), strict=False)
    assert unexpected == []
    assert all(".se." in name for name in missing)
    return model


@pytest.mark.parametrize("positions", SUBSETS, ids=lambda subset: "+".join(subset) or "plain")
def test_untrained_gates_leave_torchvisions_outputs_as_they_are(published, images, positions):
    model = ours(published, positions)
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), published.eval()(images))


@pytest.mark.parametrize("positions", [(), POSITIONS], ids=["plain", "all gates"])
def test_training_mode_agrees_with_torchvision(published, images, positions):
    model = ours(published, positions).train()
    before = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    expected = published.train()(images)
    after = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    published.load_state_dict(before)
    torch.testing.assert_close(model(images), expected, atol=1e-6, rtol=1e-6)
    state = model.state_dict()
    for name, tensor in after.items():  # running statistics have moved alike
        torch.testing.assert_close(state[name], tensor, atol=1e-6, rtol=1e-6)


def test_names_and_parameter_count_without_gates_are_torchvisions(published):
    model = SEDenseNet(5, positions=())
    assert list(model.state_dict()) == list(published.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in published.parameters())
    assert sum(name.startswith("features.") for name in model.state_dict()) == 725


@pytest.mark.parametrize("depth", [169, 201])
def test_deeper_nets_are_torchvisions_too(images, depth):
    torch.manual_seed(0)
    published = getattr(models, f"densenet{depth}")(num_classes=5).eval()
    model = SEDenseNet(5, **CONFIGURATIONS[f"densenet{depth}"]).eval()
    _, unexpected = model.load_state_dict(published.state_dict(), strict=False)
    assert unexpected == []
    with torch.inference_mode():
        assert torch.equal(model(images), published(images))


def test_imagenet_weights_with_untrained_gates_compute_what_they_did(trunk, images):
    """The real weights, whose statistics are not a random net's."""
    published = densenet121(num_classes=5).eval()
    published.load_state_dict(trunk.state, strict=False)
    with torch.inference_mode():
        assert torch.equal(ours(published, POSITIONS).eval()(images), published(images))


def test_a_cifar_net_is_what_huang_et_al_describe():
    """Section 4.2: k = 12, depth 40: 3x3 stem of 16 channels, three blocks of 12 plain layers, no compression."""
    model = SEDenseNet(10, positions=(), **CONFIGURATIONS["densenet40-k12"])
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == 40  # and the classifier
    assert sum(isinstance(m, BasicLayer) for m in model.modules()) == 36
    with torch.inference_mode():
        x, shapes = torch.randn(2, 3, 32, 32), {}
        for name, module in model.eval().features.named_children():
            x = shapes[name] = module(x)
    assert {name: tuple(x.shape[1:]) for name, x in shapes.items()} == {
        "conv0": (16, 32, 32),
        "denseblock1": (160, 32, 32),
        "transition1": (160, 16, 16),
        "denseblock2": (304, 16, 16),
        "transition2": (304, 8, 8),
        "denseblock3": (448, 8, 8),
        "norm5": (448, 8, 8),
    }


def test_gates_sit_where_they_are_asked_for():
    def gates(positions):
        modules = SEDenseNet(positions=positions).named_modules()
        return [(name, se.expand.out_features) for name, se in modules if isinstance(se, SqueezeExcite)]

    assert gates(()) == []
    assert gates(("transition",)) == [(f"features.transition{n}.se", c) for n, c in ((1, 128), (2, 256), (3, 512))]
    blocks = [(f"features.denseblock{n}.se", c) for n, c in ((1, 256), (2, 512), (3, 1024), (4, 1024))]
    assert gates(("block",)) == blocks
    layers = gates(("layer",))
    assert len(layers) == 6 + 12 + 24 + 16
    assert {channels for _, channels in layers} == {32}


@pytest.mark.parametrize("positions", [s for s in SUBSETS if s], ids="+".join)
def test_after_one_step_every_gate_parameter_learns(make_model, positions):
    model = make_model(positions=positions).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, 64, 64, generator=generator), torch.arange(8) % 2
    for _ in range(2):  # the first step moves the last layer of a gate off zero, the second gradient counts
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if ".se." in name}
        optimiser.step()
    assert len(gradients) == 4 * sum(isinstance(m, SqueezeExcite) for m in model.modules())
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []


def test_a_trained_gate_changes_the_output(make_model, images):
    model = make_model(positions=("block",)).eval()
    with torch.inference_mode():
        before = model(images)
        model.features.denseblock2.se.expand.bias[0] = 1.0
        assert not torch.equal(model(images), before)


@pytest.mark.parametrize("block_config", [(2, 2, 2, 2), (2,)])
def test_logits_and_the_means_of_the_first_transition_side_by_side(make_model, images, block_config):
    model, means = make_model(num_classes=3, block_config=block_config).eval(), []
    if len(block_config) > 1:
        model.features.transition1.register_forward_hook(lambda *given: means.append(given[2].mean((2, 3))))
    both = WithFeatures(model)
    with torch.inference_mode():
        logits = model(images)
        expected = torch.cat([logits, *means], dim=1)
        assert torch.equal(both(images), expected) and both.channels == expected.shape[1] - 3


def test_pooled_features_are_rectified_means(make_model, images):
    model = make_model().eval()
    with torch.inference_mode():
        pooled = model.pooled(images)
        torch.testing.assert_close(pooled, model.features(images).clamp(min=0).mean(dim=(2, 3)))
        assert torch.equal(model.classifier(pooled), model(images))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 33), (65, 96)])
def test_any_field_from_32_pixels_works(make_model, height, width):
    assert make_model(num_classes=3).eval()(torch.zeros(1, 3, height, width)).shape == (1, 3)


def test_unknown_positions_and_stems_are_refused():
    with pytest.raises(ValueError, match="stem"):
        SEDenseNet(positions=("stem",))
    with pytest.raises(ValueError, match="'alexnet'"):
        SEDenseNet(stem="alexnet")
