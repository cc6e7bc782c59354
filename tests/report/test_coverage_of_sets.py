import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation.conformal import threshold
from histotransfer.report.coverage_of_sets import (
    DRAWS,
    PATIENT,
    PICTURE,
    calibrated_sets,
    coverage_of_sets,
    scored_patients,
)


def networks(patients=80, images=9, seed=0, count=2, between=1.0, within=1.0):
    """Predictions of the same images by some networks: a patient's own shift, the image's, and the network's noise."""
    draw = np.random.default_rng(seed)
    truth = np.repeat(draw.random(patients) < 0.7, images)
    shift = np.repeat(between * draw.normal(size=patients), images) + within * draw.normal(size=patients * images)
    table = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(patients * images)],
            "patient": np.repeat([f"14-{i}A" for i in range(patients)], images),
            "group": np.repeat([f"14-{i}" for i in range(patients)], images),
            "fold": np.repeat(np.arange(patients) % 5, images),
            "magnification": np.tile([40, 100, 200], patients * images // 3),
            "truth": np.where(truth, "malignant", "benign"),
        }
    )
    odds = [
        np.where(truth, 1.5, -1.5) + shift + 0.3 * np.random.default_rng([seed, number]).normal(size=len(table))
        for number in range(count)
    ]
    return [table.assign(logit_benign=-one / 2, logit_malignant=one / 2) for one in odds]


@pytest.mark.parametrize(("level", "count"), [(PICTURE, 2 * DRAWS), (PATIENT, 2 * 3)])
def test_a_patient_is_one_row_of_each_table(level, count):
    tables = scored_patients(networks(), level)
    assert len(tables) == count
    for table in tables:
        assert len(table) == table["group"].nunique() == 80
        assert set(table["fold"]) == set(range(5))


def test_a_patient_with_images_of_two_classes_counts_in_each():
    tables = networks(count=1)
    tables[0].loc[tables[0].index[0], "truth"] = {"benign": "malignant", "malignant": "benign"}[
        tables[0]["truth"].iloc[0]
    ]
    assert len(scored_patients(tables, PICTURE)[0]) == 81


@pytest.mark.parametrize("level", [PICTURE, PATIENT])
def test_the_coverage_is_what_was_promised(level):
    found = pd.concat([coverage_of_sets(networks(seed=seed), level).loc[["all"]] for seed in range(12)])
    assert 0.88 <= found["covered"].mean() <= 0.95
    assert (found["low"] <= found["covered"]).all() and (found["covered"] <= found["high"]).all()
    assert ((found["low"] <= 0.93) & (found["high"] >= 0.88)).mean() >= 0.9


def test_a_picture_scatters_more_than_a_patient():
    """So a picture's sets need limits of their own: those of patients would promise too much."""
    tables = networks(patients=300, within=2.0)
    limits = calibrated_sets(tables)
    assert limits[PICTURE] > limits[PATIENT]
    assert limits[PATIENT] == threshold(scored_patients(tables, PATIENT))
    unsure = [coverage_of_sets(tables, level).loc["all", "cannot_tell"] for level in (PICTURE, PATIENT)]
    assert unsure[0] > unsure[1]


def test_left_out_patients_do_not_calibrate_themselves():
    """One fold of patients who are all wrong: the sets of the others do not foresee it, and so do not cover it."""
    tables = networks(between=0.2, within=0.2)
    for table in tables:
        wrong = table["fold"] == 3
        table.loc[wrong, ["logit_benign", "logit_malignant"]] *= -1
    found = coverage_of_sets(tables, PATIENT)
    assert found.loc["all", "covered"] <= 0.85
    assert found.loc["all", "patients"] == 80
    assert list(found.index) == ["benign", "malignant", "all"]
