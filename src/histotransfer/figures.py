"""Every plot of the book, in one style: colour-blind safe, axes with units, readable on light and dark pages.

Each function returns a matplotlib figure. Where it draws numbers, it describes them too: the description is the
picture's alt text, in a notebook and on the page.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from histotransfer.evaluation.curves import precision_recall_band, roc_band
from histotransfer.evaluation.metrics import THRESHOLD, class_names, positive_class, predicted, scores
from histotransfer.evaluation.pareto import pareto_front
from histotransfer.evaluation.pointing import hottest
from histotransfer.stain import to_lab
from histotransfer.study.tables import number
from histotransfer.tiles import decode

PALETTE = dict(
    zip(("blue", "orange", "green", "red", "purple", "brown"), sns.color_palette("colorblind"), strict=False)
)
CLASS_COLOURS = {"benign": PALETTE["blue"], "malignant": PALETTE["orange"]}
RUN_COLOURS = {"majority": PALETTE["purple"], "frozen-probe": PALETTE["blue"], "ladder": PALETTE["orange"]}
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


def described(figure: Figure, text: str) -> Figure:
    """Give a figure its alt text: `figure.alt`, which IPython publishes with the picture."""
    figure.alt = text
    figure._repr_mimebundle_ = lambda **_: ({}, {"image/png": {"alt": text}})
    return figure


def _colours(runs: Iterable[str]) -> dict[str, tuple]:
    """A colour for each run: the ladder and its baselines have the same in every figure."""
    runs = list(runs)
    taken = [RUN_COLOURS[run] for run in runs if run in RUN_COLOURS]
    others = iter([colour for colour in PALETTE.values() if colour not in taken] * 9)
    return {run: RUN_COLOURS[run] if run in RUN_COLOURS else next(others) for run in runs}


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


def by_seed(history: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of a history as epochs (index, from 1 over all its stages) by seeds; one without seeds is one run."""
    seeds = history["seed"] if "seed" in history else pd.Series(0, index=history.index)
    epochs = history.groupby(seeds).cumcount() + 1
    return pd.DataFrame({"epoch": epochs, "seed": seeds, "value": history[column]}).pivot(
        index="epoch", columns="seed", values="value"
    )


def _curve(axis: Axes, seeds: pd.DataFrame, label: str, colour: tuple, name: str) -> str:
    """Draw the mean over seeds with a band from the lowest to the highest; say in words what was drawn."""
    mean = seeds.mean(axis=1)
    if several := seeds.shape[1] > 1:
        axis.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.2, lw=0)
    axis.plot(seeds.index, mean, "o-", ms=4 if len(seeds) < 20 else 2, color=colour, label=label)
    last = f" ({seeds.iloc[-1].min():.2f} to {seeds.iloc[-1].max():.2f} over {seeds.shape[1]} seeds)" if several else ""
    return (
        f"{name} {mean.iloc[0]:.2f} in epoch {mean.index[0]}, lowest {mean.min():.2f} in epoch {mean.idxmin()},"
        f" {mean.iloc[-1]:.2f}{last} in epoch {mean.index[-1]}"
    )


def learning_curves(history: pd.DataFrame, quantity: str = "log_loss") -> Figure:
    """A quantity on training and validation images over the epochs of all stages; one panel a rung.

    Args:
        history: as a record has it: `rung, stage, epoch`, ``train_<quantity>``, ``validation_<quantity>``; of several
            runs with a column `seed`: then the mean is drawn with a band from the lowest to the highest.
        quantity: log_loss, accuracy or loss.
    """
    rungs, said = list(dict.fromkeys(history["rung"])), []
    figure, axes = plt.subplots(1, len(rungs), figsize=(WIDTH, 3), sharey=True, squeeze=False, layout="constrained")
    for axis, rung in zip(axes.flat, rungs, strict=True):
        rows = history[history["rung"] == rung]
        for part, colour in (("train", PALETTE["blue"]), ("validation", PALETTE["orange"])):
            seeds = by_seed(rows, f"{part}_{quantity}")
            said.append(_curve(axis, seeds, part, colour, f"{rung}, {part}:"))
        stages = rows["stage"].iloc[: len(seeds)].reset_index(drop=True)
        for start in np.flatnonzero(stages != stages.shift()):
            axis.axvline(start + 0.5, color="0.8", lw=1, zorder=0)
            axis.text(start + 0.6, 1.0, stages[start], fontsize=8, transform=axis.get_xaxis_transform(), va="bottom")
        axis.set(xlabel="epoch", xlim=(0.5, len(seeds) + 0.5))
        axis.set_title(rung, pad=18)
    axes.flat[0].set_ylabel(quantity.replace("_", " ") + (" (nats)" if "loss" in quantity else ""))
    axes.flat[-1].legend()
    return described(figure, f"Learning curves, {quantity.replace('_', ' ')}. {'; '.join(said)}.")


