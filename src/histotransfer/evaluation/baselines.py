"""The two baselines that every trained network must beat on the same split."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histotransfer.splits import group_folds, smallest_class

PROBE_C = tuple(np.logspace(-5, -1, 5))
# For a sensitivity run: would a wider choice of C make a better baseline?
WIDE_C = (*np.logspace(-8, -6, 3), *PROBE_C, *np.logspace(0, 2, 3))
PROBE_FOLDS = 5


def majority_logits(labels: np.ndarray, count: int) -> np.ndarray:
    """Log class frequencies of the training labels for every item: always the majority class, AUROC 0.5.

    Args:
        labels: ``(N,)`` class indices of the training part; every class occurs.
        count: number of items to predict.

    Returns:
        ``(count, classes)``.
    """
    frequencies = np.bincount(labels) / len(labels)
    return np.tile(np.log(frequencies), (count, 1))


def frozen_probe(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int, offered: Sequence[float] = PROBE_C
) -> GridSearchCV:
    """Logistic regression on frozen features (standardised, balanced classes).

    Its C is chosen by AUROC over group-disjoint folds inside the training part; no other image is used.

    Args:
        features: ``(N, C)`` of the training part.
        labels: ``(N,)`` class indices.
        groups: ``(N,)`` patients, kept together.
        seed: shuffles the inner folds.
        offered: the values of C to choose from.

    Returns:
        The fitted search: `probe_logits` predicts with it, and its `best_params_` holds the chosen C.

    Raises:
        HistotransferError: a class with fewer than two groups.
    """
    rows = pd.Series(labels), pd.Series(groups)
    masks = group_folds(*rows, min(PROBE_FOLDS, smallest_class(*rows)), seed)
    folds = [(np.flatnonzero(~mask), np.flatnonzero(mask)) for mask in masks]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000))
    scoring = "roc_auc" if len(np.unique(labels)) == 2 else "roc_auc_ovr"
    search = GridSearchCV(pipeline, {"logisticregression__C": offered}, scoring=scoring, cv=folds)
    return search.fit(features, labels)


def probe_logits(probe: GridSearchCV, features: np.ndarray) -> np.ndarray:
    """``(N, classes)`` logits whose softmax is the probe's probability."""
    score = probe.decision_function(features)
    return score if score.ndim == 2 else np.stack([np.zeros_like(score), score], axis=1)
