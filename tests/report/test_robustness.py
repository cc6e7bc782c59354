import numpy as np
import pytest

from histotransfer.evaluation.comparisons import CONTRADICTED, NO_EFFECT, SUPPORTED, UNDECIDED, judge
from histotransfer.evaluation.intervals import all_metrics
from histotransfer.report.robustness import METRICS, against_bar, by_folds, by_level, by_seed
from histotransfer.report.study import Study, if_run
from histotransfer.report.tables import gap_within_folds
from histotransfer.report.verdicts import Judge

from .conftest import STUDY

SHIFTS = {"plain": 0, "se": 0.5, "plain-lung": 0, "se-lung": 1, "se-standard": 0.2, "frozen-probe": -0.5}


@pytest.fixture(scope="module")
def judging(tmp_path_factory, write_runs):
    folder = tmp_path_factory.mktemp("results")
    write_runs(folder, "primary", SHIFTS)
    return Judge(Study(STUDY, folder))


def alone(judging, arm, metric, magnifications=(40, 100, 200)):
    tables = judging.of_seeds("primary", arm, magnifications)
    return np.array([all_metrics(table, "magnification", [metric])[metric] for table in tables])


def test_the_bar_is_one_probe_and_each_arm_is_one_network_minus_it(judging):
    table = against_bar(judging)
    assert table.shape == (1 + 5, len(METRICS)) and table.columns[0] == "AUROC"
    probe = alone(judging, "frozen-probe", "auroc").mean()
    assert table.loc["frozen-probe, itself", "AUROC"].startswith(f"{probe:.2f} [")
    gain = alone(judging, "se-lung", "accuracy").mean() - alone(judging, "frozen-probe", "accuracy").mean()
    assert gain > 0.05 and table.loc["se-lung minus it", "accuracy"].startswith(f"{gain:.2f} [")


def test_each_seed_alone_gives_what_its_own_runs_give(judging):
    table = by_seed(judging)
    assert list(table.columns) == ["seed 0", "seed 1", "seed 2"]
    assert table.index.tolist() == [
        "C1 at 40x", "C1 at 100x", "C1 at 200x", "C1 at 400x",
        "C2", "C3a", "C4b", "C2, gates as the SE paper starts them",
    ]  # fmt: skip
    expected = alone(judging, "se-lung", "accuracy") - alone(judging, "plain", "accuracy")
    assert table.loc["C4b"].tolist() == pytest.approx(expected.tolist())
    assert table.loc["C1 at 400x"].tolist() == pytest.approx(alone(judging, "se-lung", "accuracy", (400,)).tolist())


def test_within_folds_each_claim_of_auroc_has_its_mean(judging):
    table = by_folds(judging)
    assert "C4b" not in table.index and set(table["verdict"]) <= {SUPPORTED, CONTRADICTED, NO_EFFECT, UNDECIDED}
    arms = ("plain-lung", "plain"), ("se-lung", "se")
    pairs = [tuple(judging.study.runs("primary", arm) for arm in pair) for pair in arms]
    expected = gap_within_folds(pairs, "C3a").query("magnification == 'mean'").set_index("metric")
    for unit, metric in (("image", "auroc_within_folds"), ("patient", "patient_auroc_within_folds")):
        low, high = expected.loc[metric, ["low", "high"]]
        assert f"[{low:.3f}, {high:.3f}]" in table.loc["C3a", f"by {unit}"]
        assert table.loc["C3a", f"by {unit}, then"] == judge(low, high, 0.0, 0.02)


def test_each_level_has_its_row_and_each_arm_and_part_its_column(judging, monkeypatch):
    convergence = Judge(judging.study).convergence

    def made(self, share):
        rows = convergence(share).drop(columns=["id"])
        return rows.loc[[0] * 4].assign(
            id="C5", arm=["imagenet", "imagenet", "whole", "whole"], part=["validation", "train"] * 2,
            value=10 * share, low=1.0, high=9.0, share=share,
        )  # fmt: skip

    monkeypatch.setattr(Judge, "convergence", made)
    table = by_level(judging)
    assert table.index.tolist() == [0.5, 0.6, 0.7, 0.75, 0.8, 0.9]
    assert list(table.columns) == ["imagenet, validation", "imagenet, training", "whole, validation", "whole, training"]
    assert (table.loc[0.5] == "5.00 [1.00,\N{NO-BREAK SPACE}9.00]").all()


def test_what_is_not_run_yet_says_so(tmp_path):
    nothing = Judge(Study(STUDY, tmp_path))
    assert by_level(nothing)["verdict"].tolist() == ["not run yet"]
    table = if_run(lambda: by_seed(nothing))
    assert table.columns.tolist() == ["not run yet"] and "primary, arm se-lung" in table.iloc[0, 0]
