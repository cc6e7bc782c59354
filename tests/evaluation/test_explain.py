import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr, t, ttest_ind

from histotransfer.errors import HistotransferError
from histotransfer.evaluation import explain
from histotransfer.evaluation.explain import (
    ANOTHER,
    gate_differences,
    gate_profiles,
    gates,
    grad_cam,
    randomised,
    rank_correlation,
    sanity_check,
)
from histotransfer.models.se import SqueezeExcite
from histotransfer.tiles import TileSource

N = 35  # more than one batch
LABELS = np.array(["benign", "malignant"])[np.arange(N) % 2]
GROUPS = np.array([f"{label}-{i // 6}" for i, label in enumerate(LABELS)])
TARGETS = np.arange(N) % 2


@pytest.fixture(scope="module")
def source():
    return TileSource(np.random.default_rng(0).integers(0, 256, (N, 96, 96, 3), dtype=np.uint8))


@pytest.fixture
def model(make_model):
    """Small, and with gates that are not all 1."""
    model = make_model().eval()
    for module in model.modules():
        if isinstance(module, SqueezeExcite):
            torch.nn.init.normal_(module.expand.weight, std=0.5)
    return model


def test_grad_cam_is_the_activations_weighed_by_their_mean_gradients(model, source):
    maps = grad_cam(model, source, TARGETS)
    kept = {}
    handle = model.features.denseblock4.register_forward_hook(lambda module, inputs, output: kept.update(a=output))
    for i in (0, 1, N - 1):
        logits = model(source.batch(np.array([i]), np.array([0])))
        (gradient,) = torch.autograd.grad(logits[0, TARGETS[i]], kept["a"])
        expected = (gradient.mean(dim=(2, 3), keepdim=True) * kept["a"]).sum(dim=1)[0]
        np.testing.assert_allclose(maps[i], expected.detach(), rtol=1e-3, atol=1e-6)
    handle.remove()
    assert maps.shape == (N, 3, 3)


def test_rank_correlation_is_spearmans():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 5, (2, 20, 3, 4)).astype(float)
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    assert rank_correlation(a, np.ones_like(a)).tolist() == [0] * 20


def test_weights_are_drawn_anew_from_the_head_down(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed_at = {}
    for step, copy in randomised(model):
        for name, tensor in copy.state_dict().items():
            if not torch.equal(tensor, before[name]):
                changed_at.setdefault(name, step)
    assert list(dict.fromkeys(step for step, _ in randomised(model))) == [
        "head", "block4", "block3", "block2", "block1", "stem",
    ]  # fmt: skip
    assert changed_at["classifier.weight"] == "head"
    assert changed_at["features.denseblock4.denselayer1.conv1.weight"] == "block4"
    assert changed_at["features.transition1.conv.weight"] == "block1"
    assert changed_at["features.conv0.weight"] == "stem"
    assert {name for name in before if "weight" in name and "norm" not in name} <= set(changed_at)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_sanity_check_sees_maps_change_and_sees_when_they_do_not(model, source, monkeypatch):
    table = sanity_check(model, source, TARGETS, GROUPS, LABELS)
    assert list(table.index) == ["head", "block4", "block3", "block2", "block1", "stem", ANOTHER]
    assert table.loc["stem", "high"] < 1
    assert set(table["images"]) == {N} and set(table["patients"]) == {len(set(GROUPS))}
    monkeypatch.setattr(explain, "randomised", lambda model, seed: [("unchanged", model)])
    assert sanity_check(model, source, TARGETS, GROUPS, LABELS).loc["unchanged", "value"] == pytest.approx(1)


def test_another_images_map_is_never_ones_own(model, source, monkeypatch):
    own = np.arange(N, dtype=float)[:, None, None] + np.zeros((1, 2, 2))
    compared = []
    monkeypatch.setattr(explain, "grad_cam", lambda *arguments: own)
    monkeypatch.setattr(explain, "randomised", lambda model, seed: [])
    monkeypatch.setattr(explain, "rank_correlation", lambda a, b: compared.append((a, b)) or np.zeros(N))
    sanity_check(model, source, TARGETS, GROUPS, LABELS)
    ((a, b),) = compared
    assert (a != b).all() and sorted(b[:, 0, 0]) == sorted(a[:, 0, 0])


def test_gates_are_those_that_the_network_applies(model, source):
    found = gates(model, source)
    assert list(found) == [
        "denseblock1",
        "transition1",
        "denseblock2",
        "transition2",
        "denseblock3",
        "transition3",
        "denseblock4",
    ]
    x = source.batch(np.arange(N), np.zeros(N, dtype=int))
    with torch.no_grad():
        for name, module in model.features.named_children():
            if name == "transition1":
                inside = module.conv(module.relu(module.norm(x)))
                np.testing.assert_allclose(found[name], module.se.gates(inside), rtol=1e-4)
            x = module(x)
    assert not any(module._forward_hooks for module in model.modules())


def test_untrained_gates_are_one_and_a_net_without_says_so(make_model, source):
    assert all((values == 1).all() for values in gates(make_model().eval(), source).values())
    with pytest.raises(HistotransferError, match="this network has none"):
        gates(make_model(positions=()).eval(), source)


def test_profiles_and_differences_of_gates_are_t_and_welch():
    generator = np.random.default_rng(0)
    values = {"moved": generator.normal(1, 0.1, (N, 6)), "frozen": np.ones((N, 3))}
    values["moved"][LABELS == "malignant", 2] += 1
    profiles = gate_profiles(values, GROUPS, LABELS)
    patients = pd.DataFrame(values["moved"]).groupby([LABELS, GROUPS]).mean()
    benign, malignant = patients.loc["benign"], patients.loc["malignant"]
    row = profiles.query("gate == 'moved' and channel == 4 and `class` == 'benign'").iloc[0]
    expected = t.interval(0.95, len(benign) - 1, benign[4].mean(), benign[4].sem())
    assert (row["low"], row["high"]) == pytest.approx(expected)
    table = gate_differences(profiles, "benign", "malignant")
    welch = ttest_ind(malignant, benign, equal_var=False).confidence_interval()
    assert (table.loc["moved", "low"], table.loc["moved", "high"]) == pytest.approx((welch.low[2], welch.high[2]))
    assert table.loc["moved", "apart"] == ((welch.low > 0) | (welch.high < 0)).sum() >= 1
    assert table.loc["frozen", ["channels", "lowest", "highest", "largest", "apart"]].tolist() == [3, 1, 1, 0, 0]
