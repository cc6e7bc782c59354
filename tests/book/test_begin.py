import base64
import io
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from histotransfer import figures
from histotransfer.book import chapters
from histotransfer.book.build.execution import execute_chapter
from histotransfer.book.chapters import COLUMNS, LIVE_PIXELS, begin, brief, live_config, project_root
from histotransfer.config import PROFILES, ladder_config
from histotransfer.errors import HistotransferError


def test_the_root_is_found_from_any_folder_below_it(tmp_path, monkeypatch):
    below = tmp_path / "course" / "student"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    (tmp_path / "_toc.yml").touch()
    assert project_root() == tmp_path


def test_outside_of_a_repository_the_packages_own_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_root() == Path(__file__).parents[2]
    monkeypatch.setattr(chapters, "__file__", str(tmp_path / "site-packages" / "chapters.py"))
    with pytest.raises(HistotransferError, match=f"{tmp_path}: is in no copy of the repository"):
        project_root()


def test_beginning_finds_the_images_and_stays_where_it_is(tmp_path, phantom_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert begin(data_root=str(phantom_root)) == phantom_root
    assert Path.cwd() == tmp_path


def test_parameters_are_checked_first():
    with pytest.raises(HistotransferError, match="seed"):
        begin(seed="3")


@pytest.mark.parametrize("profile", PROFILES)
def test_chapters_train_on_smaller_pictures_where_real_tissue_meets_a_cpu(profile):
    usual = ladder_config(profile, {"seed": 3})
    smaller = usual.model_copy(update={"size": LIVE_PIXELS})
    assert live_config(profile, {"seed": 3}) == (smaller if profile == "lite" else usual)
    assert live_config(profile, {"size": 96}).size == 96


@pytest.fixture
def shown(phantom_root, monkeypatch):
    """A function: what a chapter that has begun publishes of a figure, and its metadata."""
    formatter = DisplayFormatter()
    monkeypatch.setattr(chapters, "get_ipython", lambda: SimpleNamespace(display_formatter=formatter))
    with mpl.rc_context():
        begin(data_root=str(phantom_root))
        yield lambda figure: formatter.format(figure, exclude={"text/plain"})
    plt.close("all")


def plotted():
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.plot([0, 1])
    return figures.described(figure, "A rising line.")


def test_plots_are_shown_as_svg_the_same_each_time(shown):
    (first, about), (second, _) = shown(plotted()), shown(plotted())
    assert list(first) == ["image/svg+xml"] and first == second
    assert about == {"image/svg+xml": {"alt": "A rising line."}}
    _, tag, inner = first["image/svg+xml"].partition("<svg")
    drawing = BeautifulSoup(tag + inner, "html.parser")
    assert drawing.svg and not drawing("image") and "<dc:date>" not in inner
    assert {"0.0", "0.00"} & {text.get_text() for text in drawing("text")}  # text stays text


def test_pictures_are_shown_as_png_with_two_pixels_for_each_of_the_page(shown):
    figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
    left.imshow(np.eye(3))
    right.plot([0, 1])
    data, about = shown(figures.described(figure, "A diagonal."))
    assert list(data) == ["image/png"]
    pixels = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).width
    assert about == {"image/png": {"alt": "A diagonal.", "width": pixels // 2}}
    assert pixels == pytest.approx(4 * 2 * figure.dpi, rel=0.15)  # without the margin


BEGINS = """\
# %%
import matplotlib.pyplot as plt
from histotransfer.book.chapters import begin

begin(data_root={root!r})

# %%
figure, axes = plt.subplots()
axes.plot([0, 1])
figure.alt = "A rising line."

# %%
figure, axes = plt.subplots()
axes.imshow([[0, 1]])
plt.show()
"""


@pytest.mark.slow
def test_a_kernel_keeps_to_these_formats(phantom_root, tmp_path):
    source = tmp_path / "01_made.py"
    source.write_text(BEGINS.format(root=str(phantom_root)))
    texts = []
    for name in ("one", "two"):
        execute_chapter(source, tmp_path / f"{name}.ipynb", root=tmp_path)
        texts.append((tmp_path / f"{name}.ipynb").read_text())
    assert texts[0] == texts[1]
    _, plot, picture = nbformat.reads(texts[0], as_version=4).cells
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in (plot, picture)]
    assert kinds == [{"image/svg+xml", "text/plain"}, {"image/png", "text/plain"}]
    assert plot.metadata["mystnb"]["image"]["alt"] == "A rising line."


def made_table(columns):
    return pd.DataFrame(np.arange(2 * columns).reshape(2, -1), columns=[f"c{i}" for i in range(columns)])


def heads(table):
    return [cell.get_text() for cell in table.select("thead tr:first-child th")]


def test_a_wide_table_shows_few_columns_and_folds_all():
    page = BeautifulSoup(brief(made_table(8)).data, "html.parser")
    few, whole = page("table")
    assert heads(few) == ["", "c0", "c1", "c2", "c3"] and len(heads(few)) == COLUMNS
    assert heads(whole) == ["", *(f"c{i}" for i in range(8))]
    assert not few.find_parent("details") and whole.find_parent("details")
    assert page.summary.get_text() == "All 8 columns"


def test_an_author_chooses_the_columns_and_cannot_choose_too_many():
    table = made_table(8).set_index(["c0", "c1"])
    few, _ = BeautifulSoup(brief(table, ["c7", "c2"]).data, "html.parser")("table")
    assert heads(few) == ["", "", "c7", "c2"]
    with pytest.raises(HistotransferError, match="room for 3"):
        brief(table, ["c7", "c2", "c3", "c4"])


def test_a_narrow_table_folds_nothing():
    page = BeautifulSoup(brief(made_table(4)).data, "html.parser")
    assert len(page("table")) == 1 and not page.details
