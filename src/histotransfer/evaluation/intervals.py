"""Intervals of metrics that allow for several images per patient.

One arm. The variance of a metric is the jackknife's, leaving out one patient at a time within each class. Its degrees
of freedom are Satterthwaite's over the classes, where a class has Kish's effective number of patients less one. A
metric from 0 to 1 then has Clopper and Pearson's interval of a proportion, with the effective number of images that
this variance implies (Korn and Graubard 1998, Survey Methodology 24, 193). Where the metric is 0 or 1 and so has no
variance, the number of trials is the effective number of patients in the smaller class. Log-loss has a t interval of
its logarithm. Nothing is drawn at random.

Two arms. The paired bootstrap: both arms see the same redraws of whole patients within each class. The interval is the
middle part of the redrawn differences, widened to allow for few degrees of freedom (the expanded percentile interval,
Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789, with the degrees of freedom above).

`research/coverage.py` measures how often these intervals hold the truth, beside the plain percentile bootstrap and
others; its results are in `results/coverage`.

Deviations from Korn and Graubard: also used for AUROC, average precision and the like, which are no proportions
(Matthews correlation as ``(1 + r) / 2``); and the numerator of their ratio of t quantiles is the normal quantile.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy.special import betaincinv, ndtr, ndtri, stdtrit  # the quantiles of scipy.stats without its overhead

from histotransfer.evaluation.clusters import MeanOf, Redrawable, draw_counts, scored
from histotransfer.evaluation.metrics import Metrics, averaged, image_metrics, mean_if_defined, patient_metrics
from histotransfer.evaluation.pooling import aligned

DRAWS = 10_000
LEVEL = 0.95
POWER = 0.8
MIN_GROUPS = 2  # of each class present: leaving out the only one shows no spread
NONE = 1e-9  # a standard error below it is rounding
UNDEFINED = 0.05  # the largest share of redraws without a value that an interval may leave out

Pairs = Sequence[tuple[pd.DataFrame, pd.DataFrame]]


def intervals(predictions: pd.DataFrame, by: str | None = None, *, level: float = LEVEL) -> pd.DataFrame:
    """Every metric of a predictions table with its interval.

    Args:
        predictions: rows of one part and, usually, one magnification.
        by: a column over whose values the metrics are averaged, as in `metrics.scopes`; None: over all rows together.
        level: coverage aimed at.

    Returns:
        One row per metric (index): `value`, `low`, `high`. NaN where the metric is not defined, as for a missing class.
        A value without an interval where a class has only one group, where the metric is not defined without some
        patient, and where patients do not differ although the value is neither 0 nor 1 (a constant prediction).

    Raises:
        HistotransferError: no image, or a logit that is not finite.
    """
    return limits_of(all_metrics(predictions, by), scored(predictions, by), level)


def mean_intervals(
    tables: Sequence[pd.DataFrame],
    by: str | None = None,
    *,
    wanted: Collection[str] | None = None,
    level: float = LEVEL,
) -> pd.DataFrame:
    """As `intervals`, of the mean over several models of each model's metric: what one of them is worth on average.

    Args:
        tables: each model's predictions of the same images, such as those of one seed.
        by: as in `intervals`.
        wanted: names of metrics; None: all.
        level: coverage aimed at.

    Raises:
        HistotransferError: as `pooling.aligned`, or as `intervals`.
    """
    tables = aligned(tables)
    values = [all_metrics(table, by, wanted) for table in tables]
    mean = {metric: mean_if_defined([of_one[metric] for of_one in values]) for metric in values[0]}
    return limits_of(mean, MeanOf([scored(table, by) for table in tables]), level)


def differences(
    pairs: Pairs,
    by: str | None = None,
    *,
    metrics: Collection[str] | None = None,
    draws: int | None = None,
    level: float = LEVEL,
    power: float = POWER,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of one arm minus those of another on the same images, with intervals: paired by patient.

    Args:
        pairs: predictions of both arms, one row per image, in any order; of several pairs (all else equal within each)
            the mean of their differences is taken.
        by: as in `intervals`.
        metrics: names of metrics; None: all, which takes many times as long as two or three.
        draws: bootstrap draws; None: `DRAWS`.
        level: coverage aimed at.
        power: for `smallest`.
        seed: of the draws.

    Returns:
        One row per metric: `value`, `low`, `high` as in `intervals` (no interval where the arms do not differ on any
        patient, or where more than `UNDEFINED` of the redraws have no value; fewer are left out), and `smallest`: the
        smallest true difference for which the interval of this design excludes 0 with that power,
        (t(1 - (1 - level) / 2) + t(power)) standard errors (Bloom 1995, Evaluation Review 19, 547).

    Raises:
        HistotransferError: as `pooling.aligned`.
    """
    tables = aligned([table for pair in pairs for table in pair])
    values, arms = [all_metrics(table, by, metrics) for table in tables], [scored(table, by) for table in tables]
    gaps = mean_gaps([(values[i], values[i + 1]) for i in range(0, len(values), 2)])
    if metrics is not None:
        gaps = {metric: gaps[metric] for metric in metrics}
    return limits_of_gaps(
        gaps, list(zip(arms[::2], arms[1::2], strict=True)), draws=draws, level=level, power=power, seed=seed
    )


