"""N3: tissue of another laboratory, as predicted by one network of an arm; nothing was tuned on it."""

import contextlib
from collections.abc import Collection, Sequence

import pandas as pd

from histotransfer.evaluation.intervals import differences
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import of_single_networks

PART = "ucsb"


def networks(study: Study, experiment: str, arm: str) -> list[pd.DataFrame]:
    """Every network's predictions of UCSB, in the order of folds and seeds.

    Raises:
        NotRunYet: runs of the plan are missing.
    """
    return [run.predictions[run.predictions["part"] == PART] for run in study.runs(experiment, arm)]


def outside(study: Study, arms: Sequence[tuple[str, str]], metrics: Collection[str]) -> pd.DataFrame:
    """UCSB by one network of each arm: the mean over its networks of each network's metrics.

    Args:
        study: plans and records.
        arms: experiment and arm; those that are not run yet are left out.
        metrics: their names.

    Returns:
        As `tables.of_single_networks`; its patients are slides, some of which have images of both classes.

    Raises:
        NotRunYet: none of them is run yet.
    """
    tables = []
    for experiment, arm in arms:
        with contextlib.suppress(NotRunYet):
            tables.append(of_single_networks(f"{experiment}: {arm}", networks(study, experiment, arm), metrics))
    if not tables:
        raise NotRunYet(f"no arm of {', '.join(f'{plan}: {arm}' for plan, arm in arms)} is run yet")
    return pd.concat(tables, ignore_index=True)


def gaps(
    study: Study, experiment: str, reference: str, arms: Sequence[str], metrics: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """UCSB by one network of each arm minus one of the reference, of the same fold and seed.

    Returns:
        By arm, as `intervals.differences`.

    Raises:
        NotRunYet: runs of the plan are missing.
    """
    base = networks(study, experiment, reference)
    return {
        arm: differences(list(zip(networks(study, experiment, arm), base, strict=True)), metrics=metrics)
        for arm in arms
    }
