from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torchvision import models

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis
from histotransfer.evaluation.intervals import intervals
from histotransfer.experiments import complexity
from histotransfer.experiments.complexity import cost, measure_times, run_probes, run_scratch
from histotransfer.records import image_paths, read_run
from histotransfer.report.complexity import (
    complexity_table,
    exit_gaps,
    precision_gaps,
    read_nets,
    scratch_gap,
    size_gaps,
    studied_nets,
)
from histotransfer.report.study import Study
from histotransfer.study.plan import planned_runs, read_plan


@pytest.fixture(scope="module")
def experiment(small_network, phantom_root, tmp_path_factory):
    """All exits of a small network at one small size."""
    out = tmp_path_factory.mktemp("results") / "complexity"
    config = ladder_config("phantom", {"normaliser": "none", "seed": 1, "folds": 3})
    lines = []
    run_probes(config, phantom_root, out, sizes=(32,), precisions=("float32", "float16"), report=lines.append)
    assert len(lines) == 8
    return out


def test_every_exit_predicts_every_image_out_of_fold(experiment, phantom_root):
    table = breakhis.load(phantom_root)
    names = sorted(path.name for path in experiment.iterdir())
    exits = ("block4", "transition1", "transition2", "transition3")
    assert names == [f"{leave}-32-{precision}" for leave in exits for precision in ("float16", "float32")]
    for name in names:
        run = read_run(experiment / name)
        assert set(image_paths(run.predictions["image"], phantom_root)) == set(table["path"])
        assert run.predictions.groupby("group")["fold"].nunique().max() == 1
        assert name == "{net}-{size}-{precision}".format(**run.record["config"])


def test_rounding_the_trunk_changes_a_little_but_something(experiment):
    whole, rounded = (read_run(experiment / f"block4-32-{p}").predictions for p in ("float32", "float16"))
    difference = (whole["logit_malignant"] - rounded["logit_malignant"]).abs()
    assert 0 < difference.max() < 0.5


@pytest.mark.slow
def test_int8_is_calibrated_in_each_fold_and_stays_near_float32(experiment, phantom_root, tmp_path, monkeypatch):
    calibrated = []
    quantise = complexity.openvino.quantise
    monkeypatch.setattr(
        complexity.openvino, "quantise", lambda net, images: calibrated.append(len(images)) or quantise(net, images)
    )
    monkeypatch.setattr(complexity, "CALIBRATION", 20)
    config = ladder_config("phantom", {"normaliser": "none", "seed": 1, "folds": 3})
    run_probes(config, phantom_root, tmp_path, sizes=(32,), precisions=("int8",), report=lambda line: None)
    assert calibrated == [20, 20, 20]
    small, whole = (
        read_run(path).predictions for path in (tmp_path / "block4-32-int8", experiment / "block4-32-float32")
    )
    assert np.corrcoef(small["logit_malignant"], whole["logit_malignant"])[0, 1] > 0.9
    assert not np.allclose(small["logit_malignant"], whole["logit_malignant"], atol=1e-4)


def test_a_table_has_costs_and_intervals_of_every_record(experiment):
    nets = read_nets(experiment.parent)
    times = pd.DataFrame({"net": ["block4"], "size": [32], "precision": ["float32"], "ms": [7.5]})
    table = complexity_table(nets, times)
    assert len(table) == 8
    assert table["GMAC"].is_monotonic_increasing
    rows = table.set_index(["net", "precision"])
    full = rows.loc["block4", "float32"]
    assert full["parameters"] == 7_978_856 - 998 * 1025
    assert full["MB"] == pytest.approx(4 * full["parameters"] / 1e6)
    assert rows.loc["block4", "float16"]["MB"] == full["MB"] / 2
    assert rows.loc["block4", "float16"]["ms"] == full["ms"] == 7.5  # stored in half, computed alike
    assert np.isnan(rows.loc["transition1", "float32"]["ms"])
    predictions = read_run(experiment / "block4-32-float32").predictions
    means = predictions[predictions["magnification"].isin((40, 100, 200))]
    expected = intervals(means, "magnification").loc["auroc"]
    assert full[["auroc", "low", "high"]].tolist() == expected[["value", "low", "high"]].tolist()
    assert complexity_table({net: nets[net] for net in list(nets)[:1]})["ms"].isna().all()


def test_gaps_are_those_of_the_two_values(experiment):
    gaps = exit_gaps(experiment, 32)
    assert len(gaps) == 3
    table = complexity_table(read_nets(experiment.parent)).query("precision == 'float32'").set_index("net")["auroc"]
    for name, text in gaps["pooled"].items():
        expected = table[name.removesuffix(" minus block4")] - table["block4"]
        assert float(text.split(" ")[0]) == pytest.approx(expected, abs=0.0051)


