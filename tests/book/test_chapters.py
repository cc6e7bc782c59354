"""The chapters as files: in step with their pairs, free of outputs, small, parametrised, in the book."""

import inspect
import json
import re
from pathlib import Path

import pytest

from histotransfer import figures
from histotransfer.bookbuild import chapter_sources, check_parameters, read_source, stale_pairs

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
every_chapter = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def test_pairs_are_in_step():
    complaints = stale_pairs(ROOT)
    assert not complaints, "\n".join(complaints)


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
    code = [cell.source for cell in read_source(source).cells if cell.cell_type == "code"]
    assert len(code) <= 30
    long = [cell.splitlines()[0] for cell in code if len([line for line in cell.splitlines() if line]) > 12]
    assert not long, f"more than 12 lines of code in the cells that begin with {long}"


@every_chapter
def test_a_chapter_opens_with_goals_and_ends_with_what_to_take_home(source):
    prose = [cell.source for cell in read_source(source).cells if cell.cell_type == "markdown"]
    assert prose[0].startswith("# ")
    assert "After this chapter you can" in prose[0]
    assert "## Take home" in prose[-1]
    assert "Further reading" in prose[-1]


def describes_itself(function):
    """Whether a figure's alt text comes from its numbers, given by the function or by one that it calls."""
    called = set(re.findall(r"\b(\w+)\(", inspect.getsource(function))) - {function.__name__}
    others = [getattr(figures, name) for name in called if inspect.isfunction(getattr(figures, name, None))]
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
