import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import (
    BINS,
    MEAN_OVER,
    averaged,
    bin_of,
    by_magnification,
    calibration_error,
    class_names,
    evaluate,
    image_metrics,
    metric_name,
    patient_metrics,
    patient_table,
    predicted,
    probabilities,
    scopes,
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


P = {score: 1 / (1 + np.exp(-score)) for score in (2, 1, 3, -1, -2, 0.5)}  # probability of malignant


def test_image_metrics_by_hand():
    """Right: 2, 1, 3 of the malignant and -2 of the benign; true positives 3, false negatives 1, false positives 1."""
    own = [P[2], P[1], P[3], P[-1], 1 - P[-2], 1 - P[0.5]]  # probability of the truth
    assert image_metrics(BY_HAND) == pytest.approx(
        {
            "accuracy": 4 / 6,
            "balanced_accuracy": (3 / 4 + 1 / 2) / 2,
            "log_loss": -np.mean(np.log(own)),
            "sensitivity": 3 / 4,
            "specificity": 1 / 2,
            "auroc": 7 / 8,  # of the 8 pairs only (-1, 0.5) is in the wrong order
            "average_precision": (1 + 1 + 1 + 4 / 5) / 4,  # from the top: malignant 3, 2, 1, benign 0.5, malignant -1
            "f1": 2 * 3 / (2 * 3 + 1 + 1),
            "matthews_correlation": (3 * 1 - 1 * 1) / np.sqrt(4 * 4 * 2 * 2),
            "brier": np.mean([(1 - p) ** 2 for p in own]),
            # bins: [0.1, 0.2] holds benign -2, (0.2, 0.3] malignant -1, (0.6, 0.7] benign 0.5, (0.7, 0.8] malignant 1,
            # (0.8, 0.9] malignant 2, (0.9, 1] malignant 3: each alone
            "calibration_error": (P[-2] + 1 - P[-1] + P[0.5] + 1 - P[1] + 1 - P[2] + 1 - P[3]) / 6,
        }
    )


def test_patient_metrics_by_hand():
    """The recognition rate is a mean over patients, not images; a patient's logit is the mean of its images'."""
    a = np.mean([2, 1, 3, -1])
    assert a > 0.5 > -2
    assert patient_metrics(BY_HAND) == pytest.approx(
        {"recognition_rate": (3 / 4 + 1 + 0) / 3, "patient_accuracy": 2 / 3, "patient_auroc": 1}
    )
    patients = patient_table(BY_HAND).set_index("patient")
    assert patients.loc["a", "logit_malignant"] - patients.loc["a", "logit_benign"] == pytest.approx(a)
    by_mean_probability = np.mean([P[2], P[1], P[3], P[-1]])
    assert 1 / (1 + np.exp(-a)) > by_mean_probability + 0.05


def test_a_patient_of_two_classes_is_one_patient_in_the_recognition_rate_and_two_elsewhere():
    frame = table([("a", "malignant", 2), ("a", "benign", 1), ("b", "benign", -1)])
    assert patient_metrics(frame)["recognition_rate"] == (1 / 2 + 1) / 2
    assert patient_metrics(frame)["patient_accuracy"] == pytest.approx(2 / 3)


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
    guess, chance = score >= 0, 1 / (1 + np.exp(-score))
    assert image_metrics(frame) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, guess),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
            "log_loss": sk.log_loss(truth, chance),
            "auroc": sk.roc_auc_score(truth, score),
            "average_precision": sk.average_precision_score(truth, score),
            "sensitivity": sk.recall_score(truth, guess),
            "specificity": sk.recall_score(truth, guess, pos_label=False),
            "f1": sk.f1_score(truth, guess),
            "matthews_correlation": sk.matthews_corrcoef(truth, guess),
            "brier": sk.brier_score_loss(truth, chance),
            "calibration_error": ece(truth.to_numpy(), chance.to_numpy()),
        }
    )


WHOLE = image_metrics(BY_HAND) | patient_metrics(BY_HAND)


@given(st.sets(st.sampled_from([*WHOLE])))
@settings(max_examples=25)
def test_wanted_metrics_are_those_of_all(wanted):
    some = image_metrics(BY_HAND, wanted) | patient_metrics(BY_HAND, wanted)
    assert some == {metric: value for metric, value in WHOLE.items() if metric in wanted}


def ece(truth, chance):
    observed, mean = calibration_curve(truth, chance, n_bins=BINS)
    sizes = np.bincount(np.ceil(chance * BINS).astype(int).clip(1) - 1, minlength=BINS)
    return np.sum(sizes[sizes > 0] / len(truth) * np.abs(observed - mean))


def test_a_border_between_bins_belongs_to_the_lower_one():
    assert bin_of(np.array([0, 0.05, 0.1, 0.1001, 0.5, 0.9999, 1])).tolist() == [0, 0, 0, 1, 4, 9, 9]


def test_a_calibrated_bin_has_no_error_and_a_miscalibrated_one_its_gap():
    assert calibration_error(np.array([True, False, False, False]), np.full(4, 0.25)) == 0
    assert calibration_error(np.array([True, True, False, False]), np.full(4, 0.25)) == pytest.approx(0.25)


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


NEED_BOTH = {"auroc", "average_precision", "balanced_accuracy", "matthews_correlation"}


@pytest.mark.parametrize(("only", "missing"), [("malignant", {"specificity"}), ("benign", {"sensitivity", "f1"})])
def test_with_one_class_only_what_needs_two_is_none(only, missing):
    frame = BY_HAND[BY_HAND["truth"] == only]
    undefined = NEED_BOTH | missing
    assert {name for name, value in image_metrics(frame).items() if value is None} == undefined
    assert {name for name, value in patient_metrics(frame).items() if value is None} == {"patient_auroc"}


