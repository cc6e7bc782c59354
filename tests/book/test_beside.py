"""What a reader can take home: the source, whole and the same each time, and notebooks that run."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import pytest
import yaml

from histotransfer.book.build.beside import ARCHIVE, DOWNLOADS, NAMES, write_archive, write_beside
from histotransfer.book.build.sources import chapter_sources

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "größer.md").write_text("text")
    (root / "run").write_text("#!/bin/sh")
    (root / "run").chmod(0o755)
    (root / ".gitignore").write_text("secret\n")
    (root / "secret").write_text("not for others")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", "-C", root, *command], check=True)
    return root


def unpacked(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def test_the_archive_holds_what_git_tracks_and_can_be_made_again_from_itself(repository, tmp_path):
    first = tmp_path / ARCHIVE
    write_archive(repository, first)
    root = unpacked(first, tmp_path / "home")
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert files == {".gitignore", "deep/größer.md", "run", NAMES}
    assert os.access(root / "run", os.X_OK) and not os.access(root / ".gitignore", os.X_OK)
    again = tmp_path / "again" / ARCHIVE
    write_archive(root, again)
    assert again.read_bytes() == first.read_bytes()

    before = first.stat().st_mtime_ns
    write_archive(repository, first)
    assert first.stat().st_mtime_ns == before
    (repository / "run").write_text("#!/bin/bash")
    write_archive(repository, first)
    assert first.stat().st_mtime_ns > before


def test_downloads_are_clean_and_begin_with_how_to_install(tmp_path):
    for name in ("notebooks", "_toc.yml", "_config.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "book").mkdir()
    (tmp_path / "book/references.bib").symlink_to(ROOT / "book/references.bib")
    folder = write_beside(tmp_path) / DOWNLOADS
    assert sorted(path.stem for path in folder.iterdir()) == [
        *(source.stem for source in chapter_sources(ROOT)),
        "two_hours",
    ]
    for path in folder.iterdir():
        cells = nbformat.read(path, as_version=4).cells
        assert "is not installed" in cells[0].source and cells[1].source.startswith("# ")
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        assert not re.search(r"\{[a-z:]+\}`|^:::|```\{", text, re.M)
        assert not any("solution" in cell.metadata.get("tags", []) for cell in cells)


def test_a_known_repository_is_cloned_by_the_first_cell(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["repository"]["url"] = "https://example.org/someone/histology"
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
    path = write_beside(tmp_path) / DOWNLOADS / "01_data.ipynb"
    first = nbformat.read(path, as_version=4).cells[0].source
    assert "git clone --quiet --depth 1 --branch main https://example.org/someone/histology" in first


@pytest.mark.slow
def test_a_download_runs_by_papermill_alone(tmp_path):
    """The other chapters' code is the same as the book's (`test_course`), which runs it."""
    if not (SITE / DOWNLOADS).is_dir():
        pytest.skip("no site has been built: `make book`")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", "03_se_densenet.ipynb"]
    done = subprocess.run([*command, tmp_path / "out.ipynb"], cwd=SITE / DOWNLOADS, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.mark.slow
def test_a_chapter_runs_from_the_sites_archive(tmp_path):
    if not (SITE / ARCHIVE).is_file():
        pytest.skip("no site has been built: `make book`")
    stated = re.search(r"about (\d+) MB; unpack", (ROOT / "book/index.md").read_text(encoding="utf-8"))
    assert abs((SITE / ARCHIVE).stat().st_size / 1e6 - int(stated[1])) < 5
    root = unpacked(SITE / ARCHIVE, tmp_path)
    assert (root / "Makefile").is_file() and not (root / ".git").exists()
    command = [sys.executable, "-m", "histotransfer.cli", "book", "run", "12_verdict", "--out", "out.ipynb"]
    done = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root / "src")}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    cells = nbformat.read(root / "out.ipynb", as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source.strip())
