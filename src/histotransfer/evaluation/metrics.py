"""Metrics of a predictions table, at image and at patient level, per magnification.

scikit-learn computes them; this module decides which ones and from what. A value that is not defined (AUROC where one
class is missing) is None, never 0 or 0.5.

Two classes have every metric; more have accuracy, balanced accuracy, log-loss, recognition rate and patient accuracy.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from histotransfer.errors import HistotransferError

MALIGNANT = "malignant"
THRESHOLD = 0.5  # fixed beforehand: anything tuned on one to three benign validation patients is noise
ALL, MEAN = "all", "mean"
MEAN_OVER = (40, 100, 200)  # 400x is for testing only
BINS = 10
PATIENT = "patient_"  # prefix of metrics of patients
DECIMALS = 12  # of patients' mean logits, so that equal ones are ties whatever the last bits of their sums
TINY = np.finfo(float).tiny  # a probability of 0 has no logarithm
SPOKEN = {"auroc": "AUROC", "f1": "F1", "brier": "Brier score", "log loss": "log-loss", "matthews": "Matthews"}

Metrics = dict[str, float | None]


def metric_name(metric: str) -> str:
    """A metric's name for readers: `auroc_within_folds` is "AUROC within folds"."""
    name = metric.replace("_", " ")
    for written, spoken in SPOKEN.items():
        name = re.sub(rf"\b{written}\b", spoken, name)
    return name


def class_names(predictions: pd.DataFrame) -> list[str]:
    """The classes in the order of the `logit_*` columns."""
    return [column.removeprefix("logit_") for column in predictions if column.startswith("logit_")]


def positive_class(predictions: pd.DataFrame) -> str | None:
    """The positive class: `malignant`, or the second of any other two classes; None for more than two."""
    names = class_names(predictions)
    if len(names) != 2:
        return None
    return MALIGNANT if MALIGNANT in names else names[1]


def scores(predictions: pd.DataFrame) -> np.ndarray:
    """``(N,)`` probability of the positive class.

    Raises:
        ValueError: not two classes.
    """
    if (positive := positive_class(predictions)) is None:
        raise ValueError(f"scores: two classes are needed, not {class_names(predictions)}")
    return probabilities(predictions)[:, class_names(predictions).index(positive)]


def probabilities(predictions: pd.DataFrame) -> np.ndarray:
    """``(N, classes)`` probabilities, the softmax of the `logit_*` columns.

    Raises:
        HistotransferError: no image; or a logit that is not finite (the first such image is named).
    """
    if predictions.empty:
        raise HistotransferError("metrics: no images; is the magnification or the part there?")
    logits = predictions[[f"logit_{name}" for name in class_names(predictions)]]
    if (bad := ~np.isfinite(logits).all(axis=1)).any():
        raise HistotransferError(
            f"{predictions.loc[bad, 'image'].iloc[0]}: its logits are not finite; nothing is computed"
        )
    return softmax(logits.to_numpy(dtype=np.float64), axis=1)


def most_probable(chances: np.ndarray, names: list[str], positive: str | None) -> np.ndarray:
    """``(N,)`` index of the predicted class: of two the positive one from `THRESHOLD` up, of more the most probable.

    Args:
        chances: ``(N, C)`` probabilities.
        names: the C classes.
        positive: one of them, or None where there are more than two.
    """
    if positive is None:
        return chances.argmax(axis=1)
    at = names.index(positive)
    return np.where(chances[:, at] >= THRESHOLD, at, 1 - at)


def predicted(predictions: pd.DataFrame) -> np.ndarray:
    """``(N,)`` name of the class predicted for each row, as `most_probable`."""
    names = class_names(predictions)
    return np.array(names)[most_probable(probabilities(predictions), names, positive_class(predictions))]


def image_metrics(predictions: pd.DataFrame, wanted: Collection[str] | None = None) -> Metrics:
    """Accuracy, balanced accuracy and log-loss (nats); for two classes all the metrics that the field reports.

    Sensitivity is the recall of the positive class, specificity that of the other. Sensitivity, specificity and F1 need
    their own class; balanced accuracy, AUROC, average precision and Matthews correlation need every class.

    Args:
        predictions: one row per image.
        wanted: names of metrics; None: all.

    Raises:
        HistotransferError: no image, or a logit that is not finite.
    """
    names, truth = class_names(predictions), predictions["truth"]
    guess, present = predicted(predictions), set(truth)
    whole = present == set(names)
    columns = np.argsort(names)  # scikit-learn wants them sorted
    recalls = cache(lambda: recall_score(truth, guess, labels=names, average=None, zero_division=np.nan))
    metrics: dict[str, tuple[bool, Callable[[], float]]] = {
        "accuracy": (True, lambda: accuracy_score(truth, guess)),
        "balanced_accuracy": (whole, lambda: np.mean(recalls())),
        "log_loss": (True, lambda: log_loss(truth, probabilities(predictions)[:, columns], labels=sorted(names))),
    }
    if (positive := positive_class(predictions)) is not None:
        at, there = names.index(positive), positive in present
        target, score = (truth == positive).to_numpy(), scores(predictions)
        metrics |= {
            "auroc": (whole, lambda: roc_auc_score(target, score)),
            "average_precision": (whole, lambda: average_precision_score(target, score)),
            "sensitivity": (there, lambda: recalls()[at]),
            "specificity": (names[1 - at] in present, lambda: recalls()[1 - at]),
            "f1": (there, lambda: f1_score(target, guess == positive)),
            "matthews_correlation": (whole, lambda: matthews_corrcoef(target, guess == positive)),
            "brier": (True, lambda: brier_score_loss(target, score, labels=[False, True])),
            "calibration_error": (True, lambda: calibration_error(target, score)),
        }
    return {
        metric: float(compute()) if defined else None
        for metric, (defined, compute) in metrics.items()
        if wanted is None or metric in wanted
    }