def smallest_distance(
    predictions: pd.DataFrame, metric: str, by: str | None = None, *, level: float = LEVEL, power: float = POWER
) -> float:
    """The smallest true distance of a metric from a fixed value that this design would detect with that power.

    As `smallest` of `differences`, with the standard error of `intervals`; NaN where that error is 0 or a class
    has only one group.
    """
    arm = scored(predictions, by)
    if not enough(arm.classes):
        return np.nan
    left = arm.values(leave_one_out(arm.classes))[metric]
    error, freedom = jackknife(left, arm.shares(metric), arm.classes)
    return float((stdtrit(freedom, (1 + level) / 2) + stdtrit(freedom, power)) * error) if error > NONE else np.nan


def mean_gaps(pairs: Sequence[tuple[Metrics, Metrics]]) -> Metrics:
    """First minus second value of each metric, averaged over the pairs; None where any of these values is None."""
    return {
        metric: mean_if_defined([_difference(one[metric], other[metric]) for one, other in pairs])
        for metric in pairs[0][0]
    }


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def all_metrics(predictions: pd.DataFrame, by: str | None = None, wanted: Collection[str] | None = None) -> Metrics:
    """Every metric at image and patient level, or those `wanted`; `by` as in `metrics.averaged`."""
    return averaged(lambda rows: image_metrics(rows, wanted) | patient_metrics(rows, wanted), predictions, by)


def limits_of(values: Metrics, arm: Redrawable, level: float = LEVEL) -> pd.DataFrame:
    """As `intervals`, from metrics already computed and their clusters."""
    left, rows = arm.values(leave_one_out(arm.classes), list(values)), {}
    for metric, value in values.items():
        low = high = np.nan
        if value is not None and enough(arm.classes) and not np.isnan(left[metric]).any():
            shares = arm.shares(metric)
            error, freedom = jackknife(left[metric], shares, arm.classes)
            low, high = limits(metric, value, error, freedom, fewest(shares, arm.classes), level)
        rows[metric] = {"value": value, "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def limits_of_gaps(
    gaps: Metrics,
    pairs: Sequence[tuple[Redrawable, Redrawable]],
    *,
    draws: int | None = None,
    level: float = LEVEL,
    power: float = POWER,
    seed: int = 0,
) -> pd.DataFrame:
    """As `differences`, from differences already computed and the clusters of both arms of each pair."""
    arm, known = pairs[0][0], [metric for metric, gap in gaps.items() if gap is not None]
    left, drawn = (
        mean_redrawn(pairs, counts, known)
        for counts in (leave_one_out(arm.classes), draw_counts(arm.classes, draws or DRAWS, seed))
    )
    rows = {metric: {"value": gap, "low": np.nan, "high": np.nan, "smallest": np.nan} for metric, gap in gaps.items()}
    for metric in known if enough(arm.classes) else []:
        if np.isnan(left[metric]).any() or np.isnan(drawn[metric]).mean() > UNDEFINED:
            continue
        error, freedom = np.nanstd(drawn[metric]), jackknife(left[metric], arm.shares(metric), arm.classes)[1]
        if error > NONE:
            reach, narrow = stdtrit(freedom, (1 + level) / 2), np.sqrt((freedom + 1) / freedom)
            low, high = np.nanquantile(drawn[metric], ndtr([-reach * narrow, reach * narrow]))
            rows[metric] |= {"low": low, "high": high}
            rows[metric]["smallest"] = (reach + stdtrit(freedom, power)) * error * narrow
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def mean_redrawn(
    pairs: Sequence[tuple[Redrawable, Redrawable]], counts: np.ndarray, metrics: Sequence[str]
) -> dict[str, np.ndarray]:
    """``(D,)`` differences of each metric in each redraw, averaged over the pairs."""
    redrawn = [(one.values(counts, metrics), other.values(counts, metrics)) for one, other in pairs]
    return {metric: np.mean([one[metric] - other[metric] for one, other in redrawn], axis=0) for metric in metrics}


