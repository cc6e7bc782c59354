"""What an adapted network is worth by the number of labelled patients: the records of `experiments.adapting`."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from histotransfer.config import Baseline
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import all_metrics, differences, mean_intervals
from histotransfer.evaluation.metrics import metric_name
from histotransfer.records import Run, read_run
from histotransfer.report.tables import patients_of

METRICS = ("accuracy", "balanced_accuracy", "auroc", "log_loss", "patient_accuracy")
BEFORE = "before"

Runs = Mapping[tuple[str, int], Sequence[Run]]
"""(Arm, number of labelled patients) to its runs, one for each draw."""


def read_adapting(folder: str | Path) -> Runs:
    """The runs of an experiment's folder.

    Raises:
        HistotransferError: there are none, the network was not tested before, or a run cannot be read.
    """
    runs = defaultdict(list)
    for record in sorted(Path(folder).glob("*/record.json")):
        run = read_run(record.parent)
        runs[run.record["config"]["arm"], run.record["config"]["labelled"]].append(run)
    if (BEFORE, 0) not in runs:
        raise HistotransferError(f"{folder}: holds no record of `histotransfer experiment adapt`")
    return dict(sorted(runs.items(), key=lambda item: item[0][1]))


def learning_curve(runs: Runs, metrics: Collection[str] = METRICS) -> pd.DataFrame:
    """Each arm's metrics by the number of labelled patients, on the patients that are kept apart.

    Returns:
        Columns `run` (the arm), `labelled`, `metric`, `value` (mean over draws of who is labelled), `low`, `high` (its
        95 % interval, clustered by patient), `least`, `most` (of single draws), `draws`, `images`, `patients`.
    """
    rows = []
    for (arm, labelled), of_draws in runs.items():
        tables = [run.predictions for run in of_draws]
        values = mean_intervals(tables, wanted=metrics)
        single = pd.DataFrame([all_metrics(table, None, metrics) for table in tables], dtype=float)
        about = {"draws": len(tables), "images": len(tables[0]), "patients": patients_of(tables[0])}
        for metric, row in values.iterrows():
            spread = {"least": single[metric].min(), "most": single[metric].max()}
            rows.append({"run": arm, "labelled": labelled, "metric": metric, **row, **spread, **about})
    return pd.DataFrame(rows)


def gained(runs: Runs, metrics: Collection[str] = METRICS) -> pd.DataFrame:
    """Each arm minus the network before it learnt, on the same images, in the form of `learning_curve`.

    `smallest` is the smallest true difference that so few patients would show (`intervals.differences`).
    """
    (before,) = runs[BEFORE, 0]
    wanted, patients = list(all_metrics(before.predictions, None, metrics)), patients_of(before.predictions)
    rows = []
    for (arm, labelled), of_draws in runs.items():
        if arm != BEFORE:
            values = differences([(run.predictions, before.predictions) for run in of_draws], metrics=wanted)
            about = {"draws": len(of_draws), "images": len(before.predictions), "patients": patients}
            rows += [{"run": arm, "labelled": labelled, "metric": m, **row, **about} for m, row in values.iterrows()]
    return pd.DataFrame(rows)


def by_patients(table: pd.DataFrame, metric: str, arms: Sequence[str]) -> pd.DataFrame:
    """One metric as text: a row for each number of labelled patients, a column for each arm.

    At 0 the arms of the network show the network before it learnt; a baseline has nothing to learn from yet.

    The name of the columns gives the metric, the n, and the number of draws.

    Args:
        table: as `learning_curve` or `gained` returns it.
        metric: its name.
        arms: in this order.
    """
    rows = table[table["metric"] == metric]
    text = rows.assign(text=[number(*row) for row in rows[["value", "low", "high"]].to_numpy()])
    wide = text.pivot(index="labelled", columns="run", values="text")
    if BEFORE in wide:
        wide.loc[0, [arm for arm in arms if arm not in get_args(Baseline)]] = wide.loc[0, BEFORE]
    draws = rows["draws"].max()
    about = f"{metric_name(metric)}; {rows['images'].iloc[0]} images, {rows['patients'].iloc[0]}; draws: {draws}"
    return wide[list(arms)].fillna("–").rename_axis(index="labelled", columns=about)
