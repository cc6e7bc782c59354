from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.records import read_run
from histotransfer.report import coverage
from histotransfer.report.coverage import TWO, methods, with_coverage
from histotransfer.report.tables import gap, with_intervals

RESULTS = Path(__file__).parents[2] / "results"
INPUTS = ("leakage/breakhis-by-patient", "leakage/breakhis-by-image")


@pytest.fixture(scope="module")
def measured():
    return pd.read_csv(RESULTS / "coverage/coverage.csv", dtype={"magnification": str})


def test_measured_coverage_stands_beside_the_intervals_it_was_measured_for(measured):
    runs = {name: read_run(RESULTS / name) for name in INPUTS[:2]}
    for table, kind in ((with_intervals({"probe": runs[INPUTS[0]]}), "one arm"), (gap(*runs.values()), TWO)):
        beside = with_coverage(table, RESULTS / "coverage")
        assert len(beside) == len(table)
        row = beside[(beside["magnification"] == "200") & (beside["metric"] == "accuracy")].iloc[0]
        own = measured[(measured["kind"] == kind) & (measured["magnification"] == "200")]
        assert row["coverage"] == own.loc[own["metric"] == "accuracy", "coverage"].min()


def test_coverage_says_nothing_beside_an_interval_that_leaves_nothing_out(measured):
    table = with_intervals({"probe": read_run(RESULTS / INPUTS[0])})
    at = (table["magnification"] == "200") & (table["metric"] == "accuracy")
    table.loc[at, ["low", "high"]] = [0.001, 0.998]
    beside = with_coverage(table, RESULTS / "coverage")
    assert np.isnan(beside.loc[at, "coverage"].item())
    assert beside.loc[~at, "coverage"].notna().any()
    difference = gap(*[read_run(RESULTS / name) for name in INPUTS[:2]])
    at = (difference["magnification"] == "200") & (difference["metric"] == "accuracy")
    for low, shown in ((-1.0, False), (-0.9, True)):
        difference.loc[at, ["low", "high"]] = [low, 1.0]
        assert with_coverage(difference, RESULTS / "coverage").loc[at, "coverage"].notna().item() == shown


def test_coverage_that_was_not_measured_is_not_shown(make_predictions, write_made_run, tmp_path):
    run = read_run(write_made_run(tmp_path / "run"))
    assert with_coverage(with_intervals({"run": run}), RESULTS / "coverage")["coverage"].isna().all()
    with pytest.raises(HistotransferError, match="no record of coverage"):
        with_coverage(with_intervals({"run": run}), tmp_path)


def test_methods_stand_with_their_worst_coverage_and_mean_width():
    tried = pd.read_csv(RESULTS / "coverage/methods.csv")
    own = tried[(tried["phase"] == coverage.EVALUATION) & (tried["kind"] == TWO) & (tried["metric"] == "auroc")]
    table = methods(TWO, ["accuracy", "auroc"], RESULTS / "coverage")
    assert list(table.columns) == [(a, b) for a in ("held, %", "width") for b in ("accuracy", "AUROC")]
    assert set(table.index) == set(own["method"]) - {coverage.USED[TWO]} | {f"{coverage.USED[TWO]} (used)"}
    assert table.index.name == f"{TWO}, {own['sets'].unique().item():,} data sets per scenario"
    worst = own[own["method"] == coverage.USED[TWO]]
    row = table.loc[f"{coverage.USED[TWO]} (used)"]
    assert row["held, %", "AUROC"] == pytest.approx(100 * worst["coverage"].min(), abs=0.05)
    assert row["width", "AUROC"] == pytest.approx(worst["width"].mean(), abs=0.005)


def test_methods_without_a_record_are_asked_for(tmp_path):
    with pytest.raises(HistotransferError, match="no record of coverage"):
        methods(TWO, ["accuracy"], tmp_path)
