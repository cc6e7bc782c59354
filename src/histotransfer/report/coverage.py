"""How often intervals like those of the book contained the truth, as `research/coverage.py` measured on simulated data.

It is read from the record in `results/coverage` and shown beside the intervals.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import metric_name

EVALUATION = "evaluation"  # the phase on whose data sets no method was chosen
ONE, TWO = "one arm", "difference"
USED = {ONE: "Korn and Graubard", TWO: "expanded percentile"}


def methods(kind: str, metrics: Sequence[str], folder: str | Path = "results/coverage") -> pd.DataFrame:
    """How well each of the methods tried did, one row per method.

    Args:
        kind: `ONE` or `TWO`.
        metrics: some of `COMPARED` in `research.coverage`.
        folder: the record.

    Returns:
        For each metric `held, %`, the percentage of its intervals that contained the truth in the worst scenario and at
        the worst magnification, and their mean `width`. The method in use is marked. The name of the index says how
        many data sets each scenario has.

    Raises:
        HistotransferError: there is no such record.
    """
    tried = _recorded(folder, "methods")
    tried = tried[(tried["phase"] == EVALUATION) & (tried["kind"] == kind) & tried["metric"].isin(metrics)]
    by_method = tried.groupby(["method", "metric"])
    parts = {"held, %": (100 * by_method["coverage"].min()).round(1), "width": by_method["width"].mean().round(2)}
    wide = {name: part.unstack().rename(columns=metric_name) for name, part in parts.items()}
    both = pd.concat(wide, axis=1)
    about = f"{kind}, {tried['sets'].min():,} data sets per scenario"
    return both.rename({USED[kind]: f"{USED[kind]} (used)"}).rename_axis(about).rename_axis(columns=[None, None])


def _recorded(folder: str | Path, name: str) -> pd.DataFrame:
    path = Path(folder) / f"{name}.csv"
    if not path.is_file():
        raise HistotransferError(f"{path}: no record of coverage; `python -m research.coverage` writes it")
    return pd.read_csv(path, dtype={"magnification": str})


def with_coverage(table: pd.DataFrame, folder: str | Path = "results/coverage") -> pd.DataFrame:
    """A table of `report.tables` with a column `coverage`: how often such intervals contained the truth.

    Args:
        table: as `with_intervals` or `gap` returns it.
        folder: the record.

    Returns:
        The table with `coverage`, from 0 to 1: the lowest over all scenarios with the same magnification, numbers of
        patients and metric. NaN where these were not simulated, and where the interval covers all possible values (0 to
        1, or -1 to 1 for a difference).

    Raises:
        HistotransferError: there is no such record.
    """
    keys = ["magnification", "patients", "metric"]
    measured = _recorded(folder, "coverage")
    two = "smallest" in table
    measured = measured[measured["kind"] == (TWO if two else ONE)]
    table = table.merge(measured.groupby(keys, as_index=False)["coverage"].min(), on=keys, how="left")
    table.loc[(table["low"].round(2) <= (-1 if two else 0)) & (table["high"].round(2) >= 1), "coverage"] = np.nan
    return table
