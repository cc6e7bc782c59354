"""The one way a file or a folder is written: whole or not at all, even if others write it too or the process dies.

Content is first written to a temporary path beside the target, which then replaces the target in one step. What a
dead process left behind is removed when the same target is written again an hour later or more.
"""

import gzip
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FLOATS = "%.7g"
STALE_SECONDS = 3600  # a temporary file this old belongs to a process that died


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that replaces the file `path` when the block succeeds, and is removed when it fails.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    try:
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
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        if replace and folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_beside(path: Path) -> Path:
    for leftover in path.parent.glob(f".{_escaped(path.name)}.*.part"):
        remove_stale(leftover)
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def remove_stale(path: Path) -> None:
    """Remove a temporary file or folder if it is older than `STALE_SECONDS`."""
    try:
        if time.time() - path.stat().st_mtime < STALE_SECONDS:
            return
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except FileNotFoundError:
        pass  # finished or removed by its own process


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, indented, with a final newline: equal values give equal files."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame", *, floats: str = FLOATS) -> None:
    """Write a table; its index is the first column if it has a name, and is left out if it has none."""
    text = table.to_csv(index=table.index.name is not None, float_format=floats, lineterminator="\n")
    write_text(path, text)


def file_hash(path: Path) -> str:
    """sha256 of a file's content; of a file that ends in .gz, of the unpacked content."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
