"""The chapters as files: in step with their pairs, free of outputs, small, parametrised, in the book."""

import ast
import inspect
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from jupytext.cli import jupytext

from histotransfer import figures
from histotransfer.book.build.execution import execute_chapter
from histotransfer.book.build.parameters import check_parameters
from histotransfer.book.build.sources import chapter_sources, pair_text, read_source, stale_pairs
from histotransfer.book.course import LEVELS, read_chapter, reading_minutes
from histotransfer.datasets import breakhis
from histotransfer.datasets.own import write_csv
from histotransfer.records import read_run

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
every_chapter = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def test_pairs_are_in_step():
    complaints = stale_pairs(ROOT)
    assert not complaints, "\n".join(complaints)


@every_chapter
def test_a_readers_own_jupytext_keeps_a_pair_as_it_is(source, tmp_path):
    pair = source, source.with_suffix(".ipynb")
    copies = [shutil.copyfile(path, tmp_path / path.name) for path in pair]
    shutil.copyfile(source.with_name("jupytext.toml"), tmp_path / "jupytext.toml")
    os.utime(copies[1], (0, 0))  # the source is the newer one
    for arguments in (["--test-strict", "--to", "ipynb"], ["--sync"]):
        assert jupytext(["--quiet", *arguments, str(copies[0])]) == 0
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in pair]
    os.utime(copies[0], (0, 0))  # the notebook is: then only the order of metadata may change in the source
    assert jupytext(["--quiet", "--sync", str(copies[1])]) == 0
    assert pair_text(copies[0]) == pair_text(source)
    assert copies[0].read_text(encoding="utf-8").startswith("# %% [markdown]")


def test_every_chapter_is_in_the_book_and_in_order():
    assert chapter_sources(ROOT) == SOURCES


@every_chapter
def test_the_committed_notebook_has_no_outputs(source):
    cells = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)


@every_chapter
def test_parameters_have_known_names_and_good_defaults(source):
    assert check_parameters(source, {})["profile"] == "phantom"


@every_chapter
def test_cells_and_chapters_are_small(source):
    cells = [cell for cell in read_source(source).cells if cell.cell_type == "code"]
    code = [cell.source for cell in cells]
    assert sum("exercise" not in cell.metadata.get("tags", []) for cell in cells) <= 30
    long = [cell.splitlines()[0] for cell in code if len([line for line in cell.splitlines() if line]) > 12]
    assert not long, f"more than 12 lines of code in the cells that begin with {long}"


@every_chapter
def test_a_chapter_opens_with_goals_and_ends_with_what_to_take_home(source):
    prose = [cell.source for cell in read_source(source).cells if cell.cell_type == "markdown"]
    assert prose[0].startswith("# ")
    assert "After this chapter you can" in prose[0]
    assert "## Take home" in prose[-1]
    assert "Further reading" in prose[-1]


every_chapter_of_the_book = pytest.mark.parametrize("source", chapter_sources(ROOT), ids=lambda path: path.stem)


@every_chapter_of_the_book
def test_a_chapter_can_be_taught(source):
    chapter, notebook = read_chapter(source), read_source(source)
    assert len(chapter.goals) >= 3
    assert 3 <= len(chapter.exercises) <= 5
    assert {exercise.level for exercise in chapter.exercises} == set(LEVELS)
    assert [exercise.minutes for exercise in chapter.exercises] == sorted(e.minutes for e in chapter.exercises)
    questions = [cell.source for cell in notebook.cells if "## Check yourself" in cell.source]
    assert len(questions) == 1 and questions[0].count("<summary>") == questions[0].count("</details>") >= 3


@every_chapter_of_the_book
def test_the_times_of_a_chapter_are_those_of_its_words_and_exercises(source):
    chapter = read_chapter(source)
    assert chapter.reading == pytest.approx(reading_minutes(read_source(source)), rel=0.2)


def test_labels_of_exercises_are_unique():
    labels = [exercise.label for source in chapter_sources(ROOT) for exercise in read_chapter(source).exercises]
    assert len(labels) == len(set(labels)) >= 24


def test_names_of_figures_are_unique():
    cells = [cell for source in chapter_sources(ROOT) for cell in read_source(source).cells]
    looks = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells]
    names = [look["name"] for look in looks if "name" in look]
    assert sorted(names) == sorted(set(names)) and len(names) >= 30


def describes_itself(function):
    """Whether a figure's alt text comes from its numbers, given by the function or by one that it calls."""
    called = set(re.findall(r"\b(\w+)\(", inspect.getsource(function))) - {function.__name__}
    beside = vars(inspect.getmodule(function))
    others = [beside[name] for name in called if inspect.isfunction(beside.get(name))]
    return "described" in called or any(map(describes_itself, others))


@every_chapter
def test_every_figure_has_a_caption_and_a_description(source):
    for cell in read_source(source).cells:
        if re.search(r"^figure = ", cell.source, re.M) and cell.cell_type == "code":
            look = cell.metadata.get("mystnb", {})
            assert look.get("figure", {}).get("caption"), cell.source
            assert look.get("figure", {}).get("name"), cell.source
            drawn_by = re.search(r"^figure = (?:figures\.)?(\w+)\(", cell.source, re.M)[1]
            described = describes_itself(getattr(figures, drawn_by))
            assert described or look.get("image", {}).get("alt"), cell.source


@every_chapter
def test_a_figure_is_put_out_whatever_the_profile(source):
    """Texts refer to it by its number: where it is missing the book does not build."""
    for cell in read_source(source).cells:
        if cell.metadata.get("mystnb", {}).get("figure"):
            forks = [node for node in ast.parse(cell.source).body if isinstance(node, ast.If)]
            assert all(node.orelse for node in forks), cell.source


@pytest.mark.slow
def test_the_last_chapter_takes_a_readers_own_images(phantom_root, tmp_path, monkeypatch):
    table = breakhis.load(phantom_root)
    table = table[table["magnification"] == 100].assign(label=lambda rows: rows["label"].str.upper())
    images = write_csv(table, tmp_path / "mine.csv")
    output = tmp_path / "executed.ipynb"
    execute_chapter(ROOT / "notebooks/13_your_own_data.py", output, {"images": str(images)}, root=ROOT)
    record = read_run(ROOT / "_build/experiments/phantom-own/ladder").record
    assert record["data"]["name"] == "own" and record["data"]["images"] == len(table)
    assert "MALIGNANT" in output.read_text()
