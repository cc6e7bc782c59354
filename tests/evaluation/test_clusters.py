import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from histotransfer.evaluation.clusters import Design, draw_counts, scored
from histotransfer.evaluation.metrics import averaged, image_metrics, patient_metrics, scopes

IMAGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(-3, 3)), min_size=1, max_size=25
)  # patient, malignant, score


def table(rows):
    frame = pd.DataFrame(rows, columns=["patient", "positive", "logit_malignant"])
    truth = frame.pop("positive").map({True: "malignant", False: "benign"})
    return frame.assign(
        image=[f"{i}.png" for i in range(len(frame))], group="g" + frame["patient"], magnification=40, part="test",
        truth=truth, logit_benign=0.0,
    )  # fmt: skip


def all_of(predictions, by=None):
    return averaged(lambda rows: image_metrics(rows) | patient_metrics(rows), predictions, by)


def whole(design):
    return np.ones((1, len(design.classes)))


@settings(max_examples=30)
@given(IMAGES, st.integers(0, 99))
def test_every_metric_with_weights_is_scikit_learns(rows, seed):
    frame = table([*rows, ("d", True, 1), ("e", False, 0)])
    arm = scored(frame)
    counts = draw_counts(arm.classes, 4, seed)
    found = arm.values(counts)
    target, score = (frame["truth"] == "malignant").to_numpy(), frame["logit_malignant"].to_numpy()
    chance = 1 / (1 + np.exp(-score.astype(float)))
    for draw, count in enumerate(counts):
        weight = {"sample_weight": count[arm.design.cluster]}
        guess = score >= 0
        expected = {
            "accuracy": sk.accuracy_score(target, guess, **weight),
            "balanced_accuracy": sk.balanced_accuracy_score(target, guess, **weight),
            "log_loss": sk.log_loss(target, chance, **weight),
            "auroc": sk.roc_auc_score(target, score, **weight),
            "average_precision": sk.average_precision_score(target, score, **weight),
            "sensitivity": sk.recall_score(target, guess, **weight),
            "specificity": sk.recall_score(target, guess, pos_label=False, **weight),
            "f1": sk.f1_score(target, guess, **weight),
            "matthews_correlation": sk.matthews_corrcoef(target, guess, **weight),
            "brier": sk.brier_score_loss(target, chance, **weight),
        }
        assert {metric: found[metric][draw] for metric in expected} == pytest.approx(expected, abs=1e-12)


def test_each_draw_is_every_metric_of_the_drawn_patients(make_predictions):
    """A draw as counts equals the metrics of a table in which the drawn patients stand as often as drawn."""
    predictions = make_predictions(patients=8)
    arm = scored(predictions)
    counts = draw_counts(arm.classes, 6, seed=3)
    found = arm.values(counts)
    assert set(found) == set(all_of(predictions))
    for draw, count in enumerate(counts):
        often = count[arm.design.cluster]
        copy = np.concatenate([np.arange(n) for n in often]).astype(str)
        drawn = predictions.loc[predictions.index.repeat(often)]
        drawn = drawn.assign(patient=drawn["patient"] + "#" + copy)  # drawn twice: two patients
        assert {metric: values[draw] for metric, values in found.items()} == pytest.approx(all_of(drawn))


def test_counts_of_one_are_the_metrics_themselves_in_every_scope(make_predictions):
    predictions = make_predictions(patients=14, images=9, magnifications=(40, 40, 100, 200, 400))
    several = predictions.assign(patient=predictions["patient"] + (predictions.index % 2).astype(str))  # slides
    for _, rows, by in scopes(several):
        arm = scored(rows, by)
        found = {metric: values[0] for metric, values in arm.values(whole(arm)).items()}
        assert found == pytest.approx(all_of(rows, by))


def test_three_classes_have_the_metrics_that_three_classes_have(make_predictions):
    frame = make_predictions(patients=9).rename(columns={"logit_benign": "logit_a", "logit_malignant": "logit_b"})
    frame = frame.assign(logit_c=0.1, truth=frame["group"].str[-1].astype(int).mod(3).map(dict(enumerate("abc"))))
    arm = scored(frame)
    assert {metric: values[0] for metric, values in arm.values(whole(arm)).items()} == pytest.approx(all_of(frame))


def test_a_missing_class_makes_what_needs_it_nan(make_predictions):
    arm = scored(make_predictions())
    found = arm.values((arm.classes == 1)[None])
    assert {metric for metric, values in found.items() if np.isnan(values[0])} >= {"auroc", "specificity"}
    assert found["sensitivity"] == arm.values(whole(arm))["sensitivity"]


def test_only_the_asked_metrics_are_computed(make_predictions):
    arm = scored(make_predictions())
    assert list(arm.values(whole(arm), ["auroc", "brier"])) == ["auroc", "brier"]


def test_a_patient_with_images_of_two_classes_is_two_clusters():
    frame = table([("a", True, 1), ("a", False, 2), ("b", False, 0)])
    design = Design(frame)
    found = sorted((group, design.names[at]) for group, at in zip(design.groups, design.classes, strict=True))
    assert found == [("ga", "benign"), ("ga", "malignant"), ("gb", "benign")]


def test_shares_count_images_or_patients_and_average_over_tables():
    frame = table([("a", True, 1)] * 3 + [("b", True, 1)] + [("c", False, 1)] * 2)
    frame.loc[0, "patient"] = "a2"  # a second slide of the same strict patient
    design = Design(frame)
    at = {group: i for i, group in enumerate(design.groups)}
    images, patients = design.shares("auroc"), design.shares("recognition_rate")
    assert [images[at[group]] for group in ("ga", "gb", "gc")] == [3 / 4, 1 / 4, 1]
    assert [patients[at[group]] for group in ("ga", "gb", "gc")] == [2 / 3, 1 / 3, 1]
    split = frame.assign(magnification=[40, 40, 100, 100, 40, 100])
    shares = Design(split, "magnification").shares("auroc")
    assert [shares[at[group]] for group in ("ga", "gb", "gc")] == [(1 + 1 / 2) / 2, 1 / 4, 1]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 3))
def test_as_many_clusters_of_each_class_are_drawn_as_there_are(classes, seed):
    classes = np.array(classes)
    counts = draw_counts(classes, 20, seed)
    assert counts.shape == (20, len(classes)) and counts.min() >= 0
    for value in np.unique(classes):
        assert (counts[:, classes == value].sum(axis=1) == (classes == value).sum()).all()
    assert np.array_equal(counts, draw_counts(classes, 20, seed))


def test_every_cluster_is_as_likely_as_the_others():
    counts = draw_counts(np.array([0] * 5 + [1] * 3), 20_000, seed=0)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(counts.var(axis=0), [4 / 5] * 5 + [2 / 3] * 3, atol=0.03)
