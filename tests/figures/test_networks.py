import numpy as np
import pytest
import torch
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from histotransfer import figures
from histotransfer.models.se_densenet import SEDenseNet


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


def test_the_drawn_block_grows_by_what_each_layer_adds():
    figure = figures.dense_block_with_gate(channels=8, growth_rate=4, layers=2, reduction=2)
    (axis,) = figure.axes
    rows = {}
    for part in axis.patches:
        if isinstance(part, Rectangle):
            rows[part.get_y()] = rows.get(part.get_y(), 0) + part.get_width()
    widths = [rows[y] * 16 for y in sorted(rows)]
    assert widths == pytest.approx([8, 12, 16, 16])  # before, after each layer, after the gate
    texts = [text.get_text() for text in axis.texts]
    assert all(channels in texts for channels in ("8", "12", "16"))
    assert any("16 → 8 → 16" in text for text in texts)


def drawn_network(**architecture):
    with torch.device("meta"):
        return figures.whole_network(SEDenseNet(**architecture).eval())


def test_the_whole_network_has_the_shapes_of_the_densenet_paper_and_its_gates():
    figure = drawn_network()
    (axis,) = figure.axes
    texts = [text.get_text() for text in axis.texts]
    # Huang et al. 2017, table 1: DenseNet-121 for pictures of 224 pixels.
    for number, (layers, before, after) in enumerate(
        [(6, 64, 256), (12, 128, 512), (24, 256, 1024), (16, 512, 1024)], start=1
    ):
        assert f"block {number}: {layers} layers\n{before:,} to {after:,} channels" in texts
    assert [text for text in texts if text.isdigit()] == ["224", "112", "56", "28", "14", "7"]
    lines = [part for part in axis.collections if len(part.get_paths()) == 1]
    assert len(lines) == 6 + 12 + 24 + 16 - 4 + 6  # between the layers of each block, and one per side
    gates = [part for part in axis.patches if same_color(part.get_facecolor(), figures.PALETTE["orange"])]
    widths = [np.ptp(part.get_xy()[:, 0]) for part in gates]
    assert np.array(widths) / widths[0] * 256 == pytest.approx([256, 128, 512, 256, 1024, 512, 1024])
    assert "block 3: 24 layers, 256 to 1024 channels, side 14; gate of 1024 channels" in figure.alt
    assert figure.get_figwidth() <= 3.6  # a phone shows it whole


def test_a_network_without_gates_is_drawn_without_them():
    figure = drawn_network(positions=())
    assert "gate" not in figure.alt
    assert "block 1: 6 layers, gated" in drawn_network(positions=("layer",)).alt
