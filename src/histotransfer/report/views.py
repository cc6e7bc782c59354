"""Over how many views `predict` averages by default: `[views]` of the rule, applied to the runs of views.toml."""

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import differences
from histotransfer.evaluation.metrics import MEAN_OVER
from histotransfer.evaluation.pooling import pool
from histotransfer.report.doses import read_rule
from histotransfer.report.study import Study
from histotransfer.study.plan import planned_runs

EXPERIMENT = "views"
METRICS = ("auroc", "log_loss")


def worth_of_views(study: Study, arm: str, part: str) -> dict[int, pd.DataFrame]:
    """What fewer views change: their metrics minus those of all views, of one network, as `intervals.differences`.

    Args:
        study: plans and records.
        arm: of the plan.
        part: `validation` or `test`, of which each fold gives its own.

    Returns:
        By number of views, ascending.

    Raises:
        NotRunYet: runs of the plan are missing.
    """
    plan = study.plan(EXPERIMENT)
    numbers = next(run.config.record_views for run in planned_runs(plan) if run.arm == arm)

    def networks(views: int) -> list[pd.DataFrame]:
        tables = [
            pool((run.predictions for run in study.runs(EXPERIMENT, arm, seeds=(seed,), views=views)), part)
            for seed in plan.seeds
        ]
        return [table[table["magnification"].isin(MEAN_OVER)] for table in tables]

    whole = networks(0)
    return {
        views: differences(list(zip(networks(views), whole, strict=True)), "magnification", metrics=METRICS)
        for views in sorted(numbers)
    }


def views_averaged(study: Study, augmentation: str) -> int | None:
    """The number that the rule chooses for networks of an augmentation, on validation patients; None: all views.

    Raises:
        HistotransferError: no arm of the plan has that augmentation.
        NotRunYet: runs of the plan are missing.
    """
    planned = planned_runs(study.plan(EXPERIMENT))
    arms = [run.arm for run in planned if run.config.augmentation == augmentation]
    if not arms:
        raise HistotransferError(f"{EXPERIMENT}.toml: no arm has augmentation={augmentation}")
    margin = read_rule(study.study)["rule"]["margin"]
    for views, gaps in worth_of_views(study, arms[0], "validation").items():
        low, high = (gaps[end].fillna(gaps["value"]) for end in ("low", "high"))  # no interval: nothing differs
        if low["auroc"] > -margin and high["log_loss"] < margin:
            return views
    return None
