"""Simulated results of the study's plans, judged with fewer redraws of the patients than the study's own."""

from pathlib import Path

import pytest

from histotransfer.evaluation import comparisons, intervals
from histotransfer.study.plan import planned_runs, read_plan

STUDY = Path(__file__).parents[2] / "study"
FEW = 200


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """What is tested here is which number goes where; how good the draws make it, `tests/evaluation` says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "DRAWS", FEW)
        patch.setattr(comparisons, "PERMUTATIONS", FEW)
        yield


@pytest.fixture(scope="session")
def write_arms(make_predictions, write_made_run):
    """Write every run of some arms of a plan; an arm's logits for the true class are raised by its shift."""

    def write(results, experiment, shifts, patients=20, part="test") -> None:
        table = make_predictions(patients=patients, images=8, magnifications=(40, 100, 200, 400), seed=3, part=part)
        fold = table["group"].str.removeprefix("14-").astype(int) % 5
        sign = (table["truth"] == "malignant").map({True: 1, False: -1})
        for run in planned_runs(read_plan(STUDY / f"{experiment}.toml")):
            if run.arm in shifts:
                logits = table["logit_malignant"] + shifts[run.arm] * sign
                own = table.assign(logit_malignant=logits, fold=run.config.fold, seed=run.config.seed)
                if part == "test":
                    own = own[fold == run.config.fold].reset_index(drop=True)
                write_made_run(results / experiment / run.name, predictions=own)

    return write
