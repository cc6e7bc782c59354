import shutil
from pathlib import Path

import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import differences
from histotransfer.study.plan import planned_runs, read_plan
from histotransfer.study.verdicts import EXPLORATORY, NOT_RUN, PRIMARY, Study, read_claims

STUDY = Path(__file__).parents[2] / "study"
MAGNIFICATIONS = (40, 100, 200, 400)


def run_all(results, experiment, shifts, make_predictions, write_made_run):
    """Every run of a plan; an arm's logits for the true class are raised by its shift."""
    for run in planned_runs(read_plan(STUDY / f"{experiment}.toml")):
        if run.arm not in shifts:
            continue
        table = make_predictions(patients=30, images=8, magnifications=MAGNIFICATIONS, seed=3)
        table["fold"] = table["group"].str.removeprefix("14-").astype(int) % 5
        own = table[table["fold"] == run.config.fold].assign(seed=run.config.seed).reset_index(drop=True)
        shift = shifts[run.arm] * (own["truth"] == "malignant").map({True: 1, False: -1})
        own["logit_malignant"] += shift
        write_made_run(results / experiment / run.name, predictions=own)


@pytest.fixture(scope="module")
def results(tmp_path_factory, make_predictions, write_made_run):
    folder = tmp_path_factory.mktemp("results")
    shifts = {"se": 2, "se-lung": 2, "plain-lung": -0.5, "plain": 0}
    run_all(folder, "primary", shifts, make_predictions, write_made_run)
    return folder


def test_every_comparison_is_a_claim_with_arms_that_are_planned():
    claims = read_claims(STUDY)
    for comparison in (*PRIMARY, *EXPLORATORY):
        claim = claims[comparison.claim]
        assert comparison.experiment in claim["experiments"]
        assert "threshold" in claim
        assert comparison.metric == ("accuracy" if "accuracy" in claim["metric"] else "auroc")
        arms = read_plan(STUDY / f"{comparison.experiment}.toml").arms
        assert {arm for pair in comparison.pairs for arm in pair} <= set(arms)


def test_verdicts_are_those_of_the_intervals(results):
    study = Study(STUDY, results)
    table = study.differences(PRIMARY, correct=True)
    assert table["verdict"].to_dict() == {
        "C2": "supported here", "C3a": "contradicted here", "C3b": NOT_RUN, "C4b": "supported here",
    }  # fmt: skip
    pairs = [("se", "plain"), ("se-lung", "plain-lung")]
    tables = {arm: study.predictions("primary", arm) for pair in pairs for arm in pair}
    tables = {arm: own[own["magnification"] != 400] for arm, own in tables.items()}
    expected = differences([(tables[one], tables[other]) for one, other in pairs], "magnification").loc["auroc"]
    assert table.loc["C2", ["value", "low", "high"]].tolist() == expected[["value", "low", "high"]].tolist()
    assert (table.loc["C2", "images"], table.loc["C2", "patients"]) == (180, "15 + 15")
    assert (table.loc["C2", "p_holm"], table.loc["C2", "magnification"]) == (4 * table.loc["C2", "p"], "mean")
    assert pd.isna(table.loc["C3b", "value"])


def test_a_family_keeps_its_size_while_some_of_it_is_not_run(results):
    table = Study(STUDY, results).differences(PRIMARY, correct=True)
    p = table["p"].dropna().sort_values()
    assert len(p) == 3
    assert table.loc[p.index[0], "p_holm"] == pytest.approx(min(1, 4 * p.iloc[0]))


def test_accuracy_is_judged_at_each_magnification(results):
    table = Study(STUDY, results).accuracy()
    assert table.index.tolist() == ["40", "100", "200", "400"]
    assert (table["images"] == 60).all()
    assert (table["majority"] == 0.5).all()
    assert table["value"].between(table["low"], table["high"]).all()
    for row in table.itertuples():
        expected = "supported here" if row.low >= 0.84 else "contradicted here" if row.high < 0.84 else "undecided"
        assert row.verdict == expected


def test_an_unfinished_experiment_has_no_verdict_and_says_how_to_finish(tmp_path, results):
    study = Study(STUDY, tmp_path)
    assert set(study.differences(PRIMARY, correct=True)["verdict"]) == {NOT_RUN}
    assert study.accuracy()["verdict"].tolist() == [NOT_RUN]
    with pytest.raises(HistotransferError, match=r"^primary, arm se: 15 of 15 runs are not there yet; `histotransfer"):
        study.predictions("primary", "se")
    with pytest.raises(HistotransferError, match=r"^primary, arm nobody: 0 of 0 runs"):
        study.predictions("primary", "nobody")


def test_a_changed_record_changes_the_number(results, tmp_path, make_predictions, write_made_run):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    run_all(tmp_path, "primary", {"se": -4}, make_predictions, write_made_run)
    changed, before = (Study(STUDY, folder).differences(PRIMARY).loc["C2"] for folder in (tmp_path, results))
    assert changed["value"] < before["value"] - 0.1
    assert changed["verdict"] != before["verdict"] == "supported here"


def test_a_folder_without_claims_is_one_line(tmp_path):
    with pytest.raises(HistotransferError, match=r"claims\.toml: not the file of claims"):
        read_claims(tmp_path)
