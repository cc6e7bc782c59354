import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import (
    by_magnification,
    class_names,
    evaluate,
    image_metrics,
    patient_metrics,
    predicted,
    probabilities,
)


def table(rows):
    """(patient, truth, score) of each image; the score is the logit of malignant."""
    frame = pd.DataFrame(rows, columns=["patient", "truth", "logit_malignant"])
    return frame.assign(
        image=[f"{i}.png" for i in range(len(frame))], group=frame["patient"], magnification=40, part="test",
        logit_benign=0.0,
    )  # fmt: skip


# Patient a: 3 of 4 right; b: 1 of 1; c: 0 of 1.
BY_HAND = table(
    [
        ("a", "malignant", 2),
        ("a", "malignant", 1),
        ("a", "malignant", 3),
        ("a", "malignant", -1),
        ("b", "benign", -2),
        ("c", "benign", 0.5),
    ]
)


def test_image_metrics_by_hand():
    assert image_metrics(BY_HAND) == pytest.approx(
        {
            "accuracy": 4 / 6,
            "balanced_accuracy": (3 / 4 + 1 / 2) / 2,
            "sensitivity": 3 / 4,
            "specificity": 1 / 2,
            "auroc": 7 / 8,  # of the 8 pairs only (-1, 0.5) is in the wrong order
        }
    )


def test_recognition_rate_is_the_mean_over_patients_not_over_images():
    assert patient_metrics(BY_HAND) == {"recognition_rate": pytest.approx((3 / 4 + 1 + 0) / 3)}


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["benign", "malignant"]), st.integers(-4, 4)),
        min_size=2,
        max_size=40,
    ).filter(lambda rows: len({truth for _, truth, _ in rows}) == 2)
)
def test_image_metrics_are_scikit_learns(rows):
    frame = table(rows)
    truth, score = frame["truth"] == "malignant", frame["logit_malignant"]
    guess = score >= 0
    assert image_metrics(frame) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, guess),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
            "auroc": sk.roc_auc_score(truth, score),
            "sensitivity": sk.recall_score(truth, guess),
            "specificity": sk.recall_score(truth, guess, pos_label=False),
        }
    )


def test_probabilities_are_the_softmax_of_the_logits():
    frame = table([("a", "benign", 1.5)])
    benign, malignant = 1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(-1.5))
    assert dict(zip(class_names(frame), probabilities(frame)[0], strict=True)) == pytest.approx(
        {"benign": benign, "malignant": malignant}
    )


def test_a_probability_of_one_half_is_malignant():
    assert predicted(table([("a", "benign", 0), ("a", "benign", -1e-9)])).tolist() == ["malignant", "benign"]


def test_columns_may_stand_in_any_order():
    turned = BY_HAND[[*reversed(BY_HAND.columns)]]
    assert class_names(turned) != class_names(BY_HAND)
    assert image_metrics(turned) == image_metrics(BY_HAND)
    assert predicted(turned).tolist() == predicted(BY_HAND).tolist()


@pytest.mark.parametrize(("only", "missing"), [("malignant", "specificity"), ("benign", "sensitivity")])
def test_with_one_class_only_what_needs_two_is_none(only, missing):
    metrics = image_metrics(BY_HAND[BY_HAND["truth"] == only])
    undefined = {"auroc", "balanced_accuracy", missing}
    assert {name for name, value in metrics.items() if value is None} == undefined


def test_three_classes():
    frame = pd.DataFrame(
        {
            "truth": ["lung_aca", "lung_n", "lung_n", "lung_scc"],
            "logit_lung_aca": [5.0, 0, 2, 0],
            "logit_lung_n": [0.0, 5, 1, 9],
            "logit_lung_scc": [0.0, 0, 0, 8],
        }
    )
    assert image_metrics(frame) == {"accuracy": 0.5, "balanced_accuracy": pytest.approx((1 + 0.5 + 0) / 3)}
    assert image_metrics(frame[:3])["balanced_accuracy"] is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("compute", [image_metrics, patient_metrics, evaluate])
def test_a_logit_that_is_no_number_is_an_error_that_names_the_image(bad, compute):
    frame = BY_HAND.copy()
    frame.loc[2, "logit_benign"] = bad
    with pytest.raises(HistotransferError, match=r"^2\.png: its logits are not finite"):
        compute(frame)


def test_evaluate_reports_each_part_level_and_magnification(make_predictions):
    frame = pd.concat([make_predictions(part="validation"), make_predictions(seed=1, part="test")])
    result = evaluate(frame)
    assert set(result) == {"validation", "test"}
    for part, rows in frame.groupby("part"):
        assert set(result[part]) == {"image", "patient"}
        assert set(result[part]["image"]) == set(result[part]["patient"]) == {"40", "100", "all"}
        at_100 = rows[rows["magnification"] == 100]
        counts = {"images": len(at_100), "patients": at_100["patient"].nunique()}
        assert result[part]["image"]["100"] == image_metrics(at_100) | counts
        assert result[part]["patient"]["all"]["recognition_rate"] == patient_metrics(rows)["recognition_rate"]


def test_unstated_magnification_has_no_row_of_its_own():
    assert [name for name, _ in by_magnification(BY_HAND.assign(magnification=0))] == ["all"]
