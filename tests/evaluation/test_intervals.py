import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import (
    ANY_CLASSES,
    TWO_CLASSES,
    _Images,
    cluster_weights,
    differences,
    intervals,
)
from histotransfer.evaluation.metrics import image_metrics, patient_metrics

images = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 4)), min_size=2, max_size=30).filter(
    lambda rows: len({positive for positive, _, weight in rows if weight}) == 2
)

STATISTICS = ANY_CLASSES | TWO_CLASSES


def auroc(positive, score, weights):
    n = len(positive)
    arrays = _Images(positive, np.zeros(n, np.float32), score.astype(float), np.ones(n, np.float32))
    return STATISTICS["auroc"](arrays, np.atleast_2d(weights).astype(np.float32))


@given(images)
def test_weighted_auroc_is_scikit_learns_with_ties(rows):
    positive, score, weights = (np.array(column) for column in zip(*rows, strict=True))
    plain, weighted = auroc(positive, score, [np.ones(len(rows)), weights])
    assert plain == pytest.approx(roc_auc_score(positive, score), abs=1e-6)
    assert weighted == pytest.approx(roc_auc_score(positive, score, sample_weight=weights), abs=1e-6)
    repeated = roc_auc_score(positive.repeat(weights), score.repeat(weights))
    assert weighted == pytest.approx(repeated, abs=1e-6)


def test_point_values_are_the_metrics(make_predictions):
    predictions = make_predictions()
    table = intervals(predictions, draws=50)
    assert table["value"].to_dict() == image_metrics(predictions) | patient_metrics(predictions)
    assert (table["low"] <= table["high"]).all()


def test_each_draw_is_the_metric_of_the_drawn_images(make_predictions):
    """A draw as weights equals the metrics of a table in which the drawn patients stand as often as drawn."""
    predictions = make_predictions(patients=8)
    positive = (predictions["truth"] == "malignant").to_numpy()
    weights = cluster_weights(positive, predictions["group"].to_numpy(), 5, seed=3)
    for seed_draw in range(5):
        counts = weights[seed_draw].astype(int)
        rows = predictions.loc[predictions.index.repeat(counts)]
        copy = np.concatenate([np.arange(n) for n in counts])
        drawn = rows.assign(patient=rows["patient"] + "#" + copy.astype(str))  # drawn twice: two patients
        one = intervals_of_one_draw(predictions, weights[[seed_draw]])
        assert one == pytest.approx(image_metrics(drawn) | patient_metrics(drawn), abs=1e-5)


def intervals_of_one_draw(predictions, weights):
    score = predictions["logit_malignant"] - predictions["logit_benign"]
    positive = (predictions["truth"] == "malignant").to_numpy()
    share = 1 / predictions.groupby("patient")["image"].transform("size")
    right = (score >= 0) == positive
    arrays = _Images(positive, right.to_numpy(np.float32), score.to_numpy(), share.to_numpy(np.float32))
    return {name: float(statistic(arrays, weights)[0]) for name, statistic in STATISTICS.items()}


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=30), st.integers(0, 3))
def test_whole_groups_are_drawn_as_many_of_each_class_as_there_are(rows, seed):
    positive, groups = (np.array(column) for column in zip(*rows, strict=True))
    weights = cluster_weights(positive, groups, 20, seed)
    assert weights.shape == (20, len(rows))
    for value in set(positive.tolist()):
        drawn = pd.DataFrame(weights[:, positive == value].T).groupby(groups[positive == value])
        assert (drawn.nunique() == 1).all(axis=None)  # all images of a group together
        assert (drawn.first().sum() == drawn.ngroups).all()


def test_a_metric_that_is_not_defined_has_no_interval(make_predictions):
    predictions = make_predictions()
    table = intervals(predictions[predictions["truth"] == "malignant"], draws=50)
    undefined = table.index[table.isna().all(axis=1)]
    assert set(undefined) == {"auroc", "balanced_accuracy", "specificity"}
    assert table.drop(undefined).notna().all(axis=None)


def test_logits_that_are_no_numbers_are_refused(make_predictions):
    with pytest.raises(HistotransferError, match="not finite"):
        intervals(make_predictions().assign(logit_benign=np.nan))


