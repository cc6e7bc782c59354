"""Epochs until training passes a level of log-loss, all folds together, for any redraw of patients (claim C5).

A run's own curve rests on the few patients of one fold. Here the log-losses of all images are averaged over all folds,
epoch by epoch, and the mean of three epochs smooths that curve. So every patient counts, both classes are there, and
the interval redraws patients like that of any metric (`intervals.limits_of_gaps`).
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from histotransfer.evaluation.failures import WINDOW
from histotransfer.evaluation.intervals import limits_of_gaps

EPOCHS = "epochs"


class Losses:
    """The log-loss of every image in every epoch: a `clusters.Redrawable` whose metric is `EPOCHS` to a level.

    Attributes:
        classes: ``(K,)`` class of each cluster, a strict patient within a class.
        curve: ``(E - WINDOW + 1,)`` means of `WINDOW` epochs of the mean log-loss (nats).
    """

    def __init__(self, tables: Sequence[pd.DataFrame], part: str, level: float = -np.inf):
        """Sum the losses of each patient.

        Args:
            tables: of the runs of an arm: `group`, `part`, `truth`, and `epoch_1`, `epoch_2`, ... in nats; NaN where an
                image was left out of an epoch.
            part: validation or train.
            level: nats.
        """
        rows = pd.concat(tables, ignore_index=True)
        rows = rows[rows["part"] == part]
        clusters = rows.groupby(["truth", "group"])
        losses = clusters[[column for column in rows if column.startswith("epoch_")]]
        self._sums, self._sizes = (each.to_numpy(float) for each in (losses.sum(), losses.count()))
        self._images = clusters.size().to_numpy(float)
        self.level, self.classes = level, pd.factorize(losses.sum().index.get_level_values("truth"))[0]
        (self.curve,) = self._curves(np.ones((1, len(self.classes))))

    def _curves(self, counts: np.ndarray) -> np.ndarray:
        means = (counts @ self._sums) / (counts @ self._sizes)
        return np.lib.stride_tricks.sliding_window_view(means, WINDOW, axis=1).mean(axis=-1)

    def level_at(self, share: float) -> float:
        """The log-loss (nats) that is `share` of the way from the first point of the curve to its lowest."""
        return float(self.curve[0] - share * (self.curve[0] - self.curve.min()))

    @property
    def passes(self) -> bool:
        """Whether the curve reaches the level; else all epochs are counted (censored)."""
        return bool((self.curve <= self.level).any())

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """``(D,)`` epochs until the curve first falls to the level; all epochs where it never does.

        Args:
            counts: ``(D, K)`` how often each cluster is in each redraw.
            metrics: `EPOCHS`, the only one.
        """
        below = self._curves(np.asarray(counts, dtype=float)) <= self.level
        first = np.where(below.any(axis=1), below.argmax(axis=1), below.shape[1] - 1)
        return {EPOCHS: first + float(WINDOW)}

    def shares(self, metric: str) -> np.ndarray:
        """``(K,)`` share of each cluster among the images of its class."""
        return self._images / np.bincount(self.classes, weights=self._images)[self.classes]


def epochs_saved(
    without: Sequence[pd.DataFrame], with_it: Sequence[pd.DataFrame], part: str, level: float
) -> dict[str, float]:
    """Epochs to a level without a treatment minus those with it, with an interval that redraws patients.

    Args:
        without: losses of the runs of the arm without it, as `Losses` takes them.
        with_it: of the arm with it, on the same images.
        part: validation or train.
        level: nats; set from other runs than these.

    Returns:
        `without` and `with` (epochs), whether each `passed`, and of their difference `value`, `low`, `high`,
        `smallest`.
    """
    arms = [Losses(tables, part, level) for tables in (without, with_it)]
    everyone = np.ones((1, len(arms[0].classes)))
    first, second = (float(arm.values(everyone)[EPOCHS][0]) for arm in arms)
    limits = limits_of_gaps({EPOCHS: first - second}, [(arms[0], arms[1])]).loc[EPOCHS]
    limits = limits.fillna({"low": first - second, "high": first - second})  # whole epochs: every redraw may agree
    return {
        "without": first,
        "with": second,
        "without_passed": arms[0].passes,
        "with_passed": arms[1].passes,
        **limits.to_dict(),
    }
