"""The sources of the chapters: py:percent files, the notebooks paired with them, and the order of the book."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode

from histotransfer.errors import HistotransferError
from histotransfer.files import write_text

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}

# What a chapter needs, by its opening cell: knowledge and earlier chapters.
NEEDS = re.compile(r"\*\*Needs\*\* ([\s\S]+?)(?:\n\n|$)")

# Where a chapter puts what it trains while it runs.
LIVE_RUNS = re.compile(r'Path\("_build/experiments"\) / (.+)')

# A notebook that is opened alone, as on Colab, needs the package and the records.
SETUP = """\
import importlib.util
from pathlib import Path

if importlib.util.find_spec("histotransfer") is None:
    !git clone --quiet --depth 1 --branch {branch} {url} histotransfer-book
    %pip install --quiet ./histotransfer-book
if Path("histotransfer-book").is_dir():
    %cd histotransfer-book"""

# The same where no repository is known: the site holds the source.
BY_HAND = """\
import importlib.util

if importlib.util.find_spec("histotransfer") is None:
    raise ModuleNotFoundError(
        "histotransfer is not installed: unpack the source archive"
        " of the book's first page, run `make venv` in it, and open"
        " this notebook with .venv/bin/python as its kernel"
    )"""


def notebook_text(notebook: NotebookNode) -> str:
    """A notebook as the text of its file."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def last_line(text: str) -> str:
    """The last line of `text` that is not blank, for messages of one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def read_source(source: Path) -> NotebookNode:
    """Read a chapter, py:percent or ipynb, as a notebook without outputs and with cell ids fixed by position.

    Raises:
        HistotransferError: there is no such file, or it is not a notebook.
    """
    if not source.is_file():
        raise HistotransferError(f"{source}: there is no such chapter")
    try:
        notebook = jupytext.read(source, fmt="py:percent" if source.suffix == ".py" else "ipynb")
    except Exception as error:  # jupytext and nbformat raise many kinds of errors
        raise HistotransferError(f"{source}: not a notebook: {last_line(str(error))}") from error
    cells = []
    for number, cell in enumerate(notebook.cells):
        metadata = dict(sorted(cell.metadata.items()))
        if cell.cell_type == "code":
            cells.append(nbformat.v4.new_code_cell(cell.source, metadata=metadata))
        else:
            make = nbformat.v4.new_raw_cell if cell.cell_type == "raw" else nbformat.v4.new_markdown_cell
            cells.append(make(cell.source, metadata=metadata))
        cells[-1]["id"] = f"cell-{number:02d}"
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": LANGUAGE})


def continued(source: Path, earlier: Iterable[Path]) -> set[str]:
    """The names of the chapters among `earlier` whose live runs a chapter goes on with: both name the same folder."""
    folders = set(LIVE_RUNS.findall(source.read_text(encoding="utf-8")))
    return {other.stem for other in earlier if folders & set(LIVE_RUNS.findall(other.read_text(encoding="utf-8")))}


def repository(root: Path) -> dict[str, str]:
    """`url` and `branch` of the repository as `_config.yml` has them; without a URL where there is none."""
    config = root / "_config.yml"
    return yaml.safe_load(config.read_text(encoding="utf-8")).get("repository", {}) if config.is_file() else {}


def setup_cell(root: Path) -> NotebookNode:
    """The first cell of a notebook that is opened alone: it gets the package, or says how."""
    known = repository(root)
    cell = nbformat.v4.new_code_cell(SETUP.format(**known) if known.get("url") else BY_HAND)
    cell["metadata"], cell["id"] = {"tags": ["remove-cell"]}, "setup"
    return cell


def pair_text(source: Path) -> str:
    """The exact text of the output-free notebook that belongs beside a py:percent `source`.

    It begins with a cell that fetches the repository, if `_config.yml` has `repository: url`.
    """
    notebook = read_source(source)
    notebook.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    root = source.absolute().parent.parent
    if repository(root).get("url"):
        notebook.cells.insert(0, setup_cell(root))
    return notebook_text(notebook)


def pair(root: str | Path = ".") -> list[Path]:
    """Write `notebooks/*.ipynb` from `notebooks/*.py`; returns the notebooks that changed (`make pairs`)."""
    changed = []
    for source in sorted((Path(root) / "notebooks").glob("*.py")):
        text, target = pair_text(source), source.with_suffix(".ipynb")
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_text(target, text)
            changed.append(target)
    return changed


def stale_pairs(root: str | Path = ".") -> list[str]:
    """One line per chapter whose two files do not match, which names them and the remedy."""
    folder = Path(root) / "notebooks"
    complaints = []
    for source in sorted(folder.glob("*.py")):
        target = source.with_suffix(".ipynb")
        if not target.is_file():
            complaints.append(f"{target} is missing: run `make pairs`")
        elif target.read_text(encoding="utf-8") != pair_text(source):
            complaints.append(
                f"{target} does not match {source}: run `make pairs` (an edit made in the .ipynb "
                "must be brought over to the .py first: that is the source)"
            )
    for target in sorted(folder.glob("*.ipynb")):
        if not target.with_suffix(".py").is_file():
            complaints.append(f"{target} has no source {target.with_suffix('.py').name}: delete it or write the .py")
    return complaints


def chapter_sources(root: str | Path = ".") -> list[Path]:
    """The py:percent sources of the chapters named in `_toc.yml`, in the order of the book.

    Raises:
        HistotransferError: `_toc.yml` is missing, or names a chapter that has no source.
    """
    root = Path(root)
    toc = root / "_toc.yml"
    if not toc.is_file():
        raise HistotransferError(f"{toc}: not found; the book is built at the root of the repository")
    sources = [
        root / f"{name}.py" for name in toc_files(yaml.safe_load(toc.read_text())) if Path(name).parts[0] == "notebooks"
    ]
    for source in sources:
        if not source.is_file():
            raise HistotransferError(f"{toc} names {source.with_suffix('').name}, but there is no {source}")
    return sources


def find_chapter(name: str, root: str | Path = ".") -> Path:
    """The source of a chapter by its file, its name (`02_normalization`) or its number (`02`).

    Raises:
        HistotransferError: there is no such chapter; the message lists the chapters.
    """
    if Path(name).suffix in (".py", ".ipynb") and Path(name).is_file():
        return Path(name)
    sources = sorted((Path(root) / "notebooks").glob("*.py"))
    for source in sources:
        if name in (source.stem, source.stem.partition("_")[0]):
            return source
    there = ", ".join(source.stem for source in sources) or "none here: go to the root of the repository"
    raise HistotransferError(f"{name}: no such chapter; there are {there}")


def toc_files(entry: object) -> Iterator[str]:
    """The pages that a table of contents names, in reading order, without their suffix."""
    if isinstance(entry, list):
        for item in entry:
            yield from toc_files(item)
    elif isinstance(entry, dict):
        yield from (str(entry[key]) for key in ("root", "file") if key in entry)
        for key in ("parts", "chapters", "sections"):
            yield from toc_files(entry.get(key, []))
