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

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis
from histotransfer.datasets.table import PARTS
from histotransfer.errors import HistotransferError

INNER_FOLDS = 8  # of the official splits: a tenth of all images validates
FOLDS_FOLDER, OFFICIAL_FOLDS = "breakhis_folds", 5


def grouped_split(
    table: pd.DataFrame, *, fold: int = 0, folds: int = 5, seed: int = 0, validation_offset: int = 1
) -> pd.DataFrame:
    """Test on one of `folds` group-disjoint folds, validate on another, train on the rest.

    Groups, not images, are counted and stratified by label: every fold has its share of the patients of each class,
    however many images each patient has. The folds of one seed are disjoint and cover the table; at a fixed offset each
    is the test part once and the validation part once. With five folds the parts are 3 : 1 : 1 by patient. The paper
    states 7 : 1 : 2; a tenth of these patients would be a single benign one.

    Args:
        table: an image table; `group` is kept together. A group with images of several labels counts as its most
            frequent one.
        fold: the fold that is the test part, 0 to ``folds - 1``.
        folds: number of folds, at least 3.
        seed: shuffles the groups.
        validation_offset: 1 to ``folds - 1``; the validation part is fold ``(fold + validation_offset) % folds``.

    Returns:
        A copy with `split` filled.

    Raises:
        HistotransferError: a class with too few groups to be in every part.
    """
    return _split(table, table["group"], fold, folds, seed, validation_offset)


def image_split(
    table: pd.DataFrame, *, fold: int = 0, folds: int = 5, seed: int = 0, validation_offset: int = 1
) -> pd.DataFrame:
    """The same parts, but split by image, as the paper may have done. It leaks; it is here to measure that."""
    return _split(table, images_as_groups(table), fold, folds, seed, validation_offset)


def official_split(table: pd.DataFrame, path: str | Path, *, seed: int = 0) -> pd.DataFrame:
    """One of BreakHis' five published splits (`file|magnification|fold|train-or-test`): by slide id, not by patient.

    They have no validation part; a tenth of the training groups is taken for it. Base numbers are on both sides of
    all five, so no verdict rests on this split.

    Args:
        table: the BreakHis table.
        path: `dsfold1.txt` to `dsfold5.txt`.
        seed: chooses the validation groups.

    Raises:
        HistotransferError: not such a file, or it does not name every image of the table.
    """
    parts = breakhis.read_official_fold(path)
    published = table["path"].map(lambda image: parts.get(f"{Path(image).stem}.png"))  # its ending may be .PNG
    if (unknown := published.isna()).any():
        raise HistotransferError(f"{table.loc[unknown, 'path'].iloc[0]}: is not named in {path}")
    rest = table[published == "train"]
    inner = min(INNER_FOLDS, smallest_class(rest["label"], rest["group"]))
    validation = group_folds(rest["label"], rest["group"], inner, seed)[0]
    split = table.assign(split=published)
    split.loc[rest.index[validation], "split"] = "validation"
    return split


def make_split(table: pd.DataFrame, config: LadderConfig, root: Path) -> pd.DataFrame:
    """The split that a configuration asks for (`split`, `fold`, `folds`, `seed`, `validation_offset`).

    Args:
        table: an image table.
        config: for `official`, folds 0 to 4 are the published files 1 to 5.
        root: folder of the data sets, in which the published files lie (`breakhis_folds`).

    Raises:
        HistotransferError: as the split itself; or an official fold beyond the fifth.
    """
    if config.split == "none":
        return table.assign(split="train")
    if config.split == "official":
        if config.fold >= OFFICIAL_FOLDS:
            raise HistotransferError(f"fold: there are {OFFICIAL_FOLDS} official folds, numbered from 0")
        return official_split(table, root / FOLDS_FOLDER / f"dsfold{config.fold + 1}.txt", seed=config.seed)
    split = {"patient": grouped_split, "image": image_split}[config.split]
    return split(
        table, fold=config.fold, folds=config.folds, seed=config.seed, validation_offset=config.validation_offset
    )


def images_as_groups(table: pd.DataFrame) -> pd.Series:
    """Each image as a group by itself."""
    return table["path"].rename("group")


def _split(
    table: pd.DataFrame, units: pd.Series, fold: int, folds: int, seed: int, validation_offset: int
) -> pd.DataFrame:
    masks = group_folds(table["label"], units, folds, seed)
    split = table.assign(split="train")
    split.loc[masks[fold], "split"] = "test"
    split.loc[masks[(fold + validation_offset) % folds], "split"] = "validation"
    for part in PARTS:
        if missing := sorted(set(table["label"]) - set(split.loc[split["split"] == part, "label"])):
            raise HistotransferError(
                f"split: the {part} part has no {', '.join(missing)}; use another seed or more patients"
            )
    return split


def group_folds(labels: pd.Series, groups: pd.Series, folds: int, seed: int) -> list[np.ndarray]:
    """Which rows each of `folds` disjoint test folds holds; groups stay together and are stratified by label.

    Args:
        labels: of N rows. A group with several labels counts as its most frequent one.
        groups: of the same rows.
        folds: at least 2, at most the number of groups of the rarest label.
        seed: shuffles the groups.

    Returns:
        One ``(N,)`` boolean mask per fold.

    Raises:
        HistotransferError: too few groups of a label.
    """
    label_of = _labels_of_groups(labels, groups)
    counts = label_of.value_counts()
    if counts.min() < max(folds, 2):
        raise HistotransferError(
            f"split: {counts.idxmin()} has {counts.min()} patients (groups), too few for {max(folds, 2)} folds;"
            f" use more patients{' or fewer folds' if folds > 3 else ''}"
        )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [groups.isin(label_of.index[test]).to_numpy() for _, test in splitter.split(label_of, label_of)]


def smallest_class(labels: pd.Series, groups: pd.Series) -> int:
    """Number of groups of the label with the fewest groups: the largest possible number of folds."""
    return int(_labels_of_groups(labels, groups).value_counts().min())


def _labels_of_groups(labels: pd.Series, groups: pd.Series) -> pd.Series:
    return labels.groupby(groups).agg(lambda labels_of_group: labels_of_group.mode().iloc[0])


def content_hashes(table: pd.DataFrame) -> pd.Series:
    """sha256 of each file's bytes, indexed like the table."""
    return table["path"].map(lambda path: hashlib.sha256(Path(path).read_bytes()).hexdigest())


def audit(table: pd.DataFrame, hashes: pd.Series) -> dict[str, dict[str, int]]:
    """How many patients, groups and byte-identical images each pair of parts shares; all zero for an honest split.

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
