"""The pages of prose, and the site if one has been built."""

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from histotransfer import __version__
from histotransfer.book.build.sources import chapter_sources, toc_files
from histotransfer.book.chapters import COLUMNS
from histotransfer.book.course import figure_numbers

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"
STATIC = ROOT / "book" / "_static"
GENERATED = ("genindex.html", "py-modindex.html")  # by Sphinx, whose lists of names are tables without a caption


def test_every_page_of_prose_is_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    assert {f"{name}.md" for name in toc_files(toc) if name.startswith("book/")} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "book").rglob("*.md")
    }
    assert all("numbered" in part for part in toc["parts"])  # at the top level it numbers nothing


def test_the_reference_holds_every_module():
    package = ROOT / "src" / "histotransfer"
    pages = [page.read_text() for page in (ROOT / "book" / "api").glob("*.md")]
    named = {module for page in pages for module in re.findall(r"automodule:: histotransfer\.(\S+)", page)}
    gathered = {
        ".".join(path.parent.relative_to(package).parts)
        for path in package.glob("*/**/__init__.py")
        if re.search(r"^(__all__|def|class)\b", path.read_text(), re.M)
    }
    modules = {".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("[a-z]*.py")}
    inner = {name for name in modules if name.rpartition(".")[0] in gathered}
    tools = {name for name in modules if name.startswith("book.extensions.")}
    assert named - inner == modules - inner - tools - {"cli"} | gathered


def test_every_symbol_of_a_chapter_is_in_the_notation():
    notation = (STATIC.parent / "notation.md").read_text(encoding="utf-8")
    symbols = set()
    for source in (ROOT / "notebooks").glob("*.py"):
        for table in re.findall(
            r"^# \| symbol .*\n# \|[-|]+\n((?:# \|.*\n)+)", source.read_text(encoding="utf-8"), re.M
        ):
            symbols |= {symbol for row in table.splitlines() for symbol in re.findall(r"\$.+?\$", row.split("|")[1])}
    assert len(symbols) > 12
    assert {symbol for symbol in symbols if symbol not in notation} == set()


def test_every_citation_has_an_entry_and_every_entry_says_where_it_is():
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{(\w+),", bibliography, re.M)
    assert len(keys) == len(set(keys))
    sources = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.py")]
    cited = set()
    for source in sources:
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", source.read_text(encoding="utf-8")):
            cited |= {key.strip() for key in group.split(",")}
    assert cited <= set(keys)
    for entry in bibliography.split("\n@")[0:]:
        assert "doi " in entry or "No DOI" in entry, entry


def test_every_figure_and_table_is_referred_to():
    sources = [
        *(ROOT / "notebooks").glob("*.py"),
        *(ROOT / "book").glob("*.md"),
        ROOT / "src/histotransfer/report/summary.py",
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    names = re.findall(r'(?:"name": "|:name: )((?:fig|tab)-[\w-]+)', text)
    referred = re.findall(r"\{(?:numref|ref)\}+`(?:[^`<]*<)?((?:fig|tab)-[\w-]+)", text)
    assert len(names) > 100 and not set(names) - set(referred)


def test_no_caption_undoes_its_directive():
    """After three backticks a line with another one opens nothing: the text of the directive stands on the page."""
    for source in [*(ROOT / "book").rglob("*.md"), *(ROOT / "notebooks").glob("*.py")]:
        assert re.findall(r"^(?:# )?`{3,}\{.*`.*$", source.read_text(encoding="utf-8"), re.M) == []


def test_formulas_need_no_network():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    assert (STATIC / config["mathjax_path"]).is_file()
    assert "Apache License" in (STATIC / "mathjax" / "LICENSE").read_text()
    assert len(list((STATIC / "mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))) > 20
    assert "sphinx_thebe" not in config["extensions"]


def test_the_make_target_book_is_not_the_folder():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY:(.*)$", makefile, re.M)
    assert {"venv", "book", "test", "test-slow", "lint", "pairs", "lock", "clean"} <= set(phony.split())


def test_citation_and_archive_name_the_same_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    archive = yaml.safe_load((ROOT / ".zenodo.json").read_text())
    assert str(citation["version"]) == version == __version__
    assert f"version {version}, " in (ROOT / "book/index.md").read_text()
    assert archive.get("version", version) == version
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


class Page(HTMLParser):
    """What a page loads by itself, where it links to, and what it lacks."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.without_alt = self.warnings = 0
        self.tables = self.captions = self.figures = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors.add(values.get("id"))
        if tag in ("script", "img", "iframe", "source") and values.get("src"):
            self.loads.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(values["href"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        self.warnings += "stderr" in (values.get("class") or "").split()
        self.without_alt += tag == "img" and not values.get("alt")
        if tag == "figure":
            self.figures += 1
        self.tables += tag == "table"
        # Of a table of prose; or of a figure: a table that a cell put out, alone or in an instrument.
        self.captions += tag == "caption" or (tag == "table" and self.figures > 0)

    def handle_endtag(self, tag):
        if tag == "figure":
            self.figures -= 1


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere_and_its_links_resolve():
    if not (SITE / "index.html").is_file():
        pytest.skip("no site has been built: `make book`")
    pages = {path: Page(path) for path in SITE.rglob("*.html") if "_static" not in path.parts}
    trouble = []
    for path, page in pages.items():
        name = path.relative_to(SITE)
        if page.without_alt:
            trouble.append(f"{name}: {page.without_alt} pictures without alt text")
        if page.warnings:
            trouble.append(f"{name}: {page.warnings} cells printed a warning")
        if page.tables != page.captions and name.parts[0] not in GENERATED:
            trouble.append(f"{name}: {page.tables} tables and {page.captions} captions of tables")
        trouble += [f"{name} loads {url}" for url in page.loads if re.match(r"(https?:)?//", url)]
        for url in (*page.loads, *page.links):
            if re.match(r"\w+:|//", url):
                continue
            file, _, anchor = url.partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.is_file():
                trouble.append(f"{name} points at {url}, which is not there")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                trouble.append(f"{name} points at {url}; there is no such anchor")
    assert len(pages) >= 10
    assert not trouble, "\n".join(trouble)


def wide_tables(text):
    """The widths of tables that are open on a page and have more columns than it has room for."""
    page = BeautifulSoup(text, "html.parser")
    shown = [table for table in page.find_all("table") if not table.find_parent("details")]
    widths = [
        max(sum(int(cell.get("colspan", 1)) for cell in row.find_all(["th", "td"])) for row in table.find_all("tr"))
        for table in shown
    ]
    return [width for width in widths if width > COLUMNS]


def test_a_table_of_six_columns_is_found_and_a_folded_one_is_not():
    table = "<table><tr><td>1</td><td>2</td></tr><tr><td colspan=2>3</td><td>4</td><td>5</td><td>6</td>{}</tr></table>"
    six, five = table.format("<th>7</th>"), table.format("")
    assert wide_tables(six + five + f"<details>{six}</details>") == [6]


@pytest.mark.slow
def test_tables_of_chapters_have_at_most_five_columns():
    if not (SITE / "index.html").is_file():
        pytest.skip("no site has been built: `make book`")
    found = {path.name: wide_tables(path.read_text(encoding="utf-8")) for path in (SITE / "notebooks").glob("*.html")}
    assert len(found) >= 13 and not {name: widths for name, widths in found.items() if widths}


@pytest.mark.slow
def test_the_course_counts_figures_and_tables_as_the_site_does():
    if not (SITE / "index.html").is_file():
        pytest.skip("no site has been built: `make book`")
    found = {}
    for page in (SITE / "notebooks").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        pairs = re.findall(r'id="((?:fig|tab)-[\w-]+)"[\s\S]*?class="caption-number">([^<]+?) </span>', text)
        found |= dict(pairs)
    assert found == figure_numbers(chapter_sources(ROOT))
