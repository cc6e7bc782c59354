import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histotransfer.evaluation.dose import (
    accuracy_by_original,
    colour_shift,
    kernels,
    linear_cka,
    movement,
    rounded,
)


def test_only_the_group_that_moved_has_moved(make_model):
    model = make_model()
    start = kernels(model)
    with torch.no_grad():
        for module in model.features.denseblock3.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.mul_(1.5)
        model.features.transition3.conv.weight.mul_(1.5)
        model.features.denseblock4.denselayer1.norm1.weight.add_(1)  # no convolution
    moved = movement(start, kernels(model))
    assert moved == pytest.approx({"stem": 0, "block1": 0, "block2": 0, "block3": 0.5, "block4": 0})


def test_movement_by_hand():
    one = {"block4": [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]}
    other = {"block4": [torch.tensor([3.0, 2.0]), torch.tensor([[4.0]])]}
    assert movement(one, other) == {"block4": pytest.approx(2 / 5)}


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_cka_is_one_for_the_same_features_turned_scaled_and_shifted(seed, scale):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(30, 5))
    turned = features @ np.linalg.qr(generator.normal(size=(5, 5)))[0] * scale + generator.normal(size=5)
    assert linear_cka(features, turned) == pytest.approx(1)
    other = generator.normal(size=(30, 7))
    assert 0 <= linear_cka(features, other) == pytest.approx(linear_cka(other, features))
    assert linear_cka(features, other) < 0.8


def test_cka_is_that_of_its_definition_by_kernels():
    """Kornblith et al. 2019, equations 1 to 3, with the centring matrix and Gram matrices written out."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(12, 3)), generator.normal(size=(12, 4))
    y[:, 0] += x[:, 0]
    centre = np.eye(12) - 1 / 12

    def hsic(k, m):
        return np.trace(k @ centre @ m @ centre)

    k, m = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


def test_cka_of_constant_features_is_not_defined():
    assert np.isnan(linear_cka(np.ones((5, 3)), np.random.default_rng(0).normal(size=(5, 3))))


def test_the_shift_of_colours_is_the_mean_cielab_distance():
    white, grey = (np.full((1, 4, 4, 3), value, dtype=np.uint8) for value in (255, 119))
    tiles = np.concatenate([white, white])
    shift = colour_shift(tiles, np.concatenate([white, grey]))
    lightness = 116 * ((((119 / 255 + 0.055) / 1.055) ** 2.4) ** (1 / 3)) - 16  # sRGB to L* by hand; a* and b* are 0
    assert shift["changed"] == 0.5
    assert shift["distance"] == pytest.approx((100 - lightness) / 2, rel=0.005)  # OpenCV interpolates


def test_lab_is_that_of_another_route():
    tile = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    shift = colour_shift(tile, 255 - tile)
    one, other = (cv2.cvtColor(t[0], cv2.COLOR_RGB2LAB).astype(float) for t in (tile, 255 - tile))  # 8 bits
    difference = (one - other) * [100 / 255, 1, 1]
    assert shift["distance"] == pytest.approx(np.linalg.norm(difference, axis=-1).mean(), rel=0.02)


def test_an_original_counts_once():
    truth = pd.Series(["a", "a", "a", "b"])
    groups = pd.Series(["one", "one", "one", "two"])
    assert accuracy_by_original(truth, groups, np.array(["a", "a", "b", "b"])) == pytest.approx((2 / 3 + 1) / 2)


def test_a_record_holds_rounded_numbers_and_no_nan():
    assert rounded({"a": {"b": 0.123456789, "c": float("nan")}, "d": 4}) == {"a": {"b": 0.12346, "c": None}, "d": 4}