def patient_metrics(predictions: pd.DataFrame, wanted: Collection[str] | None = None) -> Metrics:
    """Recognition rate; accuracy and, for two classes, AUROC of strict patients, each by the mean logit of its images.

    Recognition rate: the share of images that are right, per slide id as published, averaged over these (Spanhol et al.
    2016, equations 1 and 2, call it a patient). For the other two a patient with images of two classes
    counts once in each class.

    Args:
        predictions: one row per image.
        wanted: as for `image_metrics`.

    Raises:
        HistotransferError: as `image_metrics`.
    """
    right = pd.Series(predicted(predictions) == predictions["truth"].to_numpy(), index=predictions.index)
    metrics: Metrics = {"recognition_rate": float(right.groupby(predictions["patient"]).mean().mean())}
    of_patients = [metric for metric in ("accuracy", "auroc") if wanted is None or f"{PATIENT}{metric}" in wanted]
    if of_patients:
        whole = image_metrics(patient_table(predictions), of_patients)
        metrics |= {f"{PATIENT}{metric}": value for metric, value in whole.items()}
    return {metric: value for metric, value in metrics.items() if wanted is None or metric in wanted}


def patient_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per strict patient (and class): the mean of its images' logits.

    No label is used to form it: a patient's images are all of one class, except where labels are wrong.
    """
    names = [f"logit_{name}" for name in class_names(predictions)]
    log_chances = np.log(probabilities(predictions).clip(TINY))
    values = predictions[["group", "truth"]].assign(**dict(zip(names, log_chances.T, strict=True)))
    means = values.groupby(["group", "truth"], as_index=False)[names].mean().round(DECIMALS)
    return means.assign(image=means["group"], patient=means["group"])


def bin_of(score: np.ndarray) -> np.ndarray:
    """Which of the `BINS` equal bins of [0, 1] a probability falls in, 0 to ``BINS - 1``; a border to the lower one."""
    return np.searchsorted(np.arange(1, BINS) / BINS, score)


def calibration_error(target: np.ndarray, score: np.ndarray) -> float:
    """Expected calibration error: the gap between mean probability and share of positives in each bin, by its size.

    Ten bins of equal width of the probability of the positive class (Naeini et al. 2015). It grows with few images even
    where a model is calibrated: compare it between models on the same images only.

    Args:
        target: ``(N,)`` bool, whether positive.
        score: ``(N,)`` probability of the positive class.
    """
    gaps = np.bincount(bin_of(score), weights=score - target, minlength=BINS)
    return float(np.abs(gaps).sum() / len(score))


def by_magnification(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each magnification's rows under its name ("40", ...), then all rows under "all"."""
    for magnification, rows in predictions.groupby("magnification"):
        if magnification:
            yield str(magnification), rows
    yield ALL, predictions


def scopes(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str | None]]:
    """The scopes that are reported: name, rows, and the column over whose values a metric is averaged (None: none).

    Each magnification, the unweighted mean over 40x, 100x and 200x ("mean", where all three are present), all rows.
    """
    *single, whole = by_magnification(predictions)
    for name, rows in single:
        yield name, rows, None
    rows = predictions[predictions["magnification"].isin(MEAN_OVER)]
    if rows["magnification"].nunique() == len(MEAN_OVER):
        yield MEAN, rows, "magnification"
    yield *whole, None


def parts_of(predictions: pd.DataFrame, by: str | None) -> list[pd.DataFrame]:
    """The tables over which a metric is averaged: one for each value of the column `by`, or the whole alone."""
    return [predictions] if by is None else [rows for _, rows in predictions.groupby(by)]


def averaged(compute: Callable[[pd.DataFrame], Metrics], predictions: pd.DataFrame, by: str | None = None) -> Metrics:
    """Metrics of each of `parts_of`, and their unweighted mean; None where one of them is not defined."""
    tables = [compute(rows) for rows in parts_of(predictions, by)]
    return {metric: mean_if_defined([metrics[metric] for metrics in tables]) for metric in tables[0]}


def mean_if_defined(values: Sequence[float | None]) -> float | None:
    """The mean; None where a value is None."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None


def evaluate(predictions: pd.DataFrame) -> dict[str, dict[str, dict[str, Metrics]]]:
    """Every metric of a predictions table: ``{part: {level: {scope: {metric: value}}}}``, scopes as in `scopes`.

    Besides the metrics, each scope holds the numbers of its `images` and `patients`.
    """
    result: dict = {}
    for part, rows in predictions.groupby("part"):
        levels = {"image": image_metrics, "patient": patient_metrics}
        result[part] = {
            level: {
                name: averaged(compute, subset, by) | {"images": len(subset), "patients": subset["patient"].nunique()}
                for name, subset, by in scopes(rows)
            }
            for level, compute in levels.items()
        }
    return result
