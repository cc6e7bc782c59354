"""The chapters run again: byte for byte as in the built book, and by papermill alone."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from histotransfer.bookbuild import chapter_sources, execute_chapter

ROOT = Path(__file__).parent.parent.parent
EXECUTED = ROOT / "_build" / "executed"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", chapter_sources(ROOT), ids=lambda path: path.stem)
def test_a_second_run_of_a_chapter_is_byte_identical(source, tmp_path):
    first = EXECUTED / f"{source.stem}.ipynb"
    if not first.is_file() or first.stat().st_mtime < source.stat().st_mtime:
        pytest.skip("the book has not been built since the chapter was written: `make book`")
    execute_chapter(source, tmp_path / first.name, root=ROOT)
    before, after = (nbformat.read(path, as_version=4) for path in (first, tmp_path / first.name))
    for one, other in zip(before.cells, after.cells, strict=True):  # a cell is shorter to read than a notebook
        assert one == other
    assert first.read_bytes() == (tmp_path / first.name).read_bytes()


def test_papermill_alone_runs_a_paired_notebook(tmp_path):
    """As on Binder: papermill's own command, the kernel of the environment, a parameter, the notebook's own folder."""
    output = tmp_path / "out.ipynb"
    papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", "-p", "seed", "1"]
    done = subprocess.run([*papermill, "03_se_densenet.ipynb", output], cwd=ROOT / "notebooks", capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    cells = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source.strip())
    assert any("seed = 1" in cell.source for cell in cells)
