"""Tables of the book, drawn from records: no number reaches a page any other way."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import differences, intervals
from histotransfer.evaluation.metrics import by_magnification, class_names
from histotransfer.study.records import Run, read_run


def read_experiment(folder: str | Path, runs: Sequence[str]) -> dict[str, Run]:
    """The named runs of an experiment's folder.

    Raises:
        HistotransferError: one is missing or damaged, or they were not evaluated on the same images.
    """
    found = {name: read_run(Path(folder) / name) for name in runs}
    images = {name: tuple(run.predictions[["image", "part"]].itertuples(index=False)) for name, run in found.items()}
    if len(set(images.values())) > 1:
        raise HistotransferError(f"{folder}: {', '.join(runs)} were not evaluated on the same images; run them again")
    return found


def with_intervals(runs: Mapping[str, Run], part: str = "test") -> pd.DataFrame:
    """Every metric of every run, per magnification, with patient-clustered intervals, in long form.

    Returns:
        Columns `run, magnification, metric, value, low, high, images, patients, classes`; `patients` counts groups of
        each of the `classes`, as `10 + 32`.

    Raises:
        HistotransferError: a run has no predictions of that part.
    """
    rows = []
    for name, run in runs.items():
        for magnification, predictions in by_magnification(_of_part(run, part)):
            rows += _rows(name, magnification, predictions, intervals(predictions))
    return pd.DataFrame(rows)


def gap(reference: Run, other: Run, part: str = "test") -> pd.DataFrame:
    """Metrics of `other` minus those of `reference` on the same images, in the form of `with_intervals`.

    Raises:
        HistotransferError: no predictions of that part, or not of the same images.
    """
    name = f"{other.folder.name} minus {reference.folder.name}"
    tables = (by_magnification(_of_part(run, part)) for run in (reference, other))
    rows = []
    for (magnification, theirs), (_, ours) in zip(*tables, strict=True):
        rows += _rows(name, magnification, ours, differences(ours, theirs))
    return pd.DataFrame(rows)


def _of_part(run: Run, part: str) -> pd.DataFrame:
    predictions = run.predictions[run.predictions["part"] == part]
    if predictions.empty:
        raise HistotransferError(f"{run.folder}: holds no predictions of the {part} part")
    return predictions


def _rows(name: str, magnification: str, predictions: pd.DataFrame, values: pd.DataFrame) -> list[dict]:
    groups, classes = predictions.groupby("truth")["group"].nunique(), class_names(predictions)
    about = {
        "images": len(predictions),
        "patients": " + ".join(str(groups.get(name, 0)) for name in classes),
        "classes": " + ".join(classes),
    }
    return [
        {"run": name, "magnification": magnification, "metric": metric, **row, **about}
        for metric, row in values.iterrows()
    ]


def formatted(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A long table as people read it: one row a magnification and run, `0.84 [0.77, 0.90]` a metric, n at the end.

    Where there is one run only, its name is left out.
    """
    text = table[table["metric"].isin(metrics)].copy()
    text["text"] = [number(row.value, row.low, row.high) for row in text.itertuples()]
    wide = text.pivot(index=["magnification", "run"], columns="metric", values="text")[list(metrics)]
    about = text.drop_duplicates(["magnification", "run"]).set_index(["magnification", "run"])
    wide["images"] = about["images"]
    wide[f"patients ({about['classes'].iloc[0]})"] = about["patients"]
    order = {name: i for i, name in enumerate(["40", "100", "200", "400", "all"])}
    runs = list(dict.fromkeys(table["run"]))
    wide = wide.sort_index(
        key=lambda index: index.map(lambda name: order.get(name, runs.index(name) if name in runs else 0))
    )
    if len(runs) == 1:
        wide = wide.droplevel("run")
    return wide.rename_axis(columns=None).rename(columns=lambda name: name.replace("_", " "))


def number(value: float, low: float, high: float) -> str:
    """`0.84 [0.77, 0.90]`; without brackets where there is no interval, a dash where there is no value."""
    if pd.isna(value):
        return "–"
    return f"{value:.2f}" if pd.isna(low) else f"{value:.2f} [{low:.2f},\N{NO-BREAK SPACE}{high:.2f}]"
