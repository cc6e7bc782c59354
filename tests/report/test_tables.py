import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import all_metrics, intervals
from histotransfer.evaluation.within_folds import WithinFolds
from histotransfer.records import read_run
from histotransfer.report.tables import (
    formatted,
    gap,
    gap_within_folds,
    read_experiment,
    side_by_side,
    with_intervals,
    within_folds,
    without,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_made_run, make_predictions):
    folder = tmp_path_factory.mktemp("spine")
    write_made_run(folder / "ladder")
    write_made_run(folder / "probe", predictions=make_predictions().assign(logit_benign=0.1))
    return read_experiment(folder, ["ladder", "probe"])


def test_runs_come_in_the_order_asked_for(runs):
    assert list(runs) == ["ladder", "probe"]
    assert runs["probe"].record["run"] == "probe"


@pytest.mark.parametrize("change", ["fewer", "other part"])
def test_runs_on_different_images_are_refused(tmp_path, write_made_run, make_predictions, change):
    other = make_predictions()[:-1] if change == "fewer" else make_predictions(part="validation")
    write_made_run(tmp_path / "a")
    write_made_run(tmp_path / "b", predictions=other)
    with pytest.raises(HistotransferError, match="a, b were not evaluated on the same images"):
        read_experiment(tmp_path, ["a", "b"])


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(HistotransferError, match=f"{tmp_path / 'gone'}: not a run's folder"):
        read_experiment(tmp_path, ["gone"])


def test_every_run_magnification_and_metric_has_a_row(runs):
    table = with_intervals(runs)
    metrics = list(all_metrics(runs["ladder"].predictions))
    assert len(metrics) == 14
    expected = [(run, m, metric) for run in runs for m in ("40", "100", "all") for metric in metrics]
    assert list(table[["run", "magnification", "metric"]].itertuples(index=False, name=None)) == expected
    assert list(table.columns) == [
        "run", "magnification", "metric", "value", "low", "high", "images", "patients", "classes",
    ]  # fmt: skip
    assert set(zip(table["magnification"], table["images"], strict=True)) == {("40", 36), ("100", 24), ("all", 60)}
    assert set(table["patients"]) == {"6 + 6"} and set(table["classes"]) == {"benign + malignant"}
    ladder = table[(table["run"] == "ladder") & (table["magnification"] == "all")].set_index("metric")
    pd.testing.assert_frame_equal(
        ladder[["value", "low", "high"]], intervals(runs["ladder"].predictions), check_names=False
    )


def test_only_the_asked_part_counts(tmp_path, write_made_run, make_predictions):
    both = pd.concat([make_predictions(patients=4, part="validation"), make_predictions(patients=10, seed=1)])
    runs = {"run": read_run(write_made_run(tmp_path / "run", predictions=both))}
    for part, patients in (("validation", 2), ("test", 5)):
        table = with_intervals(runs, part=part)
        assert set(table["patients"]) == {f"{patients} + {patients}"}


def test_formatted_is_as_people_read_it(runs):
    table = with_intervals(runs)
    wide = formatted(table, ["accuracy", "recognition_rate"])
    assert list(wide.columns) == ["accuracy", "recognition rate", "images", "patients (benign + malignant)"]
    assert wide.index.tolist() == [(m, run) for m in ("40", "100", "all") for run in ("ladder", "probe")]
    row = table[(table["run"] == "probe") & (table["magnification"] == "100") & (table["metric"] == "accuracy")]
    value, low, high = row[["value", "low", "high"]].iloc[0]
    assert wide.loc[("100", "probe")].tolist()[0] == number(value, low, high)
    assert wide.loc[("100", "probe")].tolist()[2:] == [24, "6 + 6"]
    by_slide = formatted(table, ["accuracy"], unit="slides")
    assert by_slide["slides (benign + malignant)"].tolist() == wide["patients (benign + malignant)"].tolist()


