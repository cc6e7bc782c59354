import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import differences, intervals, smallest_distance
from histotransfer.evaluation.metrics import MEAN_OVER, image_metrics
from histotransfer.evaluation.within_folds import WithinFolds
from histotransfer.records import read_run
from histotransfer.report.rehearsal import rehearsal
from histotransfer.report.study import NotRunYet, Study, read_claims
from histotransfer.report.tables import gap
from histotransfer.report.verdicts import (
    EXPLORATORY,
    NOT_RUN,
    PRIMARY,
    by_seed,
    differences_within_folds,
    external,
    judge_accuracy,
    judge_convergence,
    judge_differences,
    judge_overfitting,
)
from histotransfer.study.plan import planned_runs, read_plan

STUDY = Path(__file__).parents[2] / "study"
MAGNIFICATIONS = (40, 100, 200, 400)


@pytest.fixture(scope="module")
def results(tmp_path_factory, write_arms):
    folder = tmp_path_factory.mktemp("results")
    write_arms(folder, "primary", {"se": 2, "se-lung": 2, "plain-lung": -0.5, "plain": 0}, patients=30)
    return folder


@pytest.fixture(scope="module")
def judged(results):
    return judge_differences(Study(STUDY, results), PRIMARY, correct=True)


def test_every_comparison_is_a_claim_with_arms_that_are_planned():
    claims = read_claims(STUDY)
    for comparison in (*PRIMARY, *EXPLORATORY):
        claim = claims[comparison.claim]
        assert comparison.experiment in claim["experiments"]
        assert "threshold" in claim
        assert comparison.metric == ("accuracy" if "accuracy" in claim["metric"] else "auroc")
        arms = read_plan(STUDY / f"{comparison.experiment}.toml").arms
        assert {arm for pair in comparison.pairs for arm in pair} <= set(arms)


def test_verdicts_are_those_of_the_intervals(results, judged):
    study, table = Study(STUDY, results), judged
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


def test_a_family_keeps_its_size_while_some_of_it_is_not_run(judged):
    p = judged["p"].dropna().sort_values()
    assert len(p) == 3
    assert judged.loc[p.index[0], "p_holm"] == pytest.approx(min(1, 4 * p.iloc[0]))


def test_a_claim_within_folds_is_the_mean_of_its_pairs(results):
    study = Study(STUDY, results)
    found = differences_within_folds(study, PRIMARY).query("magnification == 'mean'").set_index(["run", "metric"])
    assert found.index.unique("run").tolist() == ["C2", "C3a", "C4b"]  # C3b is not run
    value = {}
    for arm in ("plain", "se", "plain-lung", "se-lung"):
        tables = pd.concat([run.predictions for run in study.runs("primary", arm)], ignore_index=True)
        own = tables[tables["magnification"] != 400].reset_index(drop=True)
        value[arm] = WithinFolds(own, "magnification").value["auroc"]
    expected = (value["se"] - value["plain"] + value["se-lung"] - value["plain-lung"]) / 2
    assert found.loc[("C2", "auroc_within_folds"), "value"] == pytest.approx(expected)
    with pytest.raises(NotRunYet, match="none of C3b"):
        differences_within_folds(study, [own for own in PRIMARY if own.claim == "C3b"])


def test_accuracy_is_judged_at_each_magnification(results):
    table = judge_accuracy(Study(STUDY, results))
    assert table.index.tolist() == ["40", "100", "200", "400"]
    assert (table["images"] == 60).all()
    assert (table["larger_class"] == 0.5).all()
    assert table["value"].between(table["low"], table["high"]).all()
    own = Study(STUDY, results).predictions("primary", "se-lung").query("magnification == 40")
    assert table.loc["40", "smallest"] == pytest.approx(smallest_distance(own, "accuracy"), nan_ok=True)
    for row in table.itertuples():
        expected = "supported here" if row.low >= 0.84 else "contradicted here" if row.high < 0.84 else "undecided"
        assert row.verdict == expected


