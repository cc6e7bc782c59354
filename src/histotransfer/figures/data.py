"""Data and their colours."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from histotransfer.figures.style import CLASS_COLOURS, PALETTE, SMALL, WIDTH, described, legend_above
from histotransfer.pictures import decode
from histotransfer.stain import to_lab


def gallery(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4) -> Figure:
    """Pictures in a grid, each under its title.

    Args:
        images: ``(H, W, 3)`` uint8 or ``(H, W)``, any sizes.
        titles: one each.
        columns: pictures per row.
    """
    rows = -(-len(images) // columns)
    side = WIDTH / columns
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * (side + 0.25)), squeeze=False, layout="tight")
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image, cmap="viridis" if image.ndim == 2 else None, interpolation="nearest")
        axis.set_title(title, fontsize=9)
    return figure


def images_per_patient(patients: pd.DataFrame) -> Figure:
    """How many images each patient has, by class: few patients with many images dominate an image-level score.

    Args:
        patients: as `experiments.patients.per_patient` returns it.
    """
    counts = patients.sort_values(["label", "images"], ascending=[True, False])
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    axis.bar(range(len(counts)), counts["images"], color=counts["label"].map(CLASS_COLOURS), width=0.9)
    axis.set(xlabel="patient (base number)", ylabel="images", xticks=[], xlim=(-0.6, len(counts) - 0.4))
    axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    handles = [Patch(color=colour, label=label) for label, colour in CLASS_COLOURS.items()]
    legend_above(figure, handles)
    return figure


def colour_per_patient(patients: pd.DataFrame) -> Figure:
    """Mean colour of each patient's images (CIELAB a* and b*) with one standard deviation over them.

    Args:
        patients: as `experiments.patients.per_patient` returns it.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 4), layout="constrained")
    for label, colour in CLASS_COLOURS.items():
        rows = patients[patients["label"] == label]
        axis.errorbar(
            rows["a"], rows["b"], rows["b_sd"], rows["a_sd"], "o", color=colour, ms=4, lw=1, alpha=0.8, label=label
        )
    axis.set(xlabel="mean a* (green to red)", ylabel="mean b* (blue to yellow)")
    legend_above(figure)
    return figure


def colour_clusters(table: pd.DataFrame, patients: int) -> Figure:
    """Mean CIELAB a* and b* of the images of the first few patients, benign and malignant in turn."""
    by_label = [list(dict.fromkeys(rows["group"])) for _, rows in table.groupby("label")]
    shown = [group for pair in zip(*by_label, strict=False) for group in pair][:patients]
    rows = table[table["group"].isin(shown)]
    colours = np.array([to_lab(decode(path))[..., 1:].mean(axis=(0, 1)) for path in rows["path"]])
    figure, axis = plt.subplots(figsize=(WIDTH, 4), layout="constrained")
    sns.scatterplot(x=colours[:, 0], y=colours[:, 1], hue=rows["group"].to_numpy(), palette="colorblind", ax=axis)
    axis.set(xlabel="mean a* (green to red)", ylabel="mean b* (blue to yellow)")
    axis.legend(title="patient", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def stain_plane(density: np.ndarray, stains: np.ndarray, shown: int = 4000) -> Figure:
    """Optical densities of tissue in the plane of their two largest axes with the stain vectors, and edge on.

    Args:
        density: ``(3, N)`` of pixels that hold stain.
        stains: ``(2, 3)`` unit vectors, haematoxylin and eosin.
        shown: at most this many pixels, evenly spread.
    """
    density = density[:, :: max(1, density.shape[1] // shown)].astype(float)
    spread, axes = np.linalg.eigh(np.cov(density))
    axes = axes[:, ::-1] * np.where(axes[:, ::-1].sum(axis=0) > 0, 1, -1)
    places, arrows, share = axes.T @ density, stains @ axes, 1 - spread[0] / spread.sum()
    arrows *= 0.8 * places[0].max() / np.abs(arrows[:, :1])
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 3), sharex=True, sharey=True, layout="constrained")
    for panel, row in zip(panels, (1, 2), strict=True):
        panel.scatter(places[0], places[row], c=np.exp(-density.T), s=4, lw=0)
        for arrow, name, colour in zip(arrows, ("haematoxylin", "eosin"), ("blue", "red"), strict=True):
            panel.plot([0, arrow[0]], [0, arrow[row]], color=PALETTE[colour], lw=2, label=name)
        panel.set(xlabel="first axis (optical density)", aspect="equal")
    panels[0].set(title="face on", ylabel="second axis")
    panels[1].set(title=f"edge on ({share:.1%} of the spread)", ylabel="third axis")
    legend_above(figure)
    return described(
        figure,
        "Optical densities of tissue pixels: face on they fan out between the two stain vectors, edge on they are flat;"
        f" {share:.1%} of their spread lies in the plane.",
    )


def picture_table(rows: Mapping[str, Sequence[np.ndarray | str]], columns: Sequence[str]) -> Figure:
    """Pictures in a table with a name beside each row and above each column.

    Args:
        rows: name to pictures ``(H, W, 3)`` uint8, all of one shape, or a word that is written instead of one.
        columns: names.
    """
    height = WIDTH / (len(columns) + 0.6)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    size = (WIDTH, 0.4 + height * len(rows))
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout=layout)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.set(xticks=[], yticks=[], aspect="equal")
            sns.despine(ax=axis, left=True, bottom=True)
            if isinstance(picture, str):
                axis.text(0.5, 0.5, picture, ha="center", va="center", fontsize=SMALL, color=PALETTE["red"])
                axis.set(xlim=(0, 1), ylim=(0, 1))
            else:
                axis.imshow(picture, interpolation="nearest")
                axis.add_patch(Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, ec="0.7", clip_on=False))
        line[0].set_ylabel(name, fontsize=SMALL, rotation=0, ha="right", va="center")
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=SMALL)
    return figure
