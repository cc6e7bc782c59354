"""Networks, and where they look."""

from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from histotransfer.evaluation.pointing import hottest
from histotransfer.figures.style import CLASS_COLOURS, SMALL, WIDTH, described, legend_above


def dense_block_with_gate(channels: int = 64, growth_rate: int = 32, layers: int = 3, reduction: int = 16) -> Figure:
    """A dense block as stacks of feature maps that grow with each layer, and the SE gate on its output.

    Args:
        channels: number of channels that enter the block.
        growth_rate: channels that each layer adds.
        layers: number of layers.
        reduction: r of the gate.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    total = channels + layers * growth_rate
    unit, width, gap = 1 / total, 0.34, 1.15  # a stack of all channels is 1 high
    colours = [(0.85, 0.85, 0.85), *(0.45 + 0.55 * np.array(sns.color_palette("colorblind")))]
    ink: dict[str, Any] = {"color": "0.15", "fontsize": 9, "ha": "center"}

    def stack(x: float, parts: int, factor: str = "") -> None:
        for part in range(parts + 1):
            start = channels + (part - 1) * growth_rate if part else 0
            size = (growth_rate if part else channels) * unit
            axis.add_patch(Rectangle((x, start * unit), width, size, fc=colours[part], ec="0.15", lw=0.8))
            axis.text(x + width / 2, start * unit + size / 2, f"${factor}x_{part}$", va="center", **ink)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.15", "lw": 1.2})

    def box(x: float, y: float, text: str) -> None:
        axis.text(x, y, text, va="center", bbox={"boxstyle": "round", "fc": "white", "ec": "0.15"}, **ink)

    for part in range(layers + 1):
        stack(part * gap, part)
        axis.text(part * gap + width / 2, -0.09, f"{channels + part * growth_rate}", va="center", **ink)
        if part < layers:
            middle = channels * unit / 2
            arrow((part * gap + width, middle), ((part + 1) * gap, middle))
            box(part * gap + (gap + width) / 2, middle, f"$H_{part + 1}$")
    last, times, out = layers * gap, layers * gap + 1.15, layers * gap + 1.75
    arrow((last + width, 0.5), (times - 0.1, 0.5))
    axis.text(times, 0.5, "×", va="center", bbox={"boxstyle": "circle", "fc": "white", "ec": "0.15"}, **ink)
    arrow((times + 0.1, 0.5), (out, 0.5))
    stack(out, layers, "s\\,")
    axis.text(out + width / 2, -0.09, f"{total}", va="center", **ink)
    hidden = max(4, total // reduction)
    squeeze, excite = (last + width / 2 - 0.9, 1.35), (times, 1.35)
    arrow((last + width / 2, 1), (squeeze[0] + 0.3, squeeze[1] - 0.1))
    box(*squeeze, f"squeeze $z$\n{total} means")
    arrow((squeeze[0] + 0.55, 1.35), (excite[0] - 0.95, 1.35))
    box(*excite, f"$2\\,\\sigma(W_2\\,\\delta(W_1 z))$\n{total} → {hidden} → {total}")
    arrow((times, 1.22), (times, 0.6))
    axis.text(times - 0.06, 0.85, f"{total}\ngates $s$", va="center", **{**ink, "ha": "right"})
    axis.text(-0.1, -0.09, "channels", va="center", **{**ink, "ha": "right"})
    axis.set(xlim=(-0.85, out + width + 0.35), ylim=(-0.16, 1.52))
    axis.axis("off")
    return figure


def overlays(tiles: np.ndarray, maps: np.ndarray, titles: Sequence[str], masks: np.ndarray | None = None) -> Figure:
    """Images above their Grad-CAM: evidence for the class in colour, the hottest cell crossed.

    Args:
        tiles: ``(N, S, S, 3)`` uint8, at most five: they are drawn in one row.
        maps: ``(N, h, w)``, signed; only what is above 0 is coloured.
        titles: one each.
        masks: ``(N, S, S)`` bool, where known: the diagnostic region is outlined, and grey outside in the upper row.
    """
    count, size = len(tiles), tiles.shape[1]
    figure, axes = plt.subplots(2, count, figsize=(WIDTH, 2 * WIDTH / count + 0.4), squeeze=False, layout="constrained")
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
        axes[0, i].set_title(title, fontsize=SMALL)
        sentences.append(f"{title.replace(chr(10), ', ')}: hottest cell {_place(points[i], size)}{where}")
    return described(figure, f"{count} images above their Grad-CAM. {'; '.join(sentences)}.")


def _place(point: np.ndarray, size: int) -> str:
    """The third of the image that a pixel lies in: `upper left`, ..., `in the middle`."""
    row, column = (3 * point / size).astype(int)
    words = (("upper", "", "lower")[row], ("left", "", "right")[column])
    return " ".join(word for word in words if word) or "in the middle"


def gate_profile(profiles: pd.DataFrame) -> Figure:
    """Mean gate of every channel in each class, one panel per gate; channels in order of their mean.

    Args:
        profiles: as `evaluation.explain.gate_profiles` returns it.
    """
    names, sentences = list(dict.fromkeys(profiles["gate"])), []
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 0.6 + 2.1 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        gate = profiles[profiles["gate"] == name]
        order = gate.groupby("channel")["value"].mean().sort_values().index
        for label, of_class in gate.groupby("class"):
            lines, colour = of_class.set_index("channel").loc[order], CLASS_COLOURS.get(label)
            axis.fill_between(range(len(order)), lines["low"], lines["high"], color=colour, alpha=0.3, lw=0)
            axis.plot(range(len(order)), lines["value"], color=colour, lw=1, label=label)
        axis.set_xlabel("channel, sorted")
        axis.set_title(name, fontsize=10)
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.tick_params(labelsize=SMALL)
        sentences.append(f"{name}: {gate['value'].min():.6f} to {gate['value'].max():.6f} over {len(order)} channels")
    for axis in axes[:, 0]:
        axis.set_ylabel("gate")
    legend_above(figure)
    counts = ", ".join(f"{n} {label}" for label, n in profiles.groupby("class")["patients"].first().items())
    return described(figure, f"Mean SE gates by class ({counts} patients). {'; '.join(sentences)}.")
