"""The one exception that users are meant to read, and how a command shows it and whatever else goes wrong."""

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEBUG = "HISTOTRANSFER_DEBUG"  # environment variable that shows tracebacks; set by `histotransfer --debug`
REMEDIES = {
    errno.ENOSPC: "free some space, or give a folder on another disk",
    errno.EDQUOT: "free some space, or give a folder on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or give a folder on another disk",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give a path that you may use, or change its permissions",
    errno.EPERM: "give a path that you may use, or change its permissions",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
}


class HistotransferError(Exception):
    """An error the user can fix: the message is one line that says what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 2; a notebook shows it as the error of the cell.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # one line, even where a file's name has two


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


def one_line(error: HistotransferError | OSError) -> str:
    """An error of the user's, or of the system's files and disks, as a line: where, what, what to do.

    Names of files may hold anything; what a terminal would not print as it is, is escaped.
    """
    text = str(error)
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # of a tree: a list of all that failed
        text = str(error.args[0][0][-1])
    elif isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
        remedy = REMEDIES.get(error.errno or 0)
        text = f"{where}{error.strerror}{f'; {remedy}' if remedy else ''}"
    text = " ".join(text.split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Run a command's code: what goes wrong in it becomes one line on standard error and an exit status.

    The status is 2 for what the user or the system can mend, 1 for a bug, whose line asks for a report. With `DEBUG`
    set the traceback is shown first.
    """
    try:
        yield
    except (HistotransferError, OSError) as error:
        line, status = f"error: {one_line(error)}", 2
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = one_line(HistotransferError(f"{type(error).__name__}: {str(error)[:300]}"))
        line, status = (
            f"bug: {what} ({Path(where.filename).name}, line {where.lineno}); please report it with what"
            " `histotransfer --debug ...` prints",
            1,
        )
    else:
        return
    if os.environ.get(DEBUG):
        traceback.print_exc()
    print(line, file=sys.stderr)
    sys.exit(status)
