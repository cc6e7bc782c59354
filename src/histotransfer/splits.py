"""Splits that keep patients apart, and an audit that proves it.

Every split fills the `split` column of an image table with train, validation and test. The unit that is never divided
is `group`: the base slide number in BreakHis, the duplicate group in LC25000.
"""

import hashlib
from itertools import combinations
from pathlib import Path

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from histotransfer.datasets.table import PARTS
from histotransfer.errors import HistotransferError

INNER_FOLDS = 8  # with five outer folds, one of eight parts of the remaining 80 % is 10 %: the paper's 7 : 1 : 2


def grouped_split(table: pd.DataFrame, *, fold: int = 0, folds: int = 5, seed: int = 0) -> pd.DataFrame:
    """Test on one of `folds` groups-disjoint folds, validate on a tenth, train on the rest; stratified by label.

    With five folds this is the paper's 7 : 1 : 2 in expectation, by group. The folds of one seed are disjoint and cover
    the table.

    Args:
        table: an image table; `group` is kept together.
        fold: which fold is the test part, 0 to ``folds - 1``.
        folds: number of folds, at least 2.
        seed: shuffles the groups.

    Returns:
        A copy with `split` filled.

    Raises:
        HistotransferError: too few groups, so that a part misses a class.
    """
    if table["group"].nunique() < max(folds, 3):
        raise HistotransferError(
            f"split: {table['group'].nunique()} groups are too few for {folds} folds; use fewer folds or more patients"
        )
    split = table.assign(split="train")
    rest, test = _fold(table, folds, fold, seed)
    _, validation = _fold(rest, min(INNER_FOLDS, rest["group"].nunique()), 0, seed)
    split.loc[test.index, "split"] = "test"
    split.loc[validation.index, "split"] = "validation"
    for part in PARTS:
        present = set(split.loc[split["split"] == part, "label"])
        if missing := sorted(set(table["label"]) - present):
            raise HistotransferError(
                f"split: the {part} part has no {', '.join(missing)}; use another seed, fewer folds or more patients"
            )
    return split


def _fold(table: pd.DataFrame, folds: int, fold: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    train, test = list(splitter.split(table, table["label"], table["group"]))[fold]
    return table.iloc[train], table.iloc[test]


def content_hashes(table: pd.DataFrame) -> pd.Series:
    """sha256 of each file's bytes, indexed like the table."""
    return table["path"].map(lambda path: hashlib.sha256(Path(path).read_bytes()).hexdigest())


def audit(table: pd.DataFrame, hashes: pd.Series) -> dict[str, dict[str, int]]:
    """What each pair of parts shares: patients, groups and byte-identical images; all zero for an honest split.

    Args:
        table: an image table with `split` filled.
        hashes: content hash of each row, as `content_hashes` gives them.

    Returns:
        ``{"test/train": {"patients": 0, "groups": 0, "images": 0}, ...}``.
    """
    columns = {"patients": table["patient"], "groups": table["group"], "images": hashes}
    return {
        f"{a}/{b}": {
            what: len(set(values[table["split"] == a]) & set(values[table["split"] == b]))
            for what, values in columns.items()
        }
        for a, b in combinations(sorted(PARTS), 2)
    }


def leaks(report: dict[str, dict[str, int]]) -> bool:
    """Whether an `audit` found anything shared."""
    return any(count for shared in report.values() for count in shared.values())
