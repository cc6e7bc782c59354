"""Numbers with intervals, side by side."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.metrics import metric_name
from histotransfer.evaluation.pareto import pareto_front
from histotransfer.figures.style import PALETTE, SMALL, WIDTH, described, legend_above, run_colours, stacked

BEFORE = "before"  # of the network that has not learnt yet, in `report.adapting.learning_curve`
LINE = 52  # small characters that fit below a figure


def forest(
    table: pd.DataFrame,
    metric: str,
    claim: float | None = None,
    larger_class: pd.Series | None = None,
    unit: str = "patients",
) -> Figure:
    """One metric of every run at every magnification, with intervals.

    Args:
        table: as `report.tables.with_intervals` returns it, or `report.tables.gap`: then a line marks no difference.
        metric: accuracy, auroc, ...
        claim: a claimed value of the metric, drawn as a dashed line.
        larger_class: accuracy of always predicting the larger class, by magnification: short grey lines.
        unit: what the intervals leave out or draw as a whole, as readers call it, in the plural.
    """
    rows = table[table["metric"] == metric]
    magnifications, runs = list(dict.fromkeys(rows["magnification"])), list(dict.fromkeys(rows["run"]))
    figure, axis = plt.subplots(
        figsize=(WIDTH, 1.2 + max(0.55 * len(magnifications), 0.2 * len(rows))), layout="constrained"
    )
    half = min(0.3, 0.15 * (len(runs) - 1))
    spread = np.linspace(-half, half, len(runs))
    for offset, (run, colour) in zip(spread, run_colours(runs).items(), strict=True):
        of_run = rows[rows["run"] == run]
        y = np.array([magnifications.index(m) for m in of_run["magnification"]]) + offset
        axis.hlines(y, of_run["low"], of_run["high"], color=colour, lw=2)
        axis.plot(of_run["value"], y, "o", color=colour, label=run)
    about = rows.drop_duplicates("magnification")
    names = [f"{m}x" if m.isdigit() else m for m in magnifications]
    labels = [
        f"{name}\n{images} images\n{patients} {unit}"
        for name, images, patients in zip(names, about["images"], about["patients"], strict=True)
    ]
    axis.set_yticks(range(len(magnifications)), labels, fontsize=SMALL)
    name = metric_name(metric)
    if "smallest" in table:  # which a difference has, and nothing else
        axis.axvline(0, color="0.6", lw=1)
        name = f"difference in {name}"
    elif rows[["value", "low"]].min(axis=None) >= 0 and rows[["value", "high"]].max(axis=None) <= 1:
        axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(f"{name} with 95 % interval,\nclustered by {unit.removesuffix('s')}")
    axis.set_ylim(len(magnifications) - 0.5, -0.5)
    values = (
        f"{m}, " + ", ".join(f"{r.run} {number(r.value, r.low, r.high)}" for r in runs_at.itertuples())
        for m, (_, runs_at) in zip(names, rows.groupby("magnification", sort=False), strict=True)
    )
    lines = "" if claim is None else f" The dashed line of the claim is at {claim:g}."
    if claim is not None:
        axis.axvline(claim, color="0.3", ls="--", lw=1, label=f"claimed: {claim:g}")
    if larger_class is not None:
        y = [magnifications.index(m) for m in larger_class.index]
        axis.plot(larger_class, y, ls="", marker="|", ms=16, mew=2, color="0.5", zorder=0, label="larger class")
        shares = ", ".join(f"{names[at]} {share:.2f}" for at, share in zip(y, larger_class, strict=True))
        lines += f" Always answering with the larger class: {shares}."
    described(figure, f"{name} with 95 % intervals. {'; '.join(values)}.{lines}")
    legend_above(figure, columns=2)
    return figure


def means_with_intervals(table: pd.DataFrame, label: str, nothing: float = 0, unit: str = "patients") -> Figure:
    """One value with its interval per row, such as one metric of several arms or their differences.

    Args:
        table: indexed by name: `value`, `low`, `high`, `images`, `patients`.
        label: of the axis, with its unit.
        nothing: the value of no difference, or of guessing, marked by a line.
        unit: what the intervals leave out or draw as a whole, as readers call it, in the plural.
    """
    counts = [f"{row.images} images, {row.patients} {unit}" for row in table.itertuples()]
    values = [number(row.value, row.low, row.high) for row in table.itertuples()]
    alike = len(set(counts)) == 1
    lines = [table.index, values] if alike else [table.index, values, counts]
    names = ["\n".join(text) for text in zip(*lines, strict=True)]
    height = 0.9 + 0.2 * (1 + max(name.count("\n") for name in names)) * len(table)
    figure, axis = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    y = np.arange(len(table))
    axis.hlines(y, table["low"], table["high"], color=PALETTE["blue"], lw=2)
    axis.plot(table["value"], y, "o", color=PALETTE["blue"])
    axis.axvline(nothing, color="0.6", lw=1)
    axis.set_yticks(y, names, fontsize=SMALL)
    if table[["value", "low"]].min(axis=None) >= 0 and table[["value", "high"]].max(axis=None) <= 1:
        axis.set_xlim(right=1.02)
    clustered = f"95 % intervals by {unit.removesuffix('s')}"
    about = f"{counts[0]}\n{clustered}" if alike else clustered
    figure.supxlabel(f"{textwrap.fill(label, LINE)}\n{about}", fontsize=SMALL)  # names leave the axis little width
    axis.set_ylim(len(table) - 0.5, -0.5)
    sentences = "; ".join(f"{name} {value} ({n})" for name, value, n in zip(table.index, values, counts, strict=True))
    return described(figure, f"{label} with 95 % intervals. {sentences}.")


def by_labelled_patients(
    table: pd.DataFrame, metrics: Sequence[str] = ("balanced_accuracy", "log_loss"), unit: str = "patients"
) -> Figure:
    """Learning curves over the number of labelled patients, one panel per metric, with intervals.

    Args:
        table: as `report.adapting.learning_curve` returns it; the run `before` is drawn at 0, with a line to its right.
        metrics: of the panels.
        unit: what is labelled and kept apart, as readers call it, in the plural.
    """
    figure, axes = stacked(len(metrics), 2.7)
    numbers, sentences = sorted(set(table["labelled"])), []
    arms = [run for run in dict.fromkeys(table["run"]) if run != BEFORE]
    for axis, metric in zip(axes, metrics, strict=True):
        rows = table[table["metric"] == metric]
        colours, spread = run_colours(arms), np.linspace(-0.2, 0.2, len(arms))
        for (run, colour), offset in zip([(BEFORE, "0.3"), *colours.items()], [0.0, *spread], strict=True):
            own = rows[rows["run"] == run]
            x = np.array([numbers.index(labelled) for labelled in own["labelled"]]) + offset
            axis.vlines(x, own["low"], own["high"], color=colour, lw=1.5)
            axis.plot(x, own["value"], "o-", ms=4, lw=1, color=colour, label=run)
            values = (f"{r.labelled} {number(r.value, r.low, r.high)}" for r in own.itertuples())
            sentences.append(f"{metric_name(metric)}, {run}: {', '.join(values)}")
        axis.axhline(rows.loc[rows["run"] == BEFORE, "value"].iloc[0], color="0.6", ls=":", lw=1, zorder=0)
        axis.set_xticks(range(len(numbers)), [str(labelled) for labelled in numbers])
        axis.set(xlabel=f"labelled {unit}", ylabel=metric_name(metric) + (" (nats)" if metric == "log_loss" else ""))
    legend_above(figure, columns=2)
    about = table.iloc[0]
    return described(
        figure,
        f"Learning curves over the number of labelled {unit}, with 95 % intervals, on {about['images']} images of"
        f" {about['patients']} {unit} that were kept apart. {'; '.join(sentences)}.",
    )


def choices(criteria: pd.DataFrame, chosen: Mapping[int, str]) -> Figure:
    """The criterion of every candidate, one row per test fold; a ring marks the one that was chosen.

    Args:
        criteria: one row per test fold, one column per candidate, as `report.selection.Selection.criteria`.
        chosen: test fold to its candidate.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1.1 + 0.45 * len(criteria)), layout="constrained")
    for (candidate, values), marker in zip(criteria.items(), "osD^vP*X<>", strict=False):
        axis.plot(values, range(len(values)), marker, ms=7, alpha=0.8, label=candidate)
    rings = [criteria.loc[fold, chosen[fold]] for fold in criteria.index]
    axis.plot(rings, range(len(rings)), "o", ms=14, mfc="none", mec="black", label="chosen")
    axis.set_yticks(range(len(criteria)), [f"for test\nfold {fold}" for fold in criteria.index])
    axis.set(xlabel="AUROC on the four other folds", ylim=(len(criteria) - 0.5, -0.5))
    legend_above(figure, columns=3)
    told = (
        f"for fold {fold} {chosen[fold]}, of " + ", ".join(f"{name} {value:.3f}" for name, value in row.items())
        for fold, row in criteria.iterrows()
    )
    return described(figure, f"AUROC of every candidate on the other folds. Chosen: {'; '.join(told)}.")


