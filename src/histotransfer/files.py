"""The one way a file or a folder is written: whole or not at all, even if others write it too or the process dies.

Content is first written to a temporary path beside the target, which then replaces the target in one step. Its name
says which process writes it. What a dead process left behind is removed when the same target is written again: at once
if it ran on this machine, else an hour later.
"""

import contextlib
import errno
import functools
import glob
import gzip
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import pandas as pd

FLOATS = "%.7g"
DEEPEST = 50  # levels of JSON
NAME_LENGTH = 50  # letters of the target in the name of a temporary path, which is longer than the target's
STALE_SECONDS = 3600  # a temporary file this old belongs to a process that died


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that replaces the file `path` when the block succeeds, and is removed when it fails.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    try:
        with _naming(path, temporary):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """A temporary folder that replaces `folder` when the block succeeds, and is removed when it fails.

    Args:
        folder: the target.
        replace: a folder that is already there is replaced; if false it stays, and an `OSError` is raised.

    Raises:
        OSError: it cannot be written; the error names `folder`.
    """
    with scratch_folder(folder) as temporary:
        yield temporary
        while True:
            if replace and folder.is_dir():
                with scratch_folder(folder) as old, contextlib.suppress(FileNotFoundError):
                    folder.rename(old / folder.name)
            try:
                temporary.rename(folder)
                break
            except OSError as error:  # another process has put its own there in between
                if not (replace and error.errno in (errno.ENOTEMPTY, errno.EEXIST)):
                    raise


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder beside a path, on the same disk, which is removed when the block ends.

    Raises:
        OSError: it cannot be made or written in; the error names `beside`.
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(beside)
    try:
        with _naming(beside, temporary):
            temporary.mkdir()
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """An `OSError` within names the target: a user knows no temporary file, and a full disk is reported without any."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(temporary))):
            error.filename, error.filename2 = str(path), None
        raise


def _temporary_beside(path: Path) -> Path:
    name = path.name[:NAME_LENGTH]
    for leftover in path.parent.glob(f".{glob.escape(name)}.*.part"):
        remove_stale(leftover)
    return path.with_name(f".{name}.{_place()}-{os.getpid()}-{secrets.token_hex(4)}.part")


@functools.cache
def _place() -> str:
    """Where the number of a process means something: this machine, and on it this container."""
    with contextlib.suppress(OSError):
        return _digest(f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}")
    return _digest(platform.node())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def remove_stale(path: Path) -> None:
    """Remove a temporary file or folder if the process that made it has died, or it is older than `STALE_SECONDS`."""
    try:
        if _writer_is_dead(path.name) or time.time() - path.stat().st_mtime >= STALE_SECONDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        pass  # finished or removed by its own process, or a child of that still writes into it: the next one removes it


def _writer_is_dead(name: str) -> bool:
    """Whether it is known to be: of another machine's processes nothing is known."""
    writer = re.search(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part$", name)
    if os.name != "posix" or not writer or writer[1] != _place():
        return False
    try:
        os.kill(int(writer[2]), 0)  # asks only
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def remove_leftovers(folder: Path) -> None:
    """`remove_stale` for every temporary path in and under a folder."""
    for leftover in folder.rglob(".*.part"):
        remove_stale(leftover)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, indented, with a final newline: equal values give equal files."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON that people may have edited.

    Raises:
        OSError: it cannot be read.
        ValueError: not JSON, with a NaN, or nested so deep that nobody could walk through it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    level = [value]
    for _ in range(DEEPEST):
        level = [child for node in level for child in _children(node)]
    if level:
        raise ValueError("nested too deep")
    return value


def _children(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def write_csv(path: Path, table: "pd.DataFrame", *, floats: str = FLOATS) -> None:
    """Write a table, packed if the file's name ends in .gz; an index is the first column if it has a name."""
    text = table.to_csv(index=table.index.name is not None, float_format=floats, lineterminator="\n")
    content = text.encode("utf-8")
    with whole_file(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def readable(path: str | Path) -> str:
    """A path as text that any file can hold: bytes of a name that are not UTF-8 become an escape, as ``\\udcff``."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def file_hash(path: Path) -> str:
    """sha256 of a file's content; of a file that ends in .gz, of the unpacked content."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
