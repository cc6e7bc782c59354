"""CSV files of pictures as people and spreadsheets write them: encodings, separators, spellings of columns and paths.

What is read here needs no pandas, so that `predict` starts at once.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from histotransfer.datasets.identities import clean
from histotransfer.errors import HistotransferError
from histotransfer.folders import is_dir, is_file, resolved

REQUIRED = ("path", "label", "patient")
OPTIONAL = ("magnification", "group")
TABLES = (".csv", ".tsv")
SEPARATORS = ",;\t|"
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def is_table(argument: str | Path) -> bool:
    """Whether an argument names a CSV file, by its ending."""
    return Path(argument).suffix.lower() in TABLES


def read_column(path: str | Path, column: str = "path") -> list[tuple[str, str]]:
    """The file and the text of a column in each row of a CSV file of pictures, which is read as by `load_csv`.

    Raises:
        HistotransferError: no such CSV file, no column `path` or no such column, no rows, a row with too many or few
            cells, or a path that is empty or of a folder.
    """
    path = Path(path)
    header, lines = read_rows(path)
    for name in ("path", _column(column)):
        if header.count(name) != 1:
            raise HistotransferError(f"{path}: needs one column {name}; row 1 is {','.join(header)!r}")
    if bad := [number for number, cells in lines if len(cells) < len(header) or any(cells[len(header) :])]:
        raise HistotransferError(f"{path}: row {bad[0]} does not have the {len(header)} cells of the header")
    folder, at, of = path.resolve().parent, header.index("path"), header.index(_column(column))
    files = []
    for number, cells in lines:
        file = named_file(folder, cells[at].strip())
        if not cells[at].strip():
            raise HistotransferError(f"{path}: row {number}, column path: empty; write the file or leave the row out")
        if is_dir(file):
            raise HistotransferError(f"{path}: row {number}, column path: {file} is a folder; a cell names one picture")
        files.append((str(file), cells[of].strip()))
    if not files:
        raise HistotransferError(f"{path}: no rows below the header; write one for each picture")
    return files


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, in small letters, and the numbered rows of a CSV file; blank rows are ignored.

    Raises:
        HistotransferError: it cannot be read, is no CSV file, or is empty.
    """
    text = _text(path)
    try:
        if said := re.match(r"sep=(.)\r?\n", text):  # a spreadsheet's own line, before the header
            text = text[said.end() :]
        first = {mark: next(_cells(text, mark), []) for mark in SEPARATORS}
        known = {mark: len({*map(_column, cells)} & {*REQUIRED, *OPTIONAL}) for mark, cells in first.items()}
        separator = said[1] if said else max(known, key=known.__getitem__)
        rows = list(enumerate(_cells(text, separator, strict=True), start=2 if said else 1))
    except csv.Error as error:
        raise HistotransferError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise HistotransferError(f"{path}: empty; it needs the columns {','.join(REQUIRED)}")
    return [_column(name) for name in rows[0][1]], [(number, cells) for number, cells in rows[1:] if any(cells)]


def _cells(text: str, separator: str, *, strict: bool = False) -> Iterator[list[str]]:
    """The rows of a CSV file; quotation marks count behind a blank too."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=strict)


def _column(name: str) -> str:
    return clean(name).lower()


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HistotransferError(f"{path}: cannot be read ({error.strerror})") from error
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and 0 in content[:2]:  # UTF-16 without its mark: the header is plain letters
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise HistotransferError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error


def named_file(folder: Path, text: str) -> Path:
    """The file that a cell names: as it is written, else with slashes for backslashes, else in other normal forms."""
    written = [text, text.replace("\\", "/")]
    forms = [unicodedata.normalize(form, one) for one in (*written, clean(written[1])) for form in ("NFC", "NFD")]
    paths = [resolved(folder / one) for one in (*written, *forms)]
    return next((path for path in paths if is_file(path)), paths[0])
