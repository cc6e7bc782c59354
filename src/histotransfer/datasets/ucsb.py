"""UCSB Bio-Segmentation benchmark, breast (Gelasca et al. 2008): 58 H&E fields, 32 benign and 26 malignant.

Layout: all images in one folder, ``UCSB_breast/ytma<slide>_<date>_<benign|malignant><n>_ccd.tif`` (or .png), 896x768.
The external set: nothing is trained on it. `ytma<slide>` names the tissue-microarray slide, of which there are five
(34 of the images are of ytma49); patients are not published. So `patient` and `group` are the slide, and an interval
holds for these slides, not for a population. The magnification is not stated in the table (0).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError
from histotransfer.folders import PassedOver, find_home, other_layout, walk

TREE = Path("UCSB_breast")
LABELS = ("benign", "malignant")
VIEWS = 4  # fields are 896 x 768, seen squeezed to a square
GRAMMAR = re.compile(
    r"ytma(?P<slide>\d+)_(?P<date>\d{6})_(?P<label>benign|malignant)(?P<number>\d+)_ccd\.(?P<suffix>(?i:tif|png))",
    re.ASCII,
)


@dataclass(frozen=True)
class Name:
    """The fields of a UCSB file name; `str(name)` writes it again."""

    slide: str
    date: str
    label: str
    number: str
    suffix: str

    @property
    def slide_id(self) -> str:
        """ytma49."""
        return f"ytma{self.slide}"

    def __str__(self) -> str:
        return f"{self.slide_id}_{self.date}_{self.label}{self.number}_ccd.{self.suffix}"


def parse_name(path: str | Path) -> Name:
    """Read a file name by the grammar.

    Raises:
        HistotransferError: the name does not fit, with its path.
    """
    match = GRAMMAR.fullmatch(Path(path).name)
    if not match:
        raise HistotransferError(
            f"{path}: not a UCSB file name (ytma<slide>_<date>_<benign|malignant><n>_ccd.<tif|png>)"
        )
    return Name(**match.groupdict() | {"suffix": match["suffix"].lower()})


def load(root: str | Path, passed_over: list[PassedOver] | None = None) -> pd.DataFrame:
    """The image table of a folder that holds `UCSB_breast`.

    Args:
        root: the folder; also one up to two levels above it, or `UCSB_breast` itself.
        passed_over: what was not read is appended to it.

    Raises:
        HistotransferError: no such folder, no images, or a picture whose name breaks the grammar.
    """
    tree = find_home(root, TREE) / TREE
    if not tree.is_dir():
        other = other_layout(root, GRAMMAR)
        raise HistotransferError(f"{root}: holds no {TREE}; give the folder in which {TREE} lies{other}")
    rows = []
    for path in walk(tree, passed_over):
        name = parse_name(path)
        rows.append({"path": str(path), "dataset": "ucsb", "label": name.label, "patient": name.slide_id})
    return image_table(rows, where=tree)