def test_each_seed_alone_is_told_apart(results):
    study = Study(STUDY, results)
    table = by_seed(study, PRIMARY)
    assert table.index.tolist() == ["C1 at 40x", "C1 at 100x", "C1 at 200x", "C1 at 400x", "C2", "C3a", "C4b"]
    assert table.columns.tolist() == ["seed 0", "seed 1", "seed 2"]
    own = study.predictions("primary", "se-lung", seeds=(1,))
    own = own[own["magnification"] == 40]
    assert table.loc["C1 at 40x", "seed 1"] == image_metrics(own)["accuracy"]
    tables = {arm: study.predictions("primary", arm, seeds=(2,)) for arm in ("se-lung", "plain")}
    tables = {arm: own[own["magnification"] != 400] for arm, own in tables.items()}
    expected = differences([(tables["se-lung"], tables["plain"])], "magnification").loc["accuracy", "value"]
    assert table.loc["C4b", "seed 2"] == pytest.approx(expected)


def test_overfitting_is_the_gap_of_the_same_images_seen_and_unseen(tmp_path, make_predictions, write_made_run):
    """Arms that differ in how sure they are of their training images only: the gaps are worked out by hand.

    One patient validates whenever not tested, and so has no image that was trained on. Every fold's network is as sure
    as it is, so that the loss of their mean logits would be another number.
    """
    sure = {"none": 3.0, "macenko": 1.0}
    whole = make_predictions(patients=30, images=8, magnifications=MAGNIFICATIONS, seed=3)
    of_fold, never = whole["group"].str.removeprefix("14-").astype(int) % 5, whole["group"].iloc[0]
    seen_by = {}
    for run in planned_runs(read_plan(STUDY / "colour.toml")):
        if run.arm in sure:
            fold = run.config.fold
            test = whole[of_fold == fold]
            train = whole[(of_fold != fold) & (whole["group"] != never)].assign(part="train", logit_benign=0.0)
            level = sure[run.arm] + fold
            train["logit_malignant"] = level * (train["truth"] == "malignant").map({True: 1, False: -1})
            seen_by.setdefault(run.arm, []).append(train.assign(loss=np.log1p(np.exp(-level))))
            table = pd.concat([test, train], ignore_index=True).assign(fold=fold, seed=run.config.seed)
            write_made_run(tmp_path / "colour" / run.name, predictions=table)
    study = Study(STUDY, tmp_path)
    row = judge_overfitting(study).loc["Macenko"]
    loss = {arm: pd.concat(own).query("magnification != 400")["loss"] for arm, own in seen_by.items()}
    assert row["value"] == pytest.approx(loss["macenko"].mean() - loss["none"].mean(), abs=1e-5)
    assert row["train_rise"] == pytest.approx(row["value"], abs=1e-9)  # on test images the arms say the same
    assert row["train_rise_low"] <= row["train_rise"] <= row["train_rise_high"]
    assert row["auroc_gain"] == row["test_drop"] == 0
    assert row["gain_images"] == (whole["magnification"] != 400).sum()
    used = whole[(whole["magnification"] != 400) & (whole["group"] != never)]
    assert row["images"] == len(used)
    assert judge_overfitting(study).loc["Vahadane", "verdict"] == NOT_RUN