def jackknife(left: np.ndarray, shares: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """Standard error of a metric and its degrees of freedom.

    Args:
        left: ``(K,)`` the metric without each cluster in turn.
        shares: ``(K,)`` of each cluster in its class, up to a factor per class; a class without shares is ignored.
        classes: ``(K,)`` within which clusters are left out.
    """
    strata = [classes == value for value in np.unique(classes[shares > 0])]
    variances = np.array([(inside.sum() - 1) * left[inside].var() for inside in strata])
    freedoms = np.array([max(effective(shares[inside]) - 1, 1) for inside in strata])
    total = variances.sum()
    freedom = total**2 / (variances**2 / freedoms).sum() if total > NONE**2 else freedoms.min()
    return np.sqrt(total), freedom


def limits(
    metric: str, value: float, error: float, freedom: float, patients: float, level: float = LEVEL
) -> tuple[float, float]:
    """The interval of one metric; NaN where it has none.

    Args:
        metric: its name.
        value: of the metric.
        error: its standard error.
        freedom: degrees of freedom of the error.
        patients: number of trials to assume where the error is 0.
        level: coverage aimed at.
    """
    tail, quantile = (1 - level) / 2, stdtrit(freedom, (1 + level) / 2)
    if metric == "log_loss":
        reach = np.exp(quantile * error / value)
        return (value / reach, value * reach) if error > NONE else (np.nan, np.nan)
    if metric == "matthews_correlation":
        low, high = limits("", (1 + value) / 2, error / 2, freedom, patients, level)
        return 2 * low - 1, 2 * high - 1
    if error > NONE:
        trials = value * (1 - value) / error**2 * (ndtri(1 - tail) / quantile) ** 2
    elif value in (0, 1):
        trials = patients
    else:
        return np.nan, np.nan
    hits, misses = value * trials, (1 - value) * trials
    low = betaincinv(hits, misses + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, misses, 1 - tail) if misses else 1.0
    return low, high


def leave_one_out(classes: np.ndarray) -> np.ndarray:
    """``(K, K)`` counts of K clusters: row i leaves out cluster i."""
    return 1 - np.eye(len(classes))


def effective(shares: np.ndarray) -> float:
    """Kish's effective number of clusters: their number where their shares are equal, else fewer."""
    return shares.sum() ** 2 / (shares**2).sum()


def fewest(shares: np.ndarray, classes: np.ndarray) -> float:
    """The smallest effective number of clusters of any class."""
    return min(effective(shares[classes == value]) for value in np.unique(classes))


def enough(classes: np.ndarray) -> bool:
    """Whether every class present has enough clusters for an interval."""
    return np.unique(classes, return_counts=True)[1].min() >= MIN_GROUPS
