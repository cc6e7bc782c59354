"""The two baselines that every trained network must beat on the same split."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

PROBE_C = 1e-3  # fixed in study/claims.toml: a C chosen inside so few patients was worse than any from 1e-4 to 1e-2


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


def frozen_probe(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    """Logistic regression on frozen features (standardised, balanced classes, `PROBE_C`), fitted.

    Args:
        features: ``(N, C)`` of the training part.
        labels: ``(N,)`` class indices.

    Returns:
        The fitted probe: `probe_logits` predicts with it.
    """
    regression = LogisticRegression(C=PROBE_C, class_weight="balanced", max_iter=5000)
    return make_pipeline(StandardScaler(), regression).fit(features, labels)


def probe_logits(probe: Pipeline, features: np.ndarray) -> np.ndarray:
    """``(N, classes)`` logits whose softmax is the probe's probability."""
    score = probe.decision_function(features)
    return score if score.ndim == 2 else np.stack([np.zeros_like(score), score], axis=1)
