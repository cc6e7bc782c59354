import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from histotransfer.evaluation.clusters import draw_counts
from histotransfer.evaluation.intervals import all_metrics
from histotransfer.evaluation.within_folds import WithinFolds

FOLDS, SEEDS = 3, 2


@pytest.fixture
def runs(make_predictions):
    """Two seeds of three folds, each with folds of its own; every image is tested once a seed."""
    tables = []
    for seed in range(SEEDS):
        table = make_predictions(patients=18, images=3, magnifications=(40, 100, 200), seed=seed)
        patient = table["group"].str.extract(r"(\d+)", expand=False).astype(int)
        tables.append(table.assign(seed=seed, fold=(patient // 2 + seed) % FOLDS))
    return pd.concat(tables, ignore_index=True)


def by_hand(predictions):
    """Of each seed the folds' AUROC, weighted by their pairs; the mean over seeds."""
    found = []
    for _, own in predictions.groupby("seed"):
        values, pairs = [], []
        for _, rows in own.groupby("fold"):
            target = rows["truth"] == "malignant"
            if target.nunique() == 2:
                values.append(roc_auc_score(target, rows["logit_malignant"] - rows["logit_benign"]))
                pairs.append(target.sum() * (~target).sum())
        found.append(np.average(values, weights=pairs))
    return np.mean(found)


def test_it_is_the_folds_auroc_weighted_by_pairs(runs):
    assert WithinFolds(runs).value["auroc"] == pytest.approx(by_hand(runs))
    each = [by_hand(own) for _, own in runs.groupby("magnification")]
    assert WithinFolds(runs, "magnification").value["auroc"] == pytest.approx(np.mean(each))


def test_a_redraw_is_the_value_of_the_drawn_patients(runs):
    arm = WithinFolds(runs)
    keys = pd.MultiIndex.from_frame(runs[["truth", "group"]])
    cluster = keys.factorize()[0]
    counts = draw_counts(arm.classes, 5, seed=1)
    for count, value in zip(counts, arm.values(counts)["auroc"], strict=True):
        assert value == pytest.approx(by_hand(runs.loc[runs.index.repeat(count[cluster])]))


def test_of_one_fold_and_seed_it_is_auroc(make_predictions):
    predictions = make_predictions(patients=8).assign(fold=0, seed=0)
    pooled = all_metrics(predictions)
    assert WithinFolds(predictions).value == pytest.approx({
        metric: pooled[metric] for metric in ("auroc", "patient_auroc")
    })  # fmt: skip


@given(shifts=st.lists(st.integers(-8, 8), min_size=FOLDS, max_size=FOLDS))
def test_what_lifts_all_scores_of_a_fold_changes_nothing(make_predictions, shifts):
    predictions = make_predictions(patients=12).assign(seed=0)
    predictions["fold"] = predictions["group"].str.extract(r"(\d+)", expand=False).astype(int) // 2 % FOLDS
    lifted = predictions.assign(
        logit_malignant=predictions["logit_malignant"] + predictions["fold"].map(shifts.__getitem__)
    )
    assert WithinFolds(lifted).value["auroc"] == pytest.approx(WithinFolds(predictions).value["auroc"])


def test_a_constant_answer_a_fold_is_worth_a_half(runs):
    constant = runs.assign(logit_benign=0.0, logit_malignant=0.1 + runs["fold"] / 3)
    assert WithinFolds(constant).value == {"auroc": 0.5, "patient_auroc": 0.5}


def test_a_fold_without_a_class_has_no_say_and_none_at_all_is_not_defined(runs):
    lost = runs.loc[~((runs["fold"] == 0) & (runs["truth"] == "benign"))].reset_index(drop=True)
    assert WithinFolds(lost).value["auroc"] == pytest.approx(by_hand(lost[lost["fold"] > 0]))
    apart = runs[(runs["fold"] == 0) == (runs["truth"] == "benign")].reset_index(drop=True)
    assert WithinFolds(apart).value == {"auroc": None, "patient_auroc": None}


def test_a_cluster_has_the_share_of_the_pairs_that_it_is_in(make_predictions):
    """By hand: fold 0 pairs a (2 images) and b (1) with c (3), fold 1 holds one class only and has no say."""
    sizes = [("a", 2, "malignant", 0), ("b", 1, "malignant", 0), ("c", 3, "benign", 0), ("d", 4, "malignant", 1)]
    rows = [(group, truth, fold) for group, images, truth, fold in sizes for _ in range(images)]
    frame = pd.DataFrame(rows, columns=["group", "truth", "fold"]).assign(
        image=[f"{i}.png" for i in range(len(rows))], seed=0, magnification=40, logit_benign=0.0, logit_malignant=0.0
    )  # fmt: skip
    arm = WithinFolds(frame.assign(patient=frame["group"]))
    order = frame[["truth", "group"]].drop_duplicates()["group"].tolist()
    assert dict(zip(order, arm.shares("auroc"), strict=True)) == {"a": 2 / 3, "b": 1 / 3, "c": 1, "d": 0}
    assert dict(zip(order, arm.shares("patient_auroc"), strict=True)) == {"a": 1 / 2, "b": 1 / 2, "c": 1, "d": 0}
