"""Chapter 07: which arms may be compared, how a paired difference spreads, what looking five times costs."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from histotransfer.book.exercises import require, self_check


@self_check
def check_pairs(pairs: set[tuple[str, str]]) -> str:
    """Exercise `ex-ablation-pairs`: the pairs of arms that differ in the gates alone."""
    clean = {frozenset(("plain", "se")), frozenset(("plain-lung", "se-lung"))}
    unordered = {frozenset(pair) for pair in pairs}
    require(all(len(pair) == 2 for pair in unordered), "give pairs of two different arms")
    mixed = [pair for pair in unordered if len({name.endswith("-lung") for name in pair}) == 2]
    require(not mixed, "one of your pairs differs in the lung step as well: then nobody knows which of the two it was")
    start = {"se-standard"} & set().union(*unordered)
    require(not start, "gates of `se-standard` start elsewhere: a pair with it differs in more than having gates")
    require(unordered == clean, f"{len(clean - unordered)} more such pairs are to be found")
    return "two clean comparisons of the same thing, and their mean is the main effect."


@self_check
def check_paired(paired: Callable[[pd.DataFrame], tuple[float, float]]) -> str:
    """Exercise `ex-ablation-paired`: mean and standard error of a difference, patient by patient."""
    generator = np.random.default_rng(0)
    groups = np.repeat([f"14-{i}" for i in range(10)], generator.integers(2, 12, 10))
    hard = pd.Series(groups).map(dict(zip(np.unique(groups), generator.random(10), strict=True)))
    table = pd.DataFrame({"group": groups, "a": generator.random(len(groups)) > hard})
    table["b"] = table["a"] ^ (generator.random(len(groups)) < 0.2)
    by_patient = table.groupby("group")[["a", "b"]].mean()
    differences = by_patient["b"] - by_patient["a"]
    mean, error = (float(number) for number in paired(table))
    require(abs(mean - differences.mean()) < 1e-9, f"the mean over patients is not {mean:.3f}: average a patient first")
    images = (table["b"].astype(int) - table["a"].astype(int)).std() / len(table) ** 0.5
    require(abs(error - images) > 1e-9, f"{error:.3f} takes every image for a patient of its own")
    unpaired = np.hypot(*(by_patient[name].std() / 10**0.5 for name in ("a", "b")))
    require(abs(error - unpaired) > 1e-9, f"{error:.3f} forgets that both arms saw the same patients")
    expected = differences.std() / 10**0.5
    require(abs(error - expected) < 1e-9, f"the standard error is {expected:.3f} (n - 1 below), not {error:.3f}")
    return f"{expected:.3f}; taken for two unrelated groups of patients it would be {unpaired:.3f}."


@self_check
def check_holm(holm: Callable[[np.ndarray], np.ndarray]) -> str:
    """Exercise `ex-ablation-holm`: p-values corrected by Holm's method."""
    cases = {
        (0.01, 0.04, 0.03): (0.03, 0.06, 0.06),
        (0.04, 0.01, 0.02): (0.04, 0.03, 0.04),
        (0.5, 0.001): (0.5, 0.002),
        (0.2, 0.9, 0.6, 0.4): (0.8, 1, 1, 1),
    }
    for values, expected in cases.items():
        p, want = np.array(values), np.array(expected)
        corrected = np.asarray(holm(p))
        bonferroni = np.allclose(corrected, np.minimum(1, p * len(p)))
        require(not bonferroni or np.allclose(want, corrected), "that is Bonferroni: Holm's factor falls from n to 1")
        require(
            np.allclose(corrected, want),
            f"{values}: {corrected.round(3).tolist()}, where it should be {list(expected)}",
        )
    return "never less powerful than Bonferroni, and as safe."
