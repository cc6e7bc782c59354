"""Which code the pages fold, and what they leave as it is."""

import copy

import nbformat
import pytest

from histotransfer.book.build.folding import CHECK, SETUP, TABLE, folded


def chapter(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def code(source, outputs=(), **metadata):
    printed = [nbformat.v4.new_output("stream", text=text) for text in outputs]
    return nbformat.v4.new_code_cell(source, metadata=metadata, outputs=printed)


def table(name):
    return {"figure": {"name": name, "caption": "One."}}


def labels(notebook):
    return [
        cell.metadata["mystnb"]["code_prompt_show"] if "hide-input" in cell.metadata.get("tags", []) else None
        for cell in notebook.cells
    ]


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (code("seed = 0", tags=["parameters"]), SETUP),
        (code("root = begin(seed=seed)\nlive = root"), SETUP),
        (code("low = 1\nassert low > 0"), CHECK),
        (code("low = 1\nassert low > 0", ["seen"]), None),
        (code("formatted(table)", mystnb=table("tab-one")), TABLE),
        (code("figure = draw()", mystnb=table("fig-one")), None),
        (code("assert low > 0\nlow"), None),
        (code("answer = ...\nassert answer", tags=["exercise"]), None),
        (code("%%time\nbegin()"), None),
        (code("# it will begin(here)"), None),
        (nbformat.v4.new_markdown_cell("begin()"), None),
    ],
)
def test_plumbing_is_folded_and_nothing_else(cell, label):
    page = folded(chapter(copy.deepcopy(cell)))
    assert labels(page) == [label]
    assert page.cells[0].source == cell.source and page.cells[0].get("outputs") == cell.get("outputs")
    nbformat.validate(page)


def test_parameters_and_opening_are_one_line():
    page = folded(chapter(code("seed = 0", tags=["parameters"]), code("begin(seed=seed)", ["made"]), code("x = 1")))
    assert labels(page) == [SETUP, None]
    assert page.cells[0].source == "seed = 0\n\nbegin(seed=seed)"
    assert page.cells[0].outputs[0].text == "made"
    nbformat.validate(page)


def test_a_caption_and_an_alt_text_stay():
    look = {**table("tab-one"), "image": {"alt": "Dots."}}
    (cell,) = folded(chapter(code("formatted(table)", mystnb=look))).cells
    assert {key: cell.metadata["mystnb"][key] for key in look} == look
