"""Simulated runs of the study's plans: predictions, and doses as a record holds them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation import comparisons, intervals
from histotransfer.study.plan import planned_runs, read_plan

STUDY = Path(__file__).parents[2] / "study"
FEW = 200
GIVEN = {
    "training_log_loss": 0.01,
    "moved": {"block3": 0.09, "block4": 0.25},
    "views": {"drawn": 3.9, "of": 4},
    "gates": {"distance": 0.3, "spread": 0.03, "by_gate": {}},
    "source": {"accuracy": 0.96, "cka": 0.5, "moved": {}},
    "colours": {"changed": 1.0, "distance": 9.0},
}


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """What is tested here is which number goes where; how good the draws make it, `tests/evaluation` says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "DRAWS", FEW)
        patch.setattr(comparisons, "PERMUTATIONS", FEW)
        yield


@pytest.fixture(scope="session")
def write_runs(make_predictions, write_made_run):
    """Write every run of some arms of a plan; an arm's logits for the true class are raised by its shift.

    `dose` replaces parts of `GIVEN`. With `both` a run predicts its validation fold too. Each run has noise of its own,
    so that networks differ; `spoiled` names the only part that has it. `suffix` is of the runs' names.
    """

    def write(
        results, experiment, shifts, *, dose=None, patients=20, both=False, noise=0.3, suffix="", spoiled=""
    ) -> None:
        table = make_predictions(patients=patients, images=8, magnifications=(40, 100, 200, 400), seed=3)
        fold = table["group"].str.removeprefix("14-").astype(int) % 5
        sign = (table["truth"] == "malignant").map({True: 1, False: -1})
        for number, run in enumerate(planned_runs(read_plan(STUDY / f"{experiment}.toml"))):
            if run.arm not in shifts:
                continue
            config = run.config
            own = np.random.default_rng(number).normal(scale=noise, size=len(table))
            predicted = table.assign(
                logit_malignant=table["logit_malignant"] + shifts[run.arm] * sign + own,
                fold=config.fold,
                seed=config.seed,
            )
            parts = {"test": config.fold, "validation": (config.fold + config.validation_offset) % 5}
            rows = [predicted[fold == of].assign(part=part) for part, of in parts.items() if both or part == "test"]
            if spoiled:
                for part in rows:
                    exact = part["logit_malignant"] - own[part.index]
                    part["logit_malignant"] = part["logit_malignant"].where(part["part"] == spoiled, exact)
            record = {
                "experiment": experiment,
                "run": f"{run.name}{suffix}",
                "profile": "lite",
                "config": config.model_dump(mode="json", exclude={"weights"}),
                "data": {"name": "breakhis"},
                "split": {"kind": "patient", "parts": {}},
                "seed": config.seed,
                "dose": {**GIVEN, **(dose or {})},
                "metrics": {},
            }
            whole = pd.concat(rows, ignore_index=True)
            write_made_run(results / experiment / f"{run.name}{suffix}", predictions=whole, record=record)

    return write
