"""All claims of the study on one picture: how far each lies beyond what is claimed, and what the rule makes of it."""

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histotransfer.figures.style import PALETTE, SMALL, WIDTH, described

VERDICTS = {  # the first word or two of a verdict, and its colour
    "supported": PALETTE["green"],
    "contradicted": PALETTE["orange"],
    "no effect": PALETTE["purple"],
    "undecided": PALETTE["blue"],
    "not tested": PALETTE["red"],
    "not run": (0.55, 0.55, 0.55),
}
UNITS = {
    "points": "points of accuracy or AUROC beyond the claim",
    "epochs": "epochs saved",
    "nats": "log-loss of overfitting saved (nats)",
}
REACH = {"points": 25, "epochs": 15, "nats": 1.5}  # an interval that goes further ends in an arrow
TEXT = 10  # points, of titles and verdicts: a phone shows them at a little more than half
LETTERS = 70  # of a row's text in one line of the narrow figure
ROW = 0.7  # inches


def claims(table: pd.DataFrame) -> Figure:
    """One row per line of the verdict table, drawn for a phone: the text above its interval, the verdict in colour.

    Args:
        table: `title`, `verdict`, `power` (how good the test was, in words; may be empty); `value`, `low`, `high`
            beyond the claim, NaN for what has none; `unit`: one of `UNITS`, or empty for a row without an interval.
    """
    groups = [(unit, rows) for unit in (*UNITS, "") if len(rows := table[table["unit"] == unit])]
    heights = [ROW * len(rows) + (0.55 if unit else 0.1) for unit, rows in groups]
    figure, axes = plt.subplots(
        len(groups), figsize=(WIDTH, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for axis, (unit, rows) in zip(axes[:, 0], groups, strict=True):
        _panel(axis, unit, rows)
    lines = (f"{row.title}: {row.verdict}{f' ({row.power})' if row.power else ''}" for row in table.itertuples())
    return described(figure, f"Every claim with its verdict. {'; '.join(lines)}.")


def _panel(axis: Axes, unit: str, rows: pd.DataFrame) -> None:
    reach = REACH.get(unit, 1)
    axis.set(xlim=(-reach, reach), ylim=(len(rows) - 0.45, -0.6), yticks=[])
    axis.spines["left"].set_visible(False)
    if unit:
        axis.axvline(0, color="0.6", lw=1)
        axis.set_xlabel(UNITS[unit])
    else:
        axis.set(xticks=[])
        axis.spines["bottom"].set_visible(False)
    for place, row in enumerate(rows.itertuples()):
        colour = next(colour for start, colour in VERDICTS.items() if str(row.verdict).startswith(start))
        title = textwrap.shorten(str(row.title), LETTERS, placeholder=" ...")
        verdict, *more = str(row.verdict).split("; ")
        beside = "; ".join([*more, str(row.power)] if row.power else more)
        _text(axis, 0, place - 0.42, title, "0.15", "left", fontsize=TEXT)
        _text(axis, 0, place - 0.12, verdict, np.multiply(colour, 0.8), "left", fontsize=TEXT, weight="bold")
        _text(axis, 1, place - 0.12, beside, "0.4", "right", fontsize=SMALL)
        if not pd.isna(row.value):
            _interval(axis, place + 0.16, row.value, row.low, row.high, reach, colour)


def _text(axis: Axes, x: float, y: float, text: str, colour: Any, side: str, **style: Any) -> None:
    """Text over the line of no difference, which must not cross it."""
    axis.text(
        x, y, text, transform=axis.get_yaxis_transform(), ha=side, va="center", color=colour,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, **style,
    )  # fmt: skip


def _interval(axis: Axes, y: float, value: float, low: float, high: float, reach: float, colour: tuple) -> None:
    axis.hlines(y, max(low, -reach), min(high, reach), color=colour, lw=2.5)
    axis.plot(np.clip(value, -reach, reach), y, "o", color=colour, ms=6)
    for end, marker in ((low, "<"), (high, ">")):
        if abs(end) > reach:
            axis.plot(np.sign(end) * reach, y, marker, color=colour, ms=6, clip_on=False)
