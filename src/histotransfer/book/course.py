"""The book as a course: notebooks for students and for instructors, slides, a syllabus, a marking rubric.

All of it is made from the chapters. For that a chapter must have **Takes** ... and **Needs** ... in its opening cell,
and exercises of three cells each: the task (`{exercise}`), the scaffold (tagged `exercise`), and the solution
(`{solution}`, tagged `solution`). `tests/book` checks this.
"""

import copy
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from histotransfer.book.build.sources import NEEDS, chapter_sources, read_source
from histotransfer.errors import HistotransferError, needs_extra
from histotransfer.files import whole_folder

LEVELS = {"Easy": (5, 1), "Medium": (15, 2), "Hard": (30, 3)}  # minutes, points
WORDS_A_MINUTE, MINUTES_A_CELL = 200, 0.5
WORDS_ABOVE_A_FIGURE = 40  # on a slide

_DIRECTIVE = re.compile(
    r"(?P<fence>`{3,})\{(exercise|solution)\} (?P<title>.*)\n(?::.*\n)*\n(?P<body>[\s\S]*?)\n(?P=fence)"
)
_TABLE_NAME = re.compile(r"^:name: (tab-\S+)$", re.M)
_TABLE = re.compile(r":::\{table\} (?P<caption>.*)\n:name: (?P<name>\S+)\n\n(?P<body>[\s\S]*?)\n+:::")
CAPTION = "caption"  # tag of a cell that holds a caption
KINDS = {"fig-": "Fig.", "tab-": "Table"}  # word on the book's pages, by the beginning of a name
_TIMES = re.compile(r"\*\*Takes\*\* about (\d+) minutes to read,\s(\d+) to run \([^)]*\),\s(\d+) for the\sexercises\.")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a chapter.

    Attributes:
        label: of the page's cross-reference, unique in the book.
        title: its title.
        level: one of `LEVELS`.
        scaffold: the student's cell; its last line calls the self-check.
        solution: code that, run after the scaffold, makes the self-check pass.
    """

    label: str
    title: str
    level: str
    scaffold: str
    solution: str

    @property
    def minutes(self) -> int:
        return LEVELS[self.level][0]

    @property
    def points(self) -> int:
        return LEVELS[self.level][1]

    @property
    def check(self) -> str:
        """The line that calls the self-check."""
        return self.scaffold.splitlines()[-1]


@dataclass(frozen=True)
class Chapter:
    """The facts about a chapter that a course needs; times are in minutes."""

    stem: str
    title: str
    goals: tuple[str, ...]
    needs: str
    reading: int
    running: int
    exercising: int
    exercises: tuple[Exercise, ...]


def read_chapter(source: Path) -> Chapter:
    """Read a chapter's opening cell and its exercises.

    Raises:
        HistotransferError: the opening cell lacks times or needs, or an exercise lacks one of its cells.
    """
    notebook = read_source(source)
    opening = notebook.cells[0].source
    times = _TIMES.search(opening)
    needs = NEEDS.search(opening)
    if not times or not needs:
        raise HistotransferError(
            f"{source}: the opening cell needs the lines `**Takes** about N minutes to read, N to run (...), N for the "
            "exercises.` and `**Needs** ...`"
        )
    goals = re.findall(r"^- ([\s\S]+?)[;.]$", opening, re.M)
    return Chapter(
        stem=source.stem,
        title=opening.splitlines()[0].removeprefix("# "),
        goals=tuple(" ".join(goal.split()) for goal in goals),
        needs=plain(" ".join(needs[1].split()), {}),
        reading=int(times[1]),
        running=int(times[2]),
        exercising=int(times[3]),
        exercises=tuple(_exercises(source, notebook)),
    )


def _exercises(source: Path, notebook: NotebookNode) -> Iterator[Exercise]:
    for task, scaffold, solution in zip(notebook.cells, notebook.cells[1:], notebook.cells[2:], strict=False):
        if "{exercise}" not in task.source:
            continue
        given, solved = _DIRECTIVE.search(task.source), _DIRECTIVE.search(solution.source)
        level = given and re.match(rf"\*({'|'.join(LEVELS)})\.\*", given["body"])
        code = solved and re.search(r"```python\n([\s\S]+?)\n```", solved["body"])
        label = re.search(r"^:label: (\S+)$", task.source, re.M)
        if not (given and level and code and label and _tagged(scaffold, "exercise") and _tagged(solution, "solution")):
            raise HistotransferError(
                f"{source}: the exercise {given['title'] if given else task.source!r} needs a label, a level "
                f"({', '.join(LEVELS)}), then a cell tagged `exercise` and one tagged `solution` with Python code"
            )
        yield Exercise(label[1], given["title"], level[1], scaffold.source, code[1])


def reading_minutes(notebook: NotebookNode) -> float:
    """Minutes that it takes to read the prose and code of a chapter without its exercises."""
    cells = [cell for cell in notebook.cells if not _is_of_exercise(cell)]
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    return words / WORDS_A_MINUTE + MINUTES_A_CELL * sum(cell.cell_type == "code" for cell in cells)


# ----------------------------------------------------------------------------------------------------
# Notebooks


def figure_numbers(sources: Sequence[Path]) -> dict[str, str]:
    """The number of each figure and table in the book: its name, such as `tab-...`, to `Table 2.1`.

    Args:
        sources: the chapters in the book's order.
    """
    numbers = {}
    for chapter, source in enumerate(sources, start=1):
        counts = Counter[str]()
        for cell in read_source(source).cells:
            figure = _figure(cell)
            for name in [figure["name"]] if figure else _TABLE_NAME.findall(cell.source):
                kind = KINDS[name[:4]]
                counts[kind] += 1
                numbers[name] = f"{kind} {chapter}.{counts[kind]}"
    return numbers


def citations(bibliography: Path) -> dict[str, str]:
    """Authors, year and source of each work, as Markdown, by the work's key.

    Raises:
        HistotransferError: pybtex is not installed.
    """
    with needs_extra("course"):
        from pybtex.database import parse_file
    cited = {}
    for key, work in parse_file(str(bibliography)).entries.items():
        people = [" ".join(map(str, person.rich_last_names)) for person in work.persons["author"]]
        who = " and ".join(people) if len(people) < 3 else f"{people[0]} et al."
        named = f"{who}, {work.fields['year']}"
        if doi := work.fields.get("doi"):
            cited[key] = f"[{named}](https://doi.org/{doi})"
        else:
            cited[key] = f"{named}: {work.fields['title']}; {work.fields['note']}"
    return cited


def student(notebook: NotebookNode, references: Mapping[str, str]) -> NotebookNode:
    """A copy without solutions; scaffolds and self-checks stay.

    Args:
        notebook: of one chapter.
        references: text for each figure, table and work by its name: `figure_numbers` and `citations`.
    """
    return _plain_copy(notebook, [cell for cell in notebook.cells if not _tagged(cell, "solution")], references)


def instructor(notebook: NotebookNode, references: Mapping[str, str]) -> NotebookNode:
    """A copy in which each solution is a cell that can be run, with its self-check; arguments as for `student`."""
    cells, check = [], ""
    for cell in notebook.cells:
        if _tagged(cell, "exercise"):
            check = cell.source.splitlines()[-1]
        if not _tagged(cell, "solution"):
            cells.append(cell)
            continue
        directive = _DIRECTIVE.search(cell.source)
        parts = directive and re.fullmatch(r"([\s\S]*?)\n*```python\n([\s\S]+?)\n```\s*", directive["body"])
        if not parts:
            raise HistotransferError(f"a solution is not a text and then Python code: {cell.source!r}")
        cells.append(nbformat.v4.new_markdown_cell(f"**Solution.** {parts[1]}", metadata=cell.metadata))
        cells.append(nbformat.v4.new_code_cell(f"{parts[2]}\n\n\n{check}", metadata=cell.metadata))
    return _plain_copy(notebook, cells, references)


def plain(text: str, references: Mapping[str, str]) -> str:
    """Turn MyST's Markdown into Markdown that Jupyter shows: directives and roles are replaced by their text.

    Args:
        text: of a cell.
        references: as for `student`; a name that is not among them is written as it is.
    """

    def written(role: re.Match[str]) -> str:
        return "; ".join(references.get(name, name) for name in re.split(r",\s*", role[1]))

    text = _TABLE.sub(lambda table: f"**{{numref}}`{table['name']}`** {table['caption']}\n\n{table['body']}", text)
    text = re.sub(r"\{numref\}`([^`]+)`", written, text)
    text = re.sub(r"\{cite(?::\w+)?\}`([^`]+)`", lambda role: f"({written(role)})", text)
    text = _DIRECTIVE.sub(lambda directive: f"### {directive['title']}\n\n{directive['body']}", text)
    text = re.sub(r"\{ref\}`([^`<]+?) <[^`>]+>`", r"\1", text)
    text = re.sub(r"\{py:\w+\}`(?:~[\w.]*\.)?([^`]+)`", r"`\1`", text)
    text = re.sub(r"\{term\}`([^`<]+?)(?: <[^`]+>)?`", r"\1", text)
    return re.sub(r"\{doc\}`(?:[^`<]*<)?(?:[^`>]*/)?([^`>/]+)>?`", r"`\1`", text)


def _plain_copy(notebook: NotebookNode, cells: list[NotebookNode], references: Mapping[str, str]) -> NotebookNode:
    copied = []
    for cell in copy.deepcopy(cells):
        if figure := _figure(cell):
            caption = f"**{{numref}}`{figure['name']}`** {figure['caption']}"
            copied.append(nbformat.v4.new_markdown_cell(caption, metadata={"tags": [CAPTION]}))
        copied.append(cell)
    for number, cell in enumerate(copied):
        cell["id"] = f"cell-{number:02d}"
        if cell.cell_type == "markdown":
            cell["source"] = plain(cell.source, references)
    return nbformat.v4.new_notebook(cells=copied, metadata=copy.deepcopy(notebook.metadata))


def _figure(cell: NotebookNode) -> NotebookNode | None:
    """Name and caption of a cell's output, if it has them."""
    return cell.metadata.get("mystnb", {}).get("figure")


