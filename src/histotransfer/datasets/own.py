"""The user's own images -> the image table: a CSV file, or a folder for each class.

Labels are free. Nothing is guessed: every problem is named, and no table is built until there is none. A table cannot
know who a patient is, so both forms ask for it: without patients no split is honest.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from histotransfer import files
from histotransfer.datasets.csv_files import OPTIONAL, REQUIRED, named_file, read_rows
from histotransfer.datasets.identities import clean, is_missing, is_part, spellings
from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError
from histotransfer.folders import PassedOver, is_dir, is_file, said, walk
from histotransfer.pictures import decode, pixels_hash

NAMES = ("label", "patient", "group")  # columns that people fill with names
MAGNIFICATION = re.compile(r"([0-9]{1,6})(?:\.0+)? ?[x\u00d7]?", re.IGNORECASE)  # 40, 40.0, 40x
LONGEST = 200  # letters of a cell that are shown
NAMED = 5  # problems that an error names before it only counts the others

Row = dict[str, Any]
"""An image as read: the columns of the image table, and as `number` its row of the CSV file or its path."""


def load(
    path: str | Path, pattern: str = "", passed_over: list[PassedOver] | None = None, *, progress: bool = False
) -> pd.DataFrame:
    """The image table of the user's own images: a CSV file, or a folder per class with a patient `pattern`.

    Every picture is decoded, to find those that cannot be and those that occur twice.

    Args:
        path: the CSV file or the folder.
        pattern: for a folder, as `load_folders` takes it.
        passed_over: files and columns that were not read are appended to it.
        progress: show a bar.

    Raises:
        HistotransferError: as `load_csv` or `load_folders`; a pattern where there is nothing to match; a picture that
            `decode` refuses; or one picture, by its pixels, under two labels or of two patients.
    """
    if not (is_dir(path) or is_file(path)):
        raise HistotransferError(f"{path}: no such file or folder; check its name")
    if is_dir(path):
        table = load_folders(path, pattern, passed_over=passed_over)
    elif pattern:
        raise HistotransferError(f"{path}: a pattern is for a folder of images; a CSV names its patients itself")
    else:
        table = load_csv(path, passed_over=passed_over)
    _refuse(Path(path), _bad_pictures(table, progress))
    return table


def _bad_pictures(table: pd.DataFrame, progress: bool) -> list[str]:
    problems: list[str] = []
    first: dict[str, Any] = {}
    for row in tqdm(table.itertuples(), "pictures", len(table), unit="image", disable=not progress, leave=False):
        try:
            other: Any = first.setdefault(pixels_hash(decode(row.path)), row)
        except HistotransferError as error:
            problems.append(str(error))
            continue
        differ = [column for column in ("label", "patient") if getattr(row, column) != getattr(other, column)]
        if differ:
            problems.append(f"{row.path}: the same picture as {other.path} under another {' and '.join(differ)}")
    return problems


def load_csv(path: str | Path, *, dataset: str = "own", passed_over: list[PassedOver] | None = None) -> pd.DataFrame:
    """The image table of a CSV file with the columns ``path,label,patient[,magnification,group]``.

    UTF-8, or UTF-16 as spreadsheets write it; separated by commas, semicolons, tabs or bars. Capitals in the header,
    backslashes in paths and ``40x`` for 40 are understood; further columns are passed over.

    Args:
        path: the CSV file; the paths in it are relative to its folder, or absolute.
        dataset: name of the data set in the table.
        passed_over: columns that were not read are appended to it.

    Returns:
        An image table. `magnification` is 0 where it is not given, `group` the patient. Names of labels, patients and
        groups are as `identities.clean` leaves them.

    Raises:
        HistotransferError: no CSV with these columns, or any row with an empty cell, a file that is missing or occurs
            twice, a magnification that is no whole number, or a patient in two groups; names that differ in spelling
            only, or that are parts of a split. Rows are numbered as a spreadsheet shows them, the header being row 1.
    """
    path = Path(path)
    header, lines = read_rows(path)
    _refuse(path, _header_problems(header))
    if passed_over is not None:
        passed_over += [
            PassedOver(name, f"column {name}") for name in header if name and name not in REQUIRED + OPTIONAL
        ]
    folder, problems = path.resolve().parent, list[str]()
    rows = [_csv_row(number, header, cells, folder, problems) for number, cells in lines]
    return _table(rows, problems, path, dataset)


def _header_problems(header: list[str]) -> list[str]:
    there = ",".join(name or "(no name)" for name in header)
    missing = [f"row 1, column {name}: missing, row 1 is {there!r}" for name in REQUIRED if name not in header]
    meant = {name: difflib.get_close_matches(name, OPTIONAL) for name in header if name not in REQUIRED + OPTIONAL}
    unknown = [f"row 1, column {name}: unknown; write it as {near[0]}" for name, near in meant.items() if near]
    twice = sorted({name for name in REQUIRED + OPTIONAL if header.count(name) > 1})
    return [*missing, *unknown, *(f"row 1, column {name}: occurs twice" for name in twice)]


def _csv_row(number: int, header: list[str], cells: list[str], folder: Path, problems: list[str]) -> Row | None:
    """One row of a CSV file in `folder`; None where it cannot be read at all. Adds to `problems`."""
    if not any(cells[len(header) :]):  # a spreadsheet adds empty cells
        cells = cells[: len(header)]
    if len(cells) != len(header):
        problems.append(f"row {number}: {len(cells)} cells, the header has {len(header)}")
        return None
    cell = {name: text.strip() for name, text in zip(header, cells, strict=True) if name in REQUIRED + OPTIONAL}
    cell |= {name: clean(cell[name]) for name in NAMES if name in cell}
    problems += [f"row {number}, column {name}: empty" for name in cell if not cell[name]]
    problems += _missing_names(cell, f"row {number}, column ")
    file = named_file(folder, cell["path"])
    if cell["path"] and not is_file(file):
        of_windows = re.match(r"[A-Za-z]:|\\\\", cell["path"])
        meant = "a path of Windows, write it relative to the CSV" if of_windows else "paths start at the CSV's folder"
        problems.append(f"row {number}, column path: {_short(cell['path'])}: no such file; {meant}")
    text = cell.get("magnification", "0")
    magnification = MAGNIFICATION.fullmatch(text)
    if text and not magnification:
        problems.append(f"row {number}, column magnification: {text!r} is not a whole number")
        return None
    return {**cell, "number": number, "path": str(file), "magnification": int(magnification[1] if magnification else 0)}


def _short(text: str) -> str:
    """As it is shown: no page of letters, and none that no screen shows."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write an image table as `load_csv` reads it, with absolute paths; returns `path`."""
    files.write_csv(Path(path), table[[*REQUIRED, *OPTIONAL]])
    return Path(path)


