"""LC25000 (Borkowski et al. 2019): 25,000 JPEG made from 1,250 originals by rotation and flips, lung and colon.

The official layout is read unchanged::

    lung_colon_image_set/lung_image_sets/<lung_aca|lung_n|lung_scc>/<lungaca1.jpeg ...>
    lung_colon_image_set/colon_image_sets/<colon_aca|colon_n>/<colonca1.jpeg ...>

About twenty files share an original, so a random split puts a near-copy of almost every test image into training.
`group` is the duplicate group, read from ``lc25000_groups/<class>.csv`` (columns `file`, `group`) beside the images;
`histotransfer.datasets.duplicates` finds the groups of images that have no such list.
Groups are originals, not patients: a score on LC25000 is no evidence of generalisation.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError
from histotransfer.folders import PassedOver, find_home, other_layout, walk

TREE = Path("lung_colon_image_set/lung_image_sets")
COLON_TREE = Path("lung_colon_image_set/colon_image_sets")
TREES = (TREE, COLON_TREE)
GROUPS = Path("lc25000_groups")
VIEWS = 8  # square fields: all of D4
LABELS = ("lung_aca", "lung_n", "lung_scc")
COLON_LABELS = ("colon_aca", "colon_n")
FOLDERS = {label: TREE / label for label in LABELS} | {label: COLON_TREE / label for label in COLON_LABELS}
STEMS = {label: label.replace("_", "") for label in FOLDERS} | {"colon_aca": "colonca"}  # as published
GRAMMAR = re.compile(rf"(?P<stem>{'|'.join(STEMS.values())})(?P<number>[1-9][0-9]*)\.(?i:jpeg)")


def parse_name(path: str | Path) -> tuple[str, int]:
    """Class and number of a file name.

    Raises:
        HistotransferError: the name does not fit, with its path.
    """
    match = GRAMMAR.fullmatch(Path(path).name)
    if not match:
        raise HistotransferError(
            f"{path}: not an LC25000 file name ({', '.join(f'{s}1.jpeg' for s in STEMS.values())})"
        )
    return next(label for label, stem in STEMS.items() if stem == match["stem"]), int(match["number"])


def load(root: str | Path, labels: Sequence[str] = LABELS, passed_over: list[PassedOver] | None = None) -> pd.DataFrame:
    """The image table of a folder that holds `lung_colon_image_set` and `lc25000_groups`.

    Args:
        root: the folder; also one up to two levels above it, or one within it.
        labels: classes to load: `LABELS` (lung) by default, `COLON_LABELS`, or any of both.
        passed_over: what was not read is appended to it.

    Raises:
        HistotransferError: a folder or group list is missing, a file name breaks the layout, or a file has no group.
    """
    if unknown := sorted(set(labels) - set(FOLDERS)):
        raise HistotransferError(f"{unknown[0]}: not a class of LC25000 ({', '.join(FOLDERS)})")
    home = find_home(root, FOLDERS[labels[0]].parent)
    for folder in (FOLDERS[label] for label in labels):
        if not (home / folder).is_dir():
            if (home / folder.parent).is_dir():
                raise HistotransferError(f"{home}: holds no {folder}; copy it there, as published")
            other = other_layout(root, GRAMMAR)
            raise HistotransferError(
                f"{root}: holds no {folder}; give the folder in which lung_colon_image_set lies{other}"
            )
    rows = []
    for label in labels:
        groups = read_groups(home / GROUPS / f"{label}.csv")
        for path in walk(home / FOLDERS[label], passed_over):
            if not GRAMMAR.fullmatch(path.name) or parse_name(path)[0] != label:
                raise HistotransferError(f"{path}: not an LC25000 file name of {label}")
            name = published_name(path)
            if name not in groups:
                raise HistotransferError(f"{path}: in no duplicate group of {GROUPS / label}.csv")
            group = f"{label}-{groups[name]}"
            rows.append(
                {
                    "path": str(path),
                    "dataset": "lc25000",
                    "label": label,
                    "patient": group,
                    "group": group,
                }
            )
    return image_table(rows, where=home / "lung_colon_image_set")


def published_name(path: Path) -> str:
    """The name that a file was published under: its ending in small letters, as group lists have it."""
    return f"{path.stem}{path.suffix.lower()}"


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
