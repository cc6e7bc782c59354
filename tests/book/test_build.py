"""The book builder: parameters, execution, normalisation, pairs, staging, pages."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from bs4 import BeautifulSoup

from histotransfer.book.build import execution
from histotransfer.book.build.execution import ChapterError, execute_chapter, execute_chapters, normalise
from histotransfer.book.build.parameters import chapter_parameters, check_parameters
from histotransfer.book.build.site import SHIPPED_CARD, build_book, stage
from histotransfer.book.build.sources import chapter_sources, continued, pair, pair_text, read_source, stale_pairs
from histotransfer.errors import HistotransferError

ROOT = Path(__file__).parents[2]

CHAPTER = """\
# %% [markdown]
# # A chapter with $\\\\frac{I}{I_0}$ {cite:p}`macenko2009`

# %% tags=["parameters"]
profile = "phantom"  # größer als ASCII
seed = 0

# %%
import sys
import warnings

warnings.warn("seen")
print("to stdout")
print(sys.executable)
object()

# %% mystnb={"figure": {"name": "fig-seed", "caption": "A line."}, "image": {"alt": "A rising line."}}
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot([0, seed])
plt.show()
"""

FAILING = """\
# %% tags=["parameters"]
seed = 0

# %%
print("fine")

# %%
raise ValueError("first line\\nthe last line")
"""


@pytest.fixture
def write_chapter(tmp_path):
    def write(text=CHAPTER, name="01_made.py") -> Path:
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


# Parameters ---------------------------------------------------------------------------------------------------------


def test_the_parameters_of_a_chapter_are_read_without_running_it(write_chapter):
    assert chapter_parameters(write_chapter()) == {"profile": "phantom", "seed": 0}
    assert chapter_parameters(write_chapter("# %%\n1 + 1\n")) == {}


def test_given_parameters_replace_defaults(write_chapter):
    assert check_parameters(write_chapter(), {"seed": 7}) == {"profile": "phantom", "seed": 7}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": 1}, ["01_made", "colour", "profile, seed"]),
        ({"device": "cpu"}, ["01_made", "device", "profile, seed"]),  # known to others, not to this chapter
        ({"seed": "3"}, ["01_made", "seed", "integer"]),
        ({"seed": True}, ["01_made", "seed", "integer"]),
        ({"seed": 1.0}, ["01_made", "seed", "integer"]),
        ({"seed": -1}, ["01_made", "seed", "greater than or equal to 0"]),
        ({"profile": "huge"}, ["01_made", "profile", "'phantom', 'lite' or 'paper'"]),
    ],
)
def test_refused_parameters_are_named_before_anything_runs(write_chapter, tmp_path, given, words):
    output = tmp_path / "out.ipynb"
    with pytest.raises(HistotransferError) as error:
        execute_chapter(write_chapter(), output, given, root=tmp_path)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)
    assert not output.exists()
    assert not (tmp_path / "_build").exists()


@pytest.mark.parametrize("line", ["seed = int('3')", "import os", "a, b = 1, 2", "seed ="])
def test_a_parameters_cell_holds_plain_assignments_only(write_chapter, line):
    with pytest.raises(HistotransferError, match="01_made"):
        chapter_parameters(write_chapter(f'# %% tags=["parameters"]\n{line}\n'))


def test_a_default_is_checked_too(write_chapter):
    with pytest.raises(HistotransferError, match=r"01_made.*wheel"):
        check_parameters(write_chapter('# %% tags=["parameters"]\nwheel = 1\n'), {})


def test_two_parameters_cells_are_refused(write_chapter):
    cell = '# %% tags=["parameters"]\nseed = 0\n\n'
    with pytest.raises(HistotransferError, match="2 cells"):
        chapter_parameters(write_chapter(cell * 2))


# Execution ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def execute_made(tmp_path_factory):
    """Execute the made chapter in a folder and into a file of its own; its text."""

    def execute(name) -> str:
        root = tmp_path_factory.mktemp(name)
        source = root / "01_made.py"
        source.write_text(CHAPTER, encoding="utf-8")
        execute_chapter(source, root / "out" / f"{name}.ipynb", {"seed": 5}, root=root)
        assert [path.name for path in (root / "out").iterdir()] == [f"{name}.ipynb"]
        return (root / "out" / f"{name}.ipynb").read_text(encoding="utf-8")

    return execute


@pytest.fixture(scope="module")
def executed(execute_made):
    return execute_made("first")


@pytest.mark.slow
def test_a_second_run_is_byte_identical(executed, execute_made):
    assert execute_made("second") == executed


def test_the_page_shows_the_parameters_once_and_as_they_were(executed):
    notebook = nbformat.reads(executed, as_version=4)
    nbformat.validate(notebook)
    shown = [cell.source for cell in notebook.cells if "seed = " in cell.source]
    assert shown == ['profile = "phantom"  # größer als ASCII\nseed = 5']
    assert "injected-parameters" not in executed


def test_nothing_of_the_run_but_its_outputs_is_kept(executed):
    notebook = nbformat.reads(executed, as_version=4)
    assert [cell["id"] for cell in notebook.cells] == ["cell-00", "cell-01", "cell-02", "cell-03"]
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert [cell.metadata for cell in notebook.cells][:3] == [{}, {"tags": ["parameters"]}, {}]
    assert notebook.cells[3].metadata["mystnb"]["image"]["alt"] == "A rising line."
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2, 3]
    streams = {output.name: output.text for output in notebook.cells[2].outputs if output.output_type == "stream"}
    assert streams["stderr"].startswith("<cell>:4: UserWarning: seen")
    assert notebook.cells[2].outputs[-1].data["text/plain"] == "<object at 0x...>"
    assert "image/png" in notebook.cells[3].outputs[0].data
    # The interpreter that runs the tests runs the chapter, whatever kernels are installed.
    assert streams["stdout"].splitlines() == ["to stdout", sys.executable]


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("3", "3")])
def test_a_chapter_runs_on_one_thread_unless_more_are_given(write_chapter, tmp_path, monkeypatch, given, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    seen = {}

    def execute_notebook(notebook, raw, kernel_manager_class, **options):
        seen.update(kernel_manager_class().kernel_spec.env)
        nbformat.write(notebook, raw)

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    execute_chapter(write_chapter("# %%\n1\n"), tmp_path / "out.ipynb")
    assert seen["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize(("deaths", "starts"), [(2, 3), (3, 3)], ids=["started in the end", "given up"])
def test_a_kernel_that_finds_its_port_taken_is_started_anew(write_chapter, tmp_path, monkeypatch, deaths, starts):
    tried = []

    def execute_notebook(notebook, raw, **options):
        tried.append(raw)
        if len(tried) <= deaths:
            raise RuntimeError("Kernel died before replying to kernel_info")
        nbformat.write(notebook, raw)

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    if deaths < starts:
        execute_chapter(write_chapter("# %%\n1\n"), tmp_path / "out.ipynb")
    else:
        with pytest.raises(ChapterError, match="Kernel died before"):
            execute_chapter(write_chapter("# %%\n1\n"), tmp_path / "out.ipynb")
    assert len(tried) == starts


def test_an_alt_text_that_comes_with_a_picture_is_the_pages(write_chapter):
    source = write_chapter()
    ran = read_source(source)
    picture = {"image/png": "iVBORw0KGgo="}
    ran.cells[3]["outputs"] = [
        nbformat.v4.new_output("display_data", picture, metadata={"image/png": {"alt": "0 to 5."}})
    ]
    cell = normalise(ran, source, {"profile": "phantom", "seed": 0}).cells[3]
    assert cell.metadata["mystnb"]["image"] == {"alt": "0 to 5."}
    assert cell.metadata["mystnb"]["figure"]["caption"] == "A line."


def test_a_failing_chapter_leaves_nothing_where_the_build_looks(write_chapter, tmp_path):
    output = tmp_path / "executed" / "01_made.ipynb"
    output.parent.mkdir()
    output.write_text("the last good one")
    with pytest.raises(HistotransferError) as error:
        execute_chapter(write_chapter(FAILING), output, {"seed": 1}, root=tmp_path)
    message = str(error.value)
    assert "01_made" in message
    assert "code cell 3 of 3" in message
    assert "ValueError: the last line" in message
    assert "\n" not in message
    assert output.read_text() == "the last good one"
    assert list(output.parent.iterdir()) == [output]
    kept = nbformat.read(tmp_path / "_build" / "failed" / "01_made.ipynb", as_version=4)
    assert any("fine" in str(cell.get("outputs")) for cell in kept.cells)


def trains(folder):
    """A cell that names a folder of live runs."""
    return f'# %%\nfrom pathlib import Path\n\nprofile = "phantom"\nlive = Path("_build/experiments") / {folder}\n'


@pytest.fixture
def due(write_chapter, tmp_path):
    """Two chapters and one that goes on with what they have trained: sources, outputs, parameters."""
    texts = {"01_one": trains('"one"'), "02_two": trains("profile"), "03_three": trains('"one"') + trains("profile")}
    return {name: (write_chapter(text, f"{name}.py"), tmp_path / f"{name}.ipynb", {}) for name, text in texts.items()}


def in_threads(monkeypatch, execute):
    """`execute_chapters` with another function in `execute_chapter`'s place, which no other process would know."""
    monkeypatch.setattr(execution, "execute_chapter", execute)
    monkeypatch.setattr(execution, "ProcessPoolExecutor", lambda at_once, **options: ThreadPoolExecutor(at_once))


