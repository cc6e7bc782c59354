import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.calibration import best_temperature, reliability
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


def test_a_temperature_needs_both_classes(make_predictions):
    with pytest.raises(HistotransferError, match="one class only"):
        best_temperature(make_predictions().query("truth == 'benign'"))