def test_convergence_is_counted_from_a_level_of_the_runs_from_scratch(tmp_path, make_predictions, write_made_run):
    """Losses that fall by a fixed step an epoch: when they pass a level can be said without running anything."""
    speed = {"scratch": 0.01, "imagenet": 0.03, "lung-only": 0.01, "whole": 0.02}
    parts = {"train": 80, "validation": 20, "test": 20}
    both = make_predictions(patients=4, part="validation")
    malignant = both[both["truth"] == "malignant"].reset_index(drop=True)
    for run in planned_runs(read_plan(STUDY / "scratch.toml")):
        if run.arm in speed:
            losses = 0.7 - speed[run.arm] * np.arange(20)
            history = pd.DataFrame({"dataset": "breakhis", "stage": "all", "validation_log_loss": losses})
            record = {"experiment": "scratch", "run": run.name, "profile": "lite", "config": {}, "data": {}, "seed": 0}
            record |= {"split": {"parts": parts}, "metrics": {}}
            predictions = malignant if run.config.fold < 2 else both
            folder = tmp_path / "scratch" / run.name
            write_made_run(folder, history=history, predictions=predictions, record=record)
    table = judge_convergence(Study(STUDY, tmp_path))
    # The three-epoch mean falls from 0.69 (epoch 3) to 0.52 (epoch 20): three quarters of the way is 0.5625.
    assert table["level"].unique() == pytest.approx([0.5625])
    assert table["epochs"].to_dict() == {"scratch": 16, "imagenet": 7, "lung-only": 16, "whole": 9}
    assert table.loc["imagenet", ["value", "low", "high"]].tolist() == [9, 9, 9]
    assert table["verdict"].tolist()[1:] == ["supported here", "undecided", "supported here"]
    assert (table["passed"] == table["runs"]).all()
    assert (table["one_class"] == 2).all()


def test_the_external_set_is_seen_by_all_networks_of_an_arm_together(tmp_path, make_predictions, write_made_run):
    inside, outside = (
        make_predictions(patients=4),
        make_predictions(patients=8, magnifications=(0,), part="ucsb", seed=1),
    )
    for run in planned_runs(read_plan(STUDY / "primary.toml")):
        if run.arm == "se":
            moved = outside["logit_malignant"] + 30 * (run.config.fold - 2)  # the mean over folds is where it was
            table = pd.concat([inside, outside.assign(logit_malignant=moved)], ignore_index=True)
            write_made_run(tmp_path / "primary" / run.name, predictions=table.assign(seed=run.config.seed))
    study = Study(STUDY, tmp_path)
    table = external(study, [("primary", "se"), ("primary", "plain")])
    assert set(table["run"]) == {"primary: se"} and set(table["images"]) == {40}
    expected = intervals(outside).loc["auroc"]
    found = table[table["metric"] == "auroc"].iloc[0]
    assert found[["value", "low", "high"]].tolist() == pytest.approx(expected.tolist())


def test_a_split_by_image_is_compared_within_each_magnification(tmp_path, write_arms):
    arms = {f"{name}-{at}": shift * at / 100 for name, shift in (("patient", 0), ("image", 2)) for at in MEAN_OVER}
    write_arms(tmp_path, "leakage-trained", arms)
    study = Study(STUDY, tmp_path)
    leaking = study.within("leakage-trained", "image")
    assert leaking.predictions["image"].is_unique
    assert set(leaking.predictions["magnification"]) == set(MEAN_OVER)
    for at in MEAN_OVER:
        own = study.predictions("leakage-trained", f"image-{at}")
        expected = image_metrics(own[own["magnification"] == at])["auroc"]
        found = leaking.predictions[leaking.predictions["magnification"] == at]
        assert image_metrics(found)["auroc"] == expected
    flattered = gap(study.within("leakage-trained", "patient"), leaking).set_index(["magnification", "metric"])
    assert flattered.loc[("mean", "auroc"), "low"] > 0


def test_gaps_are_of_the_arms_that_are_run(results):
    study = Study(STUDY, results)
    plain = study.pooled("primary", "plain", seeds=[1])
    arms = [("se-placement", "layer"), ("primary", "se"), ("primary", "se-lung")]
    found = study.gaps(plain, arms, seeds=[1], metrics=["auroc"])
    pooled = [study.pooled("primary", arm, seeds=[1]) for arm in ("se", "se-lung")]
    expected = pd.concat([gap(plain, run, metrics=["auroc"]) for run in pooled], ignore_index=True)
    assert found.equals(expected)
    with pytest.raises(NotRunYet, match=r"^none of layer is run yet"):
        study.gaps(plain, arms[:1])


