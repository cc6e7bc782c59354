"""Every plot of the book, in one style: colour-blind safe, axes with units, readable on light and dark pages.

Each function returns a matplotlib figure.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.metrics import confusion_matrix, roc_curve

from histotransfer.evaluation.metrics import ALL, class_names, positive_class, predicted, scores
from histotransfer.stain import to_lab
from histotransfer.tiles import decode

PALETTE = dict(
    zip(("blue", "orange", "green", "red", "purple", "brown"), sns.color_palette("colorblind"), strict=False)
)
CLASS_COLOURS = {"benign": PALETTE["blue"], "malignant": PALETTE["orange"]}
WIDTH = 7.2  # inches, the width of a page's text


def use_style() -> None:
    """Set the style; a chapter calls it once. A white panel with dark ink reads on light and on dark pages."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.facecolor": "white",
            "figure.dpi": 100,
            "savefig.dpi": 110,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "font.size": 10,
            "legend.frameon": False,
            "svg.hashsalt": "histotransfer",
        },
    )


def gallery(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4) -> Figure:
    """Pictures in a grid, each under its title.

    Args:
        images: ``(H, W, 3)`` uint8 or ``(H, W)``, any sizes.
        titles: one each.
        columns: pictures a row.
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
    """How many images each patient gives, by class: few patients with many images dominate an image-level score.

    Args:
        patients: as `study.patients.per_patient` makes it.
    """
    counts = patients.sort_values(["label", "images"], ascending=[True, False])
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    axis.bar(range(len(counts)), counts["images"], color=counts["label"].map(CLASS_COLOURS), width=0.9)
    axis.set(xlabel="patient (base number)", ylabel="images", xticks=[], xlim=(-0.6, len(counts) - 0.4))
    axis.legend(handles=[Patch(color=colour, label=label) for label, colour in CLASS_COLOURS.items()])
    return figure


def colour_per_patient(patients: pd.DataFrame) -> Figure:
    """Mean colour of each patient's images (CIELAB a* and b*) with one standard deviation over them.

    Args:
        patients: as `study.patients.per_patient` makes it.
    """
    figure, axis = plt.subplots(figsize=(5.6, 4), layout="constrained")
    for label, colour in CLASS_COLOURS.items():
        rows = patients[patients["label"] == label]
        axis.errorbar(
            rows["a"], rows["b"], rows["b_sd"], rows["a_sd"], "o", color=colour, ms=4, lw=1, alpha=0.8, label=label
        )
    axis.set(xlabel="mean a* (green to red)", ylabel="mean b* (blue to yellow)")
    axis.legend()
    return figure


def colour_clusters(table: pd.DataFrame, patients: int) -> Figure:
    """Mean CIELAB a* and b* of the images of the first few patients, benign and malignant in turn."""
    by_label = [list(dict.fromkeys(rows["group"])) for _, rows in table.groupby("label")]
    shown = [group for pair in zip(*by_label, strict=False) for group in pair][:patients]
    rows = table[table["group"].isin(shown)]
    colours = np.array([to_lab(decode(path))[..., 1:].mean(axis=(0, 1)) for path in rows["path"]])
    figure, axis = plt.subplots(figsize=(5.6, 4), layout="constrained")
    sns.scatterplot(x=colours[:, 0], y=colours[:, 1], hue=rows["group"].to_numpy(), palette="colorblind", ax=axis)
    axis.set(xlabel="mean a* (green to red)", ylabel="mean b* (blue to yellow)")
    axis.legend(title="patient", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def learning_curves(history: pd.DataFrame, quantity: str = "log_loss") -> Figure:
    """A quantity on training and validation images over the epochs of all stages; one panel a rung.

    Args:
        history: as a record has it: `rung, stage, epoch`, ``train_<quantity>``, ``validation_<quantity>``.
        quantity: log_loss, accuracy or loss.
    """
    rungs = list(dict.fromkeys(history["rung"]))
    figure, axes = plt.subplots(1, len(rungs), figsize=(WIDTH, 3), sharey=True, squeeze=False, layout="constrained")
    for axis, rung in zip(axes.flat, rungs, strict=True):
        rows = history[history["rung"] == rung].reset_index(drop=True)
        epochs = np.arange(1, len(rows) + 1)
        for part, colour in (("train", PALETTE["blue"]), ("validation", PALETTE["orange"])):
            axis.plot(epochs, rows[f"{part}_{quantity}"], "o-", ms=4, color=colour, label=part)
        for start in np.flatnonzero(rows["stage"] != rows["stage"].shift()):
            axis.axvline(start + 0.5, color="0.8", lw=1, zorder=0)
            axis.text(
                start + 0.6, 1.0, rows["stage"][start], fontsize=8, transform=axis.get_xaxis_transform(), va="bottom"
            )
        axis.set(xlabel="epoch", xlim=(0.5, len(rows) + 0.5))
        axis.set_title(rung, pad=18)
    axes.flat[0].set_ylabel(quantity.replace("_", " ") + (" (nats)" if "loss" in quantity else ""))
    axes.flat[-1].legend()
    return figure


def roc(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """ROC curves of several runs on the same images.

    Args:
        runs: name to predictions of one part.
    """
    figure, axis = plt.subplots(figsize=(4.2, 4), layout="constrained")
    axis.plot([0, 1], [0, 1], color="0.8", lw=1)
    for name, predictions in runs.items():
        false, true, _ = roc_curve(predictions["truth"] == positive_class(predictions), scores(predictions))
        axis.plot(false, true, label=name)
    axis.set(xlabel="1 – specificity", ylabel="sensitivity", aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axis.legend(loc="lower right")
    return figure


def confusion(predictions: pd.DataFrame) -> Figure:
    """Confusion matrix with counts and the rate within each true class."""
    names = class_names(predictions)
    counts = confusion_matrix(predictions["truth"], predicted(predictions), labels=names)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = np.array(
        [[f"{n}\n{rate:.0%}" for n, rate in zip(*row, strict=True)] for row in zip(counts, rates, strict=True)]
    )
    figure, axis = plt.subplots(figsize=(3.6, 3.2), layout="constrained")
    sns.heatmap(
        rates, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True, ax=axis,
        xticklabels=names, yticklabels=names,
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="truth")
    return figure


def forest(table: pd.DataFrame, metric: str) -> Figure:
    """One metric of every run at every magnification, with intervals.

    Args:
        table: as `study.tables.with_intervals` makes it.
        metric: accuracy, auroc, ...
    """
    rows = table[table["metric"] == metric]
    magnifications, runs = list(dict.fromkeys(rows["magnification"])), list(dict.fromkeys(rows["run"]))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.7 + 0.28 * len(rows)), layout="constrained")
    spread = np.linspace(-0.25, 0.25, len(runs)) if len(runs) > 1 else [0]
    for offset, run, colour in zip(spread, runs, sns.color_palette("colorblind"), strict=False):
        own = rows[rows["run"] == run]
        y = np.array([magnifications.index(m) for m in own["magnification"]]) + offset
        axis.hlines(y, own["low"], own["high"], color=colour, lw=2)
        axis.plot(own["value"], y, "o", color=colour, label=run)
    labels = [m if m == ALL else f"{m}x" for m in magnifications]
    axis.set(yticks=range(len(magnifications)), yticklabels=labels, ylabel="magnification", xlim=(-0.02, 1.02))
    axis.set_xlabel(f"{metric.replace('_', ' ').replace('auroc', 'AUROC')} with 95 % interval, clustered by patient")
    axis.invert_yaxis()
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