def compared_curves(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Log-loss of arms over epochs, one panel a question: the mean over seeds, with a band from lowest to highest.

    Args:
        panels: title to the panel's curves: label to epochs by seeds, as `by_seed` makes it.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.2), squeeze=False, layout="constrained")
    said = []
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=True):
        for (label, seeds), colour in zip(curves.items(), PALETTE.values(), strict=False):
            said.append(_curve(axis, seeds, label, colour, f"{title}, {label}:"))
        axis.set(xlabel="epoch", title=title)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.legend(fontsize=8)
    axes.flat[0].set_ylabel("log-loss (nats)")
    return described(figure, f"Log-loss over epochs. {'; '.join(said)}.")


def failure_signatures(histories: pd.DataFrame) -> Figure:
    """Overfitting, negative transfer and slow convergence as provoked on phantom tissue.

    Args:
        histories: of the record of `study.failures`.
    """

    def losses(arm: str, part: str = "validation") -> pd.DataFrame:
        return by_seed(histories[histories["arm"] == arm], f"{part}_log_loss")

    panels = {
        "F1 overfitting": {"training": losses("few images", "train"), "validation": losses("few images")},
        "F2 negative transfer": {
            "no transfer": losses("many images"),
            "source labels right": losses("right labels"),
            "source labels shuffled": losses("shuffled labels"),
        },
        "F3 slow convergence": {start: losses(f"DenseNet-121, {start}") for start in ("scratch", "ImageNet")},
    }
    return compared_curves(panels)


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
    """One panel a run: its curve and band, and what guessing would give."""
    figure, axes = plt.subplots(
        1,
        len(runs),
        figsize=(WIDTH, 0.75 + WIDTH / max(len(runs), 2.2)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    said = []
    colours = _colours(runs)
    for axis, (run, predictions) in zip(axes.flat, runs.items(), strict=True):
        target, score, rows = (
            predictions["truth"] == positive_class(predictions),
            scores(predictions),
            band(predictions),
        )
        axis.plot(*guess(target.mean()), color="0.6", lw=1)
        axis.fill_between(rows["x"], rows["low"], rows["high"], color=colours[run], alpha=0.25, lw=0)
        axis.plot(rows["x"], rows["value"], color=colours[run])
        middle = rows.iloc[len(rows) // 2]
        said.append(
            f"{run} {area(target, score):.2f}, with {labels[1]}"
            f" {number(middle['value'], middle['low'], middle['high'])} at {labels[0]} {middle['x']:.1f}"
        )
        axis.set(xlabel=labels[0], aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axis.set_title(f"{run}\n{_n(predictions)}", fontsize=10)
    axes.flat[0].set_ylabel(labels[1])
    return described(figure, f"Curves with 95 % bands, {_n(predictions)}. {name}: {'; '.join(said)}.")


def _n(predictions: pd.DataFrame) -> str:
    return f"{len(predictions)} images, {predictions['group'].nunique()} patients"


def confusion(predictions: pd.DataFrame) -> Figure:
    """Confusion matrix with counts and the rate within each true class."""
    names = class_names(predictions)
    counts = confusion_matrix(predictions["truth"], predicted(predictions), labels=names)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = np.array(
        [[f"{n}\n{rate:.0%}" for n, rate in zip(*row, strict=True)] for row in zip(counts, rates, strict=True)]
    )
    figure, axis = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
    sns.heatmap(
        rates, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True, ax=axis,
        xticklabels=names, yticklabels=names,
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="truth")
    axis.set_title(_n(predictions), fontsize=10)
    said = "; ".join(
        f"of {row.sum()} {name} images "
        + ", ".join(f"{n} predicted {other}" for n, other in zip(row, names, strict=True))
        for name, row in zip(names, counts, strict=True)
    )
    return described(figure, f"Confusion matrix, {_n(predictions)}: {said}.")


def patients(predictions: pd.DataFrame) -> Figure:
    """Each patient's images as dots: their probability of the positive class, and the share that is right."""
    positive = positive_class(predictions)
    right = predicted(predictions) == predictions["truth"]
    rows = predictions.assign(score=scores(predictions), right=right)
    about = rows.groupby("group").agg(truth=("truth", "first"), mean=("score", "mean"), right=("right", "mean"))
    about = about.sort_values(["truth", "mean"])
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for place, (group, own) in enumerate(about.iterrows()):
        images, colour = rows.loc[rows["group"] == group, "score"], CLASS_COLOURS.get(own["truth"], PALETTE["green"])
        axis.plot(np.linspace(place - 0.25, place + 0.25, len(images)), images, ".", color=colour, alpha=0.5, ms=5)
        axis.hlines(own["mean"], place - 0.35, place + 0.35, color=colour, lw=2.5)
    axis.axhline(THRESHOLD, color="0.4", lw=1, ls="--")
    shown = [f"{group}\n{own['right']:.0%}" for group, own in about.iterrows()]
    axis.set_xticks(range(len(about)), shown, rotation=90 if len(about) > 12 else 0, fontsize=8)
    axis.set(ylabel=f"probability of {positive}", ylim=(-0.03, 1.03), xlim=(-0.6, len(about) - 0.4))
    axis.set_xlabel("patient, and share of its images that is right")
    classes = dict.fromkeys(about["truth"])
    axis.legend(
        handles=[Patch(color=CLASS_COLOURS.get(name, PALETTE["green"]), label=name) for name in classes],
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(classes),
    )  # fmt: skip
    said = "; ".join(
        f"{group} ({own['truth']}) {own['right']:.0%} right, mean probability {own['mean']:.2f}"
        for group, own in about.iterrows()
    )
    return described(figure, f"Images by patient, {_n(predictions)}. {said}.")


def reliability_diagram(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Observed share of the positive class against its predicted probability, with intervals clustered by patient.

    Args:
        curves: name of a run to what `evaluation.calibration.reliability` makes of it.
    """
    figure, axes = plt.subplots(
        1,
        len(curves),
        figsize=(WIDTH, 0.75 + WIDTH / max(len(curves), 2.2)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    said = []
    colours = _colours(curves)
    for axis, (name, bins) in zip(axes.flat, curves.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", lw=1)
        axis.vlines(bins["predicted"], bins["low"], bins["high"], color=colours[name], lw=1.5, alpha=0.7)
        axis.plot(bins["predicted"], bins["observed"], "o", color=colours[name], ms=5)
        for row in bins.itertuples():
            axis.text(row.predicted, -0.04, row.images, ha="center", va="top", fontsize=7, color="0.35")
        axis.set(xlabel="predicted probability", aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.12, 1.03))
        axis.set_title(f"{name}\n{bins['images'].sum()} images", fontsize=10)
        shown = (
            f"{number(row.observed, row.low, row.high)} at {row.predicted:.2f} ({row.images} images,"
            f" {row.patients} patients)"
            for row in bins.itertuples()
        )
        said.append(f"{name}: {', '.join(shown)}")
    axes.flat[0].set_ylabel("observed share")
    return described(figure, f"Reliability: observed share at mean predicted probability. {'; '.join(said)}.")


def forest(table: pd.DataFrame, metric: str) -> Figure:
    """One metric of every run at every magnification, with intervals.

    Args:
        table: as `study.tables.with_intervals` makes it, or `gap`: then with a line where there is no difference.
        metric: accuracy, auroc, ...
    """
    rows = table[table["metric"] == metric]
    magnifications, runs = list(dict.fromkeys(rows["magnification"])), list(dict.fromkeys(rows["run"]))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.28 * max(len(rows), 3)), layout="constrained")
    spread = np.linspace(-0.25, 0.25, len(runs)) if len(runs) > 1 else [0]
    for offset, (run, colour) in zip(spread, _colours(runs).items(), strict=True):
        own = rows[rows["run"] == run]
        y = np.array([magnifications.index(m) for m in own["magnification"]]) + offset
        axis.hlines(y, own["low"], own["high"], color=colour, lw=2)
        axis.plot(own["value"], y, "o", color=colour, label=run)
    about = rows.drop_duplicates("magnification")
    names = [f"{m}x" if m.isdigit() else m for m in magnifications]
    labels = [
        f"{name}\n{images} images, {patients} patients"
        for name, images, patients in zip(names, about["images"], about["patients"], strict=True)
    ]
    axis.set_yticks(range(len(magnifications)), labels, fontsize=8)
    share = rows[["value", "low"]].min(axis=None) >= 0 and rows[["value", "high"]].max(axis=None) <= 1
    if share:
        axis.set_xlim(-0.02, 1.02)
    else:
        axis.axvline(0, color="0.6", lw=1)
    name = metric.replace("_", " ").replace("auroc", "AUROC")
    axis.set_xlabel(f"{name} with 95 % interval, clustered by patient")
    axis.set_ylabel("magnification")
    axis.invert_yaxis()
    said = (
        f"{m}, " + ", ".join(f"{r.run} {number(r.value, r.low, r.high)}" for r in own.itertuples())
        for m, (_, own) in zip(names, rows.groupby("magnification", sort=False), strict=True)
    )
    described(figure, f"{name} with 95 % intervals. {'; '.join(said)}.")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def overlays(tiles: np.ndarray, maps: np.ndarray, titles: Sequence[str], masks: np.ndarray | None = None) -> Figure:
    """Images above their Grad-CAM: evidence for the class in colour, the hottest cell crossed.

    Args:
        tiles: ``(N, S, S, 3)`` uint8, at most five: they stand in a row.
        maps: ``(N, h, w)``, signed; only what is above 0 is coloured.
        titles: one each.
        masks: ``(N, S, S)`` bool, where known: the diagnostic region is outlined, and what is outside is grey above.
    """
    count, size = len(tiles), tiles.shape[1]
    figure, axes = plt.subplots(2, count, figsize=(WIDTH, 2 * WIDTH / count + 0.4), squeeze=False, layout="constrained")
    points, said = hottest(maps, size), []
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
        axes[0, i].set_title(title, fontsize=8)
        said.append(f"{title.replace(chr(10), ', ')}: hottest cell {_place(points[i], size)}{where}")
    return described(figure, f"{count} images above their Grad-CAM. {'; '.join(said)}.")


def _place(point: np.ndarray, size: int) -> str:
    """The third of the image that a pixel lies in: `upper left`, ..., `in the middle`."""
    row, column = (3 * point / size).astype(int)
    words = (("upper", "", "lower")[row], ("left", "", "right")[column])
    return " ".join(word for word in words if word) or "in the middle"


def means_with_intervals(table: pd.DataFrame, label: str) -> Figure:
    """A value a row with its interval, such as one metric of several arms or their differences; a line stands at 0.

    Args:
        table: indexed by name: `value`, `low`, `high`, `images`, `patients`.
        label: of the axis, with its unit.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.3 * len(table)), layout="constrained")
    y = np.arange(len(table))
    axis.hlines(y, table["low"], table["high"], color=PALETTE["blue"], lw=2)
    axis.plot(table["value"], y, "o", color=PALETTE["blue"])
    axis.axvline(0, color="0.6", lw=1)
    counts = [f"{row.images} images, {row.patients} patients" for row in table.itertuples()]
    alike = len(set(counts)) == 1
    axis.set_yticks(y, table.index if alike else [f"{name}\n{n}" for name, n in zip(table.index, counts, strict=True)])
    axis.tick_params(axis="y", labelsize=10 if alike else 8)
    if table[["value", "high"]].max(axis=None) <= 1:
        axis.set_xlim(right=1.02)
    values = [number(row.value, row.low, row.high) for row in table.itertuples()]
    for place, text in zip(y, values, strict=True):
        axis.text(1.02, place, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    about = f"{counts[0]}; 95 % intervals by patient" if alike else "95 % intervals by patient"
    axis.set_xlabel(f"{label}\n{about}")
    axis.invert_yaxis()
    said = "; ".join(f"{name} {value} ({n})" for name, value, n in zip(table.index, values, counts, strict=True))
    return described(figure, f"{label} with 95 % intervals. {said}.")


def gate_profile(profiles: pd.DataFrame) -> Figure:
    """Mean gate of every channel in each class, one panel a gate module; channels in order of their mean.

    Args:
        profiles: as `evaluation.explain.gate_profiles` makes it.
    """
    names, said = list(dict.fromkeys(profiles["gate"])), []
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 0.6 + 2.1 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        own = profiles[profiles["gate"] == name]
        order = own.groupby("channel")["value"].mean().sort_values().index
        for label, rows_of in own.groupby("class"):
            lines, colour = rows_of.set_index("channel").loc[order], CLASS_COLOURS.get(label)
            axis.fill_between(range(len(order)), lines["low"], lines["high"], color=colour, alpha=0.3, lw=0)
            axis.plot(range(len(order)), lines["value"], color=colour, lw=1, label=label)
        axis.set_xlabel("channel, sorted")
        axis.set_title(name, fontsize=10)
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.tick_params(labelsize=8)
        said.append(f"{name}: {own['value'].min():.6f} to {own['value'].max():.6f} over {len(order)} channels")
    for axis in axes[:, 0]:
        axis.set_ylabel("gate")
    axes[0, 0].legend(fontsize=8)
    counts = ", ".join(f"{n} {label}" for label, n in profiles.groupby("class")["patients"].first().items())
    return described(figure, f"Mean SE gates by class ({counts} patients). {'; '.join(said)}.")


def dense_block_with_gate(channels: int = 64, growth_rate: int = 32, layers: int = 3, reduction: int = 16) -> Figure:
    """A dense block as stacks of feature maps that grow by what each layer adds, and the SE gate on its output.

    Args:
        channels: that enter the block.
        growth_rate: channels that each layer adds.
        layers: number of layers.
        reduction: r of the gate.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    total = channels + layers * growth_rate
    unit, width, gap = 1 / total, 0.34, 1.15  # a stack of all channels is 1 high
    colours = [(0.85, 0.85, 0.85), *(0.45 + 0.55 * np.array(sns.color_palette("colorblind")))]
    ink = {"color": "0.15", "fontsize": 9, "ha": "center"}

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


def stain_plane(density: np.ndarray, stains: np.ndarray, shown: int = 4000) -> Figure:
    """Optical densities of tissue in the plane of their two largest axes with the stain vectors, and edge on.

    Args:
        density: ``(3, N)`` of pixels that hold stain.
        stains: ``(2, 3)`` unit vectors, haematoxylin and eosin.
        shown: at most so many pixels, evenly spread.
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
    panels[0].legend(loc="upper left", fontsize=8)
    return described(
        figure,
        "Optical densities of tissue pixels: face on they fan out between the two stain vectors, edge on they are flat;"
        f" {share:.1%} of their spread lies in the plane.",
    )


def picture_table(rows: Mapping[str, Sequence[np.ndarray | str]], columns: Sequence[str]) -> Figure:
    """Pictures in a table with a name beside each row and above each column.

    Args:
        rows: name to pictures ``(H, W, 3)`` uint8, all of one shape, or a word that is written in place of one.
        columns: names.
    """
    height = WIDTH / (len(columns) + 0.6)
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(WIDTH, 0.4 + height * len(rows)), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.set(xticks=[], yticks=[], aspect="equal")
            sns.despine(ax=axis, left=True, bottom=True)
            if isinstance(picture, str):
                axis.text(0.5, 0.5, picture, ha="center", va="center", fontsize=7, color=PALETTE["red"])
                axis.set(xlim=(0, 1), ylim=(0, 1))
            else:
                axis.imshow(picture, interpolation="nearest")
                axis.add_patch(Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, ec="0.7", clip_on=False))
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=8)
    return figure


def pareto(table: pd.DataFrame, cost: str) -> Figure:
    """AUROC against what a net costs, with intervals; what no other net beats at both is joined by a line.

    Args:
        table: as `study.complexity.complexity_table` makes it.
        cost: its column: GFLOPs, MB, ms or parameters; drawn on a logarithmic axis.
    """
    rows = table.dropna(subset=[cost, "auroc"]).sort_values(cost, ignore_index=True)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.9), layout="constrained")
    front = rows[pareto_front(rows[cost].to_numpy(), rows["auroc"].to_numpy())]
    axis.plot(front[cost], front["auroc"], color="0.6", lw=1.5, zorder=0)
    markers = dict(zip(sorted(rows["net"].unique()), "osD^vP*X<>", strict=False))
    colours = dict(zip(sorted(rows["size"].unique()), PALETTE.values(), strict=False))
    for (net, size), own in rows.groupby(["net", "size"]):
        errors = np.abs(own[["low", "high"]].to_numpy().T - own["auroc"].to_numpy())
        axis.errorbar(own[cost], own["auroc"], errors, fmt=markers[net], color=colours[size], ms=6, lw=1, alpha=0.85)
    handles = [Line2D([], [], marker=marker, color="0.3", ls="", label=net) for net, marker in markers.items()]
    handles += [Patch(color=colour, label=f"{size} pixels") for size, colour in colours.items()]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))
    units = {"GFLOPs": "billion multiply-adds an image", "MB": "megabytes of weights", "ms": "milliseconds an image"}
    axis.set(xscale="log", xlabel=units.get(cost, cost), ylabel="AUROC, mean over 40x, 100x, 200x")
    names = ", ".join(f"{row.net} at {row.size} pixels ({row.auroc:.2f})" for row in front.itertuples())
    return described(figure, f"AUROC against {units.get(cost, cost)}. From cheap to dear, beaten by none: {names}.")
