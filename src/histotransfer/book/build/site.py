"""Build the site: execute chapters whose inputs changed, stage the pages, run Jupyter Book."""

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from itertools import count
from pathlib import Path

import nbformat
import yaml

from histotransfer.book.build.beside import ARCHIVE, write_beside
from histotransfer.book.build.execution import execute_chapters
from histotransfer.book.build.folding import folded
from histotransfer.book.build.inputs import MANIFEST, PACKAGE, changed
from histotransfer.book.build.licences import licence_table
from histotransfer.book.build.parameters import chapter_parameters, check_parameters
from histotransfer.book.build.sources import chapter_sources, continued, notebook_text, repository
from histotransfer.config import ChapterParameters
from histotransfer.errors import HistotransferError
from histotransfer.files import scratch_folder, write_text
from histotransfer.records import PACKAGES
from histotransfer.report.costs import write_costs
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
    with ThreadPoolExecutor(1) as other:  # Sphinx runs in a process of its own
        beside = other.submit(write_beside, root)
        _render(stage(root, notebooks), site, root / "_build" / "sphinx.log", beside)
    report(f"{'pages':<24} {time.monotonic() - begin:6.1f} s")
    return site


def _executed(plan: Plan, root: Path, data_root: str | Path, force: bool, report: Callable[[str], None]) -> list[Path]:
    """Execute the chapters whose inputs have changed, or all with `force`; return the notebooks of all chapters."""
    versions = [sys.version, *(f"{name} {version(name)}" for name in PACKAGES)]
    common = _digest([*versions, *_contents(PACKAGE / "deploy" / "models"), *_listing(data_root)])
    notebooks: list[Path] = []
    due: dict[str, tuple] = {}
    reasons: dict[str, str] = {}
    for number, (source, given) in enumerate(plan):
        notebook = root / "_build" / "executed" / f"{source.stem}.ipynb"
        manifest = notebook.with_suffix(MANIFEST)
        key = _digest([common, source.read_text(encoding="utf-8"), repr(given)])
        again = sorted(continued(source, [earlier for earlier, _ in plan[:number]]) & due.keys())
        why = ["asked for"] if force else [*again, *changed(manifest, key, root)]
        if why or not notebook.is_file():
            manifest.unlink(missing_ok=True)
            due[source.stem], reasons[source.stem] = (source, notebook, given, key), next(iter(why), "no notebook")
        else:
            report(f"{source.stem:<24} unchanged")
        notebooks.append(notebook)
    for name, seconds in execute_chapters(due, root):
        report(f"{name:<24} {seconds:6.1f} s  ({reasons[name]})")
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
        shutil.copytree(_summary(root), staged / "book" / "_generated")
    if (card := root / SHIPPED_CARD).is_file():
        write_text(staged / "book" / "_generated" / "model.md", _with_captions(card.read_text(encoding="utf-8")))
    if (lock := root / "requirements.lock").is_file():
        write_text(staged / "book" / "_generated" / "licences.md", licence_table(lock))
    write_text(staged / "book" / "_generated" / "source.md", _where_the_source_is(repository(root)))
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    write_text(staged / "_config.yml", yaml.safe_dump(_with_repository(config), allow_unicode=True))
    for notebook in notebooks:
        page = folded(nbformat.read(notebook, as_version=4))
        write_text(staged / "notebooks" / notebook.name, notebook_text(page))
    return staged


def _summary(root: Path) -> Path:
    """What is drawn from records for the first page and that of costs; computed again only if it may change."""
    kept = root / "_build" / "summary"
    key = _digest(line for folder in (PACKAGE, root / "study", root / "results") for line in _contents(folder))
    made_from = kept / "made-from.key"
    if not made_from.is_file() or made_from.read_text(encoding="utf-8") != key:
        shutil.rmtree(kept, ignore_errors=True)
        write_summary(Study(root / "study", root / "results"), kept / "_generated")
        write_costs(root / "results" / "bench", kept / "_generated")
        write_text(made_from, key)
    return kept / "_generated"


def _where_the_source_is(known: Mapping[str, str]) -> str:
    """The archive in the site and, if it is known, the address to clone; as Markdown."""
    archive = f'```{{raw}} html\n<p><a href="../{ARCHIVE}" download>{ARCHIVE}</a></p>\n```\n'
    return f"{archive}\n```sh\ngit clone --depth 1 {known['url']}\n```\n" if known.get("url") else archive


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


def _render(staged: Path, site: Path, log: Path, beside: Future[Path]) -> None:
    """Run Jupyter Book on the staging folder, warnings as errors; move the pages to `site` if it succeeds.

    Args:
        staged: as `stage` returns it.
        site: the folder of the pages.
        log: what Jupyter Book prints.
        beside: the folder of the files that the pages refer to and Jupyter Book does not know.
    """
    with scratch_folder(staged.parent / "site") as folder:
        arguments = ["build", str(staged), "--path-output", str(folder), "-W", "-n", "--keep-going"]
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
        pages = folder / "_build" / "html"
        if run.returncode or not (pages / "index.html").is_file():
            trouble = [line for line in printed.splitlines() if re.search(r"WARNING|ERROR|Error:", line)]
            first = trouble[0].strip() if trouble else "no reason given"
            raise HistotransferError(
                f"the book does not build; {len(trouble)} complaints, the first: {first} (all of them: {log})"
            )
        for unused in (*pages.rglob("*.map"), *pages.rglob("*.ttf"), pages / "_static/scripts/fontawesome.js"):
            unused.unlink(missing_ok=True)  # of the theme: for its developers, for old browsers; icons are a font here
        shutil.rmtree(pages / "_static/locales", ignore_errors=True)  # of the theme: no page loads its translations
        shutil.copytree(beside.result(), pages, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.key"))
        site.parent.mkdir(parents=True, exist_ok=True)
        if site.exists():
            shutil.move(site, folder / "before")
        shutil.move(pages, site)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _contents(folder: Path) -> Iterator[str]:
    """Name and content hash of each file under `folder`: libraries open some weights without Python's knowledge."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        yield f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _listing(folder: Path | str) -> Iterator[str]:
    """Name, size and time of each file under `folder`, for images, which are too many to hash."""
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        status = path.stat()
        yield f"{path} {status.st_size} {status.st_mtime_ns}"
