import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation.intervals import differences
from histotransfer.evaluation.metrics import image_metrics
from histotransfer.records import LOSSES
from histotransfer.report.answers import lines
from histotransfer.report.study import Study
from histotransfer.report.verdicts import EXPLORATORY, NOT_RUN, PRIMARY, Judge
from histotransfer.study.plan import planned_runs, read_plan

from .conftest import GIVEN, STUDY


@pytest.fixture(scope="module")
def judged(tmp_path_factory, write_runs):
    """Gates help, LC25000 harms; nothing from scratch is run."""
    folder = tmp_path_factory.mktemp("results")
    write_runs(folder, "primary", {"plain": 0, "se": 3, "plain-lung": -3, "se-lung": 2.9})
    return Judge(Study(STUDY, folder))


def test_differences_are_those_of_single_networks(judged):
    table = judged.differences(PRIMARY, correct=True).set_index("id")
    assert table["verdict"].to_dict() == {
        "C2": "supported here", "C3a": "contradicted here", "C3b": NOT_RUN, "C4b": "supported here",
    }  # fmt: skip
    pairs = []
    for one, other in (("se", "plain"), ("se-lung", "plain-lung")):
        runs = {arm: judged.study.runs("primary", arm) for arm in (one, other)}
        for seed in (0, 1, 2):
            tables = [
                pd.concat([run.predictions for run in runs[arm] if run.record["seed"] == seed]) for arm in (one, other)
            ]
            pairs.append(tuple(own[own["magnification"] != 400] for own in tables))
    expected = differences(pairs, "magnification", metrics=["auroc", "patient_auroc"])
    row = table.loc["C2"]
    assert row["value"] == pytest.approx(expected.loc["auroc", "value"])
    assert row[["low", "high"]].tolist() == pytest.approx(expected.loc["auroc", ["low", "high"]].tolist(), abs=0.03)
    assert row["patient"] == pytest.approx(expected.loc["patient_auroc", "value"])
    pooled = {arm: judged.study.predictions("primary", arm).query("magnification != 400") for arm in PRIMARY[0].arms}
    averaged = [(pooled[one], pooled[other]) for one, other in PRIMARY[0].pairs]
    expected = differences(averaged, "magnification", metrics=["auroc"]).loc["auroc", "value"]
    assert row["average"] == pytest.approx(expected) and row["average"] != row["value"]
    assert (row["images"], row["patients"], row["p_holm"]) == (120, "10 + 10", 4 * row["p"])
    assert "gates 0.30 from 1" in row["dose"] and row["not_given"] == ""


def test_a_treatment_that_did_nothing_is_not_tested_as_run(tmp_path, write_runs):
    """Gates that stay at 1 cannot be judged, however clear the difference between the arms looks."""
    starved = {"gates": {"distance": 0.0, "spread": 0.0, "by_gate": {}}}
    write_runs(tmp_path, "primary", {"plain": 0, "plain-lung": 0})
    write_runs(tmp_path, "primary", {"se": 3, "se-lung": 3}, dose=starved)
    table = Judge(Study(STUDY, tmp_path)).differences(PRIMARY).set_index("id")
    assert table.loc["C2", ["verdict", "first_verdict", "not_given"]].tolist() == [
        "not tested as run", "supported here", "gates",
    ]  # fmt: skip
    assert table.loc["C4b", "verdict"] == "not tested as run"
    assert table.loc["C3a", "not_given"] == "", "the lung step is judged without the gates"


def test_a_difference_too_small_to_matter_is_no_effect(tmp_path, write_runs):
    write_runs(tmp_path, "primary", {"plain": 0, "se": 0, "plain-lung": 0, "se-lung": 0}, noise=0.01)
    table = Judge(Study(STUDY, tmp_path)).differences(PRIMARY).set_index("id")
    assert table.loc["C2", ["verdict", "first_verdict"]].tolist() == ["no effect worth having", "undecided"]


def test_a_line_that_is_not_run_says_so(judged):
    table = judged.differences(EXPLORATORY)
    assert table["verdict"].tolist() == [NOT_RUN, NOT_RUN]
    assert judged.convergence()["verdict"].tolist() == [NOT_RUN]
    assert set(judged.overfitting()["verdict"]) == {NOT_RUN}


def test_accuracy_is_the_mean_of_single_networks(judged):
    table = judged.accuracy()
    whole = table[table["experiment"] == "primary"].set_index("magnification")
    assert whole.index.tolist() == ["40", "100", "200", "400"]
    assert table[table["experiment"] == "stated"]["verdict"].tolist() == [NOT_RUN]
    values = [
        image_metrics(own[own["magnification"] == 40])["accuracy"]
        for own in judged.of_seeds("primary", "se-lung", (40,))
    ]
    assert len(values) == 3 and whole.loc["40", "value"] == pytest.approx(np.mean(values))
    assert whole["value"].between(whole["low"], whole["high"]).all()
    for row in whole.itertuples():
        expected = "supported here" if row.low >= 0.84 else "contradicted here" if row.high < 0.84 else "undecided"
        assert row.verdict == expected


