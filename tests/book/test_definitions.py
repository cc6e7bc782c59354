"""Definitions of the glossary on the pages that link to them."""

import subprocess
import sys

import pytest
from bs4 import BeautifulSoup

PAGES = {
    "index": """\
One
===

An :term:`arm`, two :term:`arms <arm>` and a :term:`loss`.

.. toctree::

   deep/words
   bare
""",
    "deep/words": """\
Words
=====

.. glossary::

   arm
     What is *compared*, by its
     :term:`loss`.

   loss
     Less < is better: :math:`-\\ln p`.
""",
    "bare": "Bare\n====\n\nSee :doc:`index`.\n",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    for name, text in PAGES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.rst").write_text(text)
    (folder / "conf.py").write_text("extensions = ['histotransfer.book.extensions.definitions']\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(folder), str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True)
    return lambda name: BeautifulSoup((folder / "out" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def described(page):
    """Each link to a term, with what describes it."""
    return [
        (link.get_text(), page.find(id=link["aria-describedby"]).get_text())
        for link in page.select("a[aria-describedby]")
    ]


def test_each_link_to_a_term_is_described_by_its_definition(site):
    arm, loss = "What is compared, by its loss.", "Less < is better: -ln p."
    page = site("index")
    assert described(page) == [("arm", arm), ("arms", arm), ("loss", loss)]
    assert described(site("deep/words")) == [("loss", loss)]
    boxes = page.select(".definition")
    assert len(boxes) == 2 and all(box.has_attr("hidden") for box in boxes)  # shown by JavaScript only


def test_the_script_is_where_terms_are(site):
    loads = {name: any("definitions.js" in str(tag.get("src")) for tag in site(name)("script")) for name in PAGES}
    assert loads == {"index": True, "deep/words": True, "bare": False}
