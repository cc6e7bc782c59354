"""The chapters run again: byte for byte as built, in little memory, on other records, and by papermill alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from histotransfer.book.build.execution import execute_chapter
from histotransfer.book.build.sources import chapter_sources
from histotransfer.files import file_hash
from histotransfer.records import PREDICTIONS
from histotransfer.report.answers import answers
from histotransfer.report.study import Study

ROOT = Path(__file__).parent.parent.parent
EXECUTED = ROOT / "_build" / "executed"

GIGABYTES = 2.0  # on phantom tissue, the chapter's kernel
# In a process of its own, whose only child is the kernel; what Linux reports of it is in KiB.
RUN = """
import resource, sys
from histotransfer.book.build import execute_chapter
execute_chapter(*sys.argv[1:3], root=sys.argv[3])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9)
"""

pytestmark = pytest.mark.slow


# One after the other, as `make test-slow` keeps a file in one process: chapter 05 reads what 04 has trained, and must
# not do so while that trains it again.
@pytest.mark.parametrize("source", chapter_sources(ROOT), ids=lambda path: path.stem)
def test_a_second_run_of_a_chapter_is_byte_identical_and_stays_small(source, tmp_path):
    first = EXECUTED / f"{source.stem}.ipynb"
    if not first.is_file() or first.stat().st_mtime < source.stat().st_mtime:
        pytest.skip("the book has not been built since the chapter was written: `make book`")
    arguments = [source, tmp_path / first.name, ROOT]
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (nbformat.read(path, as_version=4) for path in (first, tmp_path / first.name))
    for one, other in zip(before.cells, after.cells, strict=True):  # a cell is shorter to read than a notebook
        assert one == other
    assert first.read_bytes() == (tmp_path / first.name).read_bytes()
    assert float(done.stdout.split()[-1]) < GIGABYTES


def test_a_changed_record_changes_the_pages_numbers(tmp_path):
    """In a copy, the proposed network says the contrary of every image; the chapter of verdicts is run on it."""
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    for folder in ("study", "results"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns(".unfinished"))
    for folder in (tmp_path / "results" / "primary").glob("se-lung-s?-f?"):
        table = pd.read_csv(folder / PREDICTIONS, dtype=str)
        swapped = table.rename(columns={"logit_benign": "logit_malignant", "logit_malignant": "logit_benign"})
        swapped.to_csv(folder / PREDICTIONS, index=False)
        record = json.loads((folder / "record.json").read_text())
        record["artifacts"]["predictions.csv"] = file_hash(folder / PREDICTIONS)
        (folder / "record.json").write_text(json.dumps(record))
    execute_chapter(ROOT / "notebooks" / "12_verdict.py", tmp_path / "12.ipynb", root=tmp_path)
    page = "".join(
        output.data["text/html"]
        for cell in nbformat.read(tmp_path / "12.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    )
    own, changed = (answers(Study(root / "study", root / "results"))["result"] for root in (ROOT, tmp_path))
    for claim in ("C1", "C2", "C3a", "C4b"):
        assert all(text in page for text in changed.loc[[claim]])
        assert not any(text in page for text in own.loc[[claim]])
    assert own["C7"] == changed["C7"] and own["C7"] in page


def test_papermill_alone_runs_a_paired_notebook(tmp_path):
    """As on Binder: papermill's own command, the kernel of the environment, a parameter, the notebook's own folder."""
    output = tmp_path / "out.ipynb"
    papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", "-p", "seed", "1"]
    done = subprocess.run([*papermill, "03_se_densenet.ipynb", output], cwd=ROOT / "notebooks", capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    cells = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source.strip())
    assert any("seed = 1" in cell.source for cell in cells)
