"""What networks predict: curves, confusion, patients, calibration."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from histotransfer.evaluation.curves import precision_recall_band, roc_band
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.metrics import THRESHOLD, class_names, patient_table, positive_class, predicted, scores
from histotransfer.figures.style import (
    CLASS_COLOURS,
    PALETTE,
    SMALL,
    WIDTH,
    described,
    legend_above,
    run_colours,
    stacked,
)

NAMED = 24  # patients whose names fit side by side on a page
LETTERS = 40  # of all names together that fit side by side


def roc(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """ROC curves of several runs on the same images, with pointwise 95 % bands clustered by patient.

    Args:
        runs: name to predictions of one part.
    """
    return _banded(
        runs, roc_band, roc_auc_score, "AUROC", ("1 – specificity", "sensitivity"), lambda share: ([0, 1], [0, 1])
    )


def precision_recall(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Precision-recall curves as `roc`; the grey line is the share of positive images, the precision of a guess."""
    return _banded(
        runs,
        precision_recall_band,
        average_precision_score,
        "average precision",
        ("recall (sensitivity)", "precision"),
        lambda share: ([0, 1], [share, share]),
    )


def _banded(
    runs: Mapping[str, pd.DataFrame],
    band: Callable[[pd.DataFrame], pd.DataFrame],
    area: Callable[[np.ndarray, np.ndarray], float],
    name: str,
    labels: tuple[str, str],
    guess: Callable[[float], tuple[list[float], list[float]]],
) -> Figure:
    """One panel per run: its curve and band, and the line of guessing."""
    figure, axes = stacked(len(runs), WIDTH, sharex=True)
    sentences = []
    colours = run_colours(runs)
    for axis, (run, predictions) in zip(axes, runs.items(), strict=True):
        target, score, rows = (
            predictions["truth"] == positive_class(predictions),
            scores(predictions),
            band(predictions),
        )
        axis.plot(*guess(target.mean()), color="0.6", lw=1)
        axis.fill_between(rows["x"], rows["low"], rows["high"], color=colours[run], alpha=0.25, lw=0)
        axis.plot(rows["x"], rows["value"], color=colours[run])
        middle = rows.iloc[len(rows) // 2]
        sentences.append(
            f"{run} {area(target, score):.2f}, with {labels[1]}"
            f" {number(middle['value'], middle['low'], middle['high'])} at {labels[0]} {middle['x']:.1f}"
        )
        axis.set(ylabel=labels[1], aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axis.set_title(f"{run}\n{_n(predictions)}", fontsize=10)
    axes[-1].set_xlabel(labels[0])
    return described(figure, f"Curves with 95 % bands, {_n(predictions)}. {name}: {'; '.join(sentences)}.")


def _n(predictions: pd.DataFrame) -> str:
    return f"{len(predictions)} images, {predictions['group'].nunique()} patients"


def confusion(predictions: pd.DataFrame) -> Figure:
    """Confusion matrix: counts, coloured by the rate within each true class; of two classes the rate is written too."""
    names = class_names(predictions)
    counts = confusion_matrix(predictions["truth"], predicted(predictions), labels=names)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = counts.astype(str)
    if len(names) == 2:  # more cells have no room for it
        cells = [f"{n}\n{rate:.0%}" for n, rate in zip(counts.flat, rates.flat, strict=True)]
        text = np.reshape(cells, counts.shape)
    shown = [name.replace("_", "\n") for name in names]
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH + 0.3), layout="constrained")
    sns.heatmap(
        rates, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True, ax=axis,
        xticklabels=shown, yticklabels=shown, annot_kws={"fontsize": SMALL},
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="truth")
    axis.tick_params(labelsize=SMALL, length=0)
    axis.set_title(_n(predictions), fontsize=10)
    sentences = "; ".join(
        f"of {row.sum()} {name} images "
        + ", ".join(f"{n} predicted {other}" for n, other in zip(row, names, strict=True))
        for name, row in zip(names, counts, strict=True)
    )
    return described(figure, f"Confusion matrix, {_n(predictions)}: {sentences}.")


