"""The one way a file or a folder is written: whole or not at all, whoever else writes it and whenever the process dies.

What is written lies under a name of its own beside its target, and takes the target's place in one step. What a dead
process left behind is removed when the same target is written an hour later.
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
    """A temporary path that takes the place of the file `path` when the block ends well, and vanishes when it does not.

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
    """A temporary folder that takes the place of `folder` when the block ends well, and vanishes when it does not.

    Args:
        folder: the target.
        replace: a folder that is there already makes way; else it stays, and an `OSError` is raised.

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
    for left in path.parent.glob(f".{_escaped(path.name)}.*.part"):
        remove_stale(left)
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
    """Sorted, indented, newline at the end: equal values are equal files."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame", *, floats: str = FLOATS) -> None:
    """Write a table; its index stands in the first column if it has a name, and is left out if it has none."""
    text = table.to_csv(index=table.index.name is not None, float_format=floats, lineterminator="\n")
    write_text(path, text)


def file_hash(path: Path) -> str:
    """sha256 of what a file holds; of one that ends in .gz, unpacked."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
