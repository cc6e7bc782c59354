"""What lies in the site beside the pages that Jupyter Book makes: notebooks, the source, the network of "Try it"."""

import hashlib
import io
import lzma
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

from histotransfer.book.build.sources import chapter_sources, notebook_text, read_source, setup_cell
from histotransfer.book.course import LAB, citations, figure_numbers, lab, student
from histotransfer.book.source_pages import FOLDER, write_source_pages
from histotransfer.deploy.browser import write_for_browser
from histotransfer.deploy.predict import SHIPPED
from histotransfer.files import whole_file, write_text

ARCHIVE = "histotransfer-source.tar.xz"
NAMES = "SOURCES"  # in the archive: the names of its files, for an archive that is made from an unpacked one
DOWNLOADS = "_sources/notebooks"
TRY_IT = "_static/try-it"
RUNTIME = "book/_static/onnxruntime/ort-wasm-simd-threaded.wasm.gz"


def write_beside(root: Path) -> Path:
    """Write these files below `_build/beside`, at their places in the site; return that folder.

    The archive, the pages of the source and the network stay if what they are made from has not changed.

    Args:
        root: the repository, or its archive unpacked.
    """
    folder = root / "_build" / "beside"
    write_archive(root, folder / ARCHIVE)
    write_source_pages(folder / FOLDER)
    _write_downloads(root, folder / DOWNLOADS)
    if (root / "book" / "try-it.md").is_file():
        write_for_browser(SHIPPED, folder / TRY_IT, packed=(root / RUNTIME).stat().st_size)
    return folder


def write_archive(root: Path, archive: Path) -> None:
    """Write the files that git tracks as .tar.xz, in one folder: the same files give the same bytes.

    Names, contents and which files can be run; no owners and no times.

    Args:
        root: the repository; or its archive unpacked, which names its files in `NAMES`.
        archive: the file.
    """
    names = list(_tracked(root))
    key = hashlib.sha256()
    for name in names:
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        key.update(f"{name} {_mode(root / name)} {content}\n".encode())
    made_from = archive.with_suffix(".key")
    if archive.is_file() and made_from.is_file() and made_from.read_text(encoding="utf-8") == key.hexdigest():
        return
    with (
        whole_file(archive) as temporary,
        lzma.open(temporary, "wb", preset=0) as packed,  # most is packed already: 6 takes five times longer for 4 %
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, NAMES, "".join(f"{name}\n" for name in names).encode(), 0o644)
        for name in names:
            _add(tar, name, (root / name).read_bytes(), _mode(root / name))
    write_text(made_from, key.hexdigest())


def _tracked(root: Path) -> Iterator[str]:
    if (root / NAMES).is_file():
        listed = (root / NAMES).read_text(encoding="utf-8").splitlines()
    elif (root / ".git").exists():
        git = ["git", "-C", str(root), "ls-files", "-z"]
        listed = subprocess.run(git, capture_output=True, check=True).stdout.decode().split("\0")
    else:
        listed = []
    yield from sorted(name for name in listed if name and (root / name).is_file())


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(f"{ARCHIVE.partition('.')[0]}/{name}")
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def _write_downloads(root: Path, folder: Path) -> None:
    """The chapters and the lab as a student gets them, after a cell that says how to install the package."""
    sources = chapter_sources(root)
    bibliography = root / "book" / "references.bib"
    references = figure_numbers(sources) | (citations(bibliography) if bibliography.is_file() else {})
    notebooks = {source.stem: read_source(source) for source in sources}
    if (two_hours := root / LAB).is_file():
        notebooks[two_hours.stem] = lab(two_hours, sources)
    for name, whole in notebooks.items():
        notebook = student(whole, references)
        notebook.cells.insert(0, setup_cell(root))
        nbformat.validate(notebook)
        write_text(folder / f"{name}.ipynb", notebook_text(notebook))
