"""The user's own images -> the image table: a CSV file, or a folder for each class.

Labels are free. Nothing is guessed: every problem is named, and no table is built until there is none. A table cannot
know who a patient is, so both forms ask for it: without patients no split is honest.
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from histotransfer import files
from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError

REQUIRED = ("path", "label", "patient")
OPTIONAL = ("magnification", "group")
WHOLE_NUMBER = re.compile(r"[0-9]{1,6}")
NAMED = 5  # problems that an error names before it only counts the others

Row = dict[str, Any]
"""An image as read: the columns of the image table, and as `number` its row of the CSV file or its path."""


def load(path: str | Path, pattern: str = "") -> pd.DataFrame:
    """The image table of the user's own images: a CSV file, or a folder per class with a patient `pattern`.

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
        HistotransferError: no CSV with these columns, or any row with an empty cell, a file that is missing or occurs
            twice, a magnification that is no whole number, or a patient in two groups. Rows are numbered as a
            spreadsheet shows them, the header being row 1.
    """
    path = Path(path)
    header, lines = _read(path)
    _refuse(path, _header_problems(header))
    folder, problems = path.resolve().parent, list[str]()
    rows = [_csv_row(number, header, cells, folder, problems) for number, cells in lines]
    return _table(rows, problems, path, dataset)


def _header_problems(header: list[str]) -> list[str]:
    missing = [f"row 1, column {name}: missing" for name in REQUIRED if name not in header]
    unknown = [
        f"row 1, column {name or '(no name)'}: unknown, the columns are {','.join(REQUIRED)}[,{','.join(OPTIONAL)}]"
        for name in header
        if name not in REQUIRED + OPTIONAL
    ]
    twice = sorted({name for name in header if header.count(name) > 1})
    return [*missing, *unknown, *(f"row 1, column {name}: occurs twice" for name in twice)]


def _csv_row(number: int, header: list[str], cells: list[str], folder: Path, problems: list[str]) -> Row | None:
    """One row of a CSV file in `folder`; None where it cannot be read at all. Adds to `problems`."""
    if len(cells) != len(header):
        problems.append(f"row {number}: {len(cells)} cells, the header has {len(header)}")
        return None
    cell = dict(zip(header, (text.strip() for text in cells), strict=True))
    problems += [f"row {number}, column {name}: empty" for name in header if not cell[name]]
    file = (folder / cell["path"]).resolve()
    if cell["path"] and not file.is_file():
        problems.append(f"row {number}, column path: {cell['path']}: no such file")
    text = cell.get("magnification", "0")
    if text and not WHOLE_NUMBER.fullmatch(text):
        problems.append(f"row {number}, column magnification: {text!r} is not a whole number")
        return None
    return {**cell, "number": number, "path": str(file), "magnification": int(text or 0)}


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write an image table as `load_csv` reads it, with absolute paths; returns `path`."""
    files.write_csv(Path(path), table[[*REQUIRED, *OPTIONAL]])
    return Path(path)


def load_folders(root: str | Path, pattern: str, *, dataset: str = "own") -> pd.DataFrame:
    r"""The image table of a folder that holds one folder per class.

    Args:
        root: its folders are the labels; every file below them is an image. Names that begin with a dot are ignored.
        pattern: regular expression that a file's path below its class folder must match as a whole, with a group
            named `patient` and optionally `magnification` and `group`. Folders are separated by ``/``:
            ``r"(?P<patient>P\d+)_\d+\.png"``, or ``r"(?P<patient>[^/]+)/.+\.tif"`` for a folder per patient.
        dataset: name of the data set in the table.

    Raises:
        HistotransferError: no such folder, a pattern without `patient`, or files that do not fit it; they are named.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise HistotransferError(f"{root}: no such folder; give the one that holds a folder for each class")
    grammar = _compiled(pattern)
    files = [path.relative_to(root) for path in sorted(root.rglob("*")) if not path.is_dir()]
    shown = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    problems: list[str] = []
    rows = [_file_row(file, root, grammar, problems) for file in shown]
    return _table(rows, problems, root, dataset)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        grammar = re.compile(pattern)
    except re.error as error:
        raise HistotransferError(f"pattern {pattern!r}: not a regular expression ({error})") from error
    if "patient" not in grammar.groupindex or not {"patient", *OPTIONAL} >= set(grammar.groupindex):
        raise HistotransferError(f"pattern {pattern!r}: needs a group (?P<patient>...); others may be {OPTIONAL}")
    return grammar


def _file_row(file: Path, root: Path, grammar: re.Pattern[str], problems: list[str]) -> Row | None:
    """One file, given relative to `root`; None where it does not fit. Adds to `problems`."""
    label = file.parts[0]
    if len(file.parts) == 1:
        problems.append(f"{file}: is in no class folder")
        return None
    match = grammar.fullmatch(file.relative_to(label).as_posix())
    if not match or not all(match.groupdict().values()):
        problems.append(f"{file}: does not fit the pattern {grammar.pattern!r}")
        return None
    fields = match.groupdict()
    text = fields.get("magnification", "0")
    if not WHOLE_NUMBER.fullmatch(text):
        problems.append(f"{file}: magnification {text!r} is not a whole number")
        return None
    return {**fields, "number": file, "path": str(root / file), "magnification": int(text), "label": label}


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the numbered rows of a CSV file; blank rows are ignored."""
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


def _table(rows: Iterable[Row | None], problems: list[str], where: Path, dataset: str) -> pd.DataFrame:
    """The image table of the rows that could be read, if there are no problems and the rows do not contradict."""
    readable = [row for row in rows if row is not None]
    _refuse(where, [*problems, *_contradictions(readable)])
    return image_table([{**row, "dataset": dataset} for row in readable], where=where)


def _contradictions(rows: list[Row]) -> Iterable[str]:
    """A file in two rows; a patient in two groups, whom no split by group would keep together."""
    seen: dict[str, object] = {}
    groups: dict[str, str] = {}
    for row in rows:
        where = f"row {row['number']}, column " if isinstance(row["number"], int) else f"{row['number']}: "
        if seen.setdefault(row["path"], row["number"]) != row["number"]:
            yield f"{where}path: the same file as row {seen[row['path']]}"
        group = row.get("group", "")
        if group and row["patient"] and groups.setdefault(row["patient"], group) != group:
            yield f"{where}group: patient {row['patient']} is in {groups[row['patient']]} and {group}"


def _refuse(where: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise HistotransferError(f"{where}: {'; '.join(problems[:NAMED])}{more}")
