import numpy as np
import pytest

from histotransfer.datasets.phantom import breast_image
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import intervals
from histotransfer.evaluation.metrics import predicted
from histotransfer.evaluation.pointing import hottest, mean_with_interval, pointing_game


def test_the_hottest_cell_is_pointed_at_in_its_middle():
    maps = np.full((2, 3, 4), -1.0)
    maps[0, 0, 3], maps[1, 2, 0] = -0.5, 2
    assert hottest(maps, 24).tolist() == [[4, 21], [20, 3]]


def made_masks():
    """Left halves; the third image has no region."""
    masks = np.zeros((5, 8, 8), bool)
    masks[:, :, :3] = True
    masks[2] = False
    return masks


def test_the_pointing_game_by_hand():
    maps = np.zeros((5, 2, 2))
    maps[[0, 1, 2], :, 0] = 1  # two hits; the third cannot
    maps[[3, 4], :, 1] = 1
    groups, classes = np.array(["a", "a", "b", "c", "d"]), np.array([0, 0, 0, 1, 1])
    table = pointing_game(maps, made_masks(), groups, classes)
    assert table.loc["Grad-CAM", "value"] == pytest.approx(0.5)
    assert table.loc["the middle", "value"] == 0  # column 4 of 8
    assert table.loc["at random, exactly", "value"] == pytest.approx(3 / 8)
    assert table.loc["at random, by draws", "value"] == pytest.approx(3 / 8, abs=0.04)
    assert table.loc["Grad-CAM minus at random, exactly", "value"] == pytest.approx(1 / 8)
    assert set(table["images"]) == {4} and set(table["patients"]) == {3}


def test_maps_that_know_the_truth_win_the_pointing_game():
    fields = [breast_image(patient, 100, i, size=96) for patient in range(0, 24, 2) for i in range(2)]
    masks = np.stack([field.diagnostic_mask for field in fields])
    groups = np.repeat(np.arange(12), 2).astype(str)
    oracle = masks.reshape(len(masks), 6, 16, 6, 16).mean(axis=(2, 4)) + masks[:, 8::16, 8::16]
    table = pointing_game(oracle, masks, groups, (np.arange(24) >= 12).astype(int))
    assert (~masks.any(axis=(1, 2))).sum() == 24 - table["images"].max() > 0
    assert table.loc["Grad-CAM", "value"] > 0.9
    assert table.loc["Grad-CAM minus at random, exactly", "low"] > 0
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_an_interval_does_not_depend_on_the_scale(make_predictions):
    predictions = make_predictions()
    right, groups, truth = (
        (predicted(predictions) == predictions["truth"]).to_numpy(float),
        predictions["group"].to_numpy(str),
        predictions["truth"].to_numpy(str),
    )
    share, signed = mean_with_interval(right, groups, truth), mean_with_interval(2 * right - 1, groups, truth, least=-1)
    expected = intervals(predictions).loc["accuracy"]
    assert [share[name] for name in ("value", "low", "high")] == pytest.approx(expected.tolist())
    assert [(signed[name] + 1) / 2 for name in ("value", "low", "high")] == pytest.approx(expected.tolist())


def test_nothing_to_point_at_is_said():
    with pytest.raises(HistotransferError, match="no image has a diagnostic region"):
        pointing_game(np.zeros((2, 2, 2)), np.zeros((2, 8, 8), bool), np.array(["a", "b"]), np.array([0, 1]))


def test_a_class_with_one_patient_has_no_interval():
    table = pointing_game(np.zeros((5, 2, 2)), made_masks(), np.array(list("aabcc")), np.array([0, 0, 1, 1, 1]))
    assert table.loc["Grad-CAM", ["low", "high"]].isna().all()
