"""Out-of-fold predictions of several runs as one table, and several arms' tables side by side."""

from collections.abc import Iterable, Sequence

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import class_names

ABOUT = ("patient", "group", "magnification", "subtype", "truth")  # what an image is, in any arm


def pool(tables: Iterable[pd.DataFrame], part: str = "test") -> pd.DataFrame:
    """The predictions of all folds on one part, an image's logits averaged over the runs that predicted it.

    In the test part each seed tests an image once, out of fold, so the average is over seeds. In another part (`train`,
    or an external set) it is over the networks of several folds as well. Neither seeds nor folds are samples: averaging
    leaves one row per image, so that patients are the only sampling units.

    Args:
        tables: predictions of the runs of one arm, one per fold and seed; other parts are left out.
        part: the part to pool.

    Returns:
        One row per image, sorted by image: `image`, `patient`, `group`, `magnification`, `subtype`, `truth`, `part`,
        `seeds` (how many were averaged), `logit_*`. Every metric takes it.

    Raises:
        HistotransferError: no predictions of the part, tables of different classes, an image that a seed tested twice
            or not at all, or that differs between tables in anything but its logits.
    """
    rows = [table[table["part"] == part] for table in tables]
    if not sum(map(len, rows)):
        raise HistotransferError(f"pool: the tables hold no predictions of the {part} part")
    if len({frozenset(class_names(table)) for table in rows}) > 1:
        raise HistotransferError("pool: the tables are of different classes; pool the runs of one arm")
    whole = pd.concat(rows, ignore_index=True)
    counts = pd.crosstab(whole["image"], whole["seed"])
    for what, wrong in (("more than once", counts > 1), ("not", counts < 1)) if part == "test" else ():
        if wrong.any(axis=None):
            image, seed = wrong.stack().idxmax()
            raise HistotransferError(f"pool: {image} was {what} tested with seed {seed}; give each fold's run once")
    images = whole.groupby("image")
    if (several := (images[list(ABOUT)].nunique(dropna=False) > 1).any(axis=1)).any():
        raise HistotransferError(f"pool: {several.idxmax()}: two tables differ in its {', '.join(ABOUT)}")
    logits = [f"logit_{name}" for name in class_names(whole)]
    about = images[list(ABOUT)].first().assign(part=part, seeds=len(counts.columns))
    return about.join(images[logits].mean()).reset_index()


def aligned(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Several arms' tables of the same images, all sorted as the first.

    Raises:
        HistotransferError: the images are not the same, an image occurs twice, or its patient or truth differs.
    """
    first, arms = tables[0].reset_index(drop=True), []
    for table in tables:
        if (twice := table["image"].duplicated()).any():
            raise HistotransferError(f"comparison: {table['image'][twice].iloc[0]} occurs twice; pool the runs first")
        if alone := set(first["image"]) ^ set(table["image"]):
            raise HistotransferError(f"comparison: not of the same images: {min(alone)} is in one arm only")
        arm = table.set_index("image").loc[first["image"]].reset_index()
        for column in ("patient", "group", "magnification", "truth"):
            if (other := arm[column] != first[column]).any():
                raise HistotransferError(
                    f"comparison: {arm['image'][other].iloc[0]}: its {column} differs between arms"
                )
        arms.append(arm)
    return arms
