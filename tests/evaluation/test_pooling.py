import numpy as np
import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import evaluate
from histotransfer.evaluation.pooling import aligned, pool


@pytest.fixture
def runs(make_predictions):
    """Two seeds of three folds each; a run has validation images as well."""
    whole = make_predictions(patients=12)
    found = []
    for seed in (0, 1):
        part = (whole["group"].str[3:].astype(int) + seed) % 3
        for fold in range(3):
            test = whole[part == fold].assign(fold=fold, seed=seed)
            test["logit_malignant"] += seed
            found.append(pd.concat([test, whole[part != fold].assign(part="validation", fold=fold, seed=seed)]))
    return found


def test_every_image_is_there_once_with_the_mean_of_its_logits(runs, make_predictions):
    whole = make_predictions(patients=12)
    pooled = pool(runs)
    assert pooled["image"].tolist() == sorted(whole["image"])
    expected = whole.set_index("image").loc[pooled["image"]]
    np.testing.assert_allclose(pooled["logit_malignant"], expected["logit_malignant"] + 0.5)
    np.testing.assert_allclose(pooled["logit_benign"], expected["logit_benign"])
    for column in ("patient", "group", "magnification", "subtype", "truth"):
        assert pooled[column].tolist() == expected[column].tolist()
    assert set(pooled["seeds"]) == {2} and set(pooled["part"]) == {"test"}
    assert evaluate(pooled)["test"]["image"]["all"]["images"] == 60


def test_another_part_is_averaged_over_all_networks_that_predicted_it(runs):
    pooled = pool(runs, "validation")
    assert set(pooled["part"]) == {"validation"}
    whole = pd.concat(run[run["part"] == "validation"] for run in runs)
    expected = whole.groupby("image")[["logit_benign", "logit_malignant"]].mean()
    assert set(whole["image"].value_counts()) == {4}  # two of three folds, two seeds
    np.testing.assert_allclose(pooled.set_index("image")[expected.columns], expected)


def test_the_order_of_runs_rows_and_columns_does_not_matter(runs):
    turned = [run.sample(frac=1, random_state=0)[[*reversed(run.columns)]] for run in reversed(runs)]
    pd.testing.assert_frame_equal(pool(runs), pool(turned)[pool(runs).columns])


def test_a_fold_that_is_missing_or_doubled_is_named(runs):
    with pytest.raises(HistotransferError, match=r"breast/.*png was not tested with seed 0"):
        pool(runs[1:])
    with pytest.raises(HistotransferError, match=r"breast/.*png was more than once tested with seed 1"):
        pool([*runs, runs[-1]])


def test_runs_that_are_not_of_one_arm_are_refused(runs):
    with pytest.raises(HistotransferError, match="different classes"):
        pool([*runs[:5], runs[5].rename(columns={"logit_benign": "logit_adenosis"})])
    runs[5].loc[runs[5]["part"] == "test", "truth"] = "benign"
    with pytest.raises(HistotransferError, match="two tables differ in its patient, group, magnification"):
        pool(runs)
    with pytest.raises(HistotransferError, match="no predictions of the test part"):
        pool([runs[0][runs[0]["part"] == "validation"]])


def test_aligned_tables_have_the_rows_of_the_first(make_predictions):
    ours = make_predictions()
    first, second = aligned([ours, ours.sample(frac=1, random_state=0)])
    pd.testing.assert_frame_equal(first, second)
    assert first["image"].tolist() == ours["image"].tolist()


def test_arms_of_other_images_are_refused(make_predictions):
    ours = make_predictions()
    with pytest.raises(HistotransferError, match=r"not of the same images: breast/011-4\.png is in one arm only"):
        aligned([ours, ours[:-1]])
    with pytest.raises(HistotransferError, match=r"breast/000-0\.png occurs twice; pool the runs first"):
        aligned([ours, pd.concat([ours, ours[:1]])])
    with pytest.raises(HistotransferError, match=r"breast/000-0\.png: its truth differs between arms"):
        aligned([ours, ours.assign(truth="malignant")])
