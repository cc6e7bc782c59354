"""Who is in which fold, by name: the splits of the study as lists that others can use and cite."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from histotransfer.datasets import breakhis, lc25000
from histotransfer.records import environment, fingerprint, write_record
from histotransfer.splits import content_hashes, group_folds, grouped_split

FOLDS, SEEDS = 5, (0, 1, 2)


def folds_by_patient(table: pd.DataFrame, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """The fold in which each BreakHis patient is tested.

    Args:
        table: the BreakHis table.
        seeds: one column for each.

    Returns:
        One row per strict patient: `group`, `label`, `slide_ids`, `images`, and `fold_seed_<seed>`, from 0. In a run of
        test fold k the patients of fold k + 1 validate and the others train (`splits.grouped_split`).
    """
    patients = table.groupby("group").agg(
        label=("label", "first"),
        slide_ids=("patient", lambda ids: " ".join(sorted(set(ids)))),
        images=("path", "size"),
    )
    for seed in seeds:
        masks = group_folds(table["label"], table["group"], FOLDS, seed)
        fold = pd.concat(
            [table["group"][mask].drop_duplicates().to_frame().assign(fold=i) for i, mask in enumerate(masks)]
        )
        patients[f"fold_seed_{seed}"] = fold.set_index("group")["fold"]
    return patients.reset_index()


def parts_of_originals(table: pd.DataFrame, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """The part of each LC25000 original in the lung step: one split per seed, for all folds of BreakHis.

    Args:
        table: the LC25000 table.
        seeds: one column for each.

    Returns:
        One row per original: `group`, `label`, `images`, and `part_seed_<seed>`: train, validation or test.
    """
    originals = table.groupby("group").agg(label=("label", "first"), images=("path", "size"))
    for seed in seeds:
        split = grouped_split(table, folds=FOLDS, seed=seed)
        originals[f"part_seed_{seed}"] = split.drop_duplicates("group").set_index("group")["split"]
    return originals.reset_index()


def run(data_root: str | Path, out: str | Path) -> Path:
    """Write the splits of the study: `breakhis.csv`, `lc25000.csv`, and which images they were made from.

    Args:
        data_root: folder with BreakHis and LC25000.
        out: folder of the record.

    Raises:
        HistotransferError: the data cannot be read.
    """
    root = Path(data_root).resolve()
    tables = {"breakhis": breakhis.load(root), "lc25000": lc25000.load(root)}
    record = {
        name: {
            "images": len(table),
            "groups": int(table["group"].nunique()),
            "fingerprint": fingerprint(
                table["path"].map(lambda path: Path(os.path.relpath(path, root)).as_posix()), content_hashes(table)
            ),
        }
        for name, table in tables.items()
    }
    lists = {"breakhis": folds_by_patient(tables["breakhis"]), "lc25000": parts_of_originals(tables["lc25000"])}
    return write_record(Path(out), {"data": record, "folds": FOLDS, "seeds": SEEDS}, lists, environment())
