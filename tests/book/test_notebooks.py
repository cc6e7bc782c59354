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
from histotransfer.report.robustness import by_folds
from histotransfer.report.study import Study
from histotransfer.report.verdicts import Judge

ROOT = Path(__file__).parent.parent.parent
EXECUTED = ROOT / "_build" / "executed"

GIGABYTES = 2.0  # on phantom tissue, a chapter's kernel
# In a process of its own, all of whose descendants belong to the chapters; what Linux reports of the largest is in KiB.
RUN = """
import resource, sys
from pathlib import Path
from histotransfer.book.build.execution import execute_chapters
folder, root, *sources = map(Path, sys.argv[1:])
due = {source.stem: (source, folder / f"{source.stem}.ipynb", {}) for source in sources}
list(execute_chapters(due, root))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """All chapters run a second time, as `make book` runs them; the folder of the notebooks, and the largest process.

    None is left out: there is hardly one that neither draws random numbers nor computes in floating point, those that
    only read records take a few seconds each, and the caches of the tests are empty, so that nothing is read back that
    the first run left behind. It is cheap because it is done once for all: two chapters at a time, whose processes load
    the builder once.
    """
    built = [source for source in chapter_sources(ROOT) if not _out_of_date(source)]
    if not built:
        pytest.skip("the book has not been built since its chapters were written: `make book`")
    folder = tmp_path_factory.mktemp("again")
    done = subprocess.run([sys.executable, "-c", RUN, folder, ROOT, *built], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, float(done.stdout.split()[-1])


def _out_of_date(source):
    first = EXECUTED / f"{source.stem}.ipynb"
    return not first.is_file() or first.stat().st_mtime < source.stat().st_mtime


@pytest.mark.parametrize("source", chapter_sources(ROOT), ids=lambda path: path.stem)
def test_a_second_run_of_a_chapter_is_byte_identical(source, again):
    if _out_of_date(source):
        pytest.skip("the book has not been built since the chapter was written: `make book`")
    first, second = EXECUTED / f"{source.stem}.ipynb", again[0] / f"{source.stem}.ipynb"
    before, after = (nbformat.read(path, as_version=4) for path in (first, second))
    for one, other in zip(before.cells, after.cells, strict=True):  # a cell is shorter to read than a notebook
        assert one == other
    assert first.read_bytes() == second.read_bytes()


def test_no_chapter_takes_much_memory(again):
    assert 0.1 < again[1] < GIGABYTES


def test_a_changed_record_changes_the_pages_numbers(tmp_path):
    """In a copy, the proposed network says the contrary of every image; the chapter of verdicts is run on it."""
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    for folder in ("study", "results"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for folder in (tmp_path / "results" / "primary").glob("se-lung-s?-f?"):
        table = pd.read_csv(folder / PREDICTIONS, dtype=str)
        swapped = table.rename(columns={"logit_benign": "logit_malignant", "logit_malignant": "logit_benign"})
        swapped.to_csv(folder / PREDICTIONS, index=False)
        record = json.loads((folder / "record.json").read_text())
        record["artifacts"]["predictions.csv"] = file_hash(folder / PREDICTIONS)
        (folder / "record.json").write_text(json.dumps(record))
    execute_chapter(ROOT / "notebooks" / "12_verdict.py", tmp_path / "12.ipynb", root=tmp_path)
    cells = nbformat.read(tmp_path / "12.ipynb", as_version=4).cells
    (table,) = (cell for cell in cells if "tab-verdict-verdicts" in str(cell.metadata))
    page = table.outputs[0].data["text/html"]
    own, changed = (answers(Study(root / "study", root / "results")) for root in (ROOT, tmp_path))
    touched = (own["compared"].str.contains("se-lung") & (own["result"] != "–")).to_numpy()
    assert set(own.index[touched]) == {"C1", "C2", "C3a", "C4b"}
    own, changed = own["result"], changed["result"]
    assert (own[touched] != changed[touched]).all()
    assert all(text in page for text in changed[touched])
    assert not any(text in page for text in own[touched].loc["C1"])
    assert own["C7"] == changed["C7"] and own["C7"] in page


def test_three_verdicts_change_within_folds():
    """The first page and chapter 12 say so in words."""
    table = by_folds(Judge(Study(ROOT / "study", ROOT / "results")))
    assert len(table) == 3
    assert table[["by image, then", "by patient, then"]].ne(table["verdict"], axis=0).all(axis=None)


def test_papermill_alone_runs_a_paired_notebook(tmp_path):
    """As on Binder: papermill's own command, the kernel of the environment, a parameter, the notebook's own folder."""
    output = tmp_path / "out.ipynb"
    papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", "-p", "seed", "1"]
    done = subprocess.run([*papermill, "03_se_densenet.ipynb", output], cwd=ROOT / "notebooks", capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    cells = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source.strip())
    assert any("seed = 1" in cell.source for cell in cells)
