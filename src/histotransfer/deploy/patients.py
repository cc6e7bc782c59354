"""Whose pictures the files of a prediction are: from a column of a CSV file, or from their paths."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from histotransfer.datasets.csv_files import is_table, read_column
from histotransfer.datasets.identities import clean, is_missing, spellings
from histotransfer.errors import HistotransferError
from histotransfer.folders import resolved


def patients(by: str, arguments: Sequence[str]) -> Callable[[str], str]:
    r"""The function from a file to its patient.

    Args:
        by: a column of the CSV files among the arguments; or a regular expression with a group `patient` that is found
            in a file's path, as ``(?P<patient>P\d+)_``.
        arguments: files, folders, patterns and CSV files.

    Returns:
        A function that raises a `HistotransferError` for a file whose patient it does not know.

    Raises:
        HistotransferError: no such column, a cell of it that is empty or means "not known", names that differ in
            spelling only, one file of two patients, or no regular expression.
    """
    if "(?P<patient>" in by:
        return _by_pattern(by)
    tables = [argument for argument in arguments if is_table(argument)]
    if not tables:
        raise HistotransferError(
            f"--by {by}: a column is one of a CSV file of pictures, and none is given; for the paths of pictures give a"
            " pattern with a group (?P<patient>...)"
        )
    return _by_column(by, tables)


def _by_pattern(pattern: str) -> Callable[[str], str]:
    try:
        grammar = re.compile(unicodedata.normalize("NFC", pattern))
    except re.error as error:
        raise HistotransferError(f"--by {pattern!r}: not a regular expression ({error})") from error

    def patient_of(file: str) -> str:
        match = grammar.search(unicodedata.normalize("NFC", Path(file).as_posix()))
        patient = clean(match["patient"] or "") if match else ""
        if is_missing(patient):
            raise HistotransferError(f"{file}: its path does not name a patient by {pattern!r}")
        return patient

    return patient_of


def _by_column(column: str, tables: Sequence[str]) -> Callable[[str], str]:
    known: dict[str, str] = {}
    for table in tables:
        for file, text in read_column(table, column):
            patient = clean(text)
            if is_missing(patient):
                raise HistotransferError(f"{table}: {file}: column {column}: {text!r} is no name; write who it is")
            if known.setdefault(file, patient) != patient:
                raise HistotransferError(f"{table}: {file} is of {known[file]!r} and of {patient!r}; write one of them")
    if groups := spellings(known.values()):
        shown = " and ".join(map(repr, groups[0]))
        raise HistotransferError(f"{tables[0]}: {column}: {shown} differ in spelling only; write each name in one way")

    def patient_of(file: str) -> str:
        patient = known.get(str(resolved(Path(file))))
        if patient is None:
            raise HistotransferError(f"{file}: in no CSV file that is given, so its patient is not known")
        return patient

    return patient_of
