from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test as scipy_permutation_test
from sklearn.metrics import brier_score_loss, roc_auc_score

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.comparisons import holm, judge, permutation_test, verdict
from histotransfer.evaluation.metrics import scores


def arms(make_predictions, patients):
    """Two arms: the logits of the second are in part another draw's."""
    ours, noise = make_predictions(patients=patients), make_predictions(patients=patients, seed=5)
    return ours, ours.assign(
        logit_malignant=(ours["logit_malignant"] + noise["logit_malignant"].iloc[::-1].to_numpy()) / 2
    )


@pytest.mark.parametrize(("metric", "compute"), [("auroc", roc_auc_score), ("brier", brier_score_loss)])
def test_with_few_patients_the_test_is_exact(make_predictions, metric, compute):
    """Every swap of whole patients, made on the scores themselves and given to scikit-learn."""
    ours, theirs = arms(make_predictions, patients=7)
    target, (one, other) = ours["truth"] == "malignant", (scores(ours), scores(theirs))
    groups, gaps = ours["group"].unique(), []
    for swaps in product([False, True], repeat=len(groups)):
        swapped = ours["group"].map(dict(zip(groups, swaps, strict=True)))
        gaps.append(compute(target, np.where(swapped, other, one)) - compute(target, np.where(swapped, one, other)))
    p = np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-12)
    found = permutation_test([(ours, theirs)], metric)
    assert (found.p, found.permutations, found.exact) == (pytest.approx(p), 128, True)
    assert 0.02 < p < 1


def test_with_many_patients_random_swaps_agree_with_scipy(make_predictions):
    """Mean loss of equally many images a patient: a paired permutation test of the patients' means."""
    ours = make_predictions(patients=24)
    moved = np.random.default_rng(3).normal(0, 1, 24)  # each patient by its own
    theirs = ours.assign(logit_malignant=ours["logit_malignant"] + moved[ours["group"].str[3:].astype(int)])
    losses = [
        (-np.log(s) * (ours["truth"] == "malignant") - np.log1p(-s) * (ours["truth"] == "benign"))
        .groupby(ours["group"]).mean()
        for s in (1 / (1 + np.exp(t["logit_benign"] - t["logit_malignant"])) for t in (ours, theirs))
    ]  # fmt: skip
    expected = scipy_permutation_test(
        losses, lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=20_000, rng=np.random.default_rng(0),
    )  # fmt: skip
    found = permutation_test([(ours, theirs)], "log_loss")
    assert not found.exact and found.permutations == 10_000
    assert 0.01 < expected.pvalue < 0.9
    assert found.p == pytest.approx(expected.pvalue, abs=0.02)


def test_the_smallest_p_of_random_swaps_is_not_0(make_predictions):
    """Every patient is better off in the first arm, so that no swap makes the difference larger."""
    table = make_predictions(patients=40).assign(logit_benign=0.0)
    better, worse = (table.assign(logit_malignant=np.where(table["truth"] == "malignant", x, -x)) for x in (3.0, 1.0))
    assert permutation_test([(better, worse)], "log_loss").p == pytest.approx(1 / 10_001)


def test_the_same_arm_twice_has_p_1(make_predictions):
    for patients in (6, 20):
        table = make_predictions(patients=patients)
        assert permutation_test([(table, table)], "auroc").p == 1


def test_p_does_not_depend_on_order_names_or_which_arm_is_first(make_predictions):
    ours, theirs = arms(make_predictions, patients=10)
    p = permutation_test([(ours, theirs)], "auroc").p
    assert 0 < p < 1
    assert permutation_test([(theirs, ours)], "auroc").p == p
    turned = theirs.sample(frac=1, random_state=0)
    assert permutation_test([(ours, turned)], "auroc").p == p
    named = [t.assign(group="x y" + t["group"], image="z" + t["image"]) for t in (ours, theirs)]
    assert permutation_test([named], "auroc").p == p


def test_a_pair_given_twice_changes_nothing_and_opposite_pairs_cancel(make_predictions):
    ours, theirs = arms(make_predictions, patients=10)
    once = permutation_test([(ours, theirs)], "auroc")
    assert permutation_test([(ours, theirs)] * 2, "auroc") == once
    assert permutation_test([(ours, theirs), (theirs, ours)], "auroc").p == 1


