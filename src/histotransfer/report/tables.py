"""Tables of the book, made from records: the pages take their numbers from nowhere else."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import (
    differences,
    intervals,
    limits_of,
    limits_of_gaps,
    mean_gaps,
    mean_intervals,
)
from histotransfer.evaluation.metrics import ALL, MEAN, class_names, metric_name, scopes
from histotransfer.evaluation.pooling import aligned
from histotransfer.evaluation.within_folds import WithinFolds
from histotransfer.records import Run, read_run


def read_experiment(folder: str | Path, runs: Sequence[str]) -> dict[str, Run]:
    """The named runs of an experiment's folder.

    Raises:
        HistotransferError: a run is missing or damaged, or the runs were not evaluated on the same images.
    """
    read = {name: read_run(Path(folder) / name) for name in runs}
    images = {name: tuple(run.predictions[["image", "part"]].itertuples(index=False)) for name, run in read.items()}
    if len(set(images.values())) > 1:
        raise HistotransferError(f"{folder}: {', '.join(runs)} were not evaluated on the same images; run them again")
    return read


def with_intervals(runs: Mapping[str, Run], part: str = "test") -> pd.DataFrame:
    """Every metric of every run, per magnification, with patient-clustered intervals, in long form.

    Returns:
        Columns `run, magnification, metric, value, low, high, images, patients, classes`; `magnification` is a scope of
        `metrics.scopes`; `patients` counts groups of each of the `classes`, as `10 + 32`.

    Raises:
        HistotransferError: a run has no predictions of that part.
    """
    rows = []
    for name, run in runs.items():
        for magnification, predictions, by in scopes(_of_part(run, part)):
            rows += _rows(name, magnification, predictions, intervals(predictions, by))
    return pd.DataFrame(rows)


def of_single_networks(
    name: str, tables: Sequence[pd.DataFrame], metrics: Collection[str] | None = None
) -> pd.DataFrame:
    """The mean over several networks of each network's metrics, in the form of `with_intervals`.

    Args:
        name: the `run` of the rows.
        tables: each network's predictions of the same images.
        metrics: their names; None: all.
    """
    rows = []
    for of_scope in zip(*map(scopes, aligned(tables)), strict=True):
        magnification, predictions, by = of_scope[0]
        values = mean_intervals([own for _, own, _ in of_scope], by, wanted=metrics)
        rows += _rows(name, magnification, predictions, values)
    return pd.DataFrame(rows)


def gap(reference: Run, other: Run, part: str = "test", *, metrics: Collection[str] | None = None) -> pd.DataFrame:
    """Metrics of `other` minus those of `reference` on the same images, in the form of `with_intervals`.

    It has one more column, `smallest`, from `intervals.differences`, to which `metrics` is passed.

    Raises:
        HistotransferError: a run has no predictions of that part, or the two are not of the same images.
    """
    name = f"{other.folder.name} minus {reference.folder.name}"
    tables = (scopes(_of_part(run, part)) for run in (reference, other))
    rows = []
    for (magnification, theirs, by), (_, ours, _) in zip(*tables, strict=True):
        rows += _rows(name, magnification, ours, differences([(ours, theirs)], by, metrics=metrics))
    return pd.DataFrame(rows)


def within_folds(arms: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """AUROC of pairs that one network scored (`WithinFolds`), in the form of `with_intervals`.

    Its metrics are `auroc_within_folds` and `patient_auroc_within_folds`.

    Args:
        arms: all runs of each arm, every fold and seed, by the arm's name.

    Raises:
        HistotransferError: an arm has no predictions of the test part.
    """
    rows = []
    for name, runs in arms.items():
        for magnification, predictions, by in scopes(_every_test(runs)):
            arm = WithinFolds(predictions, by)
            rows += _rows_within(name, magnification, predictions, limits_of(arm.value, arm))
    return pd.DataFrame(rows)


def gap_within_folds(pairs: Sequence[tuple[Sequence[Run], Sequence[Run]]], name: str) -> pd.DataFrame:
    """`within_folds` of one arm minus that of another, in the form of `gap`; over several pairs the mean.

    Args:
        pairs: all runs of an arm, and all runs of the arm that is subtracted.
        name: the `run` of the rows.

    Raises:
        HistotransferError: an arm has no predictions of the test part, or the arms were not tested on the same images
            in the same folds and seeds.
    """
    same = ["seed", "fold", "image"]
    arms = [_every_test(runs).sort_values(same, ignore_index=True) for pair in pairs for runs in pair]
    if not all(arm[same].equals(arms[0][same]) for arm in arms):
        raise HistotransferError(f"{name}: the arms were not tested on the same images in the same folds and seeds")
    rows = []
    for tables in zip(*map(scopes, arms), strict=True):
        magnification, predictions, _ = tables[0]
        scored = [WithinFolds(tested, by) for _, tested, by in tables]
        scored_pairs = list(zip(scored[::2], scored[1::2], strict=True))
        gaps = mean_gaps([(one.value, other.value) for one, other in scored_pairs])
        rows += _rows_within(name, magnification, predictions, limits_of_gaps(gaps, scored_pairs))
    return pd.DataFrame(rows)


def _every_test(runs: Sequence[Run]) -> pd.DataFrame:
    return pd.concat([_of_part(run, "test") for run in runs], ignore_index=True)


def _rows_within(name: str, magnification: str, predictions: pd.DataFrame, values: pd.DataFrame) -> list[dict]:
    return _rows(name, magnification, predictions.drop_duplicates("image"), values.add_suffix("_within_folds", axis=0))


def without(run: Run, groups: Collection[str]) -> Run:
    """A run without the predictions of some strict patients."""
    kept = run.predictions[~run.predictions["group"].isin(groups)]
    return replace(run, predictions=kept.reset_index(drop=True))


def _of_part(run: Run, part: str) -> pd.DataFrame:
    predictions = run.predictions[run.predictions["part"] == part]
    if predictions.empty:
        raise HistotransferError(f"{run.folder}: holds no predictions of the {part} part")
    return predictions


def _rows(name: str, magnification: str, predictions: pd.DataFrame, values: pd.DataFrame) -> list[dict]:
    about = {
        "images": len(predictions),
        "patients": patients_of(predictions),
        "classes": " + ".join(class_names(predictions)),
    }
    return [
        {"run": name, "magnification": magnification, "metric": metric, **row, **about}
        for metric, row in values.iterrows()
    ]


def patients_of(predictions: pd.DataFrame) -> str:
    """Number of strict patients of each class in the order of the logits (without any, of names), as `10 + 32`."""
    groups = predictions.groupby("truth")["group"].nunique()
    return " + ".join(str(groups.get(name, 0)) for name in class_names(predictions) or groups.index)


def formatted(
    table: pd.DataFrame, metrics: Sequence[str], *, smallest: str | None = None, unit: str = "patients"
) -> pd.DataFrame:
    """A long table as text: one row per magnification and run, `0.84 [0.77, 0.90]` per metric, n at the end.

    If there is only one run, its name is left out; the name of a difference becomes the name of the columns. So does
    the magnification if several runs have only one. If the table has `coverage`, the percentage follows the interval:
    how often such intervals contained the truth where that was measured (`report.coverage`).

    Args:
        table: as `with_intervals` or `gap` returns it.
        metrics: those to show, in this order.
        smallest: the metric of a difference whose `smallest` is shown last.
        unit: plural name of the units that the intervals resample or leave out; it heads the column of their number.
    """
    text = table[table["metric"].isin(metrics)].copy()
    coverage = text.get("coverage", pd.Series(np.nan, text.index))
    text["text"] = [number(*row) for row in zip(text["value"], text["low"], text["high"], coverage, strict=True)]
    rows = ["magnification", "run"]
    wide = text.pivot(index=rows, columns="metric", values="text")[list(metrics)].rename(columns=metric_name)
    about = text.drop_duplicates(rows).set_index(rows)
    wide["images"] = about["images"]
    wide[f"{unit} ({about['classes'].iloc[0]})"] = about["patients"]
    if smallest is not None:
        smallest_of = table[table["metric"] == smallest].set_index(rows)["smallest"].reindex(wide.index)
        wide[f"smallest {metric_name(smallest)}"] = [number(value, np.nan, np.nan) for value in smallest_of]
    order = {name: i for i, name in enumerate(["40", "100", "200", "400", MEAN, ALL])}
    runs = list(dict.fromkeys(table["run"]))
    wide = wide.sort_index(
        key=lambda index: index.map(lambda name: order.get(name, runs.index(name) if name in runs else 0))
    )
    at = wide.index.unique("magnification")
    if len(runs) == 1:
        return wide.droplevel("run").rename_axis(columns=runs[0] if " minus " in runs[0] else None)
    if len(at) == 1:
        return wide.droplevel("magnification").rename_axis(columns=at[0])
    return wide.rename_axis(columns=None)


def side_by_side(tables: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> pd.DataFrame:
    """Tables of `evaluation.intervals` as text: one row per table, `0.84 [0.77, 0.90]` per metric.

    Args:
        tables: by their names; each has one row per metric: `value`, `low`, `high`.
        metrics: those to show, in this order.
    """
    return pd.DataFrame(
        {
            name: {metric_name(metric): number(*table.loc[metric, ["value", "low", "high"]]) for metric in metrics}
            for name, table in tables.items()
        }
    ).T
