"""The one way a folder of pictures is walked: what is a picture, what is passed over, and how that is said.

All data sets, one's own folders, prediction and verification find their files here. Symbolic links are followed; a name
is a picture's by its ending, in capitals or small letters. What is passed over is kept with its kind, never dropped.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from histotransfer.errors import HistotransferError
from histotransfer.files import readable
from histotransfer.pictures import ENDINGS

SYSTEM_NAMES = {
    ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
    "system volume information",
}  # fmt: skip
SYSTEM, HIDDEN, NAMELESS = "system files", "hidden", "without an ending"
BROKEN, LOOP, UNREADABLE, SPECIAL = "broken links", "links that lead back", "unreadable", "special files"


class PassedOver(NamedTuple):
    """A file, folder or column that was not read (`name`), and why (`kind`: a word or two that a count can follow)."""

    name: str
    kind: str


def walk(
    root: str | Path, passed_over: list[PassedOver] | None = None, *, endings: frozenset[str] | None = ENDINGS
) -> list[Path]:
    """The pictures in and under a folder, sorted by path.

    A folder that links lead to twice is read twice, under both names; one that lies in itself is read once.

    Args:
        root: the folder.
        passed_over: what was not read is appended to it.
        endings: of pictures, in small letters; None takes every file that is neither hidden nor the system's.
    """
    files: list[Path] = []
    others = [] if passed_over is None else passed_over

    def enter(folder: Path, above: frozenset[Path]) -> None:
        above |= {folder.resolve()}
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            others.append(PassedOver(readable(folder), UNREADABLE))
            return
        for path in entries:
            kind = _kind(path, above, endings)
            if kind:
                others.append(PassedOver(readable(path), kind))
            elif path.is_dir():
                enter(path, above)
            else:
                files.append(path)

    enter(Path(root), frozenset())
    return sorted(files, key=str)


def is_file(path: str | Path) -> bool:
    """Whether there is a file; a name that none can have (too long, empty, with a zero byte) is no error."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises


def is_dir(path: str | Path) -> bool:
    """As `is_file`, of folders."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises, and takes no name for the current folder


def resolved(path: Path) -> Path:
    """The path without links and dots; as it is where it leads nowhere: links in a circle, a name that cannot be."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def is_system(name: str) -> bool:
    """Whether an operating system put a file or folder of this name there, as ``._a.png`` or ``Thumbs.db``."""
    return name.startswith("._") or name.lower() in SYSTEM_NAMES


def _kind(path: Path, above: frozenset[Path], endings: frozenset[str] | None) -> str:
    """Why a path is passed over; empty if it is a picture or a folder to enter."""
    if is_system(path.name):
        return SYSTEM
    if path.name.startswith("."):
        return HIDDEN
    try:
        if path.is_dir():
            return LOOP if path.resolve() in above else ""
        if not path.is_file():
            return BROKEN if path.is_symlink() else SPECIAL
    except OSError:  # its folder may be listed but not entered
        return UNREADABLE
    ending = path.suffix.lower()
    return "" if endings is None or ending in endings else readable(ending) or NAMELESS


def said(passed_over: Iterable[PassedOver], *, verbose: bool = False) -> list[str]:
    """What was passed over, in words: a line that counts it by kind, if there is any; `verbose` adds one line each."""
    passed_over = list(passed_over)
    if not passed_over:
        return []
    counts = Counter(kind for _, kind in passed_over)
    line = f"passed over: {', '.join(f'{kind} ({count})' for kind, count in sorted(counts.items()))}"
    return [line, *(f"  {name}: {kind}" for name, kind in passed_over)] if verbose else [line]


def find_home(root: str | Path, tree: Path) -> Path:
    """The folder in which `tree` lies, where a user names it, a folder above it (up to two levels) or one in it.

    Returns:
        That folder, resolved; `root` itself where there is none.

    Raises:
        HistotransferError: several copies lie equally deep.
    """
    root = Path(root).resolve()
    within = [root.parents[k - 1] for k in range(1, len(tree.parts) + 1) if root.parts[-k:] == tree.parts[:k]]
    below = list(_folders([root]))
    for candidates in ([root], within, below, _folders(below)):
        homes = sorted({folder.resolve() for folder in candidates if (folder / tree).is_dir()})
        if len(homes) > 1:
            raise HistotransferError(f"{root}: holds {tree} in {homes[0].name} and {homes[1].name}; give one of them")
        if homes:
            return homes[0]
    return root


def _folders(above: Iterable[Path]) -> Iterator[Path]:
    for folder in above:
        if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
            yield from sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())


def other_layout(root: str | Path, *grammars: re.Pattern[str]) -> str:
    """Words for an error: where under `root` a picture named as a data set's lies in another layout; or nothing."""
    pictures = walk(root) if Path(root).is_dir() else []
    named = (path for path in pictures if any(grammar.fullmatch(path.name) for grammar in grammars))
    found = next((readable(path.relative_to(root)) for path in named), "")
    return found and f" ({found} is one of its pictures, in another layout: move them, or use --own)"
