"""The course: what of a chapter students get, what instructors get, and that the export is whole or not at all."""

import itertools
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from histotransfer.book import course
from histotransfer.book.build.sources import chapter_sources, read_source
from histotransfer.book.course import (
    LAB,
    citations,
    export_course,
    figure_numbers,
    instructor,
    lab,
    plain,
    read_chapter,
    rubric,
    slide_claims,
    slides,
    student,
    syllabus,
)
from histotransfer.errors import HistotransferError

ROOT = Path(__file__).parents[2]
SOURCES = chapter_sources(ROOT)
REFERENCES = figure_numbers(SOURCES) | citations(ROOT / "book/references.bib")

CHAPTER = """\
# %% [markdown]
# # Halves
#
# **After this chapter you can**
#
# - halve a number;
# - say why
#   two halves make one.
#
# **Takes** about 2 minutes to read, 1 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** {cite}`nobody2020` and chapter {doc}`00_before`.

# %% tags=["parameters"]
seed = 0

# %%
# A comment is no heading.
start = 8

# %% mystnb={"figure": {"name": "fig-halves", "caption": "Halves."}}
start / 2

# %% [markdown]
# A list, and below it a new slide.
#
# ```sh
# # a comment
# ```
#
# ## Exercises
#
# ```{exercise} Halve it
# :label: ex-halve
#
# *Easy.* Halve a number.
# ```

# %% tags=["exercise"]
def half(x): ...


half(start)

# %% [markdown] tags=["solution"]
# ````{solution} ex-halve
# :label: sol-halve
# :class: dropdown
#
# Divide the dividend.
#
# ```python
# def half(x):
#     return x / 2
# ```
# ````

# %% [markdown]
# ## Take home
#
# - Halves.
"""


@pytest.fixture
def chapter(tmp_path):
    path = tmp_path / "notebooks" / "01_halves.py"
    path.parent.mkdir()
    path.write_text(CHAPTER)
    return path


@pytest.fixture
def repository(chapter):
    """A repository with one tiny chapter and what slides are made with."""
    root = chapter.parent.parent
    (root / "_toc.yml").write_text("root: book/index\nchapters:\n  - file: notebooks/01_halves\n")
    for folder in ("book/slides/slides.html.j2", "book/slides/reveal", "book/_static/mathjax", "book/references.bib"):
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to(ROOT / folder)
    (root / "book/slides/claims.toml").write_text('[01_halves]\nfig-halves = "Two halves make one"\n')
    (root / "notebooks/lab").mkdir()
    (root / LAB).write_text("# %% [markdown]\n# {use}`ex-halve`\n")
    return root


def run(notebook, stop=lambda cell: False):
    """Execute a notebook's cells in order until `stop(cell)`, here; returns how many code cells ran."""
    code = [cell.source for cell in itertools.takewhile(lambda cell: not stop(cell), notebook.cells) if _is_code(cell)]
    exec("\n\n".join(code), {})
    return len(code)


def _is_code(cell):
    return cell.cell_type == "code"


def is_exercise(cell):
    return "exercise" in cell.metadata.get("tags", [])


def test_a_chapter_says_what_it_takes_needs_and_teaches(chapter):
    found = read_chapter(chapter)
    assert (found.title, found.reading, found.running, found.exercising) == ("Halves", 2, 1, 5)
    assert found.goals == ("halve a number", "say why two halves make one")
    assert found.needs == "(nobody2020) and chapter `00_before`."
    (exercise,) = found.exercises
    assert (exercise.title, exercise.level, exercise.minutes, exercise.points) == ("Halve it", "Easy", 5, 1)
    assert exercise.solution == "def half(x):\n    return x / 2"
    assert exercise.check == "half(start)"


@pytest.mark.parametrize(
    ("before", "after", "trouble"),
    [
        ("**Takes** about 2", "**Takes** 2", r"the lines `\*\*Takes\*\*"),
        ("a hard one 30", "a hard one 20", r"a hard one 30\.` and `\*\*Needs"),
        ("**Needs**", "Needs", r"`\*\*Needs\*\*"),
        ("*Easy.*", "*Trivial.*", "'Halve it' needs a label, a level"),
        ("# :label: ex-halve\n", "", "'Halve it' needs a label"),
        ('tags=["exercise"]', "", "a cell tagged `exercise`"),
        ('tags=["solution"]', "", "one tagged `solution`"),
        ("```python", "```text", "with Python code"),
    ],
)
def test_what_a_chapter_lacks_is_said(chapter, before, after, trouble):
    assert before in CHAPTER
    chapter.write_text(CHAPTER.replace(before, after))
    with pytest.raises(HistotransferError, match=f"01_halves.py: .*{trouble}"):
        read_chapter(chapter)