def test_the_mean_over_magnifications_stands_before_all(tmp_path, write_made_run, make_predictions):
    predictions = make_predictions(images=9, magnifications=(40, 100, 200, 400))
    runs = {"run": read_run(write_made_run(tmp_path / "run", predictions=predictions))}
    table = with_intervals(runs)
    assert list(formatted(table, ["accuracy"]).index) == ["40", "100", "200", "400", "mean", "all"]
    accuracy = table[table["metric"] == "accuracy"].set_index("magnification")
    assert accuracy.loc["mean", "value"] == pytest.approx(accuracy.loc[["40", "100", "200"], "value"].mean())
    assert accuracy.loc["mean", "images"] == accuracy.loc[["40", "100", "200"], "images"].sum()


def test_measured_coverage_stands_behind_the_interval(runs):
    table = with_intervals(runs).assign(coverage=0.914)
    assert all(text.endswith("] 91\N{NO-BREAK SPACE}%") for text in formatted(table, ["accuracy"])["accuracy"])


def test_number():
    assert number(0.8449, 0.7, 0.9051) == "0.84 [0.70,\N{NO-BREAK SPACE}0.91]"
    assert number(-0.004, -0.1, -0.0) == "0.00 [-0.10,\N{NO-BREAK SPACE}0.00]"
    assert number(-0.017, -0.0373, -0.0021) == "-0.02 [-0.04,\N{NO-BREAK SPACE}-0.002]"
    assert number(0.001, 0.0004, 0.004999) == "0.001 [0.0004,\N{NO-BREAK SPACE}0.005]"
    assert number(0.2, 0.0000812, 0.5) == "0.20 [0.00008,\N{NO-BREAK SPACE}0.50]"
    assert number(0.2, -1e-5, 0.5) == "0.20 [0.00,\N{NO-BREAK SPACE}0.50]"
    assert number(-0.008, -0.026, 0.0187, level=0.02) == "-0.01 [-0.03,\N{NO-BREAK SPACE}0.019]"
    assert number(0.81, 0.8397, 0.8431, level=0.84) == "0.81 [0.8397,\N{NO-BREAK SPACE}0.843]"
    assert number(0.05, 0.02, 0.0199999, level=0.02) == "0.05 [0.02,\N{NO-BREAK SPACE}0.0199999]"
    assert number(1, 1, 1) == "1.00 [1.00,\N{NO-BREAK SPACE}1.00]"
    assert number(0.8449, 0.7, 0.9051, 0.934) == "0.84 [0.70,\N{NO-BREAK SPACE}0.91] 93\N{NO-BREAK SPACE}%"
    assert number(0.5, float("nan"), float("nan"), 0.934) == "0.50"
    assert number(float("nan"), float("nan"), float("nan")) == "–"


def test_a_gap_is_of_the_same_images_and_has_the_form_of_a_table(runs, make_predictions, write_made_run, tmp_path):
    found = gap(runs["probe"], runs["ladder"])
    whole = with_intervals(runs)
    assert list(found.drop(columns="smallest").columns) == list(whole.columns)
    assert set(found["run"]) == {"ladder minus probe"} and found["smallest"].notna().any()
    for row in found[found["metric"] == "accuracy"].itertuples():
        at = whole[(whole["metric"] == "accuracy") & (whole["magnification"] == row.magnification)].set_index("run")
        assert row.value == pytest.approx(at.loc["ladder", "value"] - at.loc["probe", "value"])
    assert list(formatted(found, ["accuracy"]).index) == ["40", "100", "all"]
    others = read_run(write_made_run(tmp_path / "e" / "other", predictions=make_predictions(patients=10)))
    with pytest.raises(HistotransferError, match="not of the same images"):
        gap(runs["probe"], others)


def test_without_some_patients_the_others_stay_as_they_were(runs):
    run = runs["ladder"]
    gone = run.predictions["group"].iloc[0]
    left = without(run, {gone}).predictions
    assert set(left["group"]) == set(run.predictions["group"]) - {gone}
    expected = run.predictions[run.predictions["group"] != gone].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, expected)