def test_a_damaged_record_is_not_taken_for_one_that_is_missing(results, tmp_path):
    shutil.copytree(results / "primary", tmp_path / "primary")
    (tmp_path / "primary" / "se-s0-f0" / "record.json").write_text("{")
    with pytest.raises(HistotransferError) as error:
        judge_differences(Study(STUDY, tmp_path), PRIMARY)
    assert not isinstance(error.value, NotRunYet) and "se-s0-f0" in str(error.value)


def test_histories_of_an_arm_tell_its_runs_apart_and_hold_the_source_task_once_a_seed():
    study = Study(STUDY, STUDY.parent / "results")
    history = study.history("primary", "se-lung")
    assert history.groupby("dataset")["seed"].nunique().to_dict() == {"breakhis": 15, "lc25000": 3}
    last = history[history["dataset"] == "breakhis"].groupby("seed").get_group("se-lung-s1-f3").reset_index(drop=True)
    recorded = read_run(STUDY.parent / "results/primary/se-lung-s1-f3").history
    assert last.drop(columns="seed").equals(recorded[recorded["dataset"] == "breakhis"].reset_index(drop=True))
    assert study.history("primary", "plain").groupby("dataset")["seed"].nunique().to_dict() == {"breakhis": 15}


def test_folds_that_overlap_are_not_averaged(tmp_path, make_predictions, write_made_run):
    table = make_predictions(patients=10, images=4, magnifications=MAGNIFICATIONS)
    for run in planned_runs(read_plan(STUDY / "leakage-trained.toml")):
        if run.arm == "official":
            own = table[table["group"].str.removeprefix("14-").astype(int) % 5 != run.config.fold]
            both = pd.concat([own, own.head(4).assign(part="validation")], ignore_index=True)
            write_made_run(tmp_path / "leakage-trained" / run.name, predictions=both.assign(fold=run.config.fold))
    study = Study(STUDY, tmp_path)
    found = study.each("leakage-trained", "official").predictions
    assert (found["image"].value_counts() == 4).all()  # five folds, each image left out of one
    with pytest.raises(HistotransferError, match="more than once tested"):
        study.predictions("leakage-trained", "official")


def test_a_rehearsal_is_ordered_by_validation_patients(tmp_path, write_arms):
    assert all(run.config.rehearsal for run in planned_runs(read_plan(STUDY / "rehearsal.toml")))
    write_arms(tmp_path, "rehearsal", {"base": 0, "mixup": 1, "decay": -1}, part="validation")
    table = rehearsal(Study(STUDY, tmp_path))
    assert table.index.tolist() == ["mixup", "base", "decay"]
    assert table["changes"].tolist() == ["mixup: 0.4", "–", "weight_decay: 0.1"]
    np.testing.assert_allclose(table["minus_base"], table["auroc"] - table.loc["base", "auroc"])
    assert table.loc["mixup", "low"] > 0 > table.loc["decay", "high"]
    assert pd.isna(table.loc["base", "low"])


def test_an_unfinished_experiment_has_no_verdict_and_says_how_to_finish(tmp_path, results):
    study = Study(STUDY, tmp_path)
    assert set(judge_differences(study, PRIMARY, correct=True)["verdict"]) == {NOT_RUN}
    assert judge_accuracy(study)["verdict"].tolist() == [NOT_RUN]
    with pytest.raises(HistotransferError, match=r"^primary, arm se: 15 of 15 runs are not there yet; `histotransfer"):
        study.predictions("primary", "se")
    with pytest.raises(HistotransferError, match=r"^primary, arm nobody: 0 of 0 runs"):
        study.predictions("primary", "nobody")


def test_a_changed_record_changes_the_number(results, judged, tmp_path, write_arms):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    write_arms(tmp_path, "primary", {"se": -4}, patients=30)
    changed, before = judge_differences(Study(STUDY, tmp_path), PRIMARY).loc["C2"], judged.loc["C2"]
    assert changed["value"] < before["value"] - 0.1
    assert changed["verdict"] != before["verdict"] == "supported here"


def test_a_folder_without_claims_is_one_line(tmp_path):
    with pytest.raises(HistotransferError, match=r"claims\.toml: not the file of claims"):
        read_claims(tmp_path)
