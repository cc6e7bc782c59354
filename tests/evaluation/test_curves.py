import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.curves import GRID, precision_recall_band, roc_band
from histotransfer.evaluation.metrics import scores


def drawn(predictions):
    return (predictions["truth"] == "malignant").to_numpy(), scores(predictions)


def test_the_roc_curve_is_scikit_learns(make_predictions):
    predictions = make_predictions()
    band, (target, score) = roc_band(predictions, draws=50), drawn(predictions)
    false, true, _ = roc_curve(target, score)
    for x, value in zip(band["x"], band["value"], strict=True):
        assert true[false <= x + 1e-9].max() - 1e-9 <= value <= true[false > x - 1e-9].max(initial=0) + 1e-9
    assert np.trapezoid(band["value"], GRID) == pytest.approx(roc_auc_score(target, score), abs=0.02)


def test_precision_at_a_recall_is_that_of_the_highest_threshold_that_reaches_it(make_predictions):
    predictions = make_predictions()
    band, (target, score) = precision_recall_band(predictions, draws=50), drawn(predictions)
    precision, recall, _ = precision_recall_curve(target, score)
    for x, value in zip(GRID[1:], band["value"][1:], strict=True):
        first = np.flatnonzero(recall >= x - 1e-9)[-1]
        assert value == pytest.approx(precision[first])
    assert band["value"][1:].mean() == pytest.approx(average_precision_score(target, score), abs=0.02)


@pytest.mark.parametrize("make_band", [roc_band, precision_recall_band])
def test_nine_times_the_patients_make_a_third_of_the_band(make_band, make_predictions):
    few = make_predictions(16)
    many = pd.concat([few.assign(group=few["group"] + f" {copy}") for copy in range(9)])
    one, other = make_band(few, draws=200), make_band(many, draws=200)
    np.testing.assert_allclose(one["value"], other["value"])
    assert (other["high"] - other["low"]).mean() < (one["high"] - one["low"]).mean() / 2


def test_a_band_is_of_whole_patients(make_predictions):
    predictions = make_predictions()
    alone = predictions.assign(group=predictions["image"])
    clustered, single = (roc_band(table, draws=200) for table in (predictions, alone))
    assert (clustered["high"] - clustered["low"]).mean() > (single["high"] - single["low"]).mean()


def test_the_same_seed_gives_the_same_band(make_predictions):
    one, other, else_ = (roc_band(make_predictions(), draws=50, seed=seed) for seed in (0, 0, 1))
    assert one.equals(other) and not one.equals(else_)


def test_one_class_has_no_curve(make_predictions):
    predictions = make_predictions()
    with pytest.raises(HistotransferError, match="two classes are needed"):
        roc_band(predictions[predictions["truth"] == "benign"])
