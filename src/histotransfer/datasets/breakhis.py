"""BreakHis (Spanhol et al. 2016): 7,909 breast tumour fields, 81 slide ids, four magnifications.

The official layout is read unchanged::

    BreaKHis_v1/histology_slides/breast/<benign|malignant>/SOB/<subtype>/<SOB_B_A_14-22549AB>/<40X>/<file>.png

File names follow one grammar, ``SOB_<B|M>_<subtype>-<year>-<slide>-<magnification>-<sequence>.png``; a name that
does not fit is an error, never a guess; only its ending may be in capitals. `patient` is the slide id (14-22549AB);
`group` its base number (14-22549), because whether a letter suffix is another patient is not documented.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError
from histotransfer.folders import PassedOver, find_home, other_layout, walk

TREE = Path("BreaKHis_v1/histology_slides/breast")
LABELS = ("benign", "malignant")
CLASSES = {"B": "benign", "M": "malignant"}
SUBTYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
BENIGN_CODES = ("A", "F", "PT", "TA")
VIEWS = 4  # fields are 700 x 460, seen squeezed to a square
MAGNIFICATIONS = (40, 100, 200, 400)
GRAMMAR = re.compile(
    r"SOB_(?P<class>B|M)_(?P<subtype>A|F|PT|TA|DC|LC|MC|PC)-(?P<year>\d{2})-(?P<slide>\d+)(?P<suffix>[A-Z]*)"
    r"-(?P<magnification>40|100|200|400)-(?P<sequence>\d{3})\.(?i:png)",
    re.ASCII,
)


@dataclass(frozen=True)
class Name:
    """The fields of a BreakHis file name; `str(name)` writes it again."""

    subtype: str
    year: str
    slide: str
    suffix: str
    magnification: int
    sequence: int

    @property
    def code(self) -> str:
        """B or M, decided by the subtype."""
        return "B" if self.subtype in BENIGN_CODES else "M"

    @property
    def base_number(self) -> str:
        """14-22549: the strictest reading of "patient"."""
        return f"{self.year}-{self.slide}"

    @property
    def slide_id(self) -> str:
        """14-22549AB."""
        return self.base_number + self.suffix

    @property
    def folder(self) -> Path:
        """The file's folder below `TREE`; the slide's folder has an underscore where the file has a hyphen."""
        slide = f"SOB_{self.code}_{self.subtype}_{self.slide_id}"
        return Path(CLASSES[self.code], "SOB", SUBTYPES[self.subtype], slide, f"{self.magnification}X")

    def __str__(self) -> str:
        return f"SOB_{self.code}_{self.subtype}-{self.slide_id}-{self.magnification}-{self.sequence:03d}.png"


def parse_name(path: str | Path) -> Name:
    """Read a file name by the grammar.

    Raises:
        HistotransferError: the name does not fit, with its path.
    """
    match = GRAMMAR.fullmatch(Path(path).name)
    if not match:
        raise HistotransferError(f"{path}: not a BreakHis file name (SOB_<B|M>_<subtype>-<yy>-<slide>-<mag>-<seq>.png)")
    code, subtype, year, slide, suffix, magnification, sequence = match.groups()
    name = Name(subtype, year, slide, suffix, int(magnification), int(sequence))
    if name.code != code:
        raise HistotransferError(f"{path}: class {code} and subtype {subtype} contradict each other")
    return name


def load(root: str | Path, passed_over: list[PassedOver] | None = None) -> pd.DataFrame:
    """The image table of a folder that holds `BreaKHis_v1` (all of it or any part).

    Args:
        root: the folder; also one up to two levels above it, or one within `TREE`.
        passed_over: what was not read is appended to it.

    Raises:
        HistotransferError: no such folder, no images, or a picture whose name or place breaks the layout.
    """
    tree = find_home(root, TREE) / TREE
    if not tree.is_dir():
        other = other_layout(root, GRAMMAR)
        raise HistotransferError(f"{root}: holds no {TREE}; give the folder in which BreaKHis_v1 lies{other}")
    rows = []
    for path in walk(tree, passed_over):
        name = parse_name(path)
        if path.parent != tree / name.folder:
            raise HistotransferError(f"{path}: misplaced, by its name it belongs in {name.folder}")
        rows.append(
            {
                "path": str(path),
                "dataset": "breakhis",
                "label": CLASSES[name.code],
                "subtype": SUBTYPES[name.subtype],
                "magnification": name.magnification,
                "patient": name.slide_id,
                "group": name.base_number,
            }
        )
    return image_table(rows, where=tree)


def read_official_fold(path: str | Path) -> dict[str, str]:
    """File name to `train` or `test`, from one of BreakHis' fold files.

    Raises:
        HistotransferError: missing, empty, no text, or a line of another form.
    """
    path = Path(path)
    if not path.is_file():
        raise HistotransferError(f"{path}: no such fold file; `histotransfer data fetch folds` gets them")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise HistotransferError(f"{path}: no text in UTF-8; `histotransfer data fetch folds` gets it anew") from error
    if not any(lines):
        raise HistotransferError(f"{path}: empty; `histotransfer data fetch folds` gets it anew")
    parts = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.split("|")
        if len(fields) != 4 or fields[3] not in ("train", "test"):
            raise HistotransferError(f"{path}, line {number}: {line!r} is not file|magnification|fold|train-or-test")
        parts[fields[0]] = fields[3]
    return parts