def test_students_get_the_task_and_no_solution(chapter):
    notebook = student(read_source(chapter), {})
    text = nbformat.writes(notebook)
    assert "### Halve it\\n" in text and "*Easy.* Halve a number." in text and "half(start)" in text
    assert "{exercise}" not in text and "{doc}" not in text and "{cite}" not in text
    assert "dividend" not in text and "x / 2" not in text
    nbformat.validate(notebook)
    assert run(notebook, is_exercise) == 3


def test_instructors_get_a_solution_that_runs(chapter):
    notebook = instructor(read_source(chapter), {})
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert code[-1] == "def half(x):\n    return x / 2\n\n\nhalf(start)"
    assert "**Solution.** Divide the dividend." in [cell.source for cell in notebook.cells]
    assert run(notebook) == 5


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("see {doc}`01_data`", "see `01_data`"),
        ("see {doc}`/book/cluster`.", "see `cluster`."),
        ("the {doc}`leakage chapter <06_leakage>`,", "the `06_leakage`,"),
        ("{cite:p}`a2020, b2021` and {cite}`c`", "([A, 2020](https://doi.org/1); b2021) and (c)"),
        ("{term}`AUROC` of {term}`phantom tissue <phantom>`", "AUROC of phantom tissue"),
        ("no `{code}` is lost", "no `{code}` is lost"),
        ("by patient ({numref}`tab-a`,\n{numref}`fig-b`):", "by patient (Table 1.1,\nFig. 2.3):"),
        ("{numref}`tab-a` and {ref}`what was done <tab-b>`", "Table 1.1 and what was done"),
        (
            ":::{table} Of `x`.\n:name: tab-a\n\n| a |\n|---|\n\n:::\n\nAnd",
            "**Table 1.1** Of `x`.\n\n| a |\n|---|\n\nAnd",
        ),
        ("says {py:class}`~histotransfer.config.LadderConfig`.", "says `LadderConfig`."),
    ],
)
def test_roles_are_written_out(text, written):
    references = {"tab-a": "Table 1.1", "fig-b": "Fig. 2.3", "a2020": "[A, 2020](https://doi.org/1)"}
    assert plain(text, references) == written


def test_works_are_cited_by_author_and_year_with_a_link(tmp_path):
    bibliography = tmp_path / "references.bib"
    bibliography.write_text(
        "@article{one, author = {{van der Berg}, A.}, title = {One}, year = {2001}, doi = {10.1/x}}\n"
        "@article{two, author = {Berg, A. and Dale, B.}, title = {Two}, year = {2002}, note = {No DOI}}\n"
        "@article{three, author = {Berg, A. and Dale, B. and Hill, C.}, title = {T}, year = {2003}, doi = {10.1/z}}\n"
    )
    assert citations(bibliography) == {
        "one": "[van der Berg, 2001](https://doi.org/10.1/x)",
        "two": "Berg and Dale, 2002: Two; No DOI",
        "three": "[Berg et al., 2003](https://doi.org/10.1/z)",
    }


PICTURED = """\
# %% [markdown]
# # Pictured
#
# :::{table} Words.
# :name: tab-words
#
# | word |
# |---|
# | one |
#
# :::

# %% mystnb={"figure": {"name": "fig-line", "caption": "A line of {term}`AUROC`."}}
figure = None

# %% mystnb={"figure": {"name": "tab-sum", "caption": "A sum."}}
1 + 1

# %% [markdown]
# {numref}`tab-sum` follows {numref}`tab-words`.
"""


