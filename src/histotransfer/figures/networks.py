"""Networks, and where they look."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from histotransfer.evaluation.pointing import hottest
from histotransfer.figures.style import PALETTE, SMALL, TISSUE_TEXT, TISSUE_WIDTH, WIDTH, described

if TYPE_CHECKING:  # a figure of numbers alone does not wait for PyTorch
    from histotransfer.models.se_densenet import SEDenseNet


def dense_block_with_gate(channels: int = 64, growth_rate: int = 32, layers: int = 3, reduction: int = 16) -> Figure:
    """A dense block as bars of feature maps that grow with each layer, and the SE gate on its output, top to bottom.

    Args:
        channels: number of channels that enter the block.
        growth_rate: channels that each layer adds.
        layers: number of layers.
        reduction: r of the gate.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 5), layout="constrained")
    total = channels + layers * growth_rate
    unit, height, gap = 1 / total, 0.34, 1.15  # a bar of all channels is 1 wide
    colours = [(0.85, 0.85, 0.85), *(0.45 + 0.55 * np.array(sns.color_palette("colorblind")))]
    ink: dict[str, Any] = {"color": "0.15", "fontsize": SMALL, "ha": "center", "va": "center"}

    def bar(y: float, parts: int, factor: str = "") -> None:
        for part in range(parts + 1):
            start = channels + (part - 1) * growth_rate if part else 0
            size = (growth_rate if part else channels) * unit
            axis.add_patch(Rectangle((start * unit, y), size, height, fc=colours[part], ec="0.15", lw=0.8))
            axis.text(start * unit + size / 2, y + height / 2, f"${factor}x_{part}$", **ink)
        axis.text(-0.03, y + height / 2, f"{channels + parts * growth_rate}", **{**ink, "ha": "right"})

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.15", "lw": 1.2})

    def box(x: float, y: float, text: str, style: str = "round") -> None:
        axis.text(x, y, text, bbox={"boxstyle": style, "fc": "white", "ec": "0.15"}, **ink)

    middle, last = channels * unit / 2, layers * gap
    for part in range(layers + 1):
        bar(part * gap, part)
        if part < layers:
            arrow((middle, part * gap + height), (middle, (part + 1) * gap))
            box(middle, part * gap + (gap + height) / 2, f"$H_{part + 1}$")
    hidden, beside, gate, out = max(4, total // reduction), 0.74, last + 2.2, last + 3
    arrow((middle, last + height), (middle, gate - 0.2))
    box(middle, gate, "×", "circle")
    arrow((middle, gate + 0.2), (middle, out))
    bar(out, layers, "s\\,")
    arrow((beside, last + height), (beside, last + 0.8))
    box(beside, last + 1.1, f"squeeze $z$\n{total} means")
    arrow((beside, last + 1.4), (beside, gate - 0.3))
    box(beside, gate, f"$2\\,\\sigma(W_2\\,\\delta(W_1 z))$\n{total} → {hidden} → {total}")
    arrow((beside - 0.23, gate), (middle + 0.06, gate))
    axis.text((beside - 0.23 + middle) / 2, gate - 0.12, f"{total}\ngates $s$", **{**ink, "va": "bottom"})
    axis.text(-0.03, -0.15, "channels", **{**ink, "ha": "right"})
    axis.set(xlim=(-0.27, 1.01), ylim=(out + height + 0.1, -0.3))
    axis.axis("off")
    return figure


def whole_network(model: "SEDenseNet", size: int = 224) -> Figure:
    """The network from the picture at the top to the logits: channels as widths, layers as lines, gates as bars.

    Args:
        model: in eval mode; it is run once on an empty picture, so that all shapes are its own.
        size: pixels per side of that picture.
    """
    figure = plt.figure(figsize=(WIDTH, 7))
    axis = figure.add_axes((0, 0, 1, 1))
    middle, right, scale = 1.25, 1.98, 1.2 / model.classifier.in_features  # in inches, per channel
    grey, gated = "0.82", PALETTE["orange"]
    x = next(model.parameters()).new_zeros((1, 3, size, size))
    y, sentences = 0.25, list[str]()
    sides: list[tuple[int, float]] = []  # sides of maps, with the height at which they begin

    def shape(height: float, above: int, below: int, colour: Any, text: str, **ink: Any) -> None:
        nonlocal y
        corners = [(-above, y), (above, y), (below, y + height), (-below, y + height)]
        axis.add_patch(Polygon([(middle + scale * w / 2, h) for w, h in corners], fc=colour, ec="0.15", lw=0.8))
        axis.text(right, y + height / 2, text, va="center", fontsize=SMALL, linespacing=1.1, **ink)
        y += height

    def gate(channels: int) -> None:
        shape(0.1, channels, channels, gated, f"gate: {channels:,} channels", color="#8a4b00", weight="bold")

    def at_side() -> None:
        if not sides or sides[-1][0] != x.shape[-1]:
            sides.append((x.shape[-1], y))

    at_side()
    shape(0.06, 3, 3, "0.15", f"picture: {x.shape[1]} channels")
    y += 0.14
    for name, module in model.features.named_children():
        before, x = x.shape[1], module(x).detach()
        after, number = x.shape[1], name[-1]
        if name.startswith("conv"):
            at_side()
            shape(0.22, after, after, "white", f"stem: {after} channels")
        elif name.startswith("denseblock"):
            layers = [layer for part, layer in module.named_children() if part != "se"]
            top, height = y, max(0.36, 0.05 * len(layers))
            each = ", gated" if any(layer.se for layer in layers) else ""
            text = f"block {number}: {len(layers)} layers{each}"
            shape(height, before, after, grey, f"{text}\n{before:,} to {after:,} channels")
            for line in range(1, len(layers)):
                share = line / len(layers)
                half = scale * (before + share * (after - before)) / 2
                axis.hlines(top + share * height, middle - half, middle + half, color="0.15", lw=0.5)
            sentences.append(f"{text}, {before} to {after} channels, side {x.shape[-1]}")
            if module.se:
                gate(after)
                sentences.append(f"gate of {after} channels")
        elif name.startswith("transition"):
            text = f"transition {number}"
            shape(0.22, before, after, "white", f"{text}: {before:,} to {after:,}")
            sentences.append(f"{text}, {before} to {after} channels, side {x.shape[-1]}")
            if module.se:
                gate(after)
                sentences.append(f"gate of {after} channels")
        if name.startswith(("pool", "transition")):
            y += 0.04
            at_side()
            y += 0.04
    ends, logits = [start for _, start in sides[1:]] + [y], model.classifier.out_features
    y += 0.1
    shape(0.06, x.shape[1], x.shape[1], "white", f"means: {x.shape[1]:,}")
    y += 0.12
    shape(0.06, x.shape[1], x.shape[1], "0.15", f"head: {logits} logits")
    for (side, start), end in zip(sides, ends, strict=True):
        axis.vlines(0.5, start + 0.03, end - 0.03, color="0.5", lw=1)
        axis.text(0.45, (start + end) / 2, f"{side}", ha="right", va="center", fontsize=SMALL)
    axis.text(0.06, 0.1, "side", va="center", fontsize=SMALL)
    axis.set(xlim=(0, WIDTH), ylim=(y + 0.12, 0))
    figure.set_figheight(y + 0.12)
    axis.axis("off")
    about = f"SE-DenseNet for a picture of {size} pixels, from top to bottom: {'; '.join(sentences)}"
    return described(figure, f"{about}; then {x.shape[1]} means and {logits} logits.")


def overlays(tiles: np.ndarray, maps: np.ndarray, titles: Sequence[str], masks: np.ndarray | None = None) -> Figure:
    """Images above their Grad-CAM: evidence for the class in colour, the hottest cell crossed.

    Args:
        tiles: ``(N, S, S, 3)`` uint8, at most five: they are drawn in one row.
        maps: ``(N, h, w)``, signed; only what is above 0 is coloured.
        titles: one each.
        masks: ``(N, S, S)`` bool, where known: the diagnostic region is outlined, and grey outside in the upper row.
    """
    count, size = len(tiles), tiles.shape[1]
    size_of_all = (TISSUE_WIDTH, 2 * TISSUE_WIDTH / count + 0.5)
    figure, axes = plt.subplots(2, count, figsize=size_of_all, squeeze=False, layout="constrained")
    points, sentences = hottest(maps, size), []
    for i, title in enumerate(titles):
        heat = cv2.resize(np.maximum(maps[i], 0), (size, size), interpolation=cv2.INTER_LINEAR)
        heat, inside, where = heat / max(heat.max(), 1e-12), np.ones((size, size), bool), ""
        if masks is not None:
            inside, hit = masks[i], masks[i][tuple(points[i])]
            where = (", inside" if hit else ", outside") + " the region" if inside.any() else ", no region"
        grey = np.repeat(tiles[i].mean(axis=-1, keepdims=True), 3, axis=-1)
        axes[0, i].imshow(np.where(inside[..., None], tiles[i], 0.5 * grey + 90).astype(np.uint8))
        axes[1, i].imshow(tiles[i])
        axes[1, i].imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * heat)
        for axis in axes[:, i]:
            axis.axis("off")
            if inside.any() and not inside.all():
                axis.contour(inside, levels=[0.5], colors="black", linewidths=1.8)
                axis.contour(inside, levels=[0.5], colors="white", linewidths=0.9)
        for width, colour in ((4, "black"), (2, "white")):
            axes[1, i].plot(points[i, 1], points[i, 0], "x", color=colour, ms=9, mew=width)
        axes[0, i].set_title(title, fontsize=TISSUE_TEXT)
        sentences.append(f"{title.replace(chr(10), ', ')}: hottest cell {_place(points[i], size)}{where}")
    return described(figure, f"{count} images above their Grad-CAM. {'; '.join(sentences)}.")


def _place(point: np.ndarray, size: int) -> str:
    """The third of the image that a pixel lies in: `upper left`, ..., `in the middle`."""
    row, column = (3 * point / size).astype(int)
    words = (("upper", "", "lower")[row], ("left", "", "right")[column])
    return " ".join(word for word in words if word) or "in the middle"
