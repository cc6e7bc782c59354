import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, log_loss

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.calibration import (
    TUNED,
    best_temperature,
    best_threshold,
    reliability,
    sensitivity,
    tuned,
)
from histotransfer.evaluation.intervals import all_metrics, intervals
from histotransfer.evaluation.metrics import calibration_error, scores


def with_probability(predictions, probability):
    return predictions.assign(
        logit_benign=0.0, logit_malignant=np.log(probability) - np.log1p(-np.asarray(probability))
    )


def test_the_curve_is_scikit_learns(make_predictions):
    predictions = make_predictions(patients=40)
    target, score = predictions["truth"] == "malignant", scores(predictions)
    observed, mean = calibration_curve(target, score, n_bins=10)
    curve = reliability(predictions)
    np.testing.assert_allclose(curve["observed"], observed)
    np.testing.assert_allclose(curve["predicted"], mean)
    assert curve["images"].sum() == len(predictions)
    error = (curve["images"] * (curve["observed"] - curve["predicted"]).abs()).sum() / len(predictions)
    assert error == pytest.approx(calibration_error(target.to_numpy(), score))
    known = curve.dropna()
    assert len(known) > 5
    assert ((known["low"] <= known["observed"]) & (known["observed"] <= known["high"])).all()


def test_a_bins_interval_is_that_of_a_proportion_of_its_images(make_predictions):
    """All images in one bin: the share of malignant images, whose interval by image is nearly Clopper and Pearson's."""
    table = with_probability(make_predictions(patients=60), 0.55)
    table["truth"] = np.where(table["group"].str[-1] == "0", "benign", "malignant")
    (row,) = reliability(table).to_dict("records")
    assert (row["bin"], row["images"], row["patients"]) == (0.5, 300, 60)
    assert row["observed"] == pytest.approx(0.9) and row["predicted"] == pytest.approx(0.55)


def test_patients_not_images_make_a_bins_interval(make_predictions):
    predictions = make_predictions(patients=30, images=6)
    once = reliability(predictions)
    often = reliability(pd.concat([predictions] * 5, ignore_index=True))
    pd.testing.assert_frame_equal(once[["low", "high"]], often[["low", "high"]])


def test_a_bin_of_one_patient_has_no_interval(make_predictions):
    predictions = make_predictions()
    one = predictions["group"] == "14-0"
    curve = reliability(with_probability(predictions, np.where(one, 0.93, 0.12))).set_index("bin")
    assert curve.loc[0.9, "patients"] == 1 and np.isnan(curve.loc[0.9, "low"])
    assert curve.loc[0.1, "patients"] == 11 and curve.loc[0.1, "low"] < curve.loc[0.1, "high"]


def test_a_bin_of_one_class_has_a_one_sided_interval(make_predictions):
    predictions = make_predictions(patients=20)
    right = with_probability(predictions, np.where(predictions["truth"] == "malignant", 0.95, 0.05))
    low, high = (reliability(right)[column].tolist() for column in ("low", "high"))
    assert low[0] == 0 and 0 < high[0] < 0.5 < low[1] < 1 and high[1] == 1


def test_two_classes_are_needed(make_predictions):
    with pytest.raises(HistotransferError, match="reliability: two classes"):
        reliability(make_predictions().assign(logit_third=0.0))


def test_the_best_threshold_by_hand(make_predictions):
    table = with_probability(make_predictions(patients=2, images=3), [0.1, 0.2, 0.65, 0.6, 0.7, 0.9])
    table["truth"] = ["benign"] * 3 + ["malignant"] * 3
    assert best_threshold(table) == 0.5  # anything from 0.2 to 0.6 is as good as anything above 0.65: 5 of 6 right
    table["truth"] = ["benign"] * 4 + ["malignant"] * 2
    assert best_threshold(table) == pytest.approx((0.65 + 0.7) / 2)


def test_no_threshold_is_better_than_the_best(make_predictions):
    table = make_predictions(patients=20)
    target, score = table["truth"] == "malignant", scores(table)
    best = balanced_accuracy_score(target, score >= best_threshold(table))
    assert best >= max(balanced_accuracy_score(target, score >= value) for value in [0.5, *score])


def test_the_threshold_stays_where_it_is_as_good_as_any(make_predictions):
    table = make_predictions()
    right = with_probability(table, np.where(table["truth"] == "malignant", 0.9, 0.2))
    assert best_threshold(right) == 0.5


@pytest.mark.parametrize("shift", [-9, 9])
def test_every_score_may_lie_on_one_side_of_a_half(make_predictions, shift):
    table = make_predictions(patients=20).assign(logit_benign=0.0)
    table["logit_malignant"] = np.where(table["truth"] == "malignant", 1.0, -1.0) + shift
    found = best_threshold(table)
    assert ((scores(table) >= found) == (table["truth"] == "malignant")).all()