def test_chapters_run_side_by_side_and_after_those_they_go_on_with(due, tmp_path, monkeypatch):
    one, two, three = (source for source, *_ in due.values())
    assert continued(three, [one, two]) == {"01_one", "02_two"} and not continued(two, [one])
    meeting = threading.Barrier(2, timeout=20)

    def execute(source, output, parameters, root):
        if source.stem == "03_three":
            assert due["01_one"][1].exists() and due["02_two"][1].exists()
        else:
            meeting.wait()
        output.touch()

    in_threads(monkeypatch, execute)
    done = [name for name, seconds in execute_chapters(due, tmp_path) if seconds > 0]
    assert set(done[:2]) == {"01_one", "02_two"} and done[2:] == ["03_three"]


def test_after_a_chapter_that_failed_none_is_begun(due, tmp_path, monkeypatch):
    begun = []

    def execute(source, output, parameters, root):
        begun.append(source.stem)
        if source.stem == "02_two":
            raise ChapterError("chapter 02_two failed", "1 / 0")

    in_threads(monkeypatch, execute)
    with pytest.raises(ChapterError, match="chapter 02_two failed"):
        list(execute_chapters(due, tmp_path))
    assert sorted(begun) == ["01_one", "02_two"]


@pytest.mark.slow
def test_what_executes_chapters_ends_with_the_build_that_was_killed(write_chapter, tmp_path):
    waits = "import os\nfrom pathlib import Path\nPath(f'{os.getppid()}-{os.getpid()}.pid').touch()\nwhile True: pass\n"
    sources = [write_chapter(f"# %%\n{waits}", f"0{number}_made.py") for number in range(2)]
    due = {source.stem: (str(source), str(source.with_suffix(".ipynb")), {}) for source in sources}
    build = (
        "from pathlib import Path\nfrom histotransfer.book.build.execution import execute_chapters\n"
        f"if __name__ == '__main__':\n    due = {due}\n"
        "    list(execute_chapters({n: (Path(a), b, c) for n, (a, b, c) in due.items()}, Path()))"
    )
    (tmp_path / "build.py").write_text(build)
    process = subprocess.Popen([sys.executable, "build.py"], cwd=tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    process.kill()
    process.wait()
    pids = [pid for path in tmp_path.glob("*.pid") for pid in path.stem.split("-")]  # workers and kernels
    wait_for(lambda: not any(Path("/proc", pid, "exe").exists() for pid in pids))
    assert not list(tmp_path.glob("notebooks/*.ipynb"))


@pytest.fixture
def run_made(write_chapter, tmp_path, monkeypatch):
    """A function that begins a made chapter in a process of its own; it ends when there is a file `go`."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    waits = "import os, time\nfrom pathlib import Path\n\nPath(f'{os.getpid()}.pid').touch()\n"
    write_chapter(f"# %%\n{waits}while not Path('go').exists():\n    time.sleep(0.1)\n1 + 1\n")
    run = "from histotransfer.book.build.execution import execute_chapter as run; "
    command = [sys.executable, "-c", f"{run}run('notebooks/01_made.py', 'out/made.ipynb')"]
    return lambda: subprocess.Popen(command, cwd=tmp_path)


def has_run_alone(folder):
    """Whether nothing lies beside the executed notebook, nor where temporary files of programs and kernels are."""
    beside = [path.name for path in (folder / "out").iterdir()]
    return beside == ["made.ipynb"] and not [path for path in (folder / "tmp").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_chapter_that_was_killed_runs_again_and_leaves_nothing(run_made, tmp_path):
    process = run_made()
    wait_for(lambda: list(tmp_path.glob("*.pid")))
    process.kill()
    process.wait()
    (kernel,) = (path.stem for path in tmp_path.glob("*.pid"))
    wait_for(lambda: not Path("/proc", kernel, "exe").exists())
    assert not (tmp_path / "out" / "made.ipynb").exists()
    (tmp_path / "go").touch()
    assert run_made().wait() == 0
    assert has_run_alone(tmp_path)


@pytest.mark.parametrize(("parent", "alive"), [(os.getpid(), True), (1, False)], ids=["alive", "dead"])
def test_a_kernel_whose_parent_died_before_it_looked_ends(parent, alive):
    """Where orphans are adopted by another process than 1, as on a desktop, ipykernel alone would let it live."""
    command = [sys.executable, "-c", f"{execution.ORPHAN}print('alive')"]
    done = subprocess.run(command, env=os.environ | {"JPY_PARENT_PID": str(parent)}, capture_output=True, check=False)
    assert (done.returncode == 0) == alive == (done.stdout == b"alive\n")


@pytest.mark.slow
def test_a_chapter_may_run_twice_at_once(run_made, tmp_path):
    both = [run_made(), run_made()]
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    (tmp_path / "go").touch()
    assert [process.wait() for process in both] == [0, 0]
    assert has_run_alone(tmp_path)
    written = (tmp_path / "out" / "made.ipynb").read_text()
    assert run_made().wait() == 0
    assert (tmp_path / "out" / "made.ipynb").read_text() == written


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_chapters_run_in_processes_of_their_own_and_tell_how_they_failed(write_chapter, due, tmp_path):
    meet = "Path({!r}).touch()\nwhile not Path({!r}).exists():\n    pass\n"
    one, two = trains('"one"'), trains("profile")
    write_chapter(one + meet.format(*"ab"), "01_one.py")
    write_chapter(two + meet.format(*"ba"), "02_two.py")
    write_chapter(f"{one}\n{two}\n{FAILING}", "03_three.py")
    with pytest.raises(ChapterError, match="chapter 03_three failed in code cell 5 of 5") as error:
        list(execute_chapters(due, tmp_path))
    assert error.value.cell.startswith("raise ValueError")
    assert due["01_one"][1].exists() and due["02_two"][1].exists() and not due["03_three"][1].exists()


@pytest.mark.slow
def test_a_kernel_that_dies_is_reported(write_chapter, tmp_path):
    source = write_chapter("# %%\n1\n\n# %%\nimport os\nos._exit(1)\n")
    with pytest.raises(HistotransferError, match=r"01_made failed.*DeadKernelError"):
        execute_chapter(source, tmp_path / "out.ipynb", root=tmp_path)
    assert not (tmp_path / "out.ipynb").exists()


def test_process_numbers_and_addresses_go_and_pictures_stay(write_chapter):
    source = write_chapter("# %%\n1\n")
    run = read_source(source)
    picture = "at 0x123 in base64"
    run.cells[0]["outputs"] = [
        nbformat.v4.new_output(
            "stream", text="/tmp/ipykernel_4711/99.py:1: Warning\n/a/site-packages/b.py kept 0x10\n"
        ),
        nbformat.v4.new_output("display_data", data={"image/png": picture, "text/plain": "<Axes at 0x7fab12>"}),
        nbformat.v4.new_output("error", ename="E", evalue="", traceback=["File /tmp/ipykernel_1/2.py"]),
    ]
    run.cells[0].metadata["papermill"] = {"duration": 1.5}
    page = normalise(run, source, {})
    stream, display, error = page.cells[0].outputs
    assert stream.text == "<cell>:1: Warning\nb.py kept 0x10\n"
    assert display.data == {"image/png": picture, "text/plain": "<Axes at 0x...>"}
    assert error.traceback == ["File <cell>"]
    assert page.cells[0].metadata == {}


# Pairs --------------------------------------------------------------------------------------------------------------


def test_a_pair_in_step_and_every_way_to_be_out_of_step(write_chapter, tmp_path):
    source = write_chapter()
    target = source.with_suffix(".ipynb")
    assert "missing" in stale_pairs(tmp_path)[0]
    assert pair(tmp_path) == [target]
    assert stale_pairs(tmp_path) == []
    assert pair(tmp_path) == []  # nothing to do is nothing written

    source.write_text(CHAPTER.replace("to stdout", "changed"), encoding="utf-8")
    (complaint,) = stale_pairs(tmp_path)
    assert "01_made.ipynb" in complaint
    assert "make pairs" in complaint
    pair(tmp_path)

    notebook = json.loads(target.read_text(encoding="utf-8"))
    notebook["cells"][2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["left over"]}]
    target.write_text(json.dumps(notebook))
    assert len(stale_pairs(tmp_path)) == 1  # an output counts as out of step
    pair(tmp_path)

    (target.parent / "02_orphan.ipynb").write_text("{}")
    (complaint,) = stale_pairs(tmp_path)
    assert "02_orphan.ipynb" in complaint


def test_a_pair_is_deterministic_and_output_free(write_chapter):
    source = write_chapter()
    assert pair_text(source) == pair_text(source)
    notebook = nbformat.reads(pair_text(source), as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert read_source(source).cells[1].metadata["tags"] == ["parameters"]


REPOSITORY = "https://github.com/someone/histology"


def set_repository(root, url):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["repository"]["url"] = url
    (root / "_config.yml").write_text(yaml.safe_dump(config))


def test_with_a_repository_a_pair_opens_with_a_cell_that_fetches_what_is_missing(write_chapter, tmp_path):
    source = write_chapter()
    set_repository(tmp_path, "")
    without = pair_text(source)
    set_repository(tmp_path, REPOSITORY)
    assert stale_pairs(tmp_path)
    (target,) = pair(tmp_path)
    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    setup = notebook.cells.pop(0)
    assert f"--branch main {REPOSITORY} " in setup.source and setup.metadata["tags"] == ["remove-cell"]
    assert json.loads(without)["cells"] == json.loads(nbformat.writes(notebook))["cells"]


@pytest.mark.slow
def test_where_the_module_is_installed_that_cell_does_nothing(write_chapter, tmp_path):
    write_chapter()
    set_repository(tmp_path, REPOSITORY)
    (target,) = pair(tmp_path)
    output = tmp_path / "out.ipynb"
    execute_chapter(target, output, root=tmp_path)
    assert nbformat.read(output, as_version=4).cells[0].outputs == []


def test_what_is_not_a_chapter_is_refused(tmp_path):
    with pytest.raises(HistotransferError, match="no such chapter"):
        read_source(tmp_path / "01_none.py")
    (tmp_path / "01_bad.ipynb").write_text("not json")
    with pytest.raises(HistotransferError, match="01_bad"):
        read_source(tmp_path / "01_bad.ipynb")


# The book -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_book(tmp_path, write_chapter):
    """A book of one made chapter with the real configuration, pages and style."""
    write_chapter(CHAPTER.replace("print(sys.executable)\n", ""))
    for name in ("_config.yml", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for folder in ("_static", "_templates"):
        shutil.copytree(ROOT / "book" / folder, tmp_path / "book" / folder)
    shutil.copyfile(ROOT / "book" / "references.bib", tmp_path / "book" / "references.bib")
    shutil.copyfile(ROOT / "book" / "bibliography.md", tmp_path / "book" / "bibliography.md")
    (tmp_path / "book" / "index.md").write_text("# Made\n\n$$ x^2 $$\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "STRAY.md").write_text("# Stray, with a {doc}`link to nowhere`\n")
    toc = {
        "format": "jb-book",
        "root": "book/index",
        "parts": [
            {"caption": "One", "numbered": True, "chapters": [{"file": "notebooks/01_made"}]},
            {"caption": "Two", "chapters": [{"file": "book/bibliography"}]},
        ],
    }
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    return tmp_path


def test_chapters_come_in_the_order_of_the_book(made_book):
    assert [source.name for source in chapter_sources(made_book)] == ["01_made.py"]
    (made_book / "notebooks" / "01_made.py").unlink()
    with pytest.raises(HistotransferError, match="01_made"):
        chapter_sources(made_book)
    (made_book / "_toc.yml").unlink()
    with pytest.raises(HistotransferError, match=r"_toc\.yml"):
        chapter_sources(made_book)


def test_only_what_the_book_needs_is_staged(made_book):
    staged = stage(made_book, [])
    assert {path.name for path in staged.iterdir()} == {"_config.yml", "_toc.yml", "CHANGELOG.md", "book"}
    assert not list(staged.rglob("STRAY.md"))


def test_the_card_of_the_network_that_ships_is_staged_with_captions(made_book):
    assert not (stage(made_book, []) / "book/_generated/model.md").exists()
    (made_book / SHIPPED_CARD).parent.mkdir(parents=True)
    tables = "## Metrics\n\nOf it.\n\n| a |\n| --- |\n| 1 |\n\n## Abroad\n\n| b |\n| --- |\n| 2 |\n"
    card = f"# Card\n\n## Data\n\n- none\n\n{tables}"
    (made_book / SHIPPED_CARD).write_text(card)
    staged = (stage(made_book, []) / "book/_generated/model.md").read_text()
    assert "## Data\n\n- none\n\n## Metrics\n\nOf it.\n\n:::{table} Metrics.\n:name: tab-model-1\n\n| a |" in staged
    assert (
        "| 1 |\n\n:::\n\n## Abroad\n\n:::{table} Abroad.\n:name: tab-model-2\n\n| b |\n| --- |\n| 2 |\n\n:::\n"
        in staged
    )


# Where the theme and Sphinx fall short on a phone and for a screen reader.
FLAWS = {
    "a heavy script": "script[src*='fontawesome.js']",
    "a button named other than it reads": "button.search-button-field[aria-label]",
    "an arrow without a name": "summary:has(> .toctree-toggle):not([aria-label])",
    "a list in a signature": "dt.sig :is(dl, dd)",
    "a picture too wide to see": "article img:not(a > img)",
    "a deprecated role": "[role='doc-biblioentry']",
}
SPHINX_PAGES = {
    "index": "Made\n====\n\n.. image:: picture.png\n   :alt: Dots.\n\n.. toctree::\n\n   part\n",
    "part": "Part\n====\n\n.. toctree::\n\n   leaf\n\n.. py:function:: fit(table: dict[str, int], seed=0, *, s=0.1)\n",
    "leaf": "Leaf\n====\n\nSee [One]_ and [Two]_.\n\n.. [One] First.\n.. [Two] Second.\n\n.. py:function:: short(a)\n",
}


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def flaws(site: Path) -> set[str]:
    pages = [soup(page) for page in site.rglob("*.html") if "_static" not in page.parts]
    return {name for name, selector in FLAWS.items() if any(page.select(selector) for page in pages)}


def test_pages_are_without_the_flaws_of_the_theme_and_otherwise_the_same(tmp_path):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    (extension,) = {"histotransfer.book.extensions.markup"} & set(config["extensions"])
    for name, text in SPHINX_PAGES.items():
        (tmp_path / f"{name}.rst").write_text(text)
    shutil.copyfile(ROOT / "book/_static/study.png", tmp_path / "picture.png")
    plain = "html_theme = 'sphinx_book_theme'\npython_maximum_signature_line_length = 30\n"
    ours = f"extensions = [{extension!r}]\ntemplates_path = {[str(ROOT / one) for one in config['templates_path']]}\n"
    for site, text in {"plain": plain, "ours": plain + ours}.items():
        (tmp_path / "conf.py").write_text(text)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", str(tmp_path), str(tmp_path / site)]
        subprocess.run(command, check=True, capture_output=True)
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    assert flaws(plain) == set(FLAWS)
    assert flaws(ours) == set()

    for name in SPHINX_PAGES:
        before, after = soup(plain / f"{name}.html"), soup(ours / f"{name}.html")
        assert "".join(after.get_text().split()) == "".join(before.get_text().split())
        had, has = ([tag.get("src") for tag in page("script")] for page in (before, after))
        assert has == [url for url in had if "fontawesome" not in str(url)] and len(has) > 5
    lines = [line.get_text() for line in soup(ours / "part.html").select("dt.sig > .sig-line")]
    assert lines == ["table: dict[str, int],", "seed=0,", "*,", "s=0.1,"]
    assert soup(ours / "index.html").select_one("article a > img")["src"] == "_images/picture.png"
    assert soup(ours / "index.html").select_one("article a:has(> img)")["href"] == "_images/picture.png"
    assert len(soup(ours / "leaf.html").select("[role=list] > [role=listitem].citation")) == 2
    assert soup(ours / "leaf.html").select_one("summary")["aria-label"] == "Pages of this part"


MODULE = '''\
from typing import NamedTuple
from histotransfer.config import LadderConfig, Stage

class Pair(NamedTuple):
    """Two numbers."""

    first: int

    @property
    def both(self) -> int:
        """Sum: of both."""

def unfreeze(stage: Stage) -> int:
    """Unfreeze.

    Returns:
        One row an epoch: `loss`.
    """
'''


@pytest.mark.slow
def test_the_reference_says_what_the_docstrings_say(tmp_path):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    extensions = ("sphinx.ext.autodoc", "sphinx.ext.napoleon", "histotransfer.book.extensions.reference")
    assert set(extensions) <= set(config["extensions"])
    settings = {name: value for name, value in config.items() if name.startswith(("autodoc_", "napoleon_", "default_"))}
    lines = [f"{name} = {value!r}" for name, value in settings.items()]
    (tmp_path / "conf.py").write_text("\n".join([f"extensions = {extensions!r}", *lines]))
    (tmp_path / "made.py").write_text(MODULE)
    (tmp_path / "index.rst").write_text(
        ".. automodule:: made\n\n.. autoclass:: histotransfer.config.LadderConfig\n   :no-members:\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "text", str(tmp_path), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": paths})
    text = " ".join((tmp_path / "out" / "index.txt").read_text().split())
    assert "unfreeze(stage: Stage) -> int" in text
    assert 'Returns: One row an epoch: "loss".' in text and "Return type" not in text
    assert "Sum: of both." in text and "Alias for" not in text
    assert "class histotransfer.config.LadderConfig Settings of one run" in text
    assert "**size** -- pixels per side of the square that the network sees; at least 32; at most 1024; " in text
    assert '"112" in phantom; "224" in lite and paper.' in text


@pytest.mark.slow
def test_a_table_that_a_cell_puts_out_is_numbered_as_one(tmp_path):
    def cell(name, content):
        output = nbformat.v4.new_output("execute_result", content)
        look = {"mystnb": {"figure": {"name": name, "caption": f"About *{name}*."}}}
        return nbformat.v4.new_code_cell("x", metadata=look, outputs=[output])

    table = {"text/html": "<table class=dataframe><tr><td>7</td></tr></table>"}
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
        cells=[
            nbformat.v4.new_markdown_cell("# Made\n\nSee {numref}`tab-two` and {numref}`fig-one`."),
            cell("tab-one", table),
            cell("fig-one", {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"}),
            cell("tab-two", table),
        ],
    )
    nbformat.write(notebook, tmp_path / "index.ipynb")
    settings = "numfig = True\nnb_execution_mode = 'off'\nnitpicky = True\nsuppress_warnings = ['myst-nb.lexer']\n"
    (tmp_path / "conf.py").write_text(f"extensions = ['myst_nb', 'histotransfer.book.extensions.captions']\n{settings}")
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", str(tmp_path), str(out)], check=True)
    page = " ".join((out / "index.html").read_text().split())
    links = re.findall(r'href="#(\S+)"><span class="std std-numref">([^<]+)</span>', page)
    assert links == [("tab-two", "Table 2"), ("fig-one", "Fig. 1")]
    tables = re.findall(r'<figure class="output-table" id="(\S+)">.*?</figure>', page)
    assert tables == ["tab-one", "tab-two"]
    head, _, body = page.partition('id="tab-two">')[2].partition("</figcaption>")
    assert '<span class="caption-number">Table 2 </span>' in head and "About <em>tab-two</em>." in head
    assert body.lstrip().startswith('<div class="pst-scrollable-table-container"> <div class="output text_html"><table')


@pytest.mark.parametrize("url", ["", REPOSITORY])
def test_launch_buttons_need_the_address_of_a_repository(made_book, url):
    set_repository(made_book, url)
    folder = stage(made_book, [])
    source = (folder / "book/_generated/source.md").read_text()
    assert "histotransfer-source.tar.xz" in source and (f"git clone --depth 1 {url}\n" in source) == bool(url)
    staged = yaml.safe_load((folder / "_config.yml").read_text())
    assert bool(staged.get("launch_buttons", {}).get("binderhub_url")) == bool(url)
    assert staged["html"]["use_repository_button"] == bool(url)


def test_a_parameter_that_no_chapter_takes_is_refused(made_book):
    with pytest.raises(HistotransferError, match="device"):
        build_book(made_book, parameters={"device": "cpu"}, report=lambda line: None)
    with pytest.raises(HistotransferError, match="no such folder"):
        build_book(made_book, data_root=made_book / "none", report=lambda line: None)


@pytest.mark.slow
def test_a_book_is_built_offline_and_rebuilt_only_where_needed(made_book):
    lines = []
    site = build_book(made_book, parameters={"seed": 2}, report=lines.append)
    assert [line.split()[0] for line in lines] == ["01_made", "pages"]
    page = (site / "notebooks" / "01_made.html").read_text(encoding="utf-8")
    assert 'src="../_static/mathjax/tex-mml-chtml.js' in page
    assert (site / "_static/mathjax/output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff").is_file()
    assert 'alt="A rising line."' in page
    assert "Fig. 1" in page
    assert "Macenko" in page
    assert "thebe" not in page.lower()
    assert not list(site.rglob("STRAY*"))
    assert flaws(site) == set()

    # The page offers the notebook as students get it, and no button that leads nowhere.
    assert 'href="../_sources/notebooks/01_made.ipynb"' in page
    cells = nbformat.read(site / "_sources/notebooks/01_made.ipynb", as_version=4).cells
    assert "histotransfer is not installed" in cells[0].source and not any(cell.get("outputs") for cell in cells)
    assert (site / "histotransfer-source.tar.xz").is_file() and not list(site.rglob("*.key"))
    assert "mybinder" not in page and "colab" not in page

    lines.clear()
    set_repository(made_book, REPOSITORY)
    build_book(made_book, parameters={"seed": 2}, report=lines.append)
    assert "unchanged" in lines[0]
    linked = (site / "notebooks" / "01_made.html").read_text(encoding="utf-8")
    assert "https://mybinder.org/v2/gh/someone/histology/main?urlpath=lab/tree/notebooks/01_made.ipynb" in linked
    assert "https://colab.research.google.com/github/someone/histology/blob/main/notebooks/01_made.ipynb" in linked
    assert REPOSITORY in nbformat.read(site / "_sources/notebooks/01_made.ipynb", as_version=4).cells[0].source
    set_repository(made_book, "")

    # A broken link is an error, and the site that was there stays.
    (made_book / "book" / "index.md").write_text("# Made\n\n{doc}`nowhere`\n")
    with pytest.raises(HistotransferError, match=r"nowhere"):
        build_book(made_book, parameters={"seed": 2}, report=lines.append)
    assert (site / "notebooks" / "01_made.html").read_text(encoding="utf-8") == linked
