"""The one style of every figure: colour-blind safe, readable on light and dark pages; and its alt text."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = dict(
    zip(("blue", "orange", "green", "red", "purple", "brown"), sns.color_palette("colorblind"), strict=False)
)
CLASS_COLOURS = {"benign": PALETTE["blue"], "malignant": PALETTE["orange"]}
RUN_COLOURS = {"majority": PALETTE["purple"], "frozen-probe": PALETTE["blue"], "ladder": PALETTE["orange"]}
PART_COLOURS = {"train": PALETTE["blue"], "validation": PALETTE["orange"], "test": PALETTE["purple"]}
WIDTH = 3.6  # inches, 360 pixels: a phone shows it whole, without making it smaller
SMALL = 9  # points, the smallest text
TISSUE_WIDTH = 6.0  # inches: pictures of tissue; a phone shows them at half the size
TISSUE_TEXT = 12  # points: can still be read at half the size


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
            "svg.fonttype": "none",  # text stays text: a third smaller than its outlines
            "svg.hashsalt": "histotransfer",
        },
    )


def described(figure: Figure, text: str) -> Figure:
    """Give a figure its alt text, `figure.alt`, which chapters publish with the picture (`book.chapters.begin`)."""
    figure.alt = text  # type: ignore[attr-defined]  # matplotlib does not define it
    return figure


def stacked(panels: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with panels one above the other, so that a phone shows them without making them smaller.

    Args:
        panels: how many.
        height: of each, in inches.
        options: for ``plt.subplots``.
    """
    size = (WIDTH, panels * height)
    figure, axes = plt.subplots(panels, 1, figsize=size, squeeze=False, layout="constrained", **options)
    return figure, list(axes.flat)


def legend_above(figure: Figure, handles: Sequence[Artist] = (), columns: int = 4) -> None:
    """A legend above the axes, where it hides nothing and takes no width; by default of everything that has a label."""
    entries: dict[str, Artist] = {}
    for axis in figure.axes:
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    entries = {str(handle.get_label()): handle for handle in handles} or entries
    figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=columns, fontsize=SMALL)


def run_colours(runs: Iterable[str]) -> dict[str, tuple]:
    """A colour for each run: the ladder and its baselines have the same colours in every figure."""
    runs = list(runs)
    taken = [RUN_COLOURS[run] for run in runs if run in RUN_COLOURS]
    others = iter([colour for colour in PALETTE.values() if colour not in taken] * 9)
    return {run: RUN_COLOURS[run] if run in RUN_COLOURS else next(others) for run in runs}