def pareto(table: pd.DataFrame, cost: str) -> Figure:
    """AUROC against the cost of nets, with intervals; a line joins the nets that no other beats at both.

    Args:
        table: as `report.complexity.complexity_table` returns it.
        cost: its column: GMAC, MB, ms or parameters; drawn on a logarithmic axis.
    """
    rows = table.dropna(subset=[cost, "auroc"]).sort_values(cost, ignore_index=True)
    figure, axis = plt.subplots(figsize=(WIDTH, 4.6), layout="constrained")
    front = rows[pareto_front(rows[cost].to_numpy(), rows["auroc"].to_numpy())]
    axis.plot(front[cost], front["auroc"], color="0.6", lw=1.5, zorder=0)
    markers = dict(zip(sorted(rows["net"].unique()), "osD^vP*X<>", strict=False))
    colours = dict(zip(sorted(rows["size"].unique()), PALETTE.values(), strict=False))
    for (net, size), points in rows.groupby(["net", "size"]):
        errors = np.abs(points[["low", "high"]].to_numpy().T - points["auroc"].to_numpy())
        axis.errorbar(
            points[cost], points["auroc"], errors, fmt=markers[net], color=colours[size], ms=6, lw=1, alpha=0.85
        )
    handles: list[Artist] = [
        Line2D([], [], marker=marker, color="0.3", ls="", label=net) for net, marker in markers.items()
    ]
    handles += [Patch(color=colour, label=f"{size} pixels") for size, colour in colours.items()]
    legend_above(figure, handles, columns=2)
    units = {"GMAC": "GMAC per image", "MB": "megabytes of weights", "ms": "milliseconds per image"}
    axis.set(xscale="log", xlabel=units.get(cost, cost), ylabel="AUROC, mean over 40x, 100x, 200x")
    axis.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())
    names = ", ".join(f"{row.net} at {row.size} pixels ({row.auroc:.2f})" for row in front.itertuples())
    return described(figure, f"AUROC against {units.get(cost, cost)}. From cheap to dear, beaten by none: {names}.")