def patients(predictions: pd.DataFrame, unit: str = "patient") -> Figure:
    """Each patient's images as dots: their probability of the positive class; and the share of them that is right.

    The bar of a patient is its score: the mean logit of its images as a probability (`metrics.patient_table`).

    There is no room for the names of more than `NAMED` patients: these are in the alt text only.

    Args:
        predictions: of images; `group` is what they are put together by.
        unit: what a group is, as readers call it.
    """
    positive = positive_class(predictions)
    right = predicted(predictions) == predictions["truth"]
    rows = predictions.assign(score=scores(predictions), right=right)
    whole = patient_table(predictions)
    whole = whole.assign(score=scores(whole)).groupby("group")["score"].first()
    about = rows.groupby("group").agg(truth=("truth", "first"), right=("right", "mean")).join(whole)
    about = about.sort_values(["truth", "score"])
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for place, (group, patient) in enumerate(about.iterrows()):
        images = rows.loc[rows["group"] == group, "score"]
        colour = CLASS_COLOURS.get(patient["truth"], PALETTE["green"])
        axis.plot(np.linspace(place - 0.25, place + 0.25, len(images)), images, ".", color=colour, alpha=0.5, ms=3)
        axis.hlines(patient["score"], place - 0.4, place + 0.4, color="0.1", lw=2)
    axis.axhline(THRESHOLD, color="0.4", lw=1, ls="--")
    if named := len(about) <= NAMED:
        shown = [f"{group}\n{patient['right']:.0%}" for group, patient in about.iterrows()]
        if upright := sum(len(str(group)) + 1 for group in about.index) > LETTERS:
            shown = [text.replace("\n", " ") for text in shown]
        axis.set_xticks(range(len(about)), shown, rotation=90 if upright else 0, fontsize=SMALL)
    else:
        axis.set_xticks([])
    axis.set(ylabel=f"probability of {positive}", ylim=(-0.03, 1.03), xlim=(-0.6, len(about) - 0.4))
    axis.set_xlabel(f"{unit}, and share of its images that is right" if named else f"{len(about)} {unit}s")
    classes = dict.fromkeys(about["truth"])
    legend_above(figure, [Patch(color=CLASS_COLOURS.get(name, PALETTE["green"]), label=name) for name in classes])
    sentences = "; ".join(
        f"{group} ({patient['truth']}) {patient['right']:.0%} right, scored {patient['score']:.2f}"
        for group, patient in about.iterrows()
    )
    return described(figure, f"{len(predictions)} images by {unit}, {len(about)} in all. {sentences}.")


def reliability_diagram(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Observed share of the positive class against its predicted probability, with intervals clustered by patient.

    Args:
        curves: name of a run to its table from `evaluation.calibration.reliability`.
    """
    figure, axes = stacked(len(curves), 3, sharex=True)
    sentences = []
    colours = run_colours(curves)
    for axis, (name, bins) in zip(axes, curves.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", lw=1)
        axis.vlines(bins["predicted"], bins["low"], bins["high"], color=colours[name], lw=1.5, alpha=0.7)
        axis.plot(bins["predicted"], bins["observed"], "o", color=colours[name], ms=5)
        for row in bins.itertuples():
            place: dict[str, Any] = {"ha": "center", "va": "top", "rotation": 90}
            axis.text(row.predicted, -0.03, row.images, fontsize=SMALL, color="0.35", **place)
        axis.set(ylabel="observed share", xlim=(-0.05, 1.05), ylim=(-0.2, 1.05))
        axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.set_title(f"{name}\n{bins['images'].sum()} images", fontsize=10)
        shown = (
            f"{number(row.observed, row.low, row.high)} at {row.predicted:.2f} ({row.images} images,"
            f" {row.patients} patients)"
            for row in bins.itertuples()
        )
        sentences.append(f"{name}: {', '.join(shown)}")
    axes[-1].set_xlabel("predicted probability")
    return described(figure, f"Reliability: observed share at mean predicted probability. {'; '.join(sentences)}.")