@pytest.fixture
def converging(tmp_path, write_runs):
    """Losses that fall by a fixed step an epoch, other for each arm, with a level from other runs."""

    def write(steps, outside=0.02):
        for experiment, arms in (("scratch", steps), ("scratch-level", {"scratch": outside})):
            write_runs(tmp_path, experiment, dict.fromkeys(arms, 0))
            for run in planned_runs(read_plan(STUDY / f"{experiment}.toml")):
                if run.arm in arms:
                    rows = []
                    for patient in range(20):
                        part = "validation" if patient % 5 == (run.config.fold + 1) % 5 else "train"
                        losses = 0.7 + 0.01 * (patient % 3) - arms[run.arm] * np.arange(20)
                        about = {"image": f"{patient}.png", "group": f"{patient}", "magnification": 200, "part": part}
                        truth = {"truth": ("benign", "malignant")[patient // 5 % 2]}
                        rows.append(about | truth | {f"epoch_{i}": loss for i, loss in enumerate(losses, 1)})
                    folder = tmp_path / experiment / run.name
                    pd.DataFrame(rows).to_csv(folder / LOSSES, index=False)
        return Judge(Study(STUDY, tmp_path))

    return write


def test_epochs_are_counted_from_a_level_of_other_runs(converging):
    judge = converging({"scratch": 0.01, "imagenet": 0.03, "lung-only": 0.01, "whole": 0.02}, outside=0.012)
    table = judge.convergence().set_index(["part", "arm"])
    # The three-epoch mean of epoch e is e - 2 steps below the start. Outside it falls from 0.012 to 0.216 below it, and
    # three quarters of the way are 0.165. The arms are there after 2 + 16.5, 2 + 5.5 and 2 + 8.25 epochs.
    for part in ("validation", "train"):
        rows = table.loc[part]
        assert rows["without"].tolist() == [19, 19, 19]
        assert rows["with"].tolist() == [8, 19, 11]
        assert rows["value"].tolist() == [11, 0, 8]
        assert rows["verdict"].tolist() == ["supported here", "no effect worth having", "supported here"]
    assert table["patients"].tolist() == ["10 + 10"] * 6
    early = judge.convergence(0.5).set_index(["part", "arm"])
    assert (early["level"] > table["level"]).all() and (early["without"] < table["without"]).all()


def test_a_run_that_never_passes_counts_with_all_its_epochs(converging):
    table = converging({"scratch": 0.001, "imagenet": 0.03, "lung-only": 0.01, "whole": 0.02}).convergence()
    assert not table["without_passed"].any()
    assert (table["without"] == 20).all()


def test_overfitting_is_judged_with_the_dose_of_its_own_treatment(tmp_path, write_runs):
    write_runs(
        tmp_path, "colour", {"none": 0, "macenko": 0}, both=True, dose={"colours": {"changed": 0.1, "distance": 9}}
    )
    for run in planned_runs(read_plan(STUDY / "colour.toml")):
        path = tmp_path / "colour" / run.name
        if path.is_dir():
            _as_trained(path)
    table = Judge(Study(STUDY, tmp_path)).overfitting().set_index("note")
    assert table.loc["Macenko", ["verdict", "not_given"]].tolist() == ["not tested as run", "colours"]
    assert table.loc["Vahadane", "verdict"] == NOT_RUN
    row = table.loc["Macenko"]
    assert row["value"] == pytest.approx(row["test_drop"] + row["train_rise"])
    assert GIVEN["colours"]["changed"] == 1


def test_gates_elsewhere_are_compared_with_none_of_the_same_seed(tmp_path, write_runs):
    write_runs(tmp_path, "primary", {"plain": 0, "se": 0})
    write_runs(tmp_path, "se-placement", {"layer": 3})
    starved = {"gates": {"distance": 0.0, "spread": 0.0, "by_gate": {}}}
    write_runs(tmp_path, "se-placement", {"block": 3}, dose=starved)
    judging = Judge(Study(STUDY, tmp_path))
    table = judging.placements().set_index("note")
    assert table["verdict"].tolist()[1:3] == ["supported here", "not tested as run"]
    assert set(table["verdict"].iloc[3:]) == {NOT_RUN} and len(table) == 7
    pair = judging.of_seeds("se-placement", "layer")[0], judging.of_seeds("primary", "plain")[0]
    expected = differences([pair], "magnification", metrics=["auroc", "patient_auroc"])
    row = table.loc["after every layer"]
    assert (row["value"], row["patient"]) == pytest.approx(tuple(expected["value"]))
    drawn = lines(judging, judging.placements())
    assert drawn["unit"].tolist() == ["points"] * 3 + [""] * 4
    assert drawn["value"].iloc[1] == pytest.approx(100 * row["value"])


def test_networks_are_those_of_a_stage(tmp_path, write_runs):
    write_runs(tmp_path, "primary", {"plain": 0})
    write_runs(tmp_path, "primary", {"plain": 5}, suffix="-after-head")
    judging = Judge(Study(STUDY, tmp_path))
    last, head = (judging.of_seeds("primary", "plain", stage=stage) for stage in ("", "head"))
    assert len(last) == len(head) == 3
    assert all(image_metrics(h)["auroc"] > image_metrics(one)["auroc"] for h, one in zip(head, last, strict=True))


def _as_trained(folder):
    """Call a made run's validation images its training images, on which it is surer."""
    import gzip
    import json

    from histotransfer.records import PREDICTIONS, file_hash

    predictions = pd.read_csv(folder / PREDICTIONS, dtype={"group": str, "patient": str})
    train = predictions["part"] == "validation"
    predictions.loc[train, "logit_malignant"] *= 2
    predictions["part"] = predictions["part"].replace("validation", "train")
    (folder / PREDICTIONS).write_bytes(gzip.compress(predictions.to_csv(index=False).encode()))
    record = json.loads((folder / "record.json").read_text())
    record["artifacts"]["predictions.csv"] = file_hash(folder / PREDICTIONS)
    (folder / "record.json").write_text(json.dumps(record))
