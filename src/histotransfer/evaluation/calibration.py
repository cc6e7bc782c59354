"""Calibration: the reliability curve with intervals, and the temperature."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.clusters import scored
from histotransfer.evaluation.intervals import LEVEL, fewest, jackknife, leave_one_out, limits
from histotransfer.evaluation.metrics import BINS, bin_of, positive_class, scores

TEMPERATURES = (0.05, 20.0)
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


def _target(predictions: pd.DataFrame) -> np.ndarray:
    target = (predictions["truth"] == positive_class(predictions)).to_numpy()
    if len(np.unique(target)) < 2:
        raise HistotransferError("tuning: the validation images are of one class only; both are needed")
    return target