def test_the_mean_over_magnifications_is_tested_as_one(make_predictions):
    ours, theirs = (
        pd.concat([t.assign(magnification=m, image=f"{m}" + t["image"]) for m in (40, 100, 200)], ignore_index=True)
        for t in arms(make_predictions, patients=8)
    )
    single = [t[t["magnification"] == 40] for t in (ours, theirs)]
    assert permutation_test([(ours, theirs)], "auroc", "magnification") == permutation_test([single], "auroc")


def test_a_metric_that_is_not_defined_is_an_error(make_predictions):
    table = make_predictions().query("truth == 'benign'")
    for metric in ("auroc", "loss"):
        with pytest.raises(HistotransferError, match=f"permutation test: {metric} is not defined"):
            permutation_test([(table, table)], metric)


@pytest.mark.slow
def test_under_the_null_p_is_uniform(make_predictions):
    """Two arms that are exchangeable, 7 + 7 patients: not more small p-values than there should be."""
    found = []
    for seed in range(200):
        base = make_predictions(patients=14, images=4, seed=seed)
        generator = np.random.default_rng(seed)
        both = [base.assign(logit_malignant=base["logit_malignant"] + generator.normal(0, 2, len(base))) for _ in "ab"]
        found.append(permutation_test([both], "auroc", seed=seed).p)
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_holm_by_hand():
    """Holm 1979: sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never below the one before."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.02})
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.04})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1, "b": 1}
    assert holm({"a": 0.03}) == {"a": 0.03}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_steps_reject(values):
    """The sequential procedure at 5 %: reject from the smallest on while p <= 0.05 / (number left)."""
    adjusted = holm(dict(enumerate(values)))
    rejected = set()
    for left, at in zip(range(len(values), 0, -1), np.argsort(values, kind="stable"), strict=True):
        if values[at] * left > 0.05:
            break
        rejected.add(int(at))
    assert {at for at, p in adjusted.items() if p <= 0.05} == rejected
    assert all(values[at] <= p <= 1 for at, p in adjusted.items())


@pytest.mark.parametrize(
    ("low", "high", "threshold", "expected"),
    [
        (0.84, 0.95, 0.84, "supported here"),
        (0.8399, 0.95, 0.84, "undecided"),
        (0.7, 0.84, 0.84, "undecided"),
        (0.7, 0.8399, 0.84, "contradicted here"),
        (np.nan, np.nan, 0.84, "undecided"),
        (0.01, 0.1, 0.0, "supported here"),
        (0.0, 0.1, 0.0, "undecided"),
        (-0.1, -0.01, 0.0, "contradicted here"),
        (0.1, 0.2, None, "not testable"),
    ],
)
def test_verdicts(low, high, threshold, expected):
    assert verdict(low, high, threshold) == expected


@pytest.mark.parametrize(
    ("low", "high", "threshold", "margin", "given", "expected"),
    [
        (0.01, 0.05, 0, 0.02, False, "not tested as run"),
        (0.001, 0.015, 0, 0.02, True, "supported here"),
        (0.0, 0.05, 0, 0.02, True, "undecided"),
        (-0.05, -0.01, 0, 0.02, True, "contradicted here"),
        (-0.05, 0.019, 0, 0.02, True, "no effect worth having"),
        (-0.05, 0.02, 0, 0.02, True, "undecided"),
        (0.02, 0.05, 0.02, None, True, "supported here"),
        (-0.05, 0.019, 0.02, None, True, "contradicted here"),
        (0.01, 0.03, 0.02, None, True, "undecided"),
        (0.85, 0.9, 0.84, None, True, "supported here"),
        (0.7, 0.83, 0.84, None, True, "contradicted here"),
        (np.nan, np.nan, 0, 0.02, True, "undecided"),
        (0.1, 0.2, None, None, True, "not testable"),
    ],
)
def test_the_second_rule(low, high, threshold, margin, given, expected):
    assert judge(low, high, threshold, margin, given=given) == expected


@given(low=st.floats(-1, 1), width=st.floats(0, 1), margin=st.floats(0.001, 0.5))
def test_an_interval_has_an_effect_or_none_never_both(low, width, margin):
    found = judge(low, low + width, 0, margin)
    assert (found == "supported here") == (low > 0)
    assert (found in ("contradicted here", "no effect worth having")) == (low <= 0 and low + width < margin)
