import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation.calibration import best_temperature
from histotransfer.evaluation.metrics import image_metrics
from histotransfer.report.selection import held_out, once_each, select
from histotransfer.report.study import Study
from histotransfer.study.plan import read_plan

from .conftest import STUDY


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_runs):
    folder = tmp_path_factory.mktemp("results")
    arms = dict.fromkeys(read_plan(STUDY / "selection.toml").arms, 0)
    write_runs(folder, "selection", {**arms, "frozen-probe": -1, "gentle": 3}, both=True)
    return Study(STUDY, folder)


def test_every_pair_of_folds_is_held_out_once(study):
    table = held_out(study.runs("selection", "plain"))
    pairs = table.groupby(["fold", "other"])["image"].nunique()
    assert len(pairs) == 20 and (table["fold"] != table["other"]).all()
    assert not table.duplicated(["image", "other"]).any()
    assert (table["magnification"] != 400).all()


def test_each_of_the_four_tables_predicts_every_image_once(study):
    table = held_out(study.runs("selection", "plain"))
    tables = once_each(dict.fromkeys(range(5), table))
    assert len(tables) == 4
    for own in tables:
        assert sorted(own["image"]) == sorted(table["image"].unique())
    assert len(pd.concat(tables).drop_duplicates(["image", "other"])) == len(table)


def test_the_better_candidate_is_chosen_for_every_fold_and_ships(study):
    found = select(study)
    assert found.chosen == dict.fromkeys(range(5), "gentle") and found.ships == "gentle"
    accuracies = [
        np.mean([image_metrics(own[own["magnification"] == at])["accuracy"] for at in (40, 100, 200)])
        for own in found.networks
    ]
    assert found.score().loc["accuracy", "value"] == pytest.approx(np.mean(accuracies))
    gain = found.gain()
    assert gain.loc["auroc", "low"] > 0 and gain.loc["patient_auroc", "value"] > 0
    assert found.criteria.shape == (5, 7)


def test_a_choice_never_looks_at_its_own_test_fold(study, tmp_path, write_runs):
    """A candidate that is right about one fold alone is not chosen for that fold."""
    arms = list(read_plan(STUDY / "selection.toml").arms)
    write_runs(tmp_path, "selection", {**dict.fromkeys(arms, 0.5), "frozen-probe": 0}, both=True)
    from histotransfer.records import read_run

    for folder in (tmp_path / "selection").glob("jitter-*"):
        _spoil_all_but(folder, read_run(folder).predictions, fold=2)
    found = select(Study(STUDY, tmp_path))
    assert found.chosen[2] != "jitter"
    lucky = held_out(found_runs(tmp_path, "jitter")).query("fold == 2")
    assert image_metrics(lucky)["auroc"] == 1


def found_runs(folder, arm):
    return Study(STUDY, folder).runs("selection", arm)


def _spoil_all_but(folder, predictions, fold):
    import gzip
    import json

    from histotransfer.files import file_hash
    from histotransfer.records import PREDICTIONS

    of = predictions["group"].str.removeprefix("14-").astype(int) % 5
    sign = (predictions["truth"] == "malignant").map({True: 1.0, False: -1.0})
    predictions["logit_malignant"] = np.where(of == fold, 9 * sign, -sign)
    predictions["logit_benign"] = 0.0
    (folder / PREDICTIONS).write_bytes(gzip.compress(predictions.to_csv(index=False).encode()))
    record = json.loads((folder / "record.json").read_text())
    record["artifacts"]["predictions.csv"] = file_hash(folder / PREDICTIONS)
    (folder / "record.json").write_text(json.dumps(record))


def test_temperatures_come_from_other_patients(study):
    found = select(study)
    table = held_out(study.runs("selection", "gentle"))
    for fold, temperature in found.temperatures.items():
        assert temperature == best_temperature(table[table["other"] == fold])
    assert found.temperature == best_temperature(table)
    calibrated = found.calibrated()
    for before, after in zip(found.networks, calibrated, strict=True):
        scale = before["logit_malignant"] / after["logit_malignant"]
        expected = before["fold"].map(found.temperatures)
        assert np.allclose(scale[before["logit_malignant"] != 0], expected[before["logit_malignant"] != 0])
    assert found.score(calibrated).loc["log_loss", "value"] < found.score().loc["log_loss", "value"]
    assert found.score(calibrated).loc["accuracy", "value"] == found.score().loc["accuracy", "value"]