def test_all_right_and_all_wrong():
    right = BY_HAND.assign(logit_malignant=np.where(BY_HAND["truth"] == "malignant", 5.0, -5.0))
    best, worst = (
        image_metrics(frame) | patient_metrics(frame)
        for frame in (right, right.assign(logit_malignant=-right["logit_malignant"]))
    )
    losses = {"log_loss", "brier", "calibration_error"}
    assert all(value == 1 for name, value in best.items() if name not in losses)
    assert best["log_loss"] == pytest.approx(np.log(1 + np.exp(-5))) and best["calibration_error"] < 0.01
    assert worst["matthews_correlation"] == -1 and worst["average_precision"] == pytest.approx(4 / 6)
    zero = set(worst) - losses - {"matthews_correlation", "average_precision"}
    assert all(worst[name] == 0 for name in zero)


def test_where_all_scores_are_ties_nothing_is_ranked():
    metrics = image_metrics(BY_HAND.assign(logit_malignant=0.0))
    assert metrics["auroc"] == 0.5
    assert metrics["average_precision"] == pytest.approx(4 / 6)  # the share of positives
    assert metrics["matthews_correlation"] == 0
    assert metrics["sensitivity"] == 1 and metrics["specificity"] == 0


def test_one_patient():
    alone = BY_HAND[BY_HAND["patient"] == "a"]
    assert patient_metrics(alone) == {"recognition_rate": 0.75, "patient_accuracy": 1, "patient_auroc": None}


@pytest.mark.parametrize("compute", [image_metrics, patient_metrics])
def test_no_image_is_an_error(compute):
    with pytest.raises(HistotransferError, match="no images"):
        compute(BY_HAND[BY_HAND["magnification"] == 200])


def test_three_classes():
    frame = pd.DataFrame(
        {
            "patient": list("abcd"),
            "group": list("abcd"),
            "truth": ["lung_aca", "lung_n", "lung_n", "lung_scc"],
            "logit_lung_scc": [0.0, 0, 0, 8],
            "logit_lung_aca": [5.0, 0, 2, 0],
            "logit_lung_n": [0.0, 5, 1, 9],
        }
    )
    chances = probabilities(frame)
    own = [chances[0, 1], chances[1, 2], chances[2, 2], chances[3, 0]]
    assert image_metrics(frame) == pytest.approx(
        {"accuracy": 0.5, "balanced_accuracy": (1 + 0.5 + 0) / 3, "log_loss": -np.mean(np.log(own))}
    )
    assert image_metrics(frame[:3])["balanced_accuracy"] is None
    assert patient_metrics(frame) == {"recognition_rate": 0.5, "patient_accuracy": 0.5}


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["benign", "malignant"]), st.integers(-4, 4)), max_size=30
    ),
    st.permutations(range(32)),
    st.floats(0.1, 5),
    st.floats(-2, 2),
)
def test_order_and_names_do_not_matter_and_ranks_are_all_that_auroc_sees(rows, order, scale, shift):
    frame = table([*rows, ("g", "benign", 1), ("h", "malignant", 0)])
    whole = image_metrics(frame) | patient_metrics(frame)
    turned = frame.loc[[row for row in order if row < len(frame)]]
    renamed = turned.assign(image=turned["image"] + "!", patient="x" + turned["patient"], group="y" + turned["group"])
    assert image_metrics(renamed) | patient_metrics(renamed) == pytest.approx(whole)
    stretched = image_metrics(frame.assign(logit_malignant=frame["logit_malignant"] * scale + shift))
    for metric in ("auroc", "average_precision"):
        assert stretched[metric] == pytest.approx(whole[metric])


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


def test_the_mean_is_over_three_magnifications_unweighted_and_without_400(make_predictions):
    frame = make_predictions(patients=20, images=9, magnifications=(40, 40, 40, 100, 100, 200, 400))
    result = evaluate(frame)["test"]
    assert list(result["image"]) == ["40", "100", "200", "400", "mean", "all"]
    for level, metric in (("image", "auroc"), ("image", "accuracy"), ("patient", "recognition_rate")):
        single = [result[level][str(m)][metric] for m in MEAN_OVER]
        assert result[level]["mean"][metric] == pytest.approx(np.mean(single))
        assert len({result[level][name][metric] for name in ("mean", "all")}) == 2
    assert result["image"]["mean"]["images"] == (frame["magnification"] != 400).sum()
    one_class = frame[(frame["magnification"] != 200) | (frame["truth"] == "benign")]
    assert evaluate(one_class)["test"]["image"]["mean"]["auroc"] is None


def test_averaged_over_nothing_is_the_metric_itself(make_predictions):
    frame = make_predictions()
    assert averaged(image_metrics, frame) == image_metrics(frame)


def test_without_one_of_the_three_magnifications_there_is_no_mean(make_predictions):
    assert [name for name, _, _ in scopes(make_predictions())] == ["40", "100", "all"]


def test_unstated_magnification_has_no_row_of_its_own():
    assert [name for name, _ in by_magnification(BY_HAND.assign(magnification=0))] == ["all"]


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("auroc", "AUROC"),
        ("patient_auroc_within_folds", "patient AUROC within folds"),
        ("validation_log_loss", "validation log-loss"),
        ("f1", "F1"),
        ("brier", "Brier score"),
        ("matthews_correlation", "Matthews correlation"),
        ("balanced_accuracy", "balanced accuracy"),
    ],
)
def test_metrics_are_named_as_in_the_text(metric, name):
    assert metric_name(metric) == name
