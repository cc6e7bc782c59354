import pytest

from histotransfer.report import verdicts
from histotransfer.report.answers import COLUMNS, DRAWN, UNREACHABLE, answers
from histotransfer.report.study import Study
from histotransfer.report.verdicts import NOT_RUN, PRIMARY, Judge

from .conftest import STUDY


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_runs):
    folder = tmp_path_factory.mktemp("results")
    write_runs(folder, "primary", {"plain": 0, "se": 3, "plain-lung": -3, "se-lung": 2.9})
    return Study(STUDY, folder)


@pytest.fixture(scope="module")
def table(study):
    return answers(study)


def test_every_claim_has_its_lines(table):
    assert list(table.columns) == [*COLUMNS, *DRAWN]
    # C1: four magnifications and the stated recipe; C2 with both starts of the gates.
    assert table.index.value_counts().to_dict() == {
        "C1": 5, "C2": 2, "C3a": 1, "C3b": 1, "C4a": 1, "C4b": 1, "C5": 1, "C6": 3, "C7": 1,
    }  # fmt: skip
    assert (table[list(COLUMNS)] != "").all(axis=None)


def test_a_line_holds_dose_network_average_patients_power_and_both_verdicts(study, table):
    row, computed = table.loc["C4b"], Judge(study).differences(PRIMARY).set_index("id").loc["C4b"]
    assert row["result"].startswith(f"{computed['value']:.2f} [")
    assert row["average"].startswith(f"{computed['average']:.2f} [") and "after Holm" in row["average"]
    assert row["patient"].startswith(f"{computed['patient']:.2f} [")
    assert row["smallest"] == f"{computed['smallest']:.2f}"
    assert (row["verdict"], row["first"]) == ("supported here", "supported here")
    assert "gates 0.30 from 1" in row["dose"] and "CKA 0.50" in row["dose"] and "block 4 moved by 25%" in row["dose"]
    assert row["n"] == "120 images, 10 + 10 patients"
    assert row["plan"] == "study/primary.toml"


def test_what_is_drawn_lies_beyond_the_claim_by_as_much(study, table):
    computed = Judge(study).differences(PRIMARY).set_index("id")
    for claim, threshold in (("C2", 0), ("C4b", 0.02)):
        row = table.loc[[claim]].iloc[0]
        expected = 100 * (computed.loc[claim, ["value", "low", "high"]] - threshold)
        assert row[["value", "low", "high"]].tolist() == pytest.approx(expected.tolist())
        assert row["unit"] == "points" and row["title"].startswith(f"{claim} ")
        assert row["power"] == f"a true difference of {100 * computed.loc[claim, 'smallest']:.0f} points would show"
    assert table.loc["C5", "unit"] == "" and table.loc["C5", "value"] != table.loc["C5", "value"]


@pytest.mark.parametrize(
    ("distance", "cells"),
    [
        (0.9, (UNREACHABLE, "too few patients to tell")),
        (0.12, ("0.12", "a true distance of 12 points would show")),
        (0.01, ("0.01", "a true distance of 1 point would show")),
        (float("nan"), ("–", "")),
    ],
)
def test_how_good_a_test_of_the_accuracy_was(study, monkeypatch, distance, cells):
    monkeypatch.setattr(verdicts, "smallest_distance", lambda *arguments: distance)
    row = answers(study).loc["C1"].iloc[0]
    assert (row["smallest"], row["power"]) == cells


def test_what_is_not_run_is_said_to_be(table):
    for claim in ("C3b", "C4a", "C5"):
        assert table.loc[claim, ["verdict", "first", "result"]].tolist() == [NOT_RUN, NOT_RUN, "–"]
    assert set(table.loc["C6", "verdict"]) == {NOT_RUN}


def test_a_missing_dose_is_named_in_the_verdict(tmp_path, write_runs):
    arms = {"plain": 0, "se": 0, "plain-lung": 0, "se-lung": 0}
    write_runs(tmp_path, "primary", arms, dose={"source": {"accuracy": 0.5, "cka": 0.99}})
    table = answers(Study(STUDY, tmp_path))
    assert table.loc["C3a", "verdict"] == "not tested as run (lung)"
    assert (table.loc["C1", "verdict"].iloc[:4] == "not tested as run (lung)").all()
    assert "not tested" not in table.loc["C2", "verdict"].iloc[0]
