"""ROC and precision-recall curves with bands that allow for several images per patient.

Whole patients are redrawn within each class. At every point of the horizontal axis the band is the middle 95 % of the
redrawn curves: a pointwise percentile bootstrap. Its coverage was not measured; that of the areas' intervals was.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.clusters import draw_counts
from histotransfer.evaluation.metrics import positive_class, scores

GRID = np.linspace(0, 1, 101)
BAND_DRAWS = 500
BAND = (0.025, 0.975)


def roc_band(predictions: pd.DataFrame, *, draws: int = BAND_DRAWS, seed: int = 0) -> pd.DataFrame:
    """Sensitivity at each false-positive rate of `GRID`: columns `x`, `value`, `low`, `high`.

    Args:
        predictions: rows of one part, with images of both of two classes.
        draws: redraws of the patients.
        seed: of the redraws.

    Raises:
        HistotransferError: not two classes, or one is missing.
    """
    return _band(predictions, _sensitivity, draws, seed)


def precision_recall_band(predictions: pd.DataFrame, *, draws: int = BAND_DRAWS, seed: int = 0) -> pd.DataFrame:
    """Precision at each recall of `GRID`, in steps as for average precision; columns and errors as `roc_band`."""
    return _band(predictions, _precision, draws, seed)


def _sensitivity(target: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    false, true, _ = roc_curve(target, score, sample_weight=weight)
    return np.interp(GRID, false, true)


def _precision(target: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    precision, recall, _ = precision_recall_curve(target, score, sample_weight=weight)
    at = np.searchsorted(recall[::-1], GRID - 1e-9)  # the highest threshold that reaches a recall
    at[0] = 1  # no image is needed for a recall of 0; scikit-learn puts a precision of 1 there
    return precision[::-1][at]


def _band(
    predictions: pd.DataFrame, curve: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], draws: int, seed: int
) -> pd.DataFrame:
    positive = positive_class(predictions)
    if positive is None or predictions["truth"].nunique() != 2:
        raise HistotransferError("curves: images of two classes are needed, both of them there")
    target, score = (predictions["truth"] == positive).to_numpy(), scores(predictions)
    clusters, at = np.unique(predictions["group"].astype(str) + target.astype(str), return_inverse=True)
    classes = np.empty(len(clusters), dtype=int)
    classes[at] = target
    counts = draw_counts(classes, draws, seed)
    drawn = np.array([curve(target, score, draw[at]) for draw in counts])
    low, high = np.quantile(drawn, BAND, axis=0)
    return pd.DataFrame({"x": GRID, "value": curve(target, score, np.ones(len(target))), "low": low, "high": high})
