"""The one exception that users are meant to read, and how a command shows it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class HistotransferError(Exception):
    """An error the user can fix: the message is one line that says what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 2; a notebook shows it as the error of the cell.
    """


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """What imports of an optional package stand in: where it is missing, one line says what to install.

    Args:
        extra: of `pyproject.toml`, the one that brings the package.

    Raises:
        HistotransferError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise HistotransferError(f"{error.name} is not installed: pip install 'histotransfer[{extra}]'") from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Run a command's code: a `HistotransferError` in it becomes one line and exit status 2."""
    try:
        yield
    except HistotransferError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
