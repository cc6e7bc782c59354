"""Pages of the source, and the links from what a page imports to where it is defined."""

import re
import subprocess
import sys

import pytest
from bs4 import BeautifulSoup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from histotransfer.book.source_pages import FOLDER, PACKAGE, link_imports, write_source_pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / FOLDER
    write_source_pages(folder)
    return folder


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def links(code, lexer="ipython3"):
    linked = link_imports(highlight(code, get_lexer_by_name(lexer), HtmlFormatter()), "../source/")
    page = BeautifulSoup(linked, "html.parser")
    assert page.get_text().strip() == code.strip()  # no letter changes
    return {link.get_text(): link["href"].removeprefix("../source/histotransfer/") for link in page("a")}


@pytest.mark.parametrize("lexer", ["ipython3", "python"])
@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from histotransfer.book.chapters import begin", {"begin": "book/chapters.html#begin"}),
        ("from histotransfer.config import PROFILES", {"PROFILES": "config.html#PROFILES"}),
        ("from histotransfer import figures", {"figures": "figures/__init__.html"}),
        ("from histotransfer.figures import roc", {"roc": "figures/predictions.html#roc"}),  # where it is defined
        ("from histotransfer.evaluation import metrics", {"metrics": "evaluation/metrics.html"}),
        (
            "from histotransfer.models.se import (\n    SqueezeExcite as SE,\n)\nSE(SqueezeExcite)",
            {"SqueezeExcite": "models/se.html#SqueezeExcite"},
        ),
        ("from histotransfer.models.se import nothing\nfrom pathlib import Path\nimport os", {}),
    ],
)
def test_imported_names_are_linked_to_their_definitions(code, found, lexer):
    assert links(code, lexer) == found


def test_the_name_given_to_an_import_is_not_a_link():
    page = link_imports(
        highlight("from histotransfer import figures as roc", get_lexer_by_name("python"), HtmlFormatter()), ""
    )
    assert BeautifulSoup(page, "html.parser").a.get_text() == "figures"


def test_each_module_has_a_page_with_its_whole_code(pages):
    sources = sorted(PACKAGE.rglob("*.py"))
    assert len(sources) == len(list(pages.rglob("*.html"))) > 100
    for source in sources[::10]:
        page = soup(pages / source.relative_to(PACKAGE.parent).with_suffix(".html"))
        assert page.pre.get_text() == source.read_text(encoding="utf-8"), source


def test_links_between_pages_and_anchors_resolve(pages):
    anchors = {page.resolve(): {tag["id"] for tag in soup(page)(id=True)} for page in pages.rglob("*.html")}
    seen = 0
    for page in anchors:
        for link in soup(page).select("pre a"):
            file, _, anchor = link["href"].partition("#")
            target = (page.parent / file).resolve()
            assert target in anchors and (not anchor or anchor in anchors[target]), f"{page}: {link}"
            seen += 1
    assert seen > 500


def test_pages_are_small(pages):
    source = sum(path.stat().st_size for path in PACKAGE.rglob("*.py"))
    assert sum(page.stat().st_size for page in pages.rglob("*.html")) < 2.5 * source


def test_pages_are_written_again_only_if_the_package_has_changed(pages):
    page, key = next(pages.rglob("config.html")), pages.with_suffix(".key")
    before = page.stat().st_mtime_ns
    write_source_pages(pages)
    assert page.stat().st_mtime_ns == before
    key.write_text("of another version")
    write_source_pages(pages)
    assert page.stat().st_mtime_ns > before


def test_code_and_reference_of_a_page_lead_to_the_source(tmp_path):
    text = "Made\n====\n\n.. code-block:: python\n\n   from histotransfer.config import LadderConfig\n\n"
    text += ".. autofunction:: histotransfer.book.source_pages.link_imports\n"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "made.rst").write_text(text)
    (tmp_path / "index.rst").write_text("One\n===\n\n.. toctree::\n\n   deep/made\n")
    extensions = ["sphinx.ext.autodoc", "histotransfer.book.extensions.markup"]
    (tmp_path / "conf.py").write_text(f"extensions = {extensions}\nhtml_theme = 'sphinx_book_theme'\n")
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-m", "sphinx", "-q", str(tmp_path), str(out)], check=True, capture_output=True)
    page = (out / "deep" / "made.html").read_text(encoding="utf-8")
    assert re.findall(r'href="(\.\./source/[^"]+)"', page) == [
        "../source/histotransfer/config.html#LadderConfig",
        "../source/histotransfer/book/source_pages.html#link_imports",
    ]
