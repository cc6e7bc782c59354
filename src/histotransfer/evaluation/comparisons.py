"""Two arms on the same images: permutation test, Holm's correction over a family, and the verdict on a claim."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.clusters import scored
from histotransfer.evaluation.intervals import LEVEL, Pairs, all_metrics
from histotransfer.evaluation.pooling import aligned

PERMUTATIONS = 10_000
LEAST = 1e-12  # differences closer than this are ties


@dataclass(frozen=True)
class PermutationTest:
    """What a permutation test found.

    Attributes:
        p: two-sided p-value.
        permutations: how many were looked at.
        exact: whether these are all there are.
    """

    p: float
    permutations: int
    exact: bool


def permutation_test(pairs: Pairs, metric: str, by: str | None = None, *, seed: int = 0) -> PermutationTest:
    """Whether two arms differ in a metric by more than chance swaps of whole patients between them would make them.

    All swaps where there are at most `PERMUTATIONS` (up to 13 patients), else as many random ones; the p-value then is
    (b + 1) / (n + 1) (Phipson and Smyth 2010, https://doi.org/10.2202/1544-6115.1585). The null hypothesis is that the
    two arms' logits of a patient could be each other's; arms whose logits differ in scale alone break it.

    Args:
        pairs: as for `intervals.differences`; a patient is swapped in all pairs at once.
        metric: one of those of `intervals.intervals`.
        by: as there.
        seed: of the random swaps.

    Raises:
        HistotransferError: as `pooling.aligned`; a metric that is not defined for these tables.
    """
    tables = aligned([table for pair in pairs for table in pair])
    if any(all_metrics(table, by, [metric]).get(metric) is None for table in tables):
        raise HistotransferError(f"permutation test: {metric} is not defined for these images")
    patients = tables[0]["group"].unique()
    exact = 2 ** len(patients) <= PERMUTATIONS
    if exact:
        swaps = (np.arange(2 ** len(patients))[:, None] >> np.arange(len(patients))) & 1
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (PERMUTATIONS, len(patients)))
    swaps = np.vstack([np.zeros_like(swaps[:1]), swaps])  # the first swaps nobody
    gaps = [_swapped(*tables[i : i + 2], metric, by, patients, swaps) for i in range(0, len(tables), 2)]
    observed, *found = np.abs(np.mean(gaps, axis=0))
    extreme = int(np.sum(np.array(found) >= observed - LEAST))
    p = extreme / len(found) if exact else (extreme + 1) / (len(found) + 1)
    return PermutationTest(p, len(found), exact)


def _swapped(
    ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, by: str | None, patients: np.ndarray, swaps: np.ndarray
) -> np.ndarray:
    """``(D,)`` differences after each of the swaps: both arms as one table, of which a swap takes either half."""
    halves = [
        table.assign(**{name: f"{arm} " + table[name] for name in ("group", "patient")})
        for arm, table in enumerate((ours, theirs))
    ]
    both = scored(pd.concat(halves, ignore_index=True), by)
    arm, patient = zip(*(group.split(" ", 1) for group in both.design.groups), strict=True)
    taken = swaps[:, pd.Index(patients).get_indexer(patient)] ^ (np.array(arm) == "1")
    return both.values(1 - taken, [metric])[metric] - both.values(taken, [metric])[metric]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for a family of tests (Holm 1979, Scandinavian Journal of Statistics 6, 65)."""
    names = sorted(p_values, key=lambda name: p_values[name])
    stepped = [p_values[name] * (len(names) - rank) for rank, name in enumerate(names)]
    adjusted = np.minimum(np.maximum.accumulate(stepped), 1)
    return {name: float(adjusted[names.index(name)]) for name in p_values}


def resampled_interval(differences: np.ndarray, ratio: float, *, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean difference of two arms over resamples of one data set (folds, seeds) and its corrected t interval.

    Resamples share training images, so the variance of their mean is ``(1 / J + ratio) s^2`` instead of ``s^2 / J``
    (Nadeau and Bengio 2003, https://doi.org/10.1023/A:1024068626366). For quantities that belong to a run, such as
    epochs until it converged; what belongs to images has `intervals.differences`.

    Args:
        differences: ``(J,)`` one a resample, paired.
        ratio: evaluated over training images of a resample.
        level: coverage aimed at.

    Returns:
        The mean and both limits; these are NaN for fewer than two resamples.
    """
    mean, count = float(np.mean(differences)), len(differences)
    if count < 2:
        return mean, np.nan, np.nan
    reach = stdtrit(count - 1, (1 + level) / 2) * np.sqrt((1 / count + ratio) * np.var(differences, ddof=1))
    return mean, mean - float(reach), mean + float(reach)


SUPPORTED, CONTRADICTED, UNDECIDED = "supported here", "contradicted here", "undecided"
NOT_TESTABLE = "not testable"


def verdict(low: float, high: float, threshold: float | None) -> str:
    """What a 95 % interval says of a claim, by the rule of `study/claims.toml`.

    Supported where its lower end is at or above the threshold, contradicted where its upper end is below it, else
    undecided; undecided too where there is no interval (NaN), and not testable where the paper states no threshold. A
    threshold of 0 claims that there is a difference, so an interval that ends at 0 does not support it.
    """
    if threshold is None:
        return NOT_TESTABLE
    if low > 0 if threshold == 0 else low >= threshold:
        return SUPPORTED
    return CONTRADICTED if high < threshold else UNDECIDED
