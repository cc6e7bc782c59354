import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation.intervals import differences, mean_intervals
from histotransfer.report.external import gaps, networks, outside
from histotransfer.report.study import NotRunYet, Study
from histotransfer.study.plan import planned_runs, read_plan

from .conftest import STUDY

ARMS = {"plain": 0.0, "se": 0.5}


@pytest.fixture
def study(tmp_path, make_predictions, write_made_run):
    """Two arms of the primary experiment, each of whose networks scores the slides in its own way."""
    inside, slides = (
        make_predictions(patients=4),
        make_predictions(patients=8, magnifications=(0,), part="ucsb", seed=1),
    )
    for number, run in enumerate(planned_runs(read_plan(STUDY / "primary.toml"))):
        if run.arm in ARMS:
            noise = np.random.default_rng(number).normal(size=len(slides))
            sign = (slides["truth"] == "malignant").map({True: 1, False: -1})
            moved = slides.assign(logit_malignant=slides["logit_malignant"] + noise + ARMS[run.arm] * sign)
            table = pd.concat([inside, moved], ignore_index=True)
            write_made_run(tmp_path / "primary" / run.name, predictions=table)
    return Study(STUDY, tmp_path)


def test_the_external_set_is_judged_one_network_at_a_time(study):
    tables = networks(study, "primary", "se")
    assert len(tables) == 15 and all(set(table["part"]) == {"ucsb"} for table in tables)
    table = outside(study, [("primary", "se"), ("colour", "none")], ["auroc", "accuracy"])
    assert set(table["run"]) == {"primary: se"} and set(table["images"]) == {40}
    expected = mean_intervals(tables, wanted=["auroc"]).loc["auroc"]
    found = table[(table["metric"] == "auroc") & (table["magnification"] == "all")].iloc[0]
    assert found[["value", "low", "high"]].tolist() == pytest.approx(expected.tolist())
    with pytest.raises(NotRunYet, match="no arm of colour: none, colour: macenko is run yet"):
        outside(study, [("colour", "none"), ("colour", "macenko")], ["auroc"])


def test_a_difference_is_that_of_networks_of_the_same_fold_and_seed(study):
    (table,) = gaps(study, "primary", "plain", ["se"], ["auroc"]).values()
    pairs = list(zip(networks(study, "primary", "se"), networks(study, "primary", "plain"), strict=True))
    pd.testing.assert_frame_equal(table, differences(pairs, metrics=["auroc"]))
    assert table.loc["auroc", "value"] > 0
    with pytest.raises(NotRunYet):
        gaps(study, "colour", "none", ["macenko"], ["auroc"])
