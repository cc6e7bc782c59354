"""From chapters to pages: papermill executes, a staging folder collects, Jupyter Book renders.

Chapters are py:percent files `notebooks/NN_name.py`. Everything made here lies under `_build/`:

    executed/   the chapters as executed notebooks, each with the key of what it was made from
    failed/     what was executed of a chapter that broke, for inspection; never staged
    book-src/   the configuration, the pages and the executed chapters: all that Jupyter Book gets to see
    html/       the finished site

A notebook that is executed twice from the same inputs is the same file byte for byte: what a run leaves
behind (timestamps, durations, process numbers, memory addresses, random cell ids) is removed.
"""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import papermill
import yaml
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default

import histotransfer
from histotransfer.config import ChapterParameters, validated
from histotransfer.errors import HistotransferError

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}

# What makes two runs of a cell, or two machines, print different text, and what stands there instead.
VOLATILE = (
    (re.compile(r"\S*ipykernel_\d+[/\\]\d+\.py"), "<cell>"),
    (re.compile(r"(?<=\bat )0x[0-9a-fA-F]+"), "0x..."),
    (re.compile(r"[^\s\"']*[/\\]site-packages[/\\]"), ""),
)


# ----------------------------------------------------------------------------------------------------
# Sources and pairs


def read_source(source: Path) -> NotebookNode:
    """Read a chapter, py:percent or ipynb, as a notebook without outputs and with cell ids fixed by position.

    Raises:
        HistotransferError: there is no such file, or it is not a notebook.
    """
    if not source.is_file():
        raise HistotransferError(f"{source}: there is no such chapter")
    try:
        notebook = jupytext.read(source, fmt="py:percent" if source.suffix == ".py" else "ipynb")
    except Exception as error:  # jupytext and nbformat raise many kinds for a file that is not a notebook
        raise HistotransferError(f"{source}: not a notebook: {_last_line(str(error))}") from error
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


def pair_text(source: Path) -> str:
    """The exact text of the output-free notebook that belongs beside a py:percent `source`."""
    notebook = read_source(source)
    notebook.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    return _text(notebook)


def pair(root: str | Path = ".") -> list[Path]:
    """Write `notebooks/*.ipynb` from `notebooks/*.py`; returns the notebooks that changed (`make pairs`)."""
    changed = []
    for source in sorted((Path(root) / "notebooks").glob("*.py")):
        text, target = pair_text(source), source.with_suffix(".ipynb")
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            _write(target, text)
            changed.append(target)
    return changed


def stale_pairs(root: str | Path = ".") -> list[str]:
    """One line a chapter whose two files are out of step, saying which and how to mend."""
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


# ----------------------------------------------------------------------------------------------------
# Parameters


def chapter_parameters(source: Path) -> dict[str, object]:
    """The names and default values in the `parameters` cell of a chapter; empty where it has no such cell.

    Raises:
        HistotransferError: more than one such cell, or one that holds anything but `name = literal` lines.
    """
    cell = _parameters_cell(source, read_source(source))
    return {name: ast.literal_eval(value) for name, value in _assignments(source, cell)} if cell else {}