def _tagged(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _is_of_exercise(cell: NotebookNode) -> bool:
    return "{exercise}" in cell.source or _tagged(cell, "exercise") or _tagged(cell, "solution")


# ----------------------------------------------------------------------------------------------------
# Slides


def slides(notebook: NotebookNode, title: str, template: Path, references: Mapping[str, str]) -> str:
    """A chapter as a reveal.js page: a slide for each heading, below it one for each cell of prose and each figure.

    If the prose before a figure or table is only a few words, both are on one slide.

    Args:
        notebook: executed or not; solutions are left out.
        title: of the page.
        template: nbconvert template; the page loads `reveal/` and `mathjax/` beside itself and nothing else.
        references: as for `student`.

    Raises:
        HistotransferError: nbconvert is not installed.
    """
    with needs_extra("course"):
        from nbconvert import SlidesExporter
    shown = student(notebook, references)
    cells, room = [], False
    for cell in shown.cells:
        if cell.cell_type == "code":
            cells.append(cell)
            room = False
            continue
        for part in re.split(r"\n(?=## )", cell.source):
            kind = "slide" if re.match(r"##? ", part) else "subslide"
            if room and _tagged(cell, CAPTION):
                kind = "-"  # goes on below
            room = len(part.split()) <= WORDS_ABOVE_A_FIGURE
            cells.append(nbformat.v4.new_markdown_cell(part, metadata={"slideshow": {"slide_type": kind}}))
    shown["cells"], shown.metadata["title"] = cells, title
    look = {"reveal_url_prefix": "reveal", "reveal_theme": "book"}
    exporter = SlidesExporter(raw_template=template.read_text(encoding="utf-8"), **look)
    return exporter.from_notebook_node(shown)[0]


# ----------------------------------------------------------------------------------------------------
# Pages


def syllabus(chapters: list[Chapter]) -> str:
    """The chapters in order, with times, goals and exercises, as Markdown."""
    lines = [
        "# Syllabus",
        "",
        f"Minutes are estimates: reading at {WORDS_A_MINUTE} words a minute and {MINUTES_A_CELL} minutes a code cell; "
        "running on synthetic tissue with two cores; exercises as "
        + ", ".join(f"{level.lower()} {minutes}" for level, (minutes, _) in LEVELS.items())
        + ".",
        "",
        "| chapter | read | run | exercises | together |",
        "|---|---|---|---|---|",
    ]
    for c in chapters:
        together = c.reading + c.running + c.exercising
        lines.append(f"| {c.title} (`{c.stem}`) | {c.reading} | {c.running} | {c.exercising} | {together} |")
    sums = [sum(getattr(c, part) for c in chapters) for part in ("reading", "running", "exercising")]
    lines.append(f"| **all** | {' | '.join(map(str, [*sums, sum(sums)]))} |")
    for c in chapters:
        lines += ["", f"## {c.title}", "", f"Needs {c.needs}", "", "After it students can", ""]
        lines += [f"- {goal}" for goal in c.goals]
        lines += ["", "Exercises: " + "; ".join(f"{e.title} ({e.level.lower()})" for e in c.exercises) + "."]
    return "\n".join(lines) + "\n"


def rubric(chapters: list[Chapter]) -> str:
    """How exercises are marked, as Markdown."""
    lines = [
        "# Marking rubric",
        "",
        "An exercise is worth its points for code that passes its self-check, and as many again for the explanation "
        "beside it:",
        "",
        "| explanation | share of those points |",
        "|---|---|",
        "| says why the answer is right, and what the obvious wrong one would have claimed | all |",
        "| says why the answer is right | half |",
        "| repeats the code in words, or is missing | none |",
        "",
        "There are no points for code that returns what the self-check expects without computing it, nor for a number "
        "that was chosen by looking at test patients.",
        "",
        "| chapter | exercise | level | self-check | points for code | for the explanation |",
        "|---|---|---|---|---|---|",
    ]
    for c in chapters:
        for e in c.exercises:
            check = e.check.split("(")[0]
            lines.append(f"| `{c.stem}` | {e.title} | {e.level.lower()} | `{check}` | {e.points} | {e.points} |")
    total = sum(e.points for c in chapters for e in c.exercises)
    lines.append(f"| all | | | | {total} | {total} |")
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------------------------------------------
# The whole


def export_course(root: str | Path, out: str | Path, *, report: Callable[[str], None] = print) -> Path:
    """Write `student/`, `instructor/`, `slides/`, `syllabus.md` and `rubric.md`, all of it or nothing.

    Slides show the outputs of the last `make book`; those of a chapter that has changed since then show only code.

    Args:
        root: the repository.
        out: a folder that does not exist yet, or is empty.
        report: called with one line per chapter.

    Returns:
        `out`.

    Raises:
        HistotransferError: `out` is not empty; a chapter lacks something that `read_chapter` needs; nbconvert or pybtex
            is not installed.
    """
    root, out = Path(root).absolute(), Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HistotransferError(f"{out}: is there already; name a folder that is new or empty")
    sources = chapter_sources(root)
    chapters = [read_chapter(source) for source in sources]
    references = figure_numbers(sources) | citations(root / "book/references.bib")
    with whole_folder(out) as folder:
        for name in ("student", "instructor", "slides"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(root / "book/slides/reveal", folder / "slides/reveal")
        shutil.copytree(root / "book/_static/mathjax", folder / "slides/mathjax")
        for source, chapter in zip(sources, chapters, strict=True):
            notebook = read_source(source)
            for name, copied in (("student", student), ("instructor", instructor)):
                nbformat.write(copied(notebook, references), folder / name / f"{chapter.stem}.ipynb")
            executed = _executed(root / "_build" / "executed" / f"{chapter.stem}.ipynb", notebook)
            page = slides(executed or notebook, chapter.title, root / "book/slides/slides.html.j2", references)
            (folder / "slides" / f"{chapter.stem}.html").write_text(page, encoding="utf-8")
            outputs = "with" if executed else "without"
            report(f"{chapter.stem:<24} {len(chapter.exercises)} exercises, slides {outputs} outputs")
        (folder / "syllabus.md").write_text(syllabus(chapters), encoding="utf-8")
        (folder / "rubric.md").write_text(rubric(chapters), encoding="utf-8")
    return out


def _executed(path: Path, notebook: NotebookNode) -> NotebookNode | None:
    """The executed notebook at `path` if it has the same cells (its parameters may differ)."""
    if not path.is_file():
        return None
    executed = nbformat.read(path, as_version=4)

    def sources(one: NotebookNode) -> list[str]:
        return [cell.source for cell in one.cells if not _tagged(cell, "parameters")]

    return executed if sources(executed) == sources(notebook) else None
