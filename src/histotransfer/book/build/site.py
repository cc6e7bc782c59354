"""Build the site: execute chapters whose inputs changed, stage the pages, run Jupyter Book."""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path

import yaml

import histotransfer
from histotransfer.book.build.execution import execute_chapters
from histotransfer.book.build.parameters import chapter_parameters, check_parameters
from histotransfer.book.build.sources import chapter_sources
from histotransfer.config import ChapterParameters
from histotransfer.errors import HistotransferError
from histotransfer.files import write_text
from histotransfer.report.study import Study
from histotransfer.report.summary import write_summary

SHIPPED_CARD = "src/histotransfer/deploy/models/final.safetensors.md"
Plan = list[tuple[Path, dict[str, object]]]  # chapters and their parameters


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
    """Execute every chapter, each after those that it needs, and build the site.

    Args:
        root: the repository.
        profile: given to every chapter that takes it.
        data_root: folder of real images, for chapters that take it; empty: phantom data.
        out: folder of the site, relative to `root`; its contents are replaced when the build has succeeded.
        parameters: further parameters, each given to every chapter that takes it.
        force: execute also those chapters whose inputs have not changed since they last ran.
        report: called with one line per chapter.

    Returns:
        The folder with `index.html`.

    Raises:
        HistotransferError: a chapter failed (see `execute_chapters`), or Sphinx warned: warnings are errors here.
    """
    root = Path(root).absolute()
    if data_root:
        data_root = Path(data_root).absolute()
        if not data_root.is_dir():
            raise HistotransferError(f"{data_root}: no such folder of images")
    wanted = {**(parameters or {}), "profile": profile, "data_root": str(data_root)}
    notebooks = _executed(_plan(chapter_sources(root), wanted), root, data_root, force, report)
    begin = time.monotonic()
    site = root / out
    _render(stage(root, notebooks), site, root / "_build" / "sphinx.log")
    report(f"{'pages':<24} {time.monotonic() - begin:6.1f} s")
    return site


def _executed(plan: Plan, root: Path, data_root: str | Path, force: bool, report: Callable[[str], None]) -> list[Path]:
    """Execute the chapters whose inputs have changed, or all with `force`; return the notebooks of all chapters."""
    common = _digest(
        [
            sys.version,
            *_contents(Path(histotransfer.__file__).parent, "*.py"),
            *_contents(root / "results"),
            *_contents(root / "study"),
            *_listing(data_root),
        ]
    )
    notebooks, due, keys = [], {}, {}
    for source, given in plan:
        notebook = root / "_build" / "executed" / f"{source.stem}.ipynb"
        key_file = notebook.with_suffix(".key")
        key = _digest([common, source.read_text(encoding="utf-8"), repr(given)])
        if not force and notebook.is_file() and key_file.is_file() and key_file.read_text() == key:
            report(f"{source.stem:<24} unchanged")
        else:
            key_file.unlink(missing_ok=True)
            due[source.stem], keys[source.stem] = (source, notebook, given), (key_file, key)
        notebooks.append(notebook)
    for name, seconds in execute_chapters(due, root):
        write_text(*keys[name])
        report(f"{name:<24} {seconds:6.1f} s")
    return notebooks


def _plan(sources: Iterable[Path], wanted: Mapping[str, object]) -> Plan:
    """Each chapter with those of the `wanted` parameters that it takes, checked before any chapter runs."""
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
    """Gather in `_build/book-src` what Jupyter Book needs and nothing else; return that folder.

    A build at the root itself would include every Markdown file of the virtual environment and of caches.
    """
    staged = root / "_build" / "book-src"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(root / "book", staged / "book")
    for name in ("_toc.yml", "CHANGELOG.md"):
        shutil.copyfile(root / name, staged / name)
    if (root / "study").is_dir():
        write_summary(Study(root / "study", root / "results"), staged / "book" / "_generated")
    if (card := root / SHIPPED_CARD).is_file():
        write_text(staged / "book" / "_generated" / "model.md", _with_captions(card.read_text(encoding="utf-8")))
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    write_text(staged / "_config.yml", yaml.safe_dump(_with_repository(config), allow_unicode=True))
    for notebook in notebooks:
        (staged / "notebooks").mkdir(exist_ok=True)
        shutil.copyfile(notebook, staged / "notebooks" / notebook.name)
    return staged


def _with_captions(card: str) -> str:
    """A model card for the book: each table gets a name and, as its caption, the heading of its section."""
    numbers = count(1)

    def captioned(section: re.Match[str]) -> str:
        heading, text, table = section.groups()
        return f"{heading}{text}:::{{table}} {heading[3:-1]}.\n:name: tab-model-{next(numbers)}\n\n{table}\n:::\n"

    return re.sub(r"^(## .+\n)((?:(?!## |\|).*\n)*)((?:\|.*\n)+)", captioned, card, flags=re.M)


def _with_repository(config: dict) -> dict:
    """Add the launch and repository buttons if `repository: url` is set, to which they link."""
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
        # Sphinx keeps what it makes: to search it all for garbage, again and again, takes half of the time.
        code = "import gc, sys; gc.disable(); from jupyter_book.cli.main import main; sys.exit(main())"
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
        write_text(log, printed)
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


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _contents(folder: Path, pattern: str = "*") -> Iterator[str]:
    """Name and content hash of each file under `folder`."""
    for path in sorted(path for path in folder.rglob(pattern) if path.is_file()):
        yield f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _listing(folder: Path | str) -> Iterator[str]:
    """Name, size and time of each file under `folder`, for images, which are too many to hash."""
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        status = path.stat()
        yield f"{path} {status.st_size} {status.st_mtime_ns}"
