"""Interval methods that `evaluation.intervals` could use instead; `research.coverage` compares them.

Sources: Davison and Hinkley 1997, chapter 5 (percentile, basic, BCa, studentised); Hesterberg 2015,
https://doi.org/10.1080/00031305.2015.1089789 (expanded percentile); Obuchowski 1997, Biometrics 53, 567 (AUROC of
clustered data: its variance is, to first order, the jackknife's used here).
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from histotransfer.evaluation.clusters import Redrawable, draw_counts
from histotransfer.evaluation.intervals import LEVEL, NONE, jackknife, leave_one_out

DRAWS, STUDENTISED = 2_000, 300
RIVALS, BOUNDED = ("percentile", "basic", "BCa", "studentised", "t"), ("expanded percentile", "logit t")
TAILS = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
Limits = dict[str, tuple[float, float]]


def rivals(arms: Sequence[Redrawable], metrics: Sequence[str], seed: int) -> dict[str, Limits]:
    """``{metric: {method: (low, high)}}`` of one arm, or of the difference of two.

    Args:
        arms: one, or two of the same clusters.
        metrics: names of metrics with values from 0 to 1.
        seed: of the bootstrap draws.
    """

    def values(counts: np.ndarray) -> dict[str, np.ndarray]:
        first, *second = [arm.values(counts, metrics) for arm in arms]
        return {metric: first[metric] - sum(other[metric] for other in second) for metric in metrics}

    classes = arms[0].classes
    counts = draw_counts(classes, DRAWS, seed)
    whole, left, drawn = values(np.ones((1, len(classes)))), values(leave_one_out(classes)), values(counts)
    some = counts[:STUDENTISED]
    without = (some[:, None, :] - np.eye(len(classes), dtype=int)).clip(0).reshape(-1, len(classes))
    inner = values(without)
    limits = {}
    for metric in metrics:
        shares = arms[0].shares(metric)
        pivots = _errors(inner[metric].reshape(some.shape), some, classes)
        limits[metric] = _limits(
            whole[metric][0], left[metric], drawn[metric], pivots, shares, classes, bounded=len(arms) == 1
        )
    return limits


def _limits(
    value: float,
    left: np.ndarray,
    drawn: np.ndarray,
    errors: np.ndarray,
    shares: np.ndarray,
    classes: np.ndarray,
    *,
    bounded: bool,
) -> Limits:
    error, freedom = jackknife(left, shares, classes)
    if not error > NONE:
        return dict.fromkeys((*RIVALS, *(BOUNDED if bounded else ())), (np.nan, np.nan))
    quantiles, normal = stdtrit(freedom, TAILS), ndtri(TAILS)
    low, high = np.quantile(drawn, TAILS)
    bias = ndtri(np.clip((np.mean(drawn < value) + np.mean(drawn <= value)) / 2, 1e-3, 1 - 1e-3))
    influence = _influence(left, classes)
    skew = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    spread = errors > NONE
    upper, lower = np.quantile((drawn[: len(errors)][spread] - value) / errors[spread], TAILS)
    limits = {
        "percentile": (low, high),
        "basic": (2 * value - high, 2 * value - low),
        "BCa": np.quantile(drawn, ndtr(bias + (bias + normal) / (1 - skew * (bias + normal)))),
        "studentised": (value - lower * error, value - upper * error),
        "t": value + quantiles * error,
    }
    if bounded:
        limits["expanded percentile"] = np.quantile(drawn, ndtr(quantiles * np.sqrt((freedom + 1) / freedom)))
        limits["logit t"] = expit(logit(value) + quantiles * error / (value * (1 - value)))
    return {method: (float(ends[0]), float(ends[1])) for method, ends in limits.items()}


def _influence(left: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """``(K,)`` how much each cluster raises the metric, for the skewness in BCa."""
    influence = np.empty(len(left))
    for value in np.unique(classes):
        rows = classes == value
        influence[rows] = (rows.sum() - 1) / rows.sum() * (left[rows].mean() - left[rows])
    return influence


def _errors(left: np.ndarray, counts: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """``(D,)`` jackknife standard error of each draw.

    Args:
        left: ``(D, K)`` the metric of each draw without one copy of each cluster.
        counts: ``(D, K)`` copies of each cluster in each draw.
        classes: ``(K,)``.
    """
    total = np.zeros(len(counts))
    for value in np.unique(classes):
        columns = classes == value
        copies, values, size = counts[:, columns], left[:, columns], columns.sum()
        values = np.where(copies > 0, values, 0)
        mean = (copies * values).sum(axis=1) / size
        total += (size - 1) / size * (copies * (values - mean[:, None]) ** 2).sum(axis=1)
    return np.sqrt(total)
