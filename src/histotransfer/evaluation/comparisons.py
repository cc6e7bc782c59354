"""Two arms on the same images: permutation test, Holm's correction over a family, and the verdict on a claim."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.clusters import scored
from histotransfer.evaluation.intervals import Pairs, all_metrics
from histotransfer.evaluation.pooling import aligned

PERMUTATIONS = 10_000
LEAST = 1e-12  # differences closer than this are ties


@dataclass(frozen=True)
class PermutationTest:
    """The result of a permutation test.

    Attributes:
        p: two-sided p-value.
        permutations: how many were computed.
        exact: whether these are all possible ones.
    """

    p: float
    permutations: int
    exact: bool


def permutation_test(pairs: Pairs, metric: str, by: str | None = None, *, seed: int = 0) -> PermutationTest:
    """Test whether two arms differ in a metric by more than random swaps of whole patients between them explain.

    All swaps where there are at most `PERMUTATIONS` (up to 13 patients), else that many random ones; their p-value is
    (b + 1) / (n + 1) (Phipson and Smyth 2010, https://doi.org/10.2202/1544-6115.1585). The null hypothesis is that the
    two arms' logits of a patient are exchangeable; logits that differ only in scale already violate it.

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
    arms = zip(tables[::2], tables[1::2], strict=True)
    gaps = [_swapped(ours, theirs, metric, by, patients, swaps) for ours, theirs in arms]
    observed, *permuted = np.abs(np.mean(gaps, axis=0))
    extreme = int(np.sum(np.array(permuted) >= observed - LEAST))
    p = extreme / len(permuted) if exact else (extreme + 1) / (len(permuted) + 1)
    return PermutationTest(p, len(permuted), exact)


def _swapped(
    ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, by: str | None, patients: np.ndarray, swaps: np.ndarray
) -> np.ndarray:
    """``(D,)`` differences after each swap: both arms form one table, and a swap assigns its halves to the arms."""
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


SUPPORTED, CONTRADICTED, UNDECIDED = "supported here", "contradicted here", "undecided"
NOT_TESTABLE = "not testable"


NO_EFFECT, NOT_GIVEN = "no effect worth having", "not tested as run"


def judge(low: float, high: float, threshold: float | None, margin: float | None = None, *, given: bool = True) -> str:
    """The verdict on a claim by the second edition of the rule, in the order of `study/claims.toml`.

    Args:
        low: lower end of the 95 % interval; NaN where there is none.
        high: its upper end.
        threshold: what the claim states; 0 for the claim that there is a difference; None where nothing is stated.
        margin: the smallest effect worth having, of a claim that there is a difference; None for one that states an
            amount, which is contradicted below that amount.
        given: whether the treatment was given, as its dose says.

    Returns:
        `NOT_GIVEN`, `SUPPORTED`, `CONTRADICTED`, `NO_EFFECT`, `UNDECIDED`, or `NOT_TESTABLE` without a threshold.
    """
    if threshold is None:
        return NOT_TESTABLE
    if not given:
        return NOT_GIVEN
    if low > 0 if threshold == 0 else low >= threshold:
        return SUPPORTED
    if high < (threshold if margin is None else 0):
        return CONTRADICTED
    return NO_EFFECT if margin is not None and high < margin else UNDECIDED


def verdict(low: float, high: float, threshold: float | None) -> str:
    """The verdict that a 95 % interval gives on a claim, by the first edition of the rule of `study/claims.toml`.

    Supported where its lower end is at or above the threshold, contradicted where its upper end is below it, otherwise
    undecided. Also undecided where there is no interval (NaN); not testable where the paper states no threshold. A
    threshold of 0 is the claim that there is a difference, so an interval that ends at 0 does not support it.
    """
    if threshold is None:
        return NOT_TESTABLE
    if low > 0 if threshold == 0 else low >= threshold:
        return SUPPORTED
    return CONTRADICTED if high < threshold else UNDECIDED
