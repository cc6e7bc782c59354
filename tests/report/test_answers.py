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

STUDY = Path(__file__).parents[2] / "study"
CLAIMS = ["C1", "C2", "C3a", "C3b", "C4a", "C4b", "C5", "C6", "C7"]


@pytest.fixture(scope="module")
def results(tmp_path_factory, write_arms):
    """The primary experiment alone, never run: gates help, lung does not."""
    folder = tmp_path_factory.mktemp("results")
    write_arms(folder, "primary", {"plain": 0, "se": 1, "plain-lung": 0, "se-lung": 1})
    return folder


@pytest.fixture(scope="module")
def table(results):
    return answers(Study(STUDY, results))


@pytest.fixture(scope="module")
def judged(results):
    return judge_differences(Study(STUDY, results), PRIMARY, correct=True)


def test_every_claim_has_a_row_and_what_is_not_run_says_so(tmp_path):
    table = answers(Study(STUDY, tmp_path))
    assert table.index.unique().tolist() == CLAIMS
    assert tuple(table.columns) == COLUMNS
    assert set(table.drop(index="C7")["verdict"]) == {NOT_RUN}
    assert table.loc["C7", "result"] == "4.3 MB, not 84.7"
    assert table.loc["C7", "verdict"].startswith("contradicted here")


def test_a_row_says_what_the_records_say(table, judged):
    found, row = judged, table.loc["C2"]
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
def test_c4_has_its_magnitude_where_the_result_lies_in_the_papers_range(judged, tmp_path, monkeypatch, value, added):
    found = judged.assign(value=value)
    monkeypatch.setattr("histotransfer.report.answers.judge_differences", lambda *_, correct=False: found)
    row = answers(Study(STUDY, tmp_path)).loc["C4b"].iloc[0]
    assert row["verdict"] == found.loc["C4b", "verdict"] + added


def test_c6_is_told_by_log_loss_and_by_auroc(tmp_path, monkeypatch):
    ends = {"value": 0.2, "low": 0.1, "high": 0.3, "test_drop": 0.05, "test_drop_low": -0.1, "test_drop_high": 0.2}
    worse = {"auroc_gain": -0.2, "auroc_gain_low": -0.3, "auroc_gain_high": -0.1}
    about = {"arms": "macenko against none", "images": 9, "patients": "2 + 2", "verdict": "supported here"}
    treatments = pd.DataFrame([ends | worse | about] * len(JUDGED["C6"]), index=JUDGED["C6"])
    monkeypatch.setattr("histotransfer.report.answers.judge_overfitting", lambda study: treatments)
    row = answers(Study(STUDY, tmp_path)).loc["C6"].iloc[0]
    assert row["verdict"] == "supported here; test AUROC contradicted here"
    space = "\N{NO-BREAK SPACE}"
    assert row["result"] == (
        f"0.20 [0.10,{space}0.30], of it on test images 0.05 [-0.10,{space}0.20]; test AUROC -0.20 [-0.30,{space}-0.10]"
    )
    assert row["compared"] == "none minus macenko"


def test_a_changed_record_changes_the_row(results, table, tmp_path, write_made_run):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path / "primary").glob("se-lung-*"):
        predictions = pd.read_csv(folder / PREDICTIONS, dtype={"patient": str, "group": str})
        write_made_run(folder, predictions=predictions.assign(logit_malignant=-predictions["logit_malignant"]))
    after = answers(Study(STUDY, tmp_path))
    for claim in ("C2", "C4b"):
        assert table.loc[claim, "result"] != after.loc[claim, "result"]
    assert after.loc["C4b", "verdict"].startswith("contradicted here")
