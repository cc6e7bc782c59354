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
    "accuracy": "points of accuracy above 84 %",
    "points": "points beyond the claim (AUROC, accuracy)",
    "epochs": "epochs saved",
    "nats": "log-loss of overfitting saved (nats)",
}
REACH = {"accuracy": 35, "points": 8, "epochs": 15, "nats": 1.5}  # an interval that goes further ends in an arrow
LETTERS = 46  # of a title in one line
LINE = 0.17  # inches, of text
BAR = 0.3  # inches, of an interval and the gap to the next row


def claims(table: pd.DataFrame) -> Figure:
    """One row per line of the verdict table, drawn for a phone: the text above its interval, the verdict in colour.

    Args:
        table: `title`, `verdict`, `power` (how good the test was, in words; may be empty); `value`, `low`, `high`
            beyond the claim, NaN for what has none; `unit`: one of `UNITS`, or empty for a row without an interval;
            `margin`: below it a gain is too small to be worth having, NaN for a claim of an amount.
    """
    groups = [(unit, rows) for unit in (*UNITS, "") if len(rows := table[table["unit"] == unit])]
    heights = [sum(map(_height, rows.itertuples())) for _, rows in groups]
    size = (WIDTH, sum(heights) + 0.45 * len(groups))
    figure, axes = plt.subplots(len(groups), figsize=size, height_ratios=heights, layout="constrained", squeeze=False)
    for axis, (unit, rows), height in zip(axes[:, 0], groups, heights, strict=True):
        _panel(axis, unit, rows, height)
    lines = (f"{row.title}: {row.verdict}{f' ({row.power})' if row.power else ''}" for row in table.itertuples())
    return described(figure, f"Every claim with its verdict. {'; '.join(lines)}.")


def _lines(row: Any) -> list[tuple[str, dict[str, Any]]]:
    """The text of a row, line by line, with its style: the title, the verdict, what else there is to say of it."""
    verdict, *more = str(row.verdict).split("; ")
    beside = "; ".join([*more, str(row.power)] if row.power else more)
    title = {"color": "0.15", "fontsize": 10}
    bold = {"color": np.multiply(_colour(row), 0.8), "fontsize": 10, "weight": "bold"}
    return [
        *((line, title) for line in textwrap.wrap(str(row.title), LETTERS)),
        *((line, bold) for line in textwrap.wrap(verdict, LETTERS)),
        *((line, {"color": "0.4", "fontsize": SMALL}) for line in textwrap.wrap(beside, LETTERS)),
    ]


def _colour(row: Any) -> tuple:
    (colour,) = [colour for start, colour in VERDICTS.items() if str(row.verdict).startswith(start)]
    return colour


def _height(row: Any) -> float:
    """Inches of a row."""
    return LINE * len(_lines(row)) + (0.1 if pd.isna(row.value) else BAR)


def _panel(axis: Axes, unit: str, rows: pd.DataFrame, height: float) -> None:
    """The rows of one unit; the y axis counts inches from the top."""
    reach = REACH.get(unit, 1)
    axis.set(xlim=(-reach, reach), ylim=(height, 0), yticks=[])
    axis.spines["left"].set_visible(False)
    if unit:
        axis.set_xlabel(UNITS[unit])
    else:
        axis.set(xticks=[])
        axis.spines["bottom"].set_visible(False)
    top = 0.0
    for row in rows.itertuples():
        lines = _lines(row)
        for number, (text, style) in enumerate(lines):
            place = (0, top + LINE * (number + 0.5))
            axis.text(*place, text, transform=axis.get_yaxis_transform(), va="center", **style)
        if not pd.isna(row.value):
            _interval(axis, top + LINE * len(lines) + 0.1, row, reach)
        top += _height(row)


def _interval(axis: Axes, y: float, row: Any, reach: float) -> None:
    """The interval of a row at `y`, on a line that marks what is claimed and a band as wide as the margin."""
    colour = _colour(row)
    axis.barh(y, 0 if pd.isna(row.margin) else row.margin, height=0.2, color="0.88")
    axis.vlines(0, y - 0.1, y + 0.1, color="0.4", lw=1)
    axis.hlines(y, max(row.low, -reach), min(row.high, reach), color=colour, lw=2.5)
    axis.plot(np.clip(row.value, -reach, reach), y, "o", color=colour, ms=6)
    for end, marker in ((row.low, "<"), (row.high, ">")):
        if abs(end) > reach:
            axis.plot(np.sign(end) * reach, y, marker, color=colour, ms=6, clip_on=False)
