import shutil
from pathlib import Path

import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import MEAN_OVER, image_metrics
from histotransfer.records import read_run
from histotransfer.report.study import NotRunYet, Study, read_claims
from histotransfer.report.tables import gap
from histotransfer.study.plan import planned_runs, read_plan

from .conftest import STUDY

RESULTS = Path(__file__).parents[2] / "results"
MAGNIFICATIONS = (40, 100, 200, 400)


@pytest.fixture(scope="module")
def results(tmp_path_factory, write_runs):
    folder = tmp_path_factory.mktemp("results")
    write_runs(folder, "primary", {"plain": 0, "se": 2, "se-lung": 2})
    return folder


def test_a_split_by_image_is_compared_within_each_magnification(tmp_path, write_runs):
    arms = {f"{name}-{at}": shift * at / 100 for name, shift in (("patient", 0), ("image", 2)) for at in MEAN_OVER}
    write_runs(tmp_path, "leakage-trained", arms)
    study = Study(STUDY, tmp_path)
    leaking = study.within("leakage-trained", "image")
    assert leaking.predictions["image"].is_unique
    assert set(leaking.predictions["magnification"]) == set(MEAN_OVER)
    for at in MEAN_OVER:
        own = study.predictions("leakage-trained", f"image-{at}")
        expected = image_metrics(own[own["magnification"] == at])["auroc"]
        found = leaking.predictions[leaking.predictions["magnification"] == at]
        assert image_metrics(found)["auroc"] == expected
    flattered = gap(study.within("leakage-trained", "patient"), leaking).set_index(["magnification", "metric"])
    assert flattered.loc[("mean", "auroc"), "low"] > 0


def test_a_damaged_record_is_not_taken_for_one_that_is_missing(results, tmp_path):
    shutil.copytree(results / "primary", tmp_path / "primary")
    (tmp_path / "primary" / "se-s0-f0" / "record.json").write_text("{")
    with pytest.raises(HistotransferError) as error:
        Study(STUDY, tmp_path).runs("primary", "se")
    assert not isinstance(error.value, NotRunYet) and "se-s0-f0" in str(error.value)


def test_histories_of_an_arm_tell_its_runs_apart_and_hold_the_source_task_once_a_seed():
    study = Study(STUDY, RESULTS)
    history = study.history("primary", "se-lung")
    assert history.groupby("dataset")["seed"].nunique().to_dict() == {"breakhis": 15, "lc25000": 3}
    last = history[history["dataset"] == "breakhis"].groupby("seed").get_group("se-lung-s1-f3").reset_index(drop=True)
    recorded = read_run(RESULTS / "primary/se-lung-s1-f3").history
    assert last.drop(columns="seed").equals(recorded[recorded["dataset"] == "breakhis"].reset_index(drop=True))
    assert study.history("primary", "plain").groupby("dataset")["seed"].nunique().to_dict() == {"breakhis": 15}


def test_folds_that_overlap_are_not_averaged(tmp_path, make_predictions, write_made_run):
    table = make_predictions(patients=10, images=4, magnifications=MAGNIFICATIONS)
    for run in planned_runs(read_plan(STUDY / "leakage-trained.toml")):
        if run.arm == "official":
            own = table[table["group"].str.removeprefix("14-").astype(int) % 5 != run.config.fold]
            both = pd.concat([own, own.head(4).assign(part="validation")], ignore_index=True)
            write_made_run(tmp_path / "leakage-trained" / run.name, predictions=both.assign(fold=run.config.fold))
    study = Study(STUDY, tmp_path)
    found = study.each("leakage-trained", "official").predictions
    assert (found["image"].value_counts() == 4).all()  # five folds, each image left out of one
    with pytest.raises(HistotransferError, match="more than once tested"):
        study.predictions("leakage-trained", "official")


def test_an_unfinished_experiment_says_how_to_finish(tmp_path):
    study = Study(STUDY, tmp_path)
    with pytest.raises(NotRunYet, match=r"^primary, arm se: 15 of 15 runs are not there yet; `histotransfer"):
        study.predictions("primary", "se")
    with pytest.raises(NotRunYet, match=r"^primary, arm nobody: 0 of 0 runs"):
        study.predictions("primary", "nobody")


def test_a_folder_without_claims_is_one_line(tmp_path):
    with pytest.raises(HistotransferError, match=r"claims\.toml: not the file of claims"):
        read_claims(tmp_path)