def check_parameters(source: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Check `parameters` against what the chapter takes, before anything runs.

    Args:
        source: the chapter.
        parameters: values by name, already of their own types: "3" is not a seed.

    Returns:
        Every parameter of the chapter with the value it will have: the given one, else the chapter's default.

    Raises:
        HistotransferError: a name the chapter does not have, or a value of the wrong type or out of bounds;
            the message names the chapter, the parameter and what is allowed.
    """
    chapter, defaults = source.stem, chapter_parameters(source)
    for name in parameters:
        if name not in defaults:
            allowed = ", ".join(defaults) or "none at all"
            raise HistotransferError(f"chapter {chapter}: no parameter {name!r}; it takes {allowed}")
    values = {**defaults, **parameters}
    try:
        validated(ChapterParameters, values)
    except HistotransferError as error:
        raise HistotransferError(f"chapter {chapter}: parameter {error}") from error
    return values


def _parameters_cell(source: Path, notebook: NotebookNode) -> NotebookNode | None:
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) > 1:
        raise HistotransferError(f"chapter {source.stem}: {len(tagged)} cells are tagged `parameters`; keep one")
    return tagged[0] if tagged else None


def _assignments(source: Path, cell: NotebookNode) -> list[tuple[str, ast.expr]]:
    """The (name, value node) pairs of a parameters cell, which holds plain assignments of literals only."""
    trouble = f"chapter {source.stem}: the parameters cell may hold only lines such as `seed = 0`"
    try:
        statements = ast.parse(cell.source).body
        pairs = []
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    pairs.append((name, value))
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pairs.append((name, value))
                case _:
                    raise HistotransferError(f"{trouble}, not `{ast.unparse(statement)}`")
            ast.literal_eval(value)
    except (SyntaxError, ValueError) as error:
        raise HistotransferError(f"{trouble}: {error}") from error
    return pairs


def _with_values(source: Path, cell: NotebookNode, values: Mapping[str, object]) -> str:
    """The cell's text with `values` put in place of its defaults, comments and layout kept."""
    # ast counts columns in UTF-8 bytes.
    lines = cell.source.encode().split(b"\n")
    for name, node in reversed(_assignments(source, cell)):
        value = values[name]
        if value == ast.literal_eval(node):
            continue
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        first, last = node.lineno - 1, node.end_lineno - 1
        merged = lines[first][: node.col_offset] + text.encode() + lines[last][node.end_col_offset :]
        lines[first : last + 1] = [merged]
    return b"\n".join(lines).decode()


# ----------------------------------------------------------------------------------------------------
# Execution


class _ThisInterpreter(AsyncKernelManager):
    """Starts a kernel of the running interpreter, whatever kernels the machine has installed or has not."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Without the argument the debugger warns at every start.
        spec = get_kernel_dict(python_arguments=["-Xfrozen_modules=off"])
        # Progress bars carry timings and some figures a date: neither belongs on a page, nor does tqdm's
        # complaint that it finds no widgets for a bar it does not draw.
        environment = {
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": "0",
            "TQDM_DISABLE": "1",
            "PYTHONWARNINGS": "ignore:IProgress not found",
        }
        return KernelSpec(**spec, env=environment)

    @default("transport_encryption")
    def _encrypt(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"  # unencrypted kernels warn at every start


def execute_chapter(
    source: str | Path,
    output: str | Path,
    parameters: Mapping[str, object] | None = None,
    *,
    root: str | Path = ".",
) -> None:
    """Execute one chapter with papermill and put the normalised notebook at `output`.

    Args:
        source: the chapter, py:percent or ipynb.
        output: the notebook to write; it is replaced only by a chapter that ran to its end.
        parameters: values for the names in the chapter's `parameters` cell; the others keep their defaults.
        root: the folder the cells run in, the repository's root: paths in a chapter are relative to it.

    Raises:
        HistotransferError: parameters that are refused (nothing was run then), or a cell that failed: the
            message names chapter, cell and error, and the notebook so far lies in `root/_build/failed/`.
    """
    source, output, root = Path(source).absolute(), Path(output).absolute(), Path(root).absolute()
    given = dict(parameters or {})
    values = check_parameters(source, given)
    notebook = read_source(source)
    failed = root / "_build" / "failed" / f"{source.stem}.ipynb"
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="histotransfer-") as folder, _own_ipython(folder):
        raw = Path(folder) / failed.name
        try:
            papermill.execute_notebook(
                notebook,
                raw,
                parameters=given,
                kernel_name=KERNEL["name"],
                kernel_manager_class=_ThisInterpreter,
                coalesce_streams=True,  # how printed text is cut into messages is a matter of timing
                progress_bar=False,
                cwd=root,
            )
        except Exception as error:
            message = f"chapter {source.stem} failed{_failing_cell(raw)}: {_cause(error)}"
            if raw.is_file():
                failed.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(raw, failed)
                message += f" (what was executed is kept in {failed})"
            raise HistotransferError(message) from error
        executed = nbformat.read(raw, as_version=4)
    _write(output, _text(normalise(executed, source, values)))


def normalise(executed: NotebookNode, source: Path, values: Mapping[str, object]) -> NotebookNode:
    """The page's notebook: the source's cells and tags with the outputs of the run, and nothing that varies.

    papermill's `injected-parameters` cell is dropped and its values are written into the chapter's own
    `parameters` cell, so that the page shows the parameters once and as they were.
    """
    notebook = read_source(source)
    parameters = _parameters_cell(source, notebook)
    if parameters:
        parameters["source"] = _with_values(source, parameters, values)
    ran = {cell["id"]: cell for cell in executed.cells}
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        count += 1
        cell["execution_count"] = count
        cell["outputs"] = ran[cell["id"]].outputs
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
            for key in ("text", "data", "traceback"):
                if key in output:
                    output[key] = _steady(output[key])
            # MyST-NB takes alt texts from the cell; those that `figures` writes come with the picture.
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell["metadata"] = _with_alt(cell.metadata, alt)
    return notebook


def _with_alt(metadata: Mapping, alt: str) -> dict:
    look = metadata.get("mystnb", {})
    return {**metadata, "mystnb": {**look, "image": {**look.get("image", {}), "alt": alt}}}


def _steady(value: object) -> object:
    """`value` with volatile text replaced in strings at any depth; encoded pictures stay as they are."""
    if isinstance(value, dict):
        return {key: item if key.startswith("image/png") else _steady(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    if isinstance(value, str):
        for pattern, text in VOLATILE:
            value = pattern.sub(text, value)
    return value


@contextmanager
def _own_ipython(folder: str) -> Iterator[None]:
    """Keep the reader's IPython start-up files and history out of the kernel."""
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = str(Path(folder) / "ipython")
    try:
        yield
    finally:
        if before is None:
            del os.environ["IPYTHONDIR"]
        else:
            os.environ["IPYTHONDIR"] = before


def _failing_cell(raw: Path) -> str:
    """Where a run stopped, as ` in code cell 3 of 12`; empty when no cell had started."""
    if not raw.is_file():
        return ""
    hidden = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [
        cell
        for cell in nbformat.read(raw, as_version=4).cells
        if cell.cell_type == "code" and cell.source.strip() and not hidden & set(cell.metadata.get("tags", []))
    ]
    for number, cell in enumerate(cells, start=1):
        if cell.metadata.get("papermill", {}).get("status") in ("failed", "running"):
            return f" in code cell {number} of {len(cells)}"
    return ""


def _cause(error: Exception) -> str:
    if isinstance(error, PapermillExecutionError):
        return f"{error.ename}: {_last_line(error.evalue)}" if error.evalue else error.ename
    return f"{type(error).__name__}: {_last_line(str(error))}"


# ----------------------------------------------------------------------------------------------------
# The book


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


def toc_files(entry: object) -> Iterator[str]:
    """The pages that a table of contents names, in reading order, without their suffix."""
    if isinstance(entry, list):
        for item in entry:
            yield from toc_files(item)
    elif isinstance(entry, dict):
        yield from (str(entry[key]) for key in ("root", "file") if key in entry)
        for key in ("parts", "chapters", "sections"):
            yield from toc_files(entry.get(key, []))


def build_book(
    root: str | Path = ".",
    profile: str = "phantom",
    data_root: str | Path = "",
    *,
    out: str | Path = "_build/html",
    parameters: Mapping[str, object] | None = None,
    force: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Execute every chapter and build the site.

    Args:
        root: the repository.
        profile: given to every chapter that takes it.
        data_root: folder of real images, for chapters that take it; empty: phantom data.
        out: folder of the site, relative to `root`; what lies there is replaced when the build has succeeded.
        parameters: further parameters, each given to every chapter that takes it.
        force: execute also those chapters whose inputs have not changed since they last ran.
        report: receives one line a chapter.

    Returns:
        The folder with `index.html`.

    Raises:
        HistotransferError: see `execute_chapter`; or Sphinx warned, for a warning is an error here.
    """
    root = Path(root).absolute()
    if data_root:
        data_root = Path(data_root).absolute()
        if not data_root.is_dir():
            raise HistotransferError(f"{data_root}: no such folder of images")
    wanted = {**(parameters or {}), "profile": profile, "data_root": str(data_root)}
    plan = _plan(chapter_sources(root), wanted)

    build = root / "_build"
    common = _digest(
        [
            sys.version,
            *_contents(Path(histotransfer.__file__).parent, "*.py"),
            *_contents(root / "results"),
            *_contents(root / "study"),
            *_listing(data_root),
        ]
    )
    notebooks = []
    for source, given in plan:
        begin = time.monotonic()
        notebook = build / "executed" / f"{source.stem}.ipynb"
        key_file, key = (
            notebook.with_suffix(".key"),
            _digest([common, source.read_text(encoding="utf-8"), repr(given)]),
        )
        if not force and notebook.is_file() and key_file.is_file() and key_file.read_text() == key:
            report(f"{source.stem:<24} unchanged")
        else:
            key_file.unlink(missing_ok=True)
            execute_chapter(source, notebook, given, root=root)
            _write(key_file, key)
            report(f"{source.stem:<24} {time.monotonic() - begin:6.1f} s")
        notebooks.append(notebook)

    begin = time.monotonic()
    staged = stage(root, notebooks)
    site = root / out
    _render(staged, site, build / "sphinx.log")
    report(f"{'pages':<24} {time.monotonic() - begin:6.1f} s")
    return site


def _plan(sources: Iterable[Path], wanted: Mapping[str, object]) -> list[tuple[Path, dict[str, object]]]:
    """Each chapter with its share of the `wanted` parameters, all checked before the first of them runs."""
    plan, taken = [], {"profile", "data_root"}
    for source in sources:
        names = chapter_parameters(source)
        given = {name: value for name, value in wanted.items() if name in names}
        check_parameters(source, given)
        taken |= given.keys()
        plan.append((source, given))
    for name in wanted.keys() - taken:
        raise HistotransferError(
            f"no chapter takes a parameter {name!r}; they know {', '.join(ChapterParameters.model_fields)}"
        )
    return plan


def stage(root: Path, notebooks: Iterable[Path]) -> Path:
    """Gather in `_build/book-src` what Jupyter Book needs and nothing else; returns that folder.

    A build at the root itself would trip over every Markdown file of the virtual environment and of caches.
    """
    staged = root / "_build" / "book-src"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(root / "book", staged / "book")
    shutil.copyfile(root / "_toc.yml", staged / "_toc.yml")
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    _write(staged / "_config.yml", yaml.safe_dump(_with_repository(config), allow_unicode=True))
    for notebook in notebooks:
        (staged / "notebooks").mkdir(exist_ok=True)
        shutil.copyfile(notebook, staged / "notebooks" / notebook.name)
    return staged


def _with_repository(config: dict) -> dict:
    """Add the launch and repository buttons if `repository: url` says where they are to point."""
    if config.get("repository", {}).get("url"):
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            **config.get("launch_buttons", {}),
        }
        config["html"] = {**config.get("html", {}), "use_repository_button": True, "use_issues_button": True}
    return config


def _render(staged: Path, site: Path, log: Path) -> None:
    """Run Jupyter Book on the staging folder, warnings as errors; move the pages to `site` if it succeeds."""
    with tempfile.TemporaryDirectory(prefix="site-", dir=staged.parent) as folder:
        arguments = ["build", str(staged), "--path-output", folder, "-W", "-n", "--keep-going"]
        code = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
        run = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        printed = re.sub(r"\x1b\[[0-9;]*m", "", run.stdout)
        _write(log, printed)
        pages = Path(folder) / "_build" / "html"
        if run.returncode or not (pages / "index.html").is_file():
            trouble = [line for line in printed.splitlines() if re.search(r"WARNING|ERROR|Error:", line)]
            first = trouble[0].strip() if trouble else "no reason given"
            raise HistotransferError(
                f"the book does not build; {len(trouble)} complaints, the first: {first} (all of them: {log})"
            )
        site.parent.mkdir(parents=True, exist_ok=True)
        if site.exists():
            shutil.move(site, Path(folder) / "before")
        shutil.move(pages, site)


# ----------------------------------------------------------------------------------------------------
# Small things


def _text(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def _write(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _contents(folder: Path, pattern: str = "*") -> Iterator[str]:
    """Name and content hash of each file under `folder`."""
    for path in sorted(path for path in folder.rglob(pattern) if path.is_file()):
        yield f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _listing(folder: Path | str) -> Iterator[str]:
    """Name, size and time of each file under `folder`: images are too many to read them all again."""
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        status = path.stat()
        yield f"{path} {status.st_size} {status.st_mtime_ns}"