def test_figures_and_tables_are_counted_and_captioned(tmp_path):
    sources = [tmp_path / "01_a.py", tmp_path / "02_b.py"]
    sources[0].write_text(PICTURED)
    sources[1].write_text(PICTURED.replace("tab-", "tab-other-").replace("fig-", "fig-other-"))
    numbers = figure_numbers(sources)
    assert numbers == {
        "tab-words": "Table 1.1",
        "fig-line": "Fig. 1.1",
        "tab-sum": "Table 1.2",
        "tab-other-words": "Table 2.1",
        "fig-other-line": "Fig. 2.1",
        "tab-other-sum": "Table 2.2",
    }
    cells = [cell.source for cell in student(read_source(sources[1]), numbers).cells]
    assert cells == [
        "# Pictured\n\n**Table 2.1** Words.\n\n| word |\n|---|\n| one |",
        "**Fig. 2.1** A line of AUROC.",
        "figure = None",
        "**Table 2.2** A sum.",
        "1 + 1",
        "Table 2.2 follows Table 2.1.",
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_copies_hold_no_markup_that_only_the_books_pages_show(source):
    for copied in (student, instructor):
        for cell in copied(read_source(source), REFERENCES).cells:
            if cell.cell_type == "markdown":
                assert not re.search(r"\{[a-z:]+\}`|^:::|^:[a-z]+:|\b[a-z]+20\d\d\b|\b(fig|tab)-", cell.source, re.M), (
                    cell.source
                )


def test_syllabus_and_rubric_are_added_up(chapter):
    one = read_chapter(chapter)
    assert "| **all** | 4 | 2 | 10 | 16 |" in syllabus([one, one])
    assert "| `01_halves` | Halve it | easy | `half` | 1 | 1 |" in rubric([one])
    assert "| all | | | | 2 | 2 |" in rubric([one, one])


class Slides(HTMLParser):
    """What a page of slides loads, and how its sections nest."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.depth, self.sections = [], 0, [0, 0]
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "section":
            self.sections[self.depth] += 1
            self.depth += 1
        if tag in ("script", "img", "iframe") and values.get("src"):
            self.loads.append(values["src"])
        if tag == "link":
            self.loads.append(values["href"])

    def handle_endtag(self, tag):
        self.depth -= tag == "section"


TEMPLATE = ROOT / "book/slides/slides.html.j2"


@pytest.fixture
def pictured(tmp_path):
    source = tmp_path / "01_a.py"
    source.write_text(PICTURED)
    return source


def test_slides_ask_nothing_of_another_host(pictured):
    pytest.importorskip("nbconvert")
    page = slides(read_source(pictured), "Halves & more", TEMPLATE, {}, {"fig-line": "It rises"})
    found = Slides(page)
    assert found.loads and all((ROOT / "book/slides" / name).is_file() for name in found.loads if "mathjax" not in name)
    assert [name for name in found.loads if "mathjax" in name] == ["mathjax/tex-mml-chtml.js"]
    assert not re.findall(r"""(?:import|src=|href=|url\()\s*["']?(?:https?:)?//""", page)
    assert "<title>Halves &amp; more slides</title>" in page


def test_a_slide_is_a_claim_its_figure_and_notes(pictured):
    pytest.importorskip("nbconvert")
    notebook = read_source(pictured)
    table = {"text/html": "<table><tr><td>seven</td></tr></table>", "text/plain": "7"}
    notebook.cells[2]["outputs"] = [nbformat.v4.new_output("execute_result", table, execution_count=1)]
    claims = {"fig-line": "It rises", "tab-sum": "It adds up"}
    page = slides(notebook, "Pictured", TEMPLATE, figure_numbers([pictured]), claims)
    found = Slides(page)
    assert found.sections == [3, 3] and found.depth == 0  # the title, two claims
    assert page.index("It rises") < page.index("The figure is made by") < page.index("It adds up") < page.index("seven")
    assert "figure = None" not in page and "1 + 1" not in page  # no code
    notes = re.findall(r'<aside class="notes">([\s\S]*?)</aside>', page)
    assert (
        page.index("The figure is made by") < page.index("<small>Fig. 1.1: A line of AUROC.") < page.index("It adds up")
    )
    assert len(notes) == 2 and "Fig. 1.1: A line of AUROC." in notes[0] and "Table 1.2: A sum." in notes[1]


def test_a_claim_without_a_figure_is_refused(pictured):
    pytest.importorskip("nbconvert")
    with pytest.raises(HistotransferError, match="slides of Pictured: the chapter has no figure or table fig-lost"):
        slides(read_source(pictured), "Pictured", TEMPLATE, {}, {"fig-line": "It rises", "fig-lost": "Lost"})


def test_every_claim_has_its_figure_and_every_chapter_its_claims():
    claims = slide_claims(ROOT / "book/slides/claims.toml")
    assert list(claims) == [source.stem for source in SOURCES]
    for source in SOURCES:
        figures = re.findall(r'"figure": \{"name": "([\w-]+)"', source.read_text(encoding="utf-8"))
        own = list(claims[source.stem])
        assert len(own) >= 2 and own == sorted(own, key=figures.index)
        assert all(
            len(claim.split()) <= 14 and not re.search(r"\d\d %", claim) for claim in claims[source.stem].values()
        )


@pytest.mark.slow
def test_slides_fit_their_screen(tmp_path, started, served):
    """Every slide of every deck at 1280x720: one claim, one figure that fills it, nothing cut, and notes."""
    if not (ROOT / "_build/executed").is_dir():
        pytest.skip("the book has not been built: `make book`")
    out = export_course(ROOT, tmp_path / "course", report=str)
    trouble = []
    with started() as browser, served(out / "slides") as address:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.on(
            "request",
            lambda request: trouble.append(request.url) if not request.url.startswith((address, "data:")) else None,
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        for deck in sorted((out / "slides").glob("*.html")):
            page.goto(f"{address}/{deck.name}")
            page.wait_for_function("window.Reveal && Reveal.isReady()")
            page.evaluate("() => { Reveal.configure({transition: 'none'}); return document.fonts.ready; }")
            for number in range(page.evaluate("Reveal.getTotalSlides()")):
                page.evaluate(f"Reveal.slide({number})")
                page.wait_for_function(f"Reveal.getIndices().h == {number}")
                seen = page.evaluate(ON_SLIDE)
                whole = seen["heads"] == 1 and (number == 0 or (seen["figures"] == 1 and seen["notes"] > 40))
                if seen["beyond"] or seen["code"] or seen["small"] or not whole:
                    trouble.append(f"{deck.stem} {number}: {seen}")
    assert trouble == [], "\n".join(trouble)


ON_SLIDE = """async () => {
    const slide = Reveal.getCurrentSlide();
    const images = [...slide.querySelectorAll('img')];
    await Promise.all(images.map(image => image.decode()));
    await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)));
    const parts = [...slide.querySelectorAll('h1, h2, img, table, p, td, svg')].filter(one => one.checkVisibility());
    const beyond = parts.filter(one => {
        const box = one.getBoundingClientRect();
        return box.left < -1 || box.top < -1 || box.right > innerWidth + 1 || box.bottom > innerHeight + 1;
    });
    const boxes = images.map(image => image.getBoundingClientRect());
    const wide = Math.max(...boxes.map(box => box.right)) - Math.min(...boxes.map(box => box.left));
    const high = Math.max(...boxes.map(box => box.bottom)) - Math.min(...boxes.map(box => box.top));
    return {
        heads: slide.querySelectorAll(':is(h1, h2):not(aside *)').length,
        figures: slide.querySelectorAll('.jp-OutputArea:has(.jp-OutputArea-output)').length,
        notes: (slide.querySelector('aside.notes')?.textContent ?? '').length,
        code: slide.querySelectorAll(':is(.jp-CodeMirrorEditor, .highlight):not(aside *)').length,
        small: images.length && wide < innerWidth / 2 && high < innerHeight / 2,
        beyond: beyond.map(one => `${one.tagName} ${one.getBoundingClientRect().bottom} ${one.textContent}`),
    };
}"""


@pytest.mark.slow
def test_the_lab_of_two_hours_is_walked_through_with_its_solutions():
    """Start to end, and every self-check is content; the clock is written down in the page on teaching."""
    notebook = instructor(lab(ROOT / LAB, SOURCES), REFERENCES)
    begin = time.monotonic()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT}}).execute()
    print(f"the lab's cells took {time.monotonic() - begin:.0f} s")
    printed = [
        output.get("data", {}).get("text/plain", "") for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    assert sum(text.startswith("Solved") for text in printed) == 5
    assert any(re.search(r"accuracy \d\.\d\d \[", text) for text in printed)


def test_the_labs_plan_and_notebook_have_the_same_minutes():
    notebook = lab(ROOT / LAB, SOURCES)
    text = "\n".join(cell.source for cell in notebook.cells)
    parts = {int(minutes) for minutes in re.findall(r"^## .*\((\d+) minutes\)", text, re.M)}
    assert parts == {30, 50, 25, 15} and sum(parts) == 120
    plan = (ROOT / "book/teaching.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| (\d+ to \d+) \|", text, re.M):
        assert f"| {row} |" in plan
    with pytest.raises(HistotransferError, match="no chapter has an exercise ex-data-people"):
        lab(ROOT / LAB, [])


def test_the_export_is_whole(repository):
    pytest.importorskip("nbconvert")
    lines = []
    out = export_course(repository, repository / "course", report=lines.append)
    assert sorted(path.name for path in out.iterdir()) == [
        "instructor",
        "lab",
        "rubric.md",
        "slides",
        "student",
        "syllabus.md",
    ]
    assert (out / "slides/reveal/dist/reveal.js").is_file() and (out / "slides/mathjax/tex-mml-chtml.js").is_file()
    for name in ("student", "instructor"):
        nbformat.validate(nbformat.read(out / name / "01_halves.ipynb", as_version=4))
    assert lines == ["01_halves                1 exercises, slides without outputs"]
    again = export_course(repository, repository / "again", report=str)
    for path in out.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (again / path.relative_to(out)).read_bytes(), path


def test_slides_show_outputs_of_the_same_chapter_only(repository):
    pytest.importorskip("nbconvert")
    notebook = read_source(repository / "notebooks/01_halves.py")
    notebook.cells[3]["outputs"] = [nbformat.v4.new_output("stream", text="shown by the run")]
    executed = repository / "_build/executed/01_halves.ipynb"
    executed.parent.mkdir(parents=True)
    nbformat.write(notebook, executed)
    page = export_course(repository, repository / "one", report=str) / "slides/01_halves.html"
    assert "shown by the run" in page.read_text()
    source = repository / "notebooks/01_halves.py"
    source.write_text(source.read_text().replace("start = 8", "start = 6"))
    page = export_course(repository, repository / "two", report=str) / "slides/01_halves.html"
    assert "shown by the run" not in page.read_text()


def test_a_folder_in_use_is_left_alone(repository):
    (repository / "course").mkdir()
    (repository / "course/mine.txt").touch()
    with pytest.raises(HistotransferError, match="name a folder that is new or empty"):
        export_course(repository, repository / "course")
    assert [path.name for path in (repository / "course").iterdir()] == ["mine.txt"]


def test_an_export_that_breaks_leaves_nothing(repository, monkeypatch):
    def breaks(*arguments):
        raise HistotransferError("no slides")

    monkeypatch.setattr(course, "slides", breaks)
    before = sorted(repository.iterdir())
    with pytest.raises(HistotransferError, match="no slides"):
        export_course(repository, repository / "course")
    assert sorted(repository.iterdir()) == before


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_line_of_a_solution_reaches_students(source):
    """Read from the source's text, so that it does not trust the code that cuts."""
    cells = source.read_text(encoding="utf-8").split("\n# %%")
    secret = {
        line.removeprefix("# ").strip()
        for cell in cells
        if '"solution"' in cell.splitlines()[0]
        for line in cell.splitlines()[1:]
    }
    secret = {line for line in secret if len(line) > 12 and not re.match(r"(from|import|def) |[:`]", line)}
    assert len(secret) >= 3
    lines = {
        line.strip() for cell in student(jupytext.read(source), REFERENCES).cells for line in cell.source.splitlines()
    }
    assert not secret & lines


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_students_copy_has_the_code_cells_that_the_book_executes(source):
    """None added, none changed: where the book's chapter runs, so does the copy, past the exercises too."""
    chapter = jupytext.read(source)
    code = [cell.source for cell in chapter.cells if cell.cell_type == "code"]
    assert [cell.source for cell in student(chapter, REFERENCES).cells if cell.cell_type == "code"] == code
    assert any(is_exercise(cell) for cell in chapter.cells)


@pytest.mark.slow
def test_a_students_copy_of_a_real_chapter_runs_up_to_the_first_exercise():
    notebook = student(read_source(ROOT / "notebooks/01_data.py"), REFERENCES)
    first = next(i for i, cell in enumerate(notebook.cells) if is_exercise(cell))
    assert sum(map(_is_code, notebook.cells[:first])) > 10
    del notebook.cells[first:]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    assert all(cell.execution_count for cell in notebook.cells if _is_code(cell))