def test_a_model_that_was_made_too_sure_gets_its_temperature_back(make_predictions):
    generator = np.random.default_rng(0)
    table = make_predictions(patients=400)
    margin = generator.normal(0, 2, len(table))
    table["truth"] = np.where(generator.random(len(table)) < 1 / (1 + np.exp(-margin)), "malignant", "benign")
    sure = table.assign(logit_benign=0.0, logit_malignant=3 * margin)
    found = best_temperature(sure)
    assert found == pytest.approx(3, rel=0.1)
    target = table["truth"] == "malignant"
    direct = minimize(lambda x: log_loss(target, 1 / (1 + np.exp(-3 * margin / x[0]))), [1.0], method="Nelder-Mead")
    assert found == pytest.approx(direct.x[0], rel=1e-3)


@pytest.mark.parametrize("find", [best_threshold, best_temperature])
def test_tuning_needs_both_classes(make_predictions, find):
    with pytest.raises(HistotransferError, match="one class only"):
        find(make_predictions().query("truth == 'benign'"))


@pytest.fixture
def runs(make_predictions):
    """Three folds of an arm that is too sure and says malignant too often; the next fold's patients validate."""
    whole = make_predictions(patients=48)
    whole["logit_malignant"] = 4 * whole["logit_malignant"] + 6
    part = whole["group"].str[3:].astype(int) // 2 % 3
    return [
        pd.concat([whole[part == fold], whole[part == (fold + 1) % 3].assign(part="validation")]).assign(fold=fold)
        for fold in range(3)
    ]


@pytest.mark.parametrize(("what", "better"), [("temperature", "log_loss"), ("threshold", "balanced_accuracy")])
def test_tuning_helps_where_it_should_and_is_marked(runs, what, better):
    plain, after = (all_metrics(table[table["part"] == "test"]) for table in (pd.concat(runs), tuned(runs, what)))
    assert after["log_loss"] < plain["log_loss"] if better == "log_loss" else after[better] > plain[better] + 0.02
    assert set(tuned(runs, what)["sensitivity"]) == {what}


COLUMNS = ["logit_benign", "logit_malignant"]


def parts_of(table):
    return (table[table["part"] == part] for part in ("validation", "test"))


def flipped(table):
    return table.assign(truth=table["truth"].map({"benign": "malignant", "malignant": "benign"}))


@pytest.mark.parametrize("what", sorted(TUNED))
def test_a_run_is_tuned_on_the_validation_images_of_all_runs_but_those_of_its_test_patients(runs, what):
    """By hand for the first fold: it and the second validate on patients that it does not test, the third does."""
    inner = pd.concat([next(parts_of(run)) for run in runs[:2]])
    _, test = parts_of(runs[0])
    found = tuned(runs, what).set_index("image").loc[test["image"]]
    if what == "temperature":
        expected = test[COLUMNS] / best_temperature(inner)
    else:
        expected = test[COLUMNS] - [0, logit(best_threshold(inner))]
        said = found["logit_malignant"].to_numpy() >= found["logit_benign"].to_numpy()
        assert (said == (scores(test) >= best_threshold(inner))).all()
    np.testing.assert_allclose(found[COLUMNS], expected, atol=1e-9)


@pytest.mark.parametrize("what", sorted(TUNED))
def test_what_is_known_of_test_patients_tunes_nothing_of_theirs(runs, what):
    """Every row of the first fold's test patients, wherever they validate, is turned round: its tuning stays."""
    tested = set(tuple(parts_of(runs[0]))[1]["group"])
    turned = [pd.concat([flipped(run[run["group"].isin(tested)]), run[~run["group"].isin(tested)]]) for run in runs]
    before, after = (
        table[table["group"].isin(tested)].set_index("image")[COLUMNS]
        for table in (tuned(runs, what), tuned(turned, what))
    )
    pd.testing.assert_frame_equal(before, after)


def test_sensitivity_rows_have_the_metrics_they_are_about(runs):
    found = sensitivity(runs)
    assert list(found.columns) == ["sensitivity", "metric", "value", "low", "high"]
    assert found.groupby("sensitivity")["metric"].agg(tuple).to_dict() == TUNED
    expected = intervals(tuned(runs, "temperature")).loc["brier"]
    row = found[found["metric"] == "brier"].iloc[0]
    assert row[["value", "low", "high"]].tolist() == expected.tolist()


def test_tuning_on_test_patients_is_refused(runs):
    test = runs[0][runs[0]["part"] == "test"]
    with pytest.raises(HistotransferError, match="of other patients than its test"):
        tuned([pd.concat([runs[0], test[:1].assign(part="validation")])], "threshold")
    with pytest.raises(HistotransferError, match="must be there"):
        tuned([test], "temperature")
