"""Calibration: the reliability curve with intervals, and the effect of tuning inside the training folds."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_curve

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.clusters import scored
from histotransfer.evaluation.intervals import LEVEL, fewest, intervals, jackknife, leave_one_out, limits
from histotransfer.evaluation.metrics import BINS, THRESHOLD, bin_of, class_names, positive_class, scores
from histotransfer.evaluation.pooling import pool

TEMPERATURES = (0.05, 20.0)
TUNED = {
    "threshold": ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "matthews_correlation"),
    "temperature": ("log_loss", "brier", "calibration_error"),
}
ROUNDING = 1e-12


def reliability(predictions: pd.DataFrame, *, level: float = LEVEL) -> pd.DataFrame:
    """Predicted and observed share of the positive class in each of ten bins, with patient-clustered intervals.

    The bins are those of `metrics.calibration_error`, the intervals those of `intervals.intervals`.

    Args:
        predictions: rows of one part, two classes.
        level: coverage aimed at.

    Returns:
        One row per bin with images: `bin` (its lower border), `predicted` (mean), `observed` (share), `low`, `high` of
        `observed` (NaN where the bin has images of one patient only), `images`, `patients` (groups).

    Raises:
        HistotransferError: not two classes, no image, or a logit that is not finite.
    """
    if positive_class(predictions) is None:
        raise HistotransferError("reliability: two classes are needed")
    arm = scored(predictions)
    images, classes = arm.parts[0].images, arm.classes
    left, at, rows = leave_one_out(classes), bin_of(images.score), []
    for b in np.unique(at):
        inside = at == b
        sizes, hits = images.sums(inside), images.sums(inside & images.target)
        there, observed = sizes > 0, hits.sum() / sizes.sum()
        low = high = np.nan
        if there.sum() > 1:
            error, freedom = jackknife((left @ hits) / (left @ sizes), sizes, classes)
            low, high = limits("observed", observed, error, freedom, fewest(sizes[there], classes[there]), level)
        rows.append(
            {
                "bin": b / BINS,
                "predicted": images.score[inside].mean(),
                "observed": observed,
                "low": low,
                "high": high,
                "images": int(inside.sum()),
                "patients": len(set(arm.design.groups[there])),
            }
        )
    return pd.DataFrame(rows)


def best_threshold(predictions: pd.DataFrame) -> float:
    """The threshold on the probability that gives the highest balanced accuracy on these images.

    It is half-way between two scores; of several equally good ones it is the one nearest to 0.5.

    Raises:
        HistotransferError: a class is missing.
    """
    target = _target(predictions)
    score = scores(predictions)
    distinct = np.unique(score)
    candidates = np.append((distinct[1:] + distinct[:-1]) / 2, THRESHOLD)
    # From the highest score down, starting with no image.
    false, hit, _ = roc_curve(target, score, drop_intermediate=False)
    accuracy = ((hit + 1 - false) / 2)[::-1][np.searchsorted(distinct, candidates)]
    best = candidates[accuracy >= accuracy.max() - ROUNDING]
    return float(best[np.abs(best - THRESHOLD).argmin()])


def best_temperature(predictions: pd.DataFrame) -> float:
    """The temperature by which to divide logits for the lowest log-loss on these images, within `TEMPERATURES`.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    Raises:
        HistotransferError: a class is missing.
    """
    target, margin = _target(predictions), logit(scores(predictions).clip(ROUNDING, 1 - ROUNDING))
    optimum = minimize_scalar(
        lambda power: log_loss(target, expit(margin / np.exp(power)), labels=[False, True]),
        bounds=np.log(TEMPERATURES),
        method="bounded",
    )
    return float(np.exp(optimum.x))


def tuned(tables: Iterable[pd.DataFrame], what: str) -> pd.DataFrame:
    """An arm's pooled test predictions, had the threshold or the temperature been tuned inside the training folds.

    A sensitivity analysis, never the result: the study's threshold is 0.5, fixed beforehand. One run's validation part
    has one to three benign patients, too few to tune on. So a run's test images are judged with the value that is best
    on the validation images of all the arm's runs together, except those of the run's test patients. Deviation from a
    nested cross-validation: the other runs' networks were trained on these test patients too.

    Args:
        tables: predictions of the arm's runs, two classes, with `validation` and `test` rows.
        what: threshold or temperature.

    Returns:
        As `pooling.pool`, with a column `sensitivity` that holds `what`. A threshold is applied as a shift of the
        logits: only its metrics in `TUNED` are valid.

    Raises:
        HistotransferError: a run whose validation and test rows share patients, or that lacks either; as `pool`.
    """
    parts = [tuple(table[table["part"] == part] for part in ("validation", "test")) for table in tables]
    for inner, test in parts:
        if inner.empty or set(inner["group"]) & set(test["group"]):
            raise HistotransferError(
                f"{what}: a run's validation images must be there, and of other patients than its test"
            )
    every, moved = pd.concat([inner for inner, _ in parts], ignore_index=True), []
    names = [f"logit_{name}" for name in class_names(every)]
    for _, test in parts:
        inner = every[~every["group"].isin(test["group"])]
        if what == "temperature":
            changed = test[names] / best_temperature(inner)
        else:
            shift = logit(best_threshold(inner))
            changed = test[names] - [shift * (name == f"logit_{positive_class(test)}") for name in names]
        moved.append(test.assign(**changed))
    return pool(moved).assign(sensitivity=what)


def sensitivity(tables: Sequence[pd.DataFrame], by: str | None = None) -> pd.DataFrame:
    """The metrics of `TUNED` after tuning, with intervals; every row is marked as a sensitivity analysis.

    Args:
        tables: as for `tuned`.
        by: as in `intervals.intervals`.

    Returns:
        Columns `sensitivity` (threshold or temperature), `metric`, `value`, `low`, `high`.
    """
    tables_of = [
        intervals(tuned(tables, what), by)
        .loc[list(metrics)]
        .rename_axis("metric")
        .reset_index()
        .assign(sensitivity=what)
        for what, metrics in TUNED.items()
    ]
    return pd.concat(tables_of, ignore_index=True)[["sensitivity", "metric", "value", "low", "high"]]


def _target(predictions: pd.DataFrame) -> np.ndarray:
    target = (predictions["truth"] == positive_class(predictions)).to_numpy()
    if len(np.unique(target)) < 2:
        raise HistotransferError("tuning: the validation images are of one class only; both are needed")
    return target
