"""What a folder holds: counts of images, patients and groups."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.errors import HistotransferError
from histotransfer.folders import PassedOver, find_home, other_layout, said

LOADERS: dict[str, tuple[Path, Callable[..., pd.DataFrame]]] = {
    "BreakHis": (breakhis.TREE, breakhis.load),
    "LC25000 (lung)": (lc25000.TREE, lc25000.load),
    "LC25000 (colon)": (lc25000.COLON_TREE, partial(lc25000.load, labels=lc25000.COLON_LABELS)),
    "UCSB": (ucsb.TREE, ucsb.load),
}


def load_present(root: str | Path, passed_over: list[PassedOver] | None = None) -> dict[str, pd.DataFrame]:
    """The image tables of the data sets that a folder holds, by name.

    Args:
        root: the folder; also one up to two levels above a data set, or one within it.
        passed_over: what was not read is appended to it.

    Raises:
        HistotransferError: the folder holds none of them, or one breaks its layout.
    """
    tables = {
        name: load(root, passed_over=passed_over)
        for name, (tree, load) in LOADERS.items()
        if (find_home(root, tree) / tree).is_dir()
    }
    if not tables:
        trees = " nor ".join(str(tree) for tree, _ in LOADERS.values())
        other = other_layout(root, breakhis.GRAMMAR, lc25000.GRAMMAR, ucsb.GRAMMAR)
        raise HistotransferError(f"{root}: holds neither {trees}; give the folder in which they lie{other}")
    return tables


def described(
    table: pd.DataFrame, passed_over: Iterable[PassedOver], *, verbose: bool = False, by: str = "label"
) -> str:
    """What there is, as text: the table of `count_images`, and below it what was passed over; `verbose` names it."""
    return "\n".join([count_images(table, by).to_string(), *said(passed_over, verbose=verbose)])


def count_images(table: pd.DataFrame, by: str = "label") -> pd.DataFrame:
    """Number of images of each class at each magnification and in total, with the numbers of patients and groups.

    Args:
        table: an image table.
        by: `label` or `subtype`.
    """
    counts = pd.crosstab(table[by], table["magnification"].map(lambda m: f"{m}x" if m else "images"))
    counts = counts[sorted(counts, key=lambda name: int(name[:-1]) if name != "images" else 0)]
    units = table.groupby(by).agg(patients=("patient", "nunique"), groups=("group", "nunique"))
    if len(counts.columns) > 1:
        counts["all"] = counts.sum(axis=1)
    counts = counts.join(units)
    total = counts.sum()
    # Not the sums: a patient may be in two rows.
    total[["patients", "groups"]] = table["patient"].nunique(), table["group"].nunique()
    counts.loc["all"] = total
    return counts.rename_axis(columns=None)
