import numpy as np
import pytest
import torch

from histotransfer.models.exits import EXITS, EarlyExit, exit_features
from histotransfer.models.se_densenet import SEDenseNet, parameter_count
from histotransfer.models.size import multiply_adds
from histotransfer.tiles import TileSource


@pytest.fixture(scope="module")
def source():
    return TileSource(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8))


def test_features_are_what_each_exits_classifier_sees(make_model, source):
    model = make_model().eval()
    found = exit_features(model, source, batch_size=2)
    assert list(found) == list(EXITS)
    x = source.batch(np.arange(5), np.zeros(5, dtype=int))
    for name, features in found.items():
        net = EarlyExit(model, name, 3).eval()
        assert features.shape == (5, net.classifier.in_features)
        with torch.inference_mode():
            torch.testing.assert_close(net(x), net.classifier(torch.from_numpy(features)))
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found["block4"]), model.pooled(x))


def test_the_last_exit_is_the_network(source):
    torch.manual_seed(0)
    model = SEDenseNet(2, positions=()).eval()
    net = EarlyExit(model, "block4").eval()
    net.classifier = model.classifier
    x = source.batch(np.arange(2), np.zeros(2, dtype=int))
    with torch.inference_mode():
        torch.testing.assert_close(net(x), model(x))
    assert parameter_count(net) == parameter_count(model)


def test_earlier_exits_are_smaller():
    with torch.device("meta"):
        model = SEDenseNet(2, positions=())
        nets = [EarlyExit(model, name) for name in EXITS]
    assert [net.classifier.in_features for net in nets] == [128, 256, 512, 1024]  # table 1 of Huang et al.
    for quantity in (parameter_count, lambda net: multiply_adds(net, 64)):
        sizes = [quantity(net) for net in nets]
        assert sizes == sorted(set(sizes))
