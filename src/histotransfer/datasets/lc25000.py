"""LC25000 (Borkowski et al. 2019), lung part: 15,000 JPEG made from 750 originals by rotation and flips.

Official layout, read as it is::

    lung_colon_image_set/lung_image_sets/<lung_aca|lung_n|lung_scc>/<lungaca1.jpeg ...>

About twenty files share an original, so a random split puts a near-copy of almost every test image into training.
`group` is the duplicate group, read from ``lc25000_groups/<class>.csv`` (columns `file`, `group`) beside the images.
Groups are originals, not patients: a score on LC25000 is no evidence of generalisation.
"""

import re
from pathlib import Path

import pandas as pd

from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError

TREE = Path("lung_colon_image_set/lung_image_sets")
GROUPS = Path("lc25000_groups")
VIEWS = 8  # square fields: all of D4
LABELS = ("lung_aca", "lung_n", "lung_scc")


def load(root: str | Path) -> pd.DataFrame:
    """The image table of a folder that holds `lung_colon_image_set` and `lc25000_groups`.

    Raises:
        HistotransferError: a folder or group list is missing, a file name breaks the layout, or a file has no group.
    """
    root = Path(root).resolve()
    if not (root / TREE).is_dir():
        raise HistotransferError(f"{root}: holds no {TREE}; give the folder in which lung_colon_image_set lies")
    rows = []
    for label in LABELS:
        groups = read_groups(root / GROUPS / f"{label}.csv")
        name = re.compile(rf"{label.replace('_', '')}\d+\.jpeg")
        for path in (root / TREE / label).glob("*"):
            if not name.fullmatch(path.name):
                raise HistotransferError(f"{path}: not an LC25000 file name of {label}")
            if path.name not in groups:
                raise HistotransferError(f"{path}: in no duplicate group of {GROUPS / label}.csv")
            group = f"{label}-{groups[path.name]}"
            rows.append(
                {
                    "path": str(path),
                    "dataset": "lc25000",
                    "label": label,
                    "patient": group,
                    "group": group,
                }
            )
    return image_table(rows, where=root / TREE)


def read_groups(path: Path) -> dict[str, str]:
    """File name to duplicate group, from a CSV with the columns `file` and `group`.

    Raises:
        HistotransferError: missing, unreadable, other columns, an empty cell, or a file named twice.
    """
    if not path.is_file():
        raise HistotransferError(f"{path}: missing; without duplicate groups LC25000 cannot be split without leakage")
    try:
        frame = pd.read_csv(path, dtype=str)
    except ValueError as error:  # empty, not text, or no CSV
        raise HistotransferError(f"{path}: not a readable CSV ({' '.join(str(error).split())})") from error
    if list(frame.columns) != ["file", "group"] or frame.isna().any(axis=None) or frame["file"].duplicated().any():
        raise HistotransferError(f"{path}: needs the columns file,group, each file once and no empty cell")
    return dict(zip(frame["file"], frame["group"], strict=True))
