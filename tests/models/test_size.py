"""Sizes against published tables, torchvision's metadata, and networks that are really built."""

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from histotransfer.models.se_densenet import CONFIGURATIONS, SEDenseNet, parameter_count
from histotransfer.models.size import (
    GRID,
    activation_values,
    candidates,
    default_head,
    expected_parameters,
    grid_size,
    multiply_adds,
    nets_near,
    pixels_for_total,
    size_of,
)
from histotransfer.paper import STATED_PARAMETERS


def meta(*arguments, **architecture):
    with torch.device("meta"):
        return SEDenseNet(*arguments, **architecture)


@pytest.mark.parametrize("depth", [121, 169, 201])
def test_parameters_and_operations_are_those_that_torchvision_publishes(depth):
    published = getattr(models, f"DenseNet{depth}_Weights").DEFAULT.meta
    model = meta(1000, positions=(), **CONFIGURATIONS[f"densenet{depth}"])
    assert parameter_count(model) == published["num_params"]
    assert multiply_adds(model, 224) / 1e9 == pytest.approx(published["_ops"], abs=6e-4)  # given to three decimals


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("densenet40-k12", 1.0),
        ("densenet100-k12", 7.0),
        ("densenet100-k24", 27.2),
        ("densenet-bc100-k12", 0.8),
        ("densenet-bc250-k24", 15.3),
        ("densenet-bc190-k40", 25.6),
    ],
)
def test_cifar_nets_have_the_parameters_of_huangs_table_2(name, millions):
    assert round(parameter_count(meta(10, positions=(), **CONFIGURATIONS[name])) / 1e6, 1) == millions


def test_activations_and_operations_of_a_net_counted_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 64, 2))
    assert activation_values(model, 8) == 4 * 64 + 4 * 64 + 4 * 64 + 2
    assert multiply_adds(model, 8) == 64 * 4 * 27 + 4 * 64 * 2
    assert not any(module._forward_hooks for module in model.modules())


def test_a_size_is_in_the_units_it_says():
    found = size_of(224, 1000, positions=())
    assert found["parameters"] == 7_978_856
    assert found["MB on disk"] == pytest.approx(30.845 * 2**20 / 1e6, rel=0.02)  # torchvision's file, with overhead
    assert found["GMAC"] == pytest.approx(2.834, abs=6e-4)


def test_gates_cost_parameters_but_hardly_any_operation():
    table = candidates(64)
    assert table.loc["densenet121", "parameters"] == 7_978_856 - 998 * 1025  # two classes instead of a thousand
    for name in ("densenet121", "densenet201", "densenet40-k12"):
        plain, gated = table.loc[name], table.loc[f"{name} + SE"]
        assert 1.03 < gated["parameters"] / plain["parameters"] < 1.07
        assert 1 < gated["GMAC"] / plain["GMAC"] < 1.02


def test_a_summary_tools_total_is_met_at_the_picture_size_that_is_found():
    net = {"block_config": (4, 8, 6), "growth_rate": 12, "stem": "cifar", "stem_features": 16}
    size = round(pixels_for_total(30, 2, **net))
    found = size_of(size, 2, **net)
    total = (found["parameters"] * 4 + 3 * size**2 * 4 + 2 * found["MB of activations"] * 1e6) / 2**20
    assert total == pytest.approx(30, rel=0.02)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
def test_the_default_head_is_fastais():
    from fastai.vision.learner import create_head

    for features, num_classes in ((1024, 2), (448, 8)):
        ours, fastais = default_head(features, num_classes), create_head(features, num_classes)
        assert [p.shape for p in ours.parameters()] == [p.shape for p in fastais.parameters()]


@settings(max_examples=25)
@given(
    st.fixed_dictionaries(
        {name: st.sampled_from(GRID[name]) for name in GRID if name not in ("blocks", "depth", "num_classes")}
    ),
    st.lists(st.sampled_from(GRID["depth"][:5]), min_size=1, max_size=4),
    st.sampled_from(GRID["num_classes"]),
)
def test_the_formula_counts_what_is_built(options, block_config, num_classes):
    model = meta(num_classes, block_config=tuple(block_config), **options)
    positions = options.pop("positions")
    parts = expected_parameters(block_config, **options)
    assert parts["features"] == model.classifier.in_features
    counted = parts["trunk"] + sum(parts[p] for p in positions) + num_classes * (parts["features"] + 1)
    assert counted == parameter_count(model)


def test_every_net_found_has_that_many_parameters():
    near = nets_near(STATED_PARAMETERS, 3)
    assert set(near["parameters"] - STATED_PARAMETERS) == set(range(-3, 4))
    nets = near[near["parameters"] == STATED_PARAMETERS]
    assert len(nets) > 1
    for net in nets.head(8).to_dict("records"):
        assert net.pop("parameters") == STATED_PARAMETERS
        assert parameter_count(meta(**net)) == STATED_PARAMETERS


def test_the_grid_is_searched_whole_and_its_size_is_counted(monkeypatch):
    for name, values in GRID.items():
        monkeypatch.setitem(GRID, name, values[:1])
    for name, values in {"blocks": (2,), "depth": (1, 2), "positions": ((), ("block",)), "reduction": (2, 4)}.items():
        monkeypatch.setitem(GRID, name, values)
    assert grid_size() == 4 * (1 + 2)
    nets = nets_near(0, window=10**9)
    assert len(nets) == grid_size()
    only = nets["parameters"].iloc[0]
    pd.testing.assert_frame_equal(nets_near(only), nets[nets["parameters"] == only].reset_index(drop=True))
    assert nets_near(0).empty
    assert set(nets.loc[nets["positions"] == ("block",), "reduction"]) == {2, 4}
    # With four channels or fewer behind them, both reductions make the same gate.
    monkeypatch.setitem(GRID, "positions", ((), ("layer",)))
    monkeypatch.setitem(GRID, "reduction", (2, 4, 8))
    assert len(nets_near(0, window=10**9)) == 4 * 2
