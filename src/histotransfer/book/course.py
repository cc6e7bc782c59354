"""The book as a course: notebooks for students and for instructors, slides, a syllabus, a marking rubric.

All of it is made from the chapters. For that a chapter must have **Takes** ... and **Needs** ... in its opening cell,
and exercises of three cells each: the task (`{exercise}`), the scaffold (tagged `exercise`), and the solution
(`{solution}`, tagged `solution`). `tests/book` checks this.
"""

import copy
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from histotransfer.book.build.sources import NEEDS, chapter_sources, read_source
from histotransfer.errors import HistotransferError, needs_extra
from histotransfer.files import whole_folder

LEVELS = {"Easy": (5, 1), "Medium": (15, 2), "Hard": (30, 3)}  # minutes (a guess: nobody was timed), points
WORDS_A_MINUTE, MINUTES_A_CELL = 200, 0.5

LAB = "notebooks/lab/two_hours.py"

_DIRECTIVE = re.compile(
    r"(?P<fence>`{3,})\{(exercise|solution)\} (?P<title>.*)\n(?::.*\n)*\n(?P<body>[\s\S]*?)\n(?P=fence)"
)
_TABLE_NAME = re.compile(r"^:name: (tab-\S+)$", re.M)
_TABLE = re.compile(r":::\{table\} (?P<caption>.*)\n:name: (?P<name>\S+)\n\n(?P<body>[\s\S]*?)\n+:::")
CAPTION = "caption"  # tag of a cell that holds a caption
KINDS = {"fig-": "Fig.", "tab-": "Table"}  # word on the book's pages, by the beginning of a name
GUESS = "Exercises, estimated: an easy one {Easy} minutes, a medium one {Medium}, a hard one {Hard}.".format(
    **{level: minutes for level, (minutes, _) in LEVELS.items()}
)
_TIMES = re.compile(
    r"\*\*Takes\*\* about (\d+) minutes to read,\s(\d+) to run \([^)]*\)\.\s"
    + r"\s".join(map(re.escape, GUESS.split()))
)
WHY = "**Why?** In two or three sentences: why is your answer right, and what would the obvious wrong one have claimed?"


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
    exercises: tuple[Exercise, ...]

    @property
    def exercising(self) -> int:
        return sum(exercise.minutes for exercise in self.exercises)


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
            f"{source}: the opening cell needs the lines `**Takes** about N minutes to read, N to run (...). {GUESS}`"
            " and `**Needs** ...`"
        )
    goals = re.findall(r"^- ([\s\S]+?)[;.]$", opening, re.M)
    return Chapter(
        stem=source.stem,
        title=opening.splitlines()[0].removeprefix("# "),
        goals=tuple(" ".join(goal.split()) for goal in goals),
        needs=plain(" ".join(needs[1].split()), {}),
        reading=int(times[1]),
        running=int(times[2]),
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
    """A copy without solutions; scaffolds and self-checks stay, and each has a cell for the student's reasons.

    Args:
        notebook: of one chapter.
        references: text for each figure, table and work by its name: `figure_numbers` and `citations`.
    """
    cells = []
    for cell in notebook.cells:
        if not _tagged(cell, "solution"):
            cells.append(cell)
        if _tagged(cell, "exercise"):
            cells.append(nbformat.v4.new_markdown_cell(WHY, id=f"{cell['id']}-why"))
    return _plain_copy(notebook, cells, references)


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


def slide_claims(path: Path) -> dict[str, dict[str, str]]:
    """Chapter to claims by the name of their figure or table, in the order in which they are shown.

    Raises:
        HistotransferError: no such file, or not of this form.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise HistotransferError(f"{path}: not the claims of the slides ({error})") from error


def slides(
    notebook: NotebookNode, title: str, template: Path, references: Mapping[str, str], claims: Mapping[str, str]
) -> str:
    """A chapter as a reveal.js page: its title and goals, then a slide for each claim with its figure or table.

    No code is shown, and each figure has its caption. The speaker's notes of a slide are the chapter's prose since the
    last one, and the caption.

    Args:
        notebook: executed or not; without outputs a slide says how to get its figure.
        title: of the page.
        template: nbconvert template; the page loads `reveal/` and `mathjax/` beside itself and nothing else.
        references: as for `student`.
        claims: by the name of a figure or table of the chapter.

    Raises:
        HistotransferError: nbconvert is not installed, or the chapter has no figure of that name.
    """
    with needs_extra("course"):
        from nbconvert import SlidesExporter
    first, *rest = student(notebook, references).cells
    cells, prose, shown = [_slide("slide", first.source.partition("**Takes**")[0])], list[str](), set()
    for cell in rest:
        if cell.cell_type == "markdown":
            prose.append(cell.source)
        figure = _figure(cell)
        if figure is None:
            continue
        if claim := claims.get(figure["name"]):
            shown.add(figure["name"])
            picture = cell if cell.get("outputs") else _slide("-", "The figure is made by `make book`.")
            picture.metadata["slideshow"] = {"slide_type": "-"}
            caption = f"{references.get(figure['name'], figure['name'])}: {plain(figure['caption'], references)}"
            cells += [_slide("slide", f"## {claim}"), picture, _slide("-", f"<small>{caption}</small>")]
            cells.append(_slide("notes", "\n\n".join([*prose[:-1], caption])))
            prose.clear()
    if missing := sorted(claims.keys() - shown):
        raise HistotransferError(f"slides of {title}: the chapter has no figure or table {', '.join(missing)}")
    for number, cell in enumerate(cells):
        cell["id"] = f"slide-{number:02d}"  # nbformat's own are random, and an export would differ from the next
    page = nbformat.v4.new_notebook(cells=cells, metadata=copy.deepcopy(notebook.metadata) | {"title": title})
    look = {"reveal_url_prefix": "reveal", "reveal_theme": "book", "exclude_input": True}
    exporter = SlidesExporter(raw_template=template.read_text(encoding="utf-8"), **look)
    return exporter.from_notebook_node(page)[0]


def _slide(kind: str, text: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


# ----------------------------------------------------------------------------------------------------
# The lab of two hours


def lab(source: Path, chapters: Sequence[Path]) -> NotebookNode:
    """The notebook of the lab; a cell that is the role `use` of an exercise becomes that exercise of a chapter.

    Args:
        source: py:percent.
        chapters: where the exercises are.

    Raises:
        HistotransferError: no chapter has an exercise of that name.
    """
    known = {}
    for chapter in chapters:
        cells = read_source(chapter).cells
        for task, scaffold, solution in zip(cells, cells[1:], cells[2:], strict=False):
            if label := re.search(r"^:label: (ex-\S+)$", task.source, re.M):
                task["source"] = re.sub(r"^#+ Exercises\n+", "", task.source)  # a heading of the chapter
                known[label[1]] = [task, scaffold, solution]
    notebook, cells = read_source(source), []
    for cell in notebook.cells:
        used = re.fullmatch(r"\{use\}`(\S+)`", cell.source.strip())
        if used and used[1] not in known:
            raise HistotransferError(f"{source}: no chapter has an exercise {used[1]}")
        cells += copy.deepcopy(known[used[1]]) if used else [cell]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    notebook["cells"] = cells
    return notebook


# ----------------------------------------------------------------------------------------------------
# Pages


def syllabus(chapters: list[Chapter]) -> str:
    """The chapters in order, with times, goals and exercises, as Markdown."""
    lines = [
        "# Syllabus",
        "",
        f"Minutes are estimates: reading at {WORDS_A_MINUTE} words a minute and {MINUTES_A_CELL} minutes a code cell; "
        f"running on synthetic tissue with two cores. {GUESS}",
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
        "There are no points for code that returns what the self-check expects without computing it (where an answer "
        "is a number or letters, the points are for the answer), nor for a number that was chosen by looking at test "
        "patients. Solutions are on the book's pages, for everybody: the explanation is what shows who understood.",
        "",
        "The project is marked apart:",
        "",
        "| project | points |",
        "|---|---|",
        "| the rule was written down before any training | 3 |",
        "| patients are kept apart, and the audit of the record is shown | 3 |",
        "| a difference with its interval, numbers of images and patients, and the smallest effect it would show | 4 |",
        "| the dose: what differs between the two arms was done | 2 |",
        "| limits: for whom the answer holds, and for whom it is not known | 2 |",
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
    """Write `student/`, `instructor/`, `lab/`, `slides/`, `syllabus.md` and `rubric.md`, all of it or nothing.

    Slides show the outputs of the last `make book`; those of a chapter that has changed since then show claims only.

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
        for name in ("student", "instructor", "slides", "lab"):
            (folder / name).mkdir(parents=True)
        two_hours = lab(root / LAB, sources)
        for name, copied in (("two_hours", student), ("two_hours-solved", instructor)):
            nbformat.write(copied(two_hours, references), folder / "lab" / f"{name}.ipynb")
        claims = slide_claims(root / "book/slides/claims.toml")
        shutil.copytree(root / "book/slides/reveal", folder / "slides/reveal")
        shutil.copytree(root / "book/_static/mathjax", folder / "slides/mathjax")
        for source, chapter in zip(sources, chapters, strict=True):
            notebook = read_source(source)
            for name, copied in (("student", student), ("instructor", instructor)):
                nbformat.write(copied(notebook, references), folder / name / f"{chapter.stem}.ipynb")
            executed = _executed(root / "_build" / "executed" / f"{chapter.stem}.ipynb", notebook)
            template, own = root / "book/slides/slides.html.j2", claims.get(chapter.stem, {})
            page = slides(executed or notebook, chapter.title, template, references, own)
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