@pytest.fixture
def arms(tmp_path, write_made_run, make_predictions):
    """Two arms of two folds and two seeds, the second arm scoring by chance."""
    found = {"ladder": [], "probe": []}
    for seed in (0, 1):
        whole = make_predictions(patients=16, seed=seed).assign(seed=seed)
        whole["fold"] = whole["group"].str[3:].astype(int) // 2 % 2
        noise = make_predictions(patients=16, seed=seed + 7)["logit_benign"]
        for name, predictions in (("ladder", whole), ("probe", whole.assign(logit_benign=noise, logit_malignant=0.0))):
            for fold, rows in predictions.groupby("fold"):
                folder = tmp_path / f"{name}-s{seed}-f{fold}"
                found[name].append(read_run(write_made_run(folder, predictions=rows.reset_index(drop=True))))
    return found


def test_auroc_within_folds_is_a_row_beside_the_pooled_one(arms):
    table = within_folds(arms)
    assert set(table["metric"]) == {"auroc_within_folds", "patient_auroc_within_folds"}
    own = pd.concat([run.predictions for run in arms["ladder"]], ignore_index=True)
    row = table.query("run == 'ladder' and magnification == 'all' and metric == 'auroc_within_folds'").squeeze()
    assert row["value"] == WithinFolds(own).value["auroc"] and row["low"] < row["value"] < row["high"]
    assert (row["images"], row["patients"]) == (80, "8 + 8")


def test_the_gap_within_folds_is_that_of_the_values(arms):
    table = gap_within_folds([(arms["ladder"], arms["probe"])], "ladder minus probe")
    values = within_folds(arms).pivot(index=["magnification", "metric"], columns="run", values="value")
    found = table.set_index(["magnification", "metric"])
    pd.testing.assert_series_equal(
        found["value"].sort_index(), (values["ladder"] - values["probe"]).sort_index(), check_names=False
    )
    assert (found["low"] < found["value"]).all() and (found["smallest"] > 0).all()
    turned = gap_within_folds([(arms["ladder"], arms["probe"]), (arms["probe"], arms["ladder"])], "both ways")
    assert (turned["value"] == 0).all() and turned["low"].isna().all()  # no redraw tells them apart
    with pytest.raises(HistotransferError, match="not tested on the same images in the same folds"):
        gap_within_folds([(arms["ladder"], arms["probe"][1:])], "ladder minus probe")


def test_a_single_difference_is_named_at_the_head_of_its_table(runs):
    shown = formatted(gap(runs["probe"], runs["ladder"]), ["auroc"])
    assert shown.columns.name == "ladder minus probe"
    assert formatted(with_intervals({"ladder": runs["ladder"]}), ["auroc"]).columns.name is None


def test_a_single_magnification_of_several_runs_is_named_at_the_head_of_its_table(runs):
    table = with_intervals(runs)
    shown = formatted(table[table["magnification"] == "100"], ["auroc"])
    assert shown.columns.name == "100" and shown.index.tolist() == ["ladder", "probe"]


def test_the_smallest_difference_of_a_metric_stands_last(runs):
    table = gap(runs["probe"], runs["ladder"])
    shown = formatted(table, ["auroc"], smallest="accuracy")
    own = table[table["metric"] == "accuracy"].set_index("magnification")["smallest"]
    assert shown.columns[-1] == "smallest accuracy"
    assert shown["smallest accuracy"].tolist() == [f"{own[at]:.2f}" for at in ("40", "100", "all")]


def test_tables_of_intervals_stand_side_by_side(runs):
    tables = {name: intervals(run.predictions.query("part == 'test'")) for name, run in runs.items()}
    found = side_by_side(tables, ["log_loss", "auroc"])
    assert list(found.columns) == ["log-loss", "AUROC"] and list(found.index) == ["ladder", "probe"]
    assert found.loc["probe", "AUROC"] == number(*tables["probe"].loc["auroc"])
