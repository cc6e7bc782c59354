import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import differences, mean_intervals
from histotransfer.report.adapting import by_patients, gained, learning_curve, read_adapting


@pytest.fixture(scope="module")
def folder(write_made_run, make_predictions, tmp_path_factory):
    """Records of a network before, and of its head after two numbers of labelled patients, two draws each."""
    out = tmp_path_factory.mktemp("adapting")
    arms = [("before", 0, 0), *(("head", n, draw) for n in (2, 4) for draw in (0, 1))]
    for seed, (arm, labelled, draw) in enumerate(arms):
        # The same images of the same patients; only the scores differ.
        predictions = make_predictions(seed=seed).assign(seed=draw)
        config = {"arm": arm, "labelled": labelled, "draw": draw}
        name = arm if arm == "before" else f"{arm}-{labelled}-s{draw}"
        record = {
            "experiment": "adapting",
            "run": name,
            "profile": "phantom",
            "config": config,
            "data": {"name": "own"},
        }
        record |= {"split": {"kind": "patient", "parts": {}}, "seed": 0, "dose": {}, "metrics": {}}
        write_made_run(out / name, predictions=predictions, record=record)
    return out


def test_runs_are_found_by_arm_and_number(folder):
    runs = read_adapting(folder)
    assert {key: len(own) for key, own in runs.items()} == {("before", 0): 1, ("head", 2): 2, ("head", 4): 2}


def test_the_curve_has_the_mean_over_draws_and_its_interval_by_patient(folder):
    runs = read_adapting(folder)
    curve = learning_curve(runs, ["auroc", "log_loss"]).set_index(["run", "labelled", "metric"])
    expected = mean_intervals([run.predictions for run in runs["head", 4]], wanted=["auroc", "log_loss"])
    for metric in ("auroc", "log_loss"):
        found = curve.loc["head", 4, metric]
        assert found[["value", "low", "high"]].tolist() == pytest.approx(expected.loc[metric].tolist())
        assert found["least"] <= found["value"] <= found["most"]
        assert (found["draws"], found["images"], found["patients"]) == (2, 60, "6 + 6")


def test_what_was_gained_is_paired_with_the_network_before(folder):
    runs = read_adapting(folder)
    found = gained(runs, ["auroc"]).set_index(["run", "labelled"]).loc["head", 2]
    (before,) = runs["before", 0]
    pairs = [(run.predictions, before.predictions) for run in runs["head", 2]]
    expected = differences(pairs, metrics=["auroc"]).loc["auroc"]
    assert found[["value", "low", "high", "smallest"]].tolist() == pytest.approx(expected.tolist())


def test_a_table_has_a_row_for_each_number_and_the_network_before_in_row_0(folder):
    table = by_patients(learning_curve(read_adapting(folder), ["auroc"]), "auroc", ["head"])
    assert table.index.tolist() == [0, 2, 4]
    assert table.columns.name == "AUROC; 60 images, 6 + 6; draws: 2"
    assert table.map(lambda text: "[" in text).all(axis=None)


def test_without_labelled_patients_a_baseline_says_nothing(folder):
    curve = learning_curve(read_adapting(folder), ["auroc"])
    probe = curve[curve["run"] == "head"].assign(run="frozen-probe")
    table = by_patients(pd.concat([curve, probe]), "auroc", ["head", "frozen-probe"])
    assert table.loc[0, "frozen-probe"] == "–" and "[" in table.loc[0, "head"]
    assert table.loc[2, "frozen-probe"] == table.loc[2, "head"]


def test_records_without_the_network_before_are_refused(folder, tmp_path):
    (tmp_path / "head-2-s0").symlink_to(folder / "head-2-s0")
    with pytest.raises(HistotransferError, match="holds no record of `histotransfer experiment adapt`"):
        read_adapting(tmp_path)
