"""What a chapter was made from: every file that its run opened, by content, so that only what has changed runs again.

The kernel itself says what it opens (Python's audit events), so nothing has to be declared: modules, records, the rule,
the records of another chapter's training. Not seen is what a library opens without Python; images are therefore
compared as a whole folder (`site`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import histotransfer
from histotransfer.files import file_hash, write_json

PACKAGE = Path(histotransfer.__file__).parent
LOG, MANIFEST = "opened.txt", ".inputs.json"
MISSING = "missing"
# Run by IPython before any cell. One line per event: how a path was used, and the path.
STARTUP = """\
import sys

def _watch(log):
    import os

    seen = set()

    def note(kind, path):
        if isinstance(path, (str, bytes, os.PathLike)):
            line = f"{kind} {os.path.abspath(os.fsdecode(path))}"
            if line not in seen and chr(10) not in line:
                seen.add(line)
                print(line, file=log)

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            wrote = (set(mode) & set("wax+")) if mode else (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            note("wrote" if wrote else "read", path)
        elif event in ("os.listdir", "os.scandir"):
            note("listed", arguments[0] or ".")
        elif event in ("os.rename", "shutil.move"):
            note("wrote", arguments[1])
        elif event == "os.mkdir":
            note("wrote", arguments[0])

    sys.addaudithook(hook)

_watch(open({log!r}, "a", buffering=1, encoding="utf-8", errors="surrogateescape"))
del _watch
"""


def startup(folder: Path, more: str = "") -> None:
    """Put `STARTUP`, and `more` behind it, into an IPython folder of its own; `LOG` is in that folder's parent."""
    scripts = folder / "profile_default" / "startup"
    scripts.mkdir(parents=True)
    script = STARTUP.replace("{log!r}", repr(str(folder.parent / LOG)))
    (scripts / "00-opened.py").write_text(script + more, encoding="utf-8")


def inputs_of(log: Path, root: Path) -> dict[str, str]:
    """The inputs of a run and their contents: relative path to hash.

    Args:
        log: as a kernel with `STARTUP` wrote it.
        root: the repository.

    Returns:
        The package's modules and every file below `root` that the run read and had not written itself; folders that it
        listed, with a slash at the end. What the build makes is left out, but for the records of other chapters.
    """
    used: dict[str, list[Path]] = {"read": [], "wrote": [], "listed": []}
    text = log.read_text(encoding="utf-8", errors="surrogateescape") if log.is_file() else ""
    for line in text.splitlines():
        kind, _, named = line.partition(" ")
        used[kind].append(Path(named))
    made = set(used["wrote"])
    found: dict[str, str] = {}
    for path in used["read"]:
        if not made & {path, *path.parents} and (name := _name(_source(path), root)):
            found[name] = content(name, root)
    for path in used["listed"]:
        if not made & {path, *path.parents} and (name := _name(path, root)):
            found[f"{name}/"] = content(f"{name}/", root)
    return dict(sorted(found.items()))


def _source(path: Path) -> Path:
    """The module of a compiled one."""
    return path.parent.parent / f"{path.name.split('.')[0]}.py" if path.parent.name == "__pycache__" else path


def _name(path: Path, root: Path) -> str:
    """How an input is named, wherever the checkout lies; empty for what is no input."""
    if path.is_relative_to(PACKAGE):
        return f"histotransfer:{path.relative_to(PACKAGE).as_posix()}"
    if not path.is_relative_to(root):
        return ""
    inside = path.relative_to(root)
    if not inside.parts or inside.parts[0].startswith(".") or inside.parts[0] in ("src", "notebooks"):
        return ""
    return "" if inside.parts[0] == "_build" and inside.parts[1:2] != ("experiments",) else inside.as_posix()


def content(name: str, root: Path) -> str:
    """The hash of an input, or of the names in a folder; `MISSING` where there is none."""
    path = PACKAGE / name.removeprefix("histotransfer:") if name.startswith("histotransfer:") else root / name
    if name.endswith("/"):
        there = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [MISSING]
        return hashlib.sha256("\0".join(there).encode()).hexdigest()
    return file_hash(path) if path.is_file() else MISSING


def keep(manifest: Path, key: str, inputs: dict[str, str]) -> None:
    """Write what a chapter was made from."""
    write_json(manifest, {"key": key, "inputs": inputs})


def changed(manifest: Path, key: str, root: Path) -> Iterator[str]:
    """The reasons to run a chapter again, most of them names of inputs; none if it is as it was.

    Args:
        manifest: as `keep` wrote it.
        key: of what is given beside files: text, parameters, versions.
        root: the repository.
    """
    try:
        kept = json.loads(manifest.read_text(encoding="utf-8"))
        before, inputs = kept["key"], dict(kept["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        yield "never run"
        return
    if before != key:
        yield "its text, a parameter or a version"
    yield from _unlike(inputs.items(), root)


def _unlike(inputs: Iterable[tuple[str, str]], root: Path) -> Iterator[str]:
    for name, before in inputs:
        if content(name, root) != before:
            yield name
