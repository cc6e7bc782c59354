"""One's own images -> the image table: a CSV file, or a folder for each class.

Labels are free. Nothing is guessed: whatever does not fit is named, and no table is made until all of it fits. What
the table cannot know is who a patient is, so both forms ask for it: without patients no split is honest.
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError

REQUIRED = ("path", "label", "patient")
OPTIONAL = ("magnification", "group")
NAMED = 5  # problems that an error names before it only counts the others


def load(path: str | Path, pattern: str = "") -> pd.DataFrame:
    """The image table of one's own images: a CSV file, or a folder per class with a patient `pattern`.

    Raises:
        HistotransferError: as `load_csv` or `load_folders`; or a pattern where there is nothing to match.
    """
    if Path(path).is_dir():
        return load_folders(path, pattern)
    if pattern:
        raise HistotransferError(f"{path}: a pattern is for a folder of images; a CSV names its patients itself")
    return load_csv(path)


def load_csv(path: str | Path, *, dataset: str = "own") -> pd.DataFrame:
    """The image table of a CSV file (UTF-8, commas) with the columns ``path,label,patient[,magnification,group]``.

    Args:
        path: the CSV file; the paths in it are relative to its folder, or absolute.
        dataset: name of the data set in the table.

    Returns:
        An image table. `magnification` is 0 where it is not given, `group` the patient.

    Raises:
        HistotransferError: no CSV with these columns, or any row with an empty cell, a file that is missing or stands
            twice, a magnification that is no whole number, or a patient in two groups. Rows are numbered as a
            spreadsheet shows them, the header being row 1.
    """
    path = Path(path)
    header, lines = _read(path)
    problems = [f"row 1, column {name}: missing" for name in REQUIRED if name not in header]
    problems += [
        f"row 1, column {name or '(no name)'}: unknown, the columns are {','.join(REQUIRED)}[,{','.join(OPTIONAL)}]"
        for name in header
        if name not in REQUIRED + OPTIONAL
    ]
    problems += [f"row 1, column {name}: stands twice" for name in sorted({n for n in header if header.count(n) > 1})]
    _refuse(path, problems)
    rows = []
    for number, cells in lines:
        if len(cells) != len(header):
            problems.append(f"row {number}: {len(cells)} cells, the header has {len(header)}")
            continue
        cell = dict(zip(header, (text.strip() for text in cells), strict=True))
        problems += [f"row {number}, column {name}: empty" for name in header if not cell[name]]
        file = (path.resolve().parent / cell["path"]).resolve()
        if cell["path"] and not file.is_file():
            problems.append(f"row {number}, column path: {cell['path']}: no such file")
        text = cell.get("magnification", "0")
        if text and not re.fullmatch(r"[0-9]{1,6}", text):
            problems.append(f"row {number}, column magnification: {text!r} is not a whole number")
            continue
        rows.append(cell | {"number": number, "path": str(file), "magnification": int(text or 0), "dataset": dataset})
    problems += _contradictions(rows)
    _refuse(path, problems)
    return _table(rows, path)


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write an image table as `load_csv` reads it, with absolute paths; returns `path`."""
    columns = [*REQUIRED, *OPTIONAL]
    table[columns].to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
    return Path(path)


def load_folders(root: str | Path, pattern: str, *, dataset: str = "own") -> pd.DataFrame:
    r"""The image table of a folder that holds one folder a class.

    Args:
        root: its folders are the labels; every file below them is an image. Names that begin with a dot are passed
            over.
        pattern: regular expression that a file's path below its class folder must match as a whole, with a group
            named `patient` and, if wished, `magnification` and `group`. Folders are set apart by ``/``:
            ``r"(?P<patient>P\d+)_\d+\.png"``, or ``r"(?P<patient>[^/]+)/.+\.tif"`` for a folder a patient.
        dataset: name of the data set in the table.

    Raises:
        HistotransferError: no such folder, a pattern without `patient`, or files that do not fit it; they are named.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise HistotransferError(f"{root}: no such folder; give the one that holds a folder for each class")
    try:
        name = re.compile(pattern)
    except re.error as error:
        raise HistotransferError(f"pattern {pattern!r}: not a regular expression ({error})") from error
    known = {"patient", *OPTIONAL}
    if "patient" not in name.groupindex or not known >= set(name.groupindex):
        raise HistotransferError(f"pattern {pattern!r}: needs a group (?P<patient>...); others may be {OPTIONAL}")
    rows, problems = [], []
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if path.is_dir() or any(part.startswith(".") for part in place.parts):
            continue
        if len(place.parts) == 1:
            problems.append(f"{place}: stands in no class folder")
            continue
        match = name.fullmatch(place.relative_to(place.parts[0]).as_posix())
        if not match or not all(match.groupdict().values()):
            problems.append(f"{place}: does not fit the pattern {pattern!r}")
            continue
        fields = match.groupdict()
        if not re.fullmatch(r"[0-9]{1,6}", fields.get("magnification", "0")):
            problems.append(f"{place}: magnification {fields['magnification']!r} is not a whole number")
            continue
        fields["magnification"] = int(fields.get("magnification", 0))
        rows.append(fields | {"number": place, "path": str(path), "label": place.parts[0], "dataset": dataset})
    problems += _contradictions(rows)
    _refuse(root, problems)
    return _table(rows, root)


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the numbered rows of a CSV file; blank rows are passed over."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(enumerate(csv.reader(file, strict=True), start=1))
    except OSError as error:
        raise HistotransferError(f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise HistotransferError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not rows:
        raise HistotransferError(f"{path}: empty; it needs the columns {','.join(REQUIRED)}")
    return [name.strip() for name in rows[0][1]], [(number, cells) for number, cells in rows[1:] if any(cells)]


def _contradictions(rows: list[dict]) -> Iterable[str]:
    """A file in two rows; a patient in two groups, whom no split by group would keep together."""
    seen: dict[str, object] = {}
    groups: dict[str, str] = {}
    for row in rows:
        where = f"row {row['number']}, column " if isinstance(row["number"], int) else f"{row['number']}: "
        if seen.setdefault(row["path"], row["number"]) != row["number"]:
            yield f"{where}path: the same file as row {seen[row['path']]}"
        group = row.get("group", "")
        if group and row["patient"] and groups.setdefault(row["patient"], group) != group:
            yield f"{where}group: patient {row['patient']} stands in {groups[row['patient']]} and {group}"


def _refuse(where: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise HistotransferError(f"{where}: {'; '.join(problems[:NAMED])}{more}")


def _table(rows: list[dict], where: Path) -> pd.DataFrame:
    return image_table([{k: v for k, v in row.items() if k != "number"} for row in rows], where=where)
