"""Data and their colours."""

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from histotransfer.figures.style import (
    CLASS_COLOURS,
    PALETTE,
    PART_COLOURS,
    TISSUE_TEXT,
    TISSUE_WIDTH,
    WIDTH,
    described,
    legend_above,
    stacked,
)
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
    side = TISSUE_WIDTH / columns
    lines = 1 + max(title.count("\n") for title in titles)
    size = (TISSUE_WIDTH, rows * (side + 0.1 + 0.2 * lines))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="tight")
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image, cmap="viridis" if image.ndim == 2 else None, interpolation="nearest")
        axis.set_title(title, fontsize=TISSUE_TEXT)
    return figure


def images_per_patient(patients: pd.DataFrame) -> Figure:
    """How many images each patient has, by class, and how few patients give half of the images of their class.

    Args:
        patients: as `experiments.patients.per_patient` returns it.
    """
    figure, axes = stacked(2, 2, sharex=True, sharey=True)
    sentences = []
    for axis, (label, colour) in zip(axes, CLASS_COLOURS.items(), strict=True):
        counts = patients.loc[patients["label"] == label, "images"].sort_values(ascending=False).to_numpy()
        few = int(np.searchsorted(counts.cumsum(), counts.sum() / 2)) + 1
        axis.bar(range(len(counts)), counts, color=[colour] * few + [(*colour, 0.35)] * (len(counts) - few), width=0.9)
        sentences.append(f"{label}: {few} of {len(counts)} patients give half of {counts.sum()} images")
        axis.set_title(sentences[-1].replace(": ", ":\n"), loc="left", fontsize=10)
        axis.set(ylabel="images", xticks=[])
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[-1].set_xlabel("one bar per patient")
    return described(figure, f"Images of each patient, most first; {'; '.join(sentences)}.")


def patient_strips(splits: Mapping[str, pd.DataFrame]) -> Figure:
    """Each patient as a strip of its images, coloured by the part of a split that they are in; a panel per split.

    Args:
        splits: image tables of the same images with `split` filled, by the name of the split. The order of patients is
            that of their first image's part in the first split.
    """
    tables = {name: table.sort_values("group") for name, table in splits.items()}
    parts = list(PART_COLOURS)
    first = next(iter(tables.values())).groupby("group")["split"].first().map(parts.index)
    order = first.sort_values(kind="stable").index
    figure, axes = stacked(len(splits), 2.5, sharex=True)
    sentences = []
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        counts = pd.crosstab(table["group"], table["split"]).reindex(order).reindex(columns=parts, fill_value=0)
        bottom = np.zeros(len(order), int)
        for part, colour in PART_COLOURS.items():
            axis.bar(range(len(order)), counts[part], bottom=bottom, color=colour, width=0.85, label=part)
            bottom += counts[part].to_numpy()
        tested, trained = counts["test"] > 0, counts["train"] > 0
        sentences.append(f"{name}: {(tested & trained).sum()} of {tested.sum()} test patients are also in training")
        axis.set_title(sentences[-1].replace(": ", ":\n"), loc="left", fontsize=10)
        axis.set(ylabel="images", xticks=[])
    axes[-1].set_xlabel("one strip per patient")
    legend_above(figure)
    return described(figure, f"Each patient's images, coloured by part. {'; '.join(sentences)}.")


def colour_per_patient(patients: pd.DataFrame) -> Figure:
    """Mean colour of each patient's images (CIELAB a* and b*) with one standard deviation over them.

    Args:
        patients: as `experiments.patients.per_patient` returns it.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
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
    axis.legend().remove()
    legend_above(figure, columns=3)
    return figure


def picture_table(rows: Mapping[str, Sequence[np.ndarray | str]], columns: Sequence[str]) -> Figure:
    """Pictures in a table with a name beside each row and above each column.

    Args:
        rows: name to pictures ``(H, W, 3)`` uint8, all of one shape, or a word that is written instead of one.
        columns: names.
    """
    height = TISSUE_WIDTH / (len(columns) + 0.6)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    size = (TISSUE_WIDTH, 0.4 + height * len(rows))
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout=layout)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.set(xticks=[], yticks=[], aspect="equal")
            sns.despine(ax=axis, left=True, bottom=True)
            if isinstance(picture, str):
                broken = re.sub("(?<=[a-z])(?=[A-Z])", "\n", picture)  # LinAlgError
                axis.text(0.5, 0.5, broken, ha="center", va="center", fontsize=TISSUE_TEXT, color=PALETTE["red"])
                axis.set(xlim=(0, 1), ylim=(0, 1))
            else:
                axis.imshow(picture, interpolation="nearest")
                axis.add_patch(Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, ec="0.7", clip_on=False))
        line[0].set_ylabel(name, fontsize=TISSUE_TEXT, rotation=0, ha="right", va="center")
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=TISSUE_TEXT)
    return figure
