"""Out-of-fold predictions of several runs as one table, and several arms' tables side by side."""

from collections.abc import Iterable, Sequence

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import class_names

ABOUT = ("patient", "group", "magnification", "subtype", "truth")  # what an image is, whoever predicts it


def pool(tables: Iterable[pd.DataFrame], part: str = "test") -> pd.DataFrame:
    """The predictions of all folds on one part, an image's logits averaged over the runs that predicted it.

    Of the test part these are its seeds, since each seed tests an image once: out of fold. Of another part (`train`, or
    an external set) they are the networks of several folds as well. Neither seeds nor folds are samples: averaging
    leaves one row an image, and so the patients as the only units.

    Args:
        tables: predictions of the runs of one arm, one a fold and seed; other parts are left out.
        part: which.

    Returns:
        One row an image, sorted by image: `image`, `patient`, `group`, `magnification`, `subtype`, `truth`, `part`,
        `seeds` (how many were averaged), `logit_*`. Every metric takes it.

    Raises:
        HistotransferError: no predictions of the part, tables of different classes, an image that a seed tested twice
            or not at all, or of which two tables say different things.
    """
    own = [table[table["part"] == part] for table in tables]
    if not sum(map(len, own)):
        raise HistotransferError(f"pool: the tables hold no predictions of the {part} part")
    if len({frozenset(class_names(table)) for table in own}) > 1:
        raise HistotransferError("pool: the tables are of different classes; pool the runs of one arm")
    whole = pd.concat(own, ignore_index=True)
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
    """Arms' tables of the same images, all in the order of the first.

    Raises:
        HistotransferError: the images are not the same, an image stands twice, or its patient or truth differs.
    """
    first, found = tables[0].reset_index(drop=True), []
    for table in tables:
        if (twice := table["image"].duplicated()).any():
            raise HistotransferError(f"comparison: {table['image'][twice].iloc[0]} stands twice; pool the runs first")
        if alone := set(first["image"]) ^ set(table["image"]):
            raise HistotransferError(f"comparison: not of the same images: {min(alone)} is in one arm only")
        turned = table.set_index("image").loc[first["image"]].reset_index()
        for column in ("patient", "group", "magnification", "truth"):
            if (other := turned[column] != first[column]).any():
                raise HistotransferError(
                    f"comparison: {turned['image'][other].iloc[0]}: its {column} differs between arms"
                )
        found.append(turned)
    return found