def test_intervals_follow_from_the_seed(make_predictions):
    predictions = make_predictions()
    assert intervals(predictions, draws=200, seed=1).equals(intervals(predictions, draws=200, seed=1))
    assert not intervals(predictions, draws=200, seed=1).equals(intervals(predictions, draws=200, seed=2))


def test_more_images_of_the_same_patients_do_not_narrow_an_interval(make_predictions):
    once = make_predictions(patients=20)
    often = pd.concat([once.assign(image=f"{i}-" + once["image"]) for i in range(10)], ignore_index=True)
    narrow = often.assign(group=often["image"], patient=often["image"])  # as if images were independent
    a, b, c = (intervals(table, draws=2000) for table in (once, often, narrow))
    pd.testing.assert_frame_equal(a, b, atol=1e-5, rtol=0)
    assert ((c["high"] - c["low"])["accuracy"]) < 0.6 * (a["high"] - a["low"])["accuracy"]


def test_an_interval_is_the_middle_of_the_draws(make_predictions):
    predictions = make_predictions()
    positive = (predictions["truth"] == "malignant").to_numpy()
    right = (predictions["logit_malignant"] >= 0).to_numpy() == positive
    weights = cluster_weights(positive, predictions["group"].to_numpy(), 1000, seed=2)
    drawn = np.sort([np.average(right, weights=draw) for draw in weights])
    low, high = intervals(predictions, draws=1000, seed=2).loc["accuracy", ["low", "high"]]
    assert drawn[24] - 1e-6 <= low <= drawn[25] + 1e-6
    assert drawn[974] - 1e-6 <= high <= drawn[975] + 1e-6


def test_more_confidence_is_wider(make_predictions):
    wide, narrow = (intervals(make_predictions(), draws=500, level=level) for level in (0.95, 0.5))
    assert (wide["low"] <= narrow["low"]).all()
    assert (wide["high"] - wide["low"])["accuracy"] > (narrow["high"] - narrow["low"])["accuracy"]


@pytest.mark.slow
def test_intervals_cover_the_truth_when_there_are_many_patients():
    """Patients with a random effect of their own: the true accuracy and AUROC are known in closed form."""
    generator = np.random.default_rng(0)
    patients, per_patient, shift, between = 60, 4, 0.8, 0.7
    spread = np.sqrt(between**2 + 1)
    truth = {"accuracy": norm.cdf(shift / spread), "auroc": norm.cdf(2 * shift / (np.sqrt(2) * spread))}
    hits = dict.fromkeys(truth, 0)
    sign = np.repeat([-1, 1], patients * per_patient)
    names = np.repeat(np.arange(2 * patients), per_patient).astype(str)
    for _ in range(200):
        effect = np.repeat(generator.normal(0, between, 2 * patients), per_patient)
        score = shift * sign + effect + generator.normal(size=len(sign))
        frame = pd.DataFrame(
            {
                "image": "x", "patient": names, "group": names, "logit_benign": 0.0, "logit_malignant": score,
                "truth": np.where(sign > 0, "malignant", "benign"),
            }
        )  # fmt: skip
        table = intervals(frame, draws=400)
        for metric, value in truth.items():
            hits[metric] += table.loc[metric, "low"] <= value <= table.loc[metric, "high"]
    assert all(0.88 <= count / 200 <= 0.99 for count in hits.values()), hits


def test_a_difference_is_paired_and_the_same_table_has_none(make_predictions):
    ours = make_predictions()
    same = differences(ours, ours, draws=200)
    assert (same.dropna() == 0).all(axis=None)
    logits = [column for column in ours if column.startswith("logit_")]
    theirs = ours.assign(**{column: -ours[column] for column in logits})
    found = differences(ours, theirs, draws=2000)
    expected = intervals(ours, draws=10)["value"] - intervals(theirs, draws=10)["value"]
    np.testing.assert_allclose(found["value"], expected[found.index])
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    with pytest.raises(HistotransferError, match="not of the same images"):
        differences(ours, ours.iloc[::-1])


def test_three_classes_have_accuracy_only(make_predictions):
    table = make_predictions()
    table["truth"] = ["lung_n", "lung_aca"] * (len(table) // 2) + ["lung_scc"] * (len(table) % 2)
    table = table.rename(columns={"logit_benign": "logit_lung_n", "logit_malignant": "logit_lung_aca"})
    table["logit_lung_scc"] = 0.0
    assert list(intervals(table, draws=50).index) == ["accuracy", "recognition_rate"]