def test_gaps_say_which_way_where_the_interval_leaves_out_none(tmp_path, make_predictions, write_made_run):
    shifts = {"32-float32": 0.0, "32-float16": 0.0, "32-int8": -2.0, "16-float32": 2.0, "112-float32": 0.0}
    nets = {f"block4-{net}": shift for net, shift in shifts.items()} | {"small-k12-112-float32": -2.0}
    for net, shift in nets.items():
        table = make_predictions(patients=20, images=8, magnifications=(40, 100, 200, 400))
        table["logit_malignant"] += shift * (table["truth"] == "malignant").map({True: 1, False: -1})
        write_made_run(tmp_path / net, predictions=table)
    gaps = precision_gaps(tmp_path, [32])
    names = ["float16 minus float32, 32 pixels", "int8 minus float32, 32 pixels"]
    assert gaps["pooled is"].to_dict() == dict(zip(names, ["no difference shown", "lower"], strict=True))
    assert gaps["pooled"].iloc[0] == "0.00" and gaps["pooled"].iloc[1].startswith("-0.")
    assert gaps["within folds"].to_list() == gaps["pooled"].to_list()  # of one fold and seed
    assert gaps["within folds is"].to_list() == gaps["pooled is"].to_list()
    assert size_gaps(tmp_path, [32, 16])["pooled is"].to_dict() == {"16 minus 32 pixels": "higher"}
    assert scratch_gap(tmp_path)["pooled is"].to_dict() == {"small-k12 minus block4, 112 pixels": "lower"}


def test_arms_of_the_study_are_taken_in_once_they_are_there(tmp_path, make_predictions, write_made_run):
    study = Study(Path(__file__).parents[2] / "study", tmp_path)
    for run in planned_runs(read_plan(study.study / "primary.toml")):
        if run.arm == "se" or run.name == "plain-s0-f0":
            table = make_predictions(patients=10).assign(seed=run.config.seed)
            own = table[table["group"].str.removeprefix("14-").astype(int) % 5 == run.config.fold]
            record = {
                "experiment": "primary",
                "run": run.name,
                "profile": "lite",
                "seed": 0,
                "data": {"name": "breakhis"},
                "split": {"kind": "patient", "parts": {}},
            }
            record |= {"config": {"size": 224, "normaliser": "macenko"}, "dose": {}, "metrics": {}}
            for stage in ("", "-after-head"):
                write_made_run(tmp_path / "primary" / f"{run.name}{stage}", predictions=own, record=record)
    ((net, found),) = studied_nets(study).items()
    assert net == ("block4-se", 224, "float32", "trained", "macenko")
    assert found["group"].nunique() == 10 and set(found["seeds"]) == {1}


def test_operations_grow_with_the_picture_and_gates_hardly_cost_any():
    whole = cost("block4", 224, "float32")
    assert whole["GMAC"] == pytest.approx(models.DenseNet121_Weights.DEFAULT.meta["_ops"], abs=2e-3)
    assert cost("block4", 112, "float32")["GMAC"] == pytest.approx(whole["GMAC"] / 4, rel=0.02)
    gated = cost("block4-se-everywhere", 224, "int8")
    assert gated["GMAC"] == pytest.approx(whole["GMAC"], rel=0.01)
    assert gated["MB"] == gated["parameters"] / 1e6
    assert 0.9e6 < cost("small-k12", 112, "float32")["parameters"] < 1.1e6


def test_the_small_net_learns_from_scratch_in_every_fold(phantom_root, tmp_path, monkeypatch):
    monkeypatch.setattr(complexity, "EPOCHS", 1)
    monkeypatch.setattr(complexity, "SMALL_SIZE", 32)
    small = {"positions": (), "block_config": (1, 1), "growth_rate": 4, "stem_features": 8}
    monkeypatch.setitem(complexity.NETS, "small-k12", small)
    config = ladder_config("phantom", {"folds": 3, "normaliser": "none"})

    def pull_the_plug(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # when the first fold is done
        run_scratch(config, phantom_root, tmp_path / "complexity", report=pull_the_plug)
    lines = []
    folder = run_scratch(config, phantom_root, tmp_path / "complexity", report=lines.append)
    assert [line for line in lines if "were trained before" in line] == ["breakhis: 1 of 1 stages were trained before"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    run = read_run(folder)
    assert folder.name == "small-k12-32-float32"
    assert len(run.predictions) == len(breakhis.load(phantom_root)) == run.predictions["image"].nunique()
    assert run.history["fold"].tolist() == [0, 1, 2]
    assert run.record["config"]["start"] == "scratch"
    assert ("small-k12", 32, "float32", "scratch", "none") in read_nets(tmp_path)


def test_times_are_of_every_net_and_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(complexity, "NETS", {"tiny": {"block_config": (1, 1), "growth_rate": 4, "stem_features": 8}})
    times = pd.read_csv(measure_times(tmp_path / "complexity", sizes=(32,), report=lambda line: None))
    assert times[["net", "size", "precision"]].to_numpy().tolist() == [["tiny", 32, "float32"], ["tiny", 32, "int8"]]
    assert (times["ms"] > 0).all()
