"""Splits that keep patients apart, and an audit that proves it.

Every split fills the `split` column of an image table with train, validation and test. The unit that is never divided
is `group`: the base slide number in BreakHis, the duplicate group in LC25000.
"""

import hashlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from histotransfer.datasets.table import PARTS
from histotransfer.errors import HistotransferError

INNER_FOLDS = 8  # with five outer folds, one of eight parts of the remaining 80 % is 10 %: the paper's 7 : 1 : 2


def grouped_split(table: pd.DataFrame, *, fold: int = 0, folds: int = 5, seed: int = 0) -> pd.DataFrame:
    """Test on one of `folds` group-disjoint folds, validate on a tenth, train on the rest.

    Groups, not images, are counted and stratified by label: every fold has its share of the patients of each class,
    whoever gave the most images. With five folds this is the paper's 7 : 1 : 2, by patient. The folds of one seed are
    disjoint and cover the table.

    Args:
        table: an image table; `group` is kept together. A group with images of several labels counts for its commonest.
        fold: which fold is the test part, 0 to ``folds - 1``.
        folds: number of folds, at least 2.
        seed: shuffles the groups.

    Returns:
        A copy with `split` filled.

    Raises:
        HistotransferError: a class with too few groups to be in every part.
    """
    test = group_folds(table["label"], table["group"], folds, seed)[fold]
    rest = table[~test]
    inner = min(INNER_FOLDS, smallest_class(rest["label"], rest["group"]))
    validation = group_folds(rest["label"], rest["group"], inner, seed)[0]
    split = table.assign(split="train")
    split.loc[test, "split"] = "test"
    split.loc[rest.index[validation], "split"] = "validation"
    for part in PARTS:
        if missing := sorted(set(table["label"]) - set(split.loc[split["split"] == part, "label"])):
            raise HistotransferError(
                f"split: the {part} part has no {', '.join(missing)}; use another seed or more patients"
            )
    return split


def group_folds(labels: pd.Series, groups: pd.Series, folds: int, seed: int) -> list[np.ndarray]:
    """Which rows each of `folds` disjoint test folds holds; groups stay together and are stratified by label.

    Args:
        labels: of N rows. A group with several labels counts for its commonest.
        groups: of the same rows.
        folds: at least 2, at most the number of groups of the rarest label.
        seed: shuffles the groups.

    Returns:
        One ``(N,)`` boolean mask a fold.

    Raises:
        HistotransferError: too few groups of a label.
    """
    label_of = _labels_of_groups(labels, groups)
    counts = label_of.value_counts()
    if counts.min() < max(folds, 2):
        raise HistotransferError(
            f"split: {counts.idxmin()} has {counts.min()} patients (groups), too few for {max(folds, 2)} folds;"
            " use fewer folds or more patients"
        )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [groups.isin(label_of.index[test]).to_numpy() for _, test in splitter.split(label_of, label_of)]


def smallest_class(labels: pd.Series, groups: pd.Series) -> int:
    """Number of groups of the label that has the fewest: the most folds there can be."""
    return int(_labels_of_groups(labels, groups).value_counts().min())


def _labels_of_groups(labels: pd.Series, groups: pd.Series) -> pd.Series:
    return labels.groupby(groups).agg(lambda own: own.mode().iloc[0])


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
