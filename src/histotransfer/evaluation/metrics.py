"""Metrics of a predictions table, at image and at patient level, per magnification.

scikit-learn computes; here it is only decided what is asked of it. A value that is not defined (AUROC where one class
is missing) is None, never 0 or 0.5.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from histotransfer.errors import HistotransferError

MALIGNANT = "malignant"
THRESHOLD = 0.5  # fixed beforehand: anything tuned on one to three benign validation patients is noise
ALL = "all"

Metrics = dict[str, float | None]


def class_names(predictions: pd.DataFrame) -> list[str]:
    """The classes in the order of the `logit_*` columns."""
    return [column.removeprefix("logit_") for column in predictions if column.startswith("logit_")]


def positive_class(predictions: pd.DataFrame) -> str | None:
    """The class that sensitivity is about: `malignant`, or the second of any other two; None where there are more."""
    names = class_names(predictions)
    if len(names) != 2:
        return None
    return MALIGNANT if MALIGNANT in names else names[1]


def scores(predictions: pd.DataFrame) -> np.ndarray:
    """``(N,)`` probability of the positive class; for two classes only."""
    return probabilities(predictions)[:, class_names(predictions).index(positive_class(predictions))]


def probabilities(predictions: pd.DataFrame) -> np.ndarray:
    """``(N, classes)`` probabilities, the softmax of the `logit_*` columns.

    Raises:
        HistotransferError: a logit is not a number; the first image is named.
    """
    logits = predictions[[f"logit_{name}" for name in class_names(predictions)]]
    if (bad := ~np.isfinite(logits).all(axis=1)).any():
        raise HistotransferError(
            f"{predictions.loc[bad, 'image'].iloc[0]}: its logits are not finite; nothing is computed"
        )
    return softmax(logits.to_numpy(dtype=np.float64), axis=1)


def predicted(predictions: pd.DataFrame) -> np.ndarray:
    """The predicted class of each row: the more probable of two at the fixed threshold, else the most probable."""
    names, positive = class_names(predictions), positive_class(predictions)
    if positive is not None:
        (negative,) = set(names) - {positive}
        return np.where(scores(predictions) >= THRESHOLD, positive, negative)
    return np.array(names)[probabilities(predictions).argmax(axis=1)]


def image_metrics(predictions: pd.DataFrame) -> Metrics:
    """Accuracy and balanced accuracy; for two classes also AUROC, sensitivity and specificity.

    Sensitivity is the recall of the positive class, specificity that of the other. Balanced accuracy and AUROC need
    every class, sensitivity and specificity their own.
    """
    names, truth = class_names(predictions), predictions["truth"]
    guess, present = predicted(predictions), set(truth)
    whole = present == set(names)
    recalls = recall_score(truth, guess, labels=names, average=None, zero_division=np.nan)
    metrics: Metrics = {
        "accuracy": float(accuracy_score(truth, guess)),
        "balanced_accuracy": float(np.mean(recalls)) if whole else None,
    }
    if (positive := positive_class(predictions)) is not None:
        recall = {name: float(value) if name in present else None for name, value in zip(names, recalls, strict=True)}
        metrics |= {
            "auroc": float(roc_auc_score(truth == positive, scores(predictions))) if whole else None,
            "sensitivity": recall.pop(positive),
            "specificity": recall.popitem()[1],
        }
    return metrics


def patient_metrics(predictions: pd.DataFrame) -> Metrics:
    """Spanhol's recognition rate: the share of images that are right, per patient, averaged over patients."""
    right = pd.Series(predicted(predictions) == predictions["truth"].to_numpy(), index=predictions.index)
    return {"recognition_rate": float(right.groupby(predictions["patient"]).mean().mean())}


def by_magnification(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each magnification's rows under its name ("40", ...), then all rows under "all"."""
    for magnification, rows in predictions.groupby("magnification"):
        if magnification:
            yield str(magnification), rows
    yield ALL, predictions


def evaluate(predictions: pd.DataFrame) -> dict[str, dict[str, dict[str, Metrics]]]:
    """Every metric of a predictions table: ``{part: {level: {magnification: {metric: value}}}}``.

    Besides the metrics each cell holds the numbers of `images` and `patients` behind it.
    """
    result: dict = {}
    for part, rows in predictions.groupby("part"):
        levels = {"image": image_metrics, "patient": patient_metrics}
        result[part] = {
            level: {
                name: compute(subset) | {"images": len(subset), "patients": subset["patient"].nunique()}
                for name, subset in by_magnification(rows)
            }
            for level, compute in levels.items()
        }
    return result
