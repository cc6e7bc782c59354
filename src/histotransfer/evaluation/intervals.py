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

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import (
    Metrics,
    image_metrics,
    patient_metrics,
    positive_class,
    predicted,
    scores,
)

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


def cluster_weights(classes: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each image is in each draw: ``(draws, N)`` float32.

    Args:
        classes: ``(N,)``, the truth; groups are drawn within each class. A group whose images are of several classes is
            drawn once a class.
        groups: ``(N,)`` clusters.
        draws: number of draws.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((draws, len(groups)), dtype=np.float32)
    for value in np.unique(classes):
        rows = np.flatnonzero(classes == value)
        names, index = np.unique(groups[rows], return_inverse=True)
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


Statistic = Callable[[_Images, np.ndarray], np.ndarray]
ANY_CLASSES: dict[str, Statistic] = {
    "accuracy": lambda images, weights: _mean(images.right, weights),
    "recognition_rate": lambda images, weights: _mean(images.right, weights * images.share),
}
TWO_CLASSES: dict[str, Statistic] = {
    "balanced_accuracy": lambda images, weights: (_sensitivity(images, weights) + _specificity(images, weights)) / 2,
    "auroc": _auroc,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
}


def intervals(predictions: pd.DataFrame, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
    """Every metric of a predictions table with its interval; of more than two classes accuracy and recognition rate.

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
    values = image_metrics(predictions) | patient_metrics(predictions)
    drawn = _drawn(predictions, values, draws, seed)
    return _table({metric: values[metric] for metric in drawn}, drawn, _enough(predictions), level)


def differences(
    ours: pd.DataFrame, theirs: pd.DataFrame, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Metrics of `ours` minus those of `theirs` on the same images, with intervals: the same patients in each draw.

    Returns:
        As `intervals`.

    Raises:
        HistotransferError: the two are not of the same images in the same order.
    """
    if ours["image"].tolist() != theirs["image"].tolist():
        raise HistotransferError("differences: the two tables are not of the same images in the same order")
    values = [image_metrics(table) | patient_metrics(table) for table in (ours, theirs)]
    a, b = (_drawn(table, own, draws, seed) for table, own in zip((ours, theirs), values, strict=True))
    gaps = {metric: None if values[0][metric] is None else values[0][metric] - values[1][metric] for metric in a}
    drawn = {metric: None if a[metric] is None else a[metric] - b[metric] for metric in a}
    return _table(gaps, drawn, _enough(ours), level)


def _drawn(predictions: pd.DataFrame, values: Metrics, draws: int, seed: int) -> dict[str, np.ndarray | None]:
    """Each metric in every draw, None where it is not defined."""
    positive, truth, patients = positive_class(predictions), predictions["truth"].to_numpy(), predictions["patient"]
    two = positive is not None
    images = _Images(
        truth == positive if two else np.zeros(len(truth), dtype=bool),
        (predicted(predictions) == truth).astype(np.float32),
        scores(predictions) if two else np.zeros(len(truth)),
        (1 / patients.map(patients.value_counts())).to_numpy(dtype=np.float32),
    )
    weights = cluster_weights(truth, predictions["group"].to_numpy(), draws, seed)
    statistics = ANY_CLASSES | (TWO_CLASSES if two else {})
    return {
        metric: None if values[metric] is None else statistic(images, weights)
        for metric, statistic in statistics.items()
    }


def _enough(predictions: pd.DataFrame) -> bool:
    return predictions.groupby("truth")["group"].nunique().min() >= MIN_GROUPS


def _table(values: Metrics, drawn: dict[str, np.ndarray | None], enough: bool, level: float) -> pd.DataFrame:
    rows = {}
    for metric, value in values.items():
        low = high = np.nan
        if value is not None and enough:
            low, high = np.quantile(drawn[metric], [(1 - level) / 2, (1 + level) / 2])
        rows[metric] = {"value": np.nan if value is None else value, "low": low, "high": high}
    return pd.DataFrame(rows).T