def load_folders(
    root: str | Path, pattern: str, *, dataset: str = "own", passed_over: list[PassedOver] | None = None
) -> pd.DataFrame:
    r"""The image table of a folder that holds one folder per class.

    Args:
        root: its folders are the labels; the pictures below them are found by `folders.walk`.
        pattern: regular expression that a file's path below its class folder must match as a whole, with a group
            named `patient` and optionally `magnification` and `group`. Folders are separated by ``/``:
            ``r"(?P<patient>P\d+)_\d+\.png"``, or ``r"(?P<patient>[^/]+)/.+\.tif"`` for a folder per patient.
        dataset: name of the data set in the table.
        passed_over: files that were not read are appended to it.

    Raises:
        HistotransferError: no such folder, a pattern without `patient`, or pictures that do not fit it; they are named.
            Names that differ in spelling only, or that are parts of a split.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise HistotransferError(f"{root}: no such folder; give the one that holds a folder for each class")
    grammar = _compiled(pattern)
    others: list[PassedOver] = []
    pictures = [path.relative_to(root) for path in walk(root, others)]
    if passed_over is not None:
        passed_over += others
    if not pictures and others:
        raise HistotransferError(f"{root}: no images found; {said(others)[0]}")
    problems: list[str] = []
    rows = [_file_row(file, root, grammar, problems) for file in pictures]
    return _table(rows, problems, root, dataset)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        grammar = re.compile(unicodedata.normalize("NFC", pattern))
    except re.error as error:
        raise HistotransferError(f"pattern {pattern!r}: not a regular expression ({error})") from error
    if "patient" not in grammar.groupindex:
        raise HistotransferError(f"pattern {pattern!r}: needs a group (?P<patient>...); others may be {OPTIONAL}")
    if unknown := sorted({*grammar.groupindex} - {"patient", *OPTIONAL}):
        raise HistotransferError(f"pattern {pattern!r}: unknown group {unknown[0]}; match it without a name")
    return grammar


def _file_row(file: Path, root: Path, grammar: re.Pattern[str], problems: list[str]) -> Row | None:
    """One file, given relative to `root`; None where it does not fit. Adds to `problems`."""
    if len(file.parts) == 1:
        problems.append(f"{file}: is in no class folder")
        return None
    match = grammar.fullmatch(unicodedata.normalize("NFC", Path(*file.parts[1:]).as_posix()))
    if not match or not all(match.groupdict().values()):
        problems.append(f"{file}: does not fit the pattern {grammar.pattern!r}")
        return None
    fields = {"label": file.parts[0], **match.groupdict()}
    fields |= {name: clean(fields[name]) for name in NAMES if name in fields}
    problems += _missing_names(fields, f"{file}: ")
    magnification = MAGNIFICATION.fullmatch(fields.get("magnification", "0"))
    if not magnification:
        problems.append(f"{file}: magnification {fields['magnification']!r} is not a whole number")
        return None
    return {**fields, "number": file, "path": str(root / file), "magnification": int(magnification[1])}


def _missing_names(fields: Row, where: str) -> list[str]:
    unknown = [name for name in NAMES if fields.get(name) and is_missing(fields[name])]
    return [f"{where}{name}: {fields[name]!r} is no name; write who or what it is" for name in unknown]


def _table(rows: Iterable[Row | None], problems: list[str], where: Path, dataset: str) -> pd.DataFrame:
    """The image table of the rows that could be read, if there are no problems and the rows do not contradict."""
    readable = [row for row in rows if row is not None]
    _refuse(where, [*problems, *_name_problems(readable), *_contradictions(readable)])
    return image_table([{**row, "dataset": dataset} for row in readable], where=where)


def _name_problems(rows: list[Row]) -> Iterable[str]:
    """Names of one column that differ in spelling only; labels that are parts of a split."""
    for column in NAMES:
        if groups := spellings(row[column] for row in rows if column in row):
            shown = ", ".join(" and ".join(map(repr, group)) for group in groups[:NAMED])
            more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
            yield f"{column}: {shown}{more} differ in spelling only; write each name in one way"
    parts = sorted({row["label"] for row in rows if is_part(row["label"])})
    if parts:
        yield (
            f"labels {', '.join(parts)}: parts of a split, not classes; the split is made here, by patient: give one of"
            " these folders, or a CSV with the class of each picture"
        )
    labels = sorted({row["label"] for row in rows})
    if labels and all(re.fullmatch(r"\d+ ?[x\u00d7]", label, re.IGNORECASE) for label in labels):
        yield f"labels {', '.join(labels)}: magnifications, not classes; give a folder that holds one for each class"


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
        raise HistotransferError(f"{where}: {'; '.join(map(_cut, problems[:NAMED]))}{more}")


def _cut(problem: str) -> str:
    """Its beginning, where it is, and its end, what to do; between them there may be a page of letters."""
    return problem if len(problem) <= 4 * LONGEST else f"{problem[: 2 * LONGEST]} ... {problem[-2 * LONGEST :]}"
