"""The one style of every figure: colour-blind safe, readable on light and dark pages; and its alt text."""

from collections.abc import Iterable

import seaborn as sns
from matplotlib.figure import Figure

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


def run_colours(runs: Iterable[str]) -> dict[str, tuple]:
    """A colour for each run: the ladder and its baselines have the same in every figure."""
    runs = list(runs)
    taken = [RUN_COLOURS[run] for run in runs if run in RUN_COLOURS]
    others = iter([colour for colour in PALETTE.values() if colour not in taken] * 9)
    return {run: RUN_COLOURS[run] if run in RUN_COLOURS else next(others) for run in runs}
