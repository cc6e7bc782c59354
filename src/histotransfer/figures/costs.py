"""Races and growth: seconds side by side, and seconds against the number of images."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from histotransfer.figures.style import PALETTE, SMALL, WIDTH, described, legend_above, stacked

PEER = (0.6, 0.6, 0.6)


def race(name: str, seconds: Mapping[str, float], is_peer: Callable[[str], bool]) -> Figure:
    """Seconds of each side as bars from the same start; sides of others are grey.

    Args:
        name: what is raced.
        seconds: by side, in the order in which they are drawn.
        is_peer: whether a side is somebody else's.
    """
    places, values = np.arange(len(seconds)), list(seconds.values())
    figure, axis = plt.subplots(figsize=(WIDTH, 0.7 + 0.45 * len(seconds)), layout="constrained")
    axis.barh(places, values, 0.4, color=[PEER if is_peer(side) else PALETTE["blue"] for side in seconds])
    for place, (side, value) in enumerate(seconds.items()):
        axis.text(0, place - 0.24, side, va="bottom", fontsize=SMALL)
        axis.text(value, place, f" {in_seconds(value)}", va="center", fontsize=SMALL)
    axis.set(yticks=[], xlabel="seconds", xlim=(0, 1.25 * max(values)), ylim=(len(seconds) - 0.7, -0.75))
    axis.spines["left"].set_visible(False)
    told = ", ".join(f"{side} {in_seconds(value)}" for side, value in seconds.items())
    return described(figure, f"{name}: {told}.")


def in_seconds(value: float) -> str:
    """Seconds with three digits, or whole."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def growth(steps: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Seconds and peak memory of each step against the number of images, on logarithmic axes.

    Args:
        steps: step to its measurements: `images`, `seconds`, `peak_megabytes`.
    """
    figure, axes = stacked(2, 2.8, sharex=True)
    for axis, quantity, label in zip(axes, ("seconds", "peak_megabytes"), ("seconds", "peak memory (MB)"), strict=True):
        for step, rows in steps.items():
            axis.plot([row["images"] for row in rows], [row[quantity] for row in rows], "o-", ms=4, label=step)
        axis.set(xscale="log", yscale="log", ylabel=label)
    axes[-1].set_xlabel("images")
    legend_above(figure, columns=3)
    told = (
        f"{step}: "
        + ", ".join(f"{r['images']} images {r['seconds']:.3g} s, {r['peak_megabytes']:.0f} MB" for r in rows)
        for step, rows in steps.items()
    )
    return described(figure, f"Seconds and peak memory against the number of images. {'; '.join(told)}.")
