"""Histories of training."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from histotransfer.config import LadderConfig, Stage
from histotransfer.evaluation.metrics import metric_name
from histotransfer.figures.style import PALETTE, SMALL, described, legend_above, stacked

GROUPS = (*get_args(Stage)[:-1], "stem")
"""The groups that train, from the head down; the last stage, `all`, trains the stem too."""


def by_seed(history: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of a history as epochs (index, from 1 over all its stages) by seeds; without seeds it is one run."""
    seeds = history["seed"] if "seed" in history else pd.Series(0, index=history.index)
    epochs = history.groupby(seeds).cumcount() + 1
    return pd.DataFrame({"epoch": epochs, "seed": seeds, "value": history[column]}).pivot(
        index="epoch", columns="seed", values="value"
    )


def _curve(axis: Axes, seeds: pd.DataFrame, label: str, colour: tuple, name: str) -> str:
    """Draw the mean over seeds with a band from the lowest to the highest; returns a description in words."""
    mean = seeds.mean(axis=1)
    if several := seeds.shape[1] > 1:
        axis.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.2, lw=0)
    axis.plot(seeds.index, mean, "o-", ms=4 if len(seeds) < 20 else 2, color=colour, label=label)
    last = f" ({seeds.iloc[-1].min():.2f} to {seeds.iloc[-1].max():.2f} over {seeds.shape[1]} runs)" if several else ""
    return (
        f"{name} {mean.iloc[0]:.2f} in epoch {mean.index[0]}, lowest {mean.min():.2f} in epoch {mean.idxmin()},"
        f" {mean.iloc[-1]:.2f}{last} in epoch {mean.index[-1]}"
    )


def learning_curves(history: pd.DataFrame, quantity: str = "log_loss") -> Figure:
    """A quantity on training and validation images over the epochs of all stages; one panel per data set.

    Args:
        history: as a record has it: `dataset, stage, epoch`, ``train_<quantity>``, ``validation_<quantity>``; of
            several runs with a column `seed`: then the mean is drawn with a band from the lowest to the highest.
        quantity: log_loss, accuracy or loss.
    """
    datasets, sentences = list(dict.fromkeys(history["dataset"])), []
    figure, axes = stacked(len(datasets), 2.6, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = history[history["dataset"] == dataset]
        for part, colour in (("train", PALETTE["blue"]), ("validation", PALETTE["orange"])):
            seeds = by_seed(rows, f"{part}_{quantity}")
            sentences.append(_curve(axis, seeds, part, colour, f"{dataset}, {part}:"))
        stages = rows["stage"].iloc[: len(seeds)].reset_index(drop=True)
        for start in np.flatnonzero(stages != stages.shift()):
            axis.axvline(start + 0.5, color="0.8", lw=1, zorder=0)
            axis.text(
                start + 0.6, 1.0, stages[start], fontsize=SMALL, transform=axis.get_xaxis_transform(), va="bottom"
            )
        axis.set(xlabel="epoch", xlim=(0.5, len(seeds) + 0.5))
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_title(dataset, pad=18)
        axis.set_ylabel(metric_name(quantity) + (" (nats)" if "loss" in quantity else ""))
    legend_above(figure)
    return described(figure, f"Learning curves, {metric_name(quantity)}. {'; '.join(sentences)}.")


def compared_curves(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Log-loss of arms over epochs, one panel per question: the mean over seeds, with a band from lowest to highest.

    Args:
        panels: title to the panel's curves: label to epochs by seeds, as `by_seed` returns it.
    """
    figure, axes = stacked(len(panels), 2.8)
    sentences = []
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for (label, seeds), colour in zip(curves.items(), PALETTE.values(), strict=False):
            sentences.append(_curve(axis, seeds, label, colour, f"{title}, {label}:"))
        axis.set(xlabel="epoch", ylabel="log-loss (nats)")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.1, 1), "alignment": "left"}
        axis.legend(title=title, fontsize=SMALL, title_fontsize=10, handlelength=1.2, **place)
    return described(figure, f"Log-loss over epochs. {'; '.join(sentences)}.")


def failure_signatures(histories: pd.DataFrame) -> Figure:
    """Overfitting, negative transfer and slow convergence, provoked on phantom tissue.

    Args:
        histories: from the record of `experiments.failures`.
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


def unfreezing_timeline(config: LadderConfig) -> Figure:
    """Which groups of the network train in which epochs, and at which peak rate; one panel per data set.

    Each stage is one cycle of the rate (fastai's `fit_one_cycle`), drawn as a hump; grey is frozen.

    Args:
        config: its schedules, rates and gates.
    """
    schedules = {"LC25000": config.lc25000_schedule, "BreakHis": config.breakhis_schedule}
    if config.source == "none":
        del schedules["LC25000"]
    rates = [config.learning_rate * config.rate_decay**down for down in range(len(GROUPS))]
    figure, axes = stacked(len(schedules), 2.6)
    rise = np.linspace(0, 1, 50)
    hump = np.where(rise < 0.25, np.sin(2 * np.pi * rise), np.sin(np.pi * (0.5 + (rise - 0.25) / 1.5))) ** 2
    sentences = []
    for axis, (dataset, schedule) in zip(axes, schedules.items(), strict=True):
        start, trained = 0, dict[str, list[int]]()
        for stage, epochs in schedule:
            lowest = len(GROUPS) - 1 if stage == "all" else GROUPS.index(stage)
            for row, group in enumerate(GROUPS):
                if row <= lowest:
                    trained.setdefault(group, []).extend(range(start + 1, start + epochs + 1))
                    axis.fill_between(
                        start + epochs * rise, row + 0.4, row + 0.4 - 0.8 * hump, color=PALETTE["blue"], lw=0
                    )
                else:
                    axis.fill_between([start, start + epochs], row + 0.4, row - 0.4, color="0.9", lw=0)
            axis.axvline(start, color="0.6", lw=1, zorder=0)
            axis.text(start + 0.05 * epochs, -0.55, stage, fontsize=SMALL, va="bottom")
            start += epochs
        axis.set(xlim=(0, start), ylim=(len(GROUPS) - 0.4, -0.5), xlabel="epochs")
        axis.set_title(dataset, loc="left", fontsize=10, pad=16)
        axis.set_yticks(range(len(GROUPS)), GROUPS, fontsize=SMALL)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        beside = axis.secondary_yaxis("right")
        shown = [_rate(rate) if group in trained else "frozen" for group, rate in zip(GROUPS, rates, strict=True)]
        beside.set_yticks(range(len(GROUPS)), shown, fontsize=SMALL)
        beside.set_ylabel("peak rate", fontsize=SMALL)
        for each in (axis, beside):
            each.tick_params(axis="y", length=0)
            each.spines[:].set_visible(False)
        learns = (
            f"{group} in {len(own)} of {start} epochs from epoch {own[0]}, peak rate {rate}"
            if (own := trained.get(group))
            else f"{group} frozen"
            for group, rate in zip(GROUPS, shown, strict=True)
        )
        sentences.append(f"{dataset}: {', '.join(learns)}")
    gates = ""
    if config.se_positions:
        gates = f"Gates train with their block, at {_rate(config.learning_rate * config.gate_rate)}."
        axes[-1].set_xlabel(f"epochs\n{gates}", fontsize=SMALL)
    return described(figure, f"Groups that train, with their peak rates. {'; '.join(sentences)}. {gates}".strip())


def _rate(rate: float) -> str:
    """A rate with two digits, as a plain decimal number."""
    return np.format_float_positional(float(f"{rate:.2g}"), trim="-")
