import shutil
from pathlib import Path

import pandas as pd
import pytest

from histotransfer.records import PREDICTIONS
from histotransfer.report.answers import COLUMNS, JUDGED, answers
from histotransfer.report.study import Study
from histotransfer.report.verdicts import (
    NOT_RUN,
    PRIMARY,
    judge_differences,
)
from histotransfer.study.plan import planned_runs, read_plan

STUDY = Path(__file__).parents[2] / "study"
CLAIMS = ["C1", "C2", "C3a", "C3b", "C4a", "C4b", "C5", "C6", "C7"]


@pytest.fixture(scope="module")
def results(tmp_path_factory, make_predictions, write_made_run):
    """The primary experiment alone, never run: gates help, lung does not."""
    folder = tmp_path_factory.mktemp("results")
    shifts = {"plain": 0, "se": 1, "plain-lung": 0, "se-lung": 1}
    for run in planned_runs(read_plan(STUDY / "primary.toml")):
        if run.arm in shifts:
            table = make_predictions(patients=20, images=8, magnifications=(40, 100, 200, 400), seed=3)
            own = table[table["group"].str.removeprefix("14-").astype(int) % 5 == run.config.fold]
            sign = (own["truth"] == "malignant").map({True: 1, False: -1})
            own = own.assign(seed=run.config.seed, logit_malignant=own["logit_malignant"] + shifts[run.arm] * sign)
            write_made_run(folder / "primary" / run.name, predictions=own)
    return folder


def test_every_claim_has_a_row_and_what_is_not_run_says_so(tmp_path):
    table = answers(Study(STUDY, tmp_path))
    assert table.index.unique().tolist() == CLAIMS
    assert tuple(table.columns) == COLUMNS
    assert set(table.drop(index="C7")["verdict"]) == {NOT_RUN}
    assert table.loc["C7", "result"] == "4.3 MB, not 84.7"
    assert table.loc["C7", "verdict"].startswith("contradicted here")


def test_a_row_says_what_the_records_say(results):
    study = Study(STUDY, results)
    table, found = answers(study), judge_differences(study, PRIMARY, correct=True)
    row = table.loc["C2"]
    assert row["result"].startswith(f"{found.loc['C2', 'value']:.2f} [{found.loc['C2', 'low']:.2f},")
    assert row["result"].endswith(f"p = {found.loc['C2', 'p_holm']:.2g} after Holm")
    assert row["verdict"] == found.loc["C2", "verdict"] == "supported here"
    assert (row["n"], row["record"]) == ("120 images, 10 + 10 patients", "results/primary")
    assert row["plan"] == "study/primary.toml"
    assert len(table.loc[["C1"]]) == 4 and set(table.loc["C1", "n"]) == {"40 images, 10 + 10 patients"}
    assert table.loc["C4b", "compared"] == "se-lung minus plain, at least 0.02"
    assert "at least" not in row["compared"]
    assert table.loc["C3b", "verdict"] == NOT_RUN


@pytest.mark.parametrize(("value", "added"), [(0.01, ""), (0.03, "; magnitude consistent"), (0.07, "")])
def test_c4_has_its_magnitude_where_the_result_lies_in_the_papers_range(results, monkeypatch, value, added):
    study = Study(STUDY, results)
    found = judge_differences(study, PRIMARY).assign(value=value)
    monkeypatch.setattr("histotransfer.report.answers.judge_differences", lambda *_, correct=False: found)
    row = answers(study).loc["C4b"].iloc[0]
    assert row["verdict"] == found.loc["C4b", "verdict"] + added


def test_c6_is_told_by_log_loss_and_by_auroc(results, monkeypatch):
    ends = {"value": 0.2, "low": 0.1, "high": 0.3, "test_drop": 0.05, "test_drop_low": -0.1, "test_drop_high": 0.2}
    worse = {"auroc_gain": -0.2, "auroc_gain_low": -0.3, "auroc_gain_high": -0.1}
    about = {"arms": "macenko against none", "images": 9, "patients": "2 + 2", "verdict": "supported here"}
    treatments = pd.DataFrame([ends | worse | about] * len(JUDGED["C6"]), index=JUDGED["C6"])
    study = Study(STUDY, results)
    monkeypatch.setattr("histotransfer.report.answers.judge_overfitting", lambda study: treatments)
    row = answers(study).loc["C6"].iloc[0]
    assert row["verdict"] == "supported here; test AUROC contradicted here"
    space = "\N{NO-BREAK SPACE}"
    assert row["result"] == (
        f"0.20 [0.10,{space}0.30], of it on test images 0.05 [-0.10,{space}0.20]; test AUROC -0.20 [-0.30,{space}-0.10]"
    )
    assert row["compared"] == "none minus macenko"


def test_a_changed_record_changes_the_row(results, tmp_path, write_made_run):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path / "primary").glob("se-lung-*"):
        predictions = pd.read_csv(folder / PREDICTIONS, dtype={"patient": str, "group": str})
        write_made_run(folder, predictions=predictions.assign(logit_malignant=-predictions["logit_malignant"]))
    before, after = (answers(Study(STUDY, folder)) for folder in (results, tmp_path))
    for claim in ("C2", "C4b"):
        assert before.loc[claim, "result"] != after.loc[claim, "result"]
    assert after.loc["C4b", "verdict"].startswith("contradicted here")
