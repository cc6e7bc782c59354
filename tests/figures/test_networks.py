import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from histotransfer import figures


def test_overlays_cross_the_hottest_cell_and_say_whether_it_is_inside():
    tiles = np.full((3, 9, 9, 3), 200, np.uint8)
    maps = np.full((3, 3, 3), -1.0)
    maps[0, 0, 0], maps[1, 1, 1], maps[2, 2, 1] = 1, 1, -0.5
    masks = np.zeros((3, 9, 9), bool)
    masks[:2, :4, :4] = True
    figure = figures.overlays(tiles, maps, ["a\nb", "c", "d"], masks)
    crosses = [axis.lines[-1].get_xydata().tolist() for axis in figure.axes[3:]]
    assert crosses == [[[1, 1]], [[4, 4]], [[4, 7]]]
    assert "a, b: hottest cell upper left, inside the region" in figure.alt
    assert "c: hottest cell in the middle, outside the region; d: hottest cell lower, no region" in figure.alt
    assert figure.axes[5].images[-1].get_array().max() == 0  # no evidence, no colour


def test_gate_profiles_are_sorted_by_channel_means():
    rows = [
        {
            "gate": "denseblock4",
            "channel": c,
            "class": label,
            "patients": 3,
            "value": v,
            "low": v - 0.1,
            "high": v + 0.1,
        }
        for label, values in {"benign": (1.2, 0.9), "malignant": (1.4, 0.7)}.items()
        for c, v in enumerate(values)
    ]
    figure = figures.gate_profile(pd.DataFrame(rows))
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[0.9, 1.2], [0.7, 1.4]]
    assert figure.alt == (
        "Mean SE gates by class (3 benign, 3 malignant patients). denseblock4: 0.700000 to 1.400000 over 2 channels."
    )


def test_the_drawn_block_grows_by_what_each_layer_adds():
    figure = figures.dense_block_with_gate(channels=8, growth_rate=4, layers=2, reduction=2)
    (axis,) = figure.axes
    stacks = {}
    for part in axis.patches:
        if isinstance(part, Rectangle):
            stacks[part.get_x()] = stacks.get(part.get_x(), 0) + part.get_height()
    heights = [stacks[x] * 16 for x in sorted(stacks)]
    assert heights == pytest.approx([8, 12, 16, 16])  # before, after each layer, after the gate
    texts = [text.get_text() for text in axis.texts]
    assert all(channels in texts for channels in ("8", "12", "16"))
    assert any("16 → 8 → 16" in text for text in texts)
