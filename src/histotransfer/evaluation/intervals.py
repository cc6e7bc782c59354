"""Intervals that know images of one patient are not independent: the patient-clustered bootstrap.

Whole groups (strict patients) are drawn with replacement, as many of each class as there are; a draw is a weight for
every image, and every metric is computed for all draws at once. Source: Davison and Hinkley 1997, section 3.8.

Deviation: percentile intervals. With as few as ten patients of a class they under-cover; they are printed as what they
are, with the numbers of images and patients beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histotransfer.evaluation.metrics import POSITIVE, image_metrics, patient_metrics, predicted, probabilities

DRAWS = 10_000
LEVEL = 0.95
MIN_GROUPS = 2  # of each class that is there


@dataclass(frozen=True)
class _Images:
    """What the metrics need of a predictions table, as arrays over images."""

    positive: np.ndarray
    right: np.ndarray
    score: np.ndarray
    share: np.ndarray  # 1 / number of images of the same patient


def cluster_weights(positive: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each image is in each draw: ``(draws, N)`` float32.

    Args:
        positive: ``(N,)`` bool, the truth; groups are drawn within each class. A group whose images are of both classes
            is drawn once a class.
        groups: ``(N,)`` clusters.
        draws: number of draws.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((draws, len(groups)), dtype=np.float32)
    for value in (False, True):
        rows = np.flatnonzero(positive == value)
        names, index = np.unique(groups[rows], return_inverse=True)
        if len(names):
            counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
            weights[:, rows] = counts[:, index]
    return weights


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights @ values) / weights.sum(axis=1)


def _sensitivity(images: _Images, weights: np.ndarray) -> np.ndarray:
    return _mean(images.right[images.positive], weights[:, images.positive])


def _specificity(images: _Images, weights: np.ndarray) -> np.ndarray:
    return _mean(images.right[~images.positive], weights[:, ~images.positive])


def _auroc(images: _Images, weights: np.ndarray) -> np.ndarray:
    """Weighted share of (positive, negative) pairs in the right order, ties counted half."""
    order = np.argsort(images.score, kind="stable")
    starts = np.flatnonzero(np.diff(images.score[order], prepend=-np.inf))  # first image of each distinct score
    positive = np.add.reduceat(weights[:, order] * images.positive[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~images.positive[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


STATISTICS: dict[str, Callable[[_Images, np.ndarray], np.ndarray]] = {
    "accuracy": lambda images, weights: _mean(images.right, weights),
    "balanced_accuracy": lambda images, weights: (_sensitivity(images, weights) + _specificity(images, weights)) / 2,
    "auroc": _auroc,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "recognition_rate": lambda images, weights: _mean(images.right, weights * images.share),
}


def intervals(predictions: pd.DataFrame, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
    """Every metric of a benign-against-malignant predictions table with its interval.

    Args:
        predictions: rows of one part and, usually, one magnification.
        draws: bootstrap draws.
        level: coverage aimed at.
        seed: of the draws.

    Returns:
        One row a metric (index): `value`, `low`, `high`; NaN where it is not defined, as for a missing class. Where a
        class has one group only there is a value but no interval: redrawing one patient shows no spread.

    Raises:
        HistotransferError: a logit that is not finite.
    """
    positive = (predictions["truth"] == POSITIVE).to_numpy()
    patients = predictions["patient"]
    images = _Images(
        positive,
        (predicted(predictions) == predictions["truth"].to_numpy()).astype(np.float32),
        probabilities(predictions)[
            :, [f"logit_{POSITIVE}" == c for c in predictions if c.startswith("logit_")].index(True)
        ],
        (1 / patients.map(patients.value_counts())).to_numpy(dtype=np.float32),
    )
    values = image_metrics(predictions) | patient_metrics(predictions)
    weights = cluster_weights(positive, predictions["group"].to_numpy(), draws, seed)
    enough = predictions.groupby("truth")["group"].nunique().min() >= MIN_GROUPS
    rows = {}
    for metric, statistic in STATISTICS.items():
        low = high = np.nan
        if values[metric] is not None and enough:
            low, high = np.quantile(statistic(images, weights), [(1 - level) / 2, (1 + level) / 2])
        rows[metric] = {"value": np.nan if values[metric] is None else values[metric], "low": low, "high": high}
    return pd.DataFrame(rows).T
