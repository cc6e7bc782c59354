"""The built site as a reader has it: in a browser, on a phone, in the dark, by keyboard and by screen reader."""

import contextlib
import functools
import gzip
import itertools
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from histotransfer.book.build.beside import ARCHIVE
from histotransfer.book.chapters import brief
from histotransfer.book.source_pages import FOLDER

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"
PHONE, DESK = 360, 1280  # pixels
MEGABYTE = 1_000_000
BROWSERS = 2

pytestmark = pytest.mark.slow


@dataclass
class Visit:
    """What a page did when it was opened, and what axe-core says about it."""

    name: str
    look: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def __str__(self):
        return f"{self.name} ({self.look})"


FACTS = """() => ({
    // In a button the text beside a picture names it.
    without_alt: [...document.images].filter(image => !image.alt && !image.closest('button')).map(image => image.src),
    broken: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
    unset: [...document.querySelectorAll('.math')]
        .filter(formula => !formula.querySelector('mjx-container')).map(formula => formula.textContent),
    wrong: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(formula => formula.textContent),
    undrawn: [...document.querySelectorAll('i[class*="fa-"]')]
        .filter(icon => getComputedStyle(icon, '::before').content == 'none').map(icon => icon.className),
    headings: [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')]
        .filter(heading => heading.checkVisibility()).map(heading => Number(heading.tagName[1])),
    plots: document.querySelectorAll('article figure img[src$=".svg"]').length,
    shrunk: [...document.querySelectorAll('article figure img[src$=".svg"]')]
        .filter(plot => plot.width < 0.8 * plot.naturalWidth).map(plot => plot.alt),
    overflow: document.documentElement.scrollWidth - innerWidth,
    theme: document.documentElement.dataset.theme,
})"""
# Folded text is unfolded, lazy pictures load, formulas and letters are set.
SETTLE = """async () => {
    document.querySelectorAll('details').forEach(folded => { folded.open = true });
    for (const image of document.images) image.loading = 'eager';
    await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    await document.fonts.ready;
}"""


def visit(browser, accessibility, address: str, name: str, look: str) -> Visit:
    context = browser.new_context(viewport={"width": PHONE if look == "light" else DESK, "height": 800})
    page, seen = context.new_page(), Visit(name, look)
    page.emulate_media(color_scheme=look)

    def answered(response):
        if response.status >= 400:
            seen.missing.append(response.url)

    page.on("console", lambda message: seen.console.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("response", answered)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(f"{address}/{name}")
    page.wait_for_function("!document.querySelector('meta[http-equiv=Refresh i]')")  # the first page leads to the book
    page.wait_for_load_state()
    page.evaluate(SETTLE)
    seen.facts, seen.violations = page.evaluate(FACTS), accessibility(page)
    context.close()
    return seen


def visit_all(started, accessibility, address, tasks: queue.SimpleQueue) -> list[Visit]:
    """Open pages until none is left, in a browser of its own: playwright's objects belong to one thread."""
    found = []
    with started() as browser, contextlib.suppress(queue.Empty):
        while True:
            found.append(visit(browser, accessibility, address, *tasks.get_nowait()))
    return found


@pytest.fixture(scope="module")
def visits(started, accessibility, address):
    """Every page, in light on a phone and in dark on a desk; `BROWSERS` share them."""
    names = [path.relative_to(SITE).as_posix() for path in sorted(SITE.rglob("*.html"))]
    names = [name for name in names if not name.startswith(("_static/", f"{FOLDER}/"))]  # pages of the source are alike
    tasks = queue.SimpleQueue()
    for task in itertools.product(names, ("light", "dark")):
        tasks.put(task)
    with ThreadPoolExecutor(BROWSERS) as pool:
        shares = list(pool.map(lambda _: visit_all(started, accessibility, address, tasks), range(BROWSERS)))
    found = sorted(itertools.chain(*shares), key=str)
    assert len(found) == 2 * len(names)
    return found


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": PHONE, "height": 800}, base_url=address, reduced_motion="reduce")
    yield context.new_page()
    context.close()


def test_every_page_was_opened_in_both_themes(visits):
    assert len(visits) >= 20
    assert all(one.facts["theme"] == one.look for one in visits)


def test_no_page_complains_or_misses_a_file(visits):
    trouble = [f"{one}: {what}" for one in visits for what in (*one.console, *one.missing)]
    assert not trouble, "\n".join(trouble)


def test_no_request_leaves_the_pages_own_host(visits, address):
    assert all(f"{address}/{one.name}" in one.requests for one in visits)
    trouble = [
        f"{one}: {url}" for one in visits for url in one.requests if not url.startswith((address, "data:", "blob:"))
    ]
    assert not trouble, "\n".join(trouble)


@pytest.mark.parametrize("flaw", ["without_alt", "broken", "unset", "wrong", "undrawn"])
def test_every_picture_is_there_and_described_every_formula_set_every_icon_drawn(visits, flaw):
    trouble = [f"{one}: {what}" for one in visits for what in one.facts[flaw]]
    assert not trouble, "\n".join(trouble)


def test_headings_nest(visits):
    for one in visits:
        levels = one.facts["headings"]
        assert levels[:1] == [1] and levels.count(1) == 1, f"{one}: {levels}"
        assert all(below <= above + 1 for above, below in itertools.pairwise(levels)), f"{one}: {levels}"


def test_no_page_is_wider_than_the_screen(visits):
    assert [f"{one}: {one.facts['overflow']} pixels" for one in visits if one.facts["overflow"] > 0] == []


def test_plots_are_shown_as_large_as_they_were_drawn(visits):
    """On a phone too, so that the smallest text of a plot can be read."""
    assert sum(one.facts["plots"] for one in visits) > 60
    assert [f"{one}: {alt}" for one in visits for alt in one.facts["shrunk"]] == []


def test_no_serious_or_critical_violation_of_accessibility(visits):
    trouble = [f"{one}: {what}" for one in visits for what in one.violations]
    assert not trouble, "\n".join(trouble)


def test_a_flaw_would_be_seen(page, accessibility):
    page.goto("/book/index.html")
    picture, pale = "<img src=../favicon.ico width=20>", "style.color = '#ccc'"
    page.evaluate(f"document.querySelector('article h1').insertAdjacentHTML('afterend', '{picture}')")
    page.evaluate(f"document.querySelector('article p').{pale}")
    assert {line.split(",")[0] for line in accessibility(page)} >= {"image-alt", "color-contrast"}


@functools.cache
def weight(path: Path) -> int:
    """Bytes on the wire: hosts of static pages compress text."""
    content = path.read_bytes()
    return len(gzip.compress(content)) if path.suffix in (".html", ".css", ".js", ".svg") else len(content)


def test_pages_and_the_site_are_light(visits, address):
    """A page is counted with everything that it loads for a reader who comes for the first time."""
    for one in visits:
        files = {url.removeprefix(address).split("?")[0] for url in one.requests if url.startswith(address)}
        size = sum(weight(SITE / file.lstrip("/")) for file in files)
        assert 100_000 < size < 2 * MEGABYTE, f"{one}: {size} bytes"
    archive = SITE / ARCHIVE
    pages = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file() and path != archive)
    assert pages < 40 * MEGABYTE and archive.stat().st_size < 30 * MEGABYTE


@pytest.mark.parametrize(("word", "chapter"), [("Macenko", "02_normalization"), ("SqueezeExcite", "03_se_densenet")])
def test_search_finds_the_chapter_that_teaches_a_word_first(page, word, chapter):
    page.goto("/book/index.html", wait_until="networkidle")
    page.keyboard.press("Control+k")
    page.locator("input[name=q]:focus").wait_for()
    page.keyboard.type(word)
    page.keyboard.press("Enter")
    page.get_by_text("Search finished").wait_for(timeout=20_000)
    found = [link.get_attribute("href") for link in page.locator("#search-results li a").all()]
    assert chapter in found[0], found[:5]
    assert any("api/" in link for link in found)


INSIDE_A_WORD = """() => [...document.querySelectorAll('article code.literal .pre')]
    .filter(one => one.checkVisibility())
    .flatMap(one => [...one.childNodes].filter(node => node.nodeType == 3).map(node => {
        const range = document.createRange();
        range.selectNodeContents(node);
        return range.getClientRects().length > 1 ? `${one.textContent}: ${node.textContent}` : '';
    })).filter(text => text && text.split(': ').at(-1).length < 30 && !text.split(': ').at(-1).includes('-'))"""


@pytest.mark.parametrize(
    "name", ["notebooks/02_normalization", "notebooks/13_your_own_data", "book/cluster", "book/architecture"]
)
def test_on_a_phone_code_breaks_at_seams_or_not_at_all(page, name):
    page.goto(f"/{name}.html", wait_until="networkidle")
    assert page.locator("article code.literal wbr").count() > 3
    assert page.evaluate(INSIDE_A_WORD) == []
    lines = page.locator("div.highlight pre:not(.cell_output *)").all()
    assert {one.evaluate("one => getComputedStyle(one).whiteSpace") for one in lines} <= {"pre"}  # indentation stays


CLIPPED = """() => {
    const page = document.querySelector('article').getBoundingClientRect(), trouble = [];
    for (const one of document.querySelectorAll('article :is(table, pre, img, svg, figure, mjx-container, canvas)')) {
        const box = one.getBoundingClientRect();
        if (box.right > innerWidth + 1 || box.left < -1) trouble.push(`${one.tagName} ${one.className} ${box.right}`);
        for (let up = one; up && up.tagName != 'ARTICLE'; up = up.parentElement) {
            if (!up.clientWidth) continue;  // in a line of text
            if (getComputedStyle(up).overflowX != 'visible' && up.scrollWidth > up.clientWidth + 1) {
                trouble.push(`${one.tagName} in ${up.tagName} ${up.className}`);
            }
        }
    }
    return trouble;
}"""
PAPER = 718  # pixels between the margins of a sheet of A4


def test_a_chapter_on_paper_has_nothing_cut_off(page, tmp_path):
    for path in sorted((SITE / "notebooks").glob("*.html")):
        page.set_viewport_size({"width": PAPER, "height": 1000})
        page.emulate_media(media="print")
        page.goto(f"/notebooks/{path.name}")
        page.evaluate(SETTLE)
        assert page.evaluate(CLIPPED) == [], path.stem
        shown = page.locator(".bd-sidebar-primary, .bd-header-article, .prev-next-area, .copybtn")
        assert not any(one.is_visible() for one in shown.all())
        page.pdf(path=tmp_path / "page.pdf", format="A4", margin=dict.fromkeys(("left", "right"), "10mm"))
        assert (tmp_path / "page.pdf").stat().st_size > 50_000


FOCUS = """() => {
    const one = document.activeElement, box = one.getBoundingClientRect();
    const looks = [one, ...one.children].map(each => getComputedStyle(each));  // the theme may frame what is inside
    return {
        tag: one.tagName,
        name: (one.innerText || one.ariaLabel || one.title || '').trim() || one.outerHTML,
        shown: looks.some(look => look.outlineStyle != 'none' || look.boxShadow != 'none'),
        inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    };
}"""


def test_the_first_stop_of_the_keyboard_skips_to_the_text(page):
    page.goto("/notebooks/01_data.html", wait_until="networkidle")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUS)["name"] == "Skip to main content"
    page.keyboard.press("Enter")
    page.wait_for_url("**/*#main-content")  # a moment after the key
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('#main-content').contains(document.activeElement)")


def test_the_keyboard_shows_where_it_is_and_is_never_caught(page):
    page.set_viewport_size({"width": DESK, "height": 800})
    page.goto("/notebooks/01_data.html", wait_until="networkidle")
    stops = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUS))
    hidden = [stop["name"] for stop in stops if stop["tag"] != "BODY" and not (stop["shown"] and stop["inside"])]
    assert hidden == []
    assert len({stop["name"] for stop in stops}) > 40


def test_a_phone_opens_the_table_of_contents_by_keyboard(page):
    page.goto("/notebooks/01_data.html", wait_until="networkidle")
    contents = page.locator("nav.bd-docs-nav a").first
    assert not contents.is_visible()
    page.locator("button.primary-toggle").focus()
    page.keyboard.press("Enter")
    contents.wait_for(state="visible")
    page.keyboard.press("Escape")
    contents.wait_for(state="hidden")


@pytest.mark.parametrize("look", ["light", "dark"])
def test_an_import_leads_to_the_source_in_the_readers_theme(page, accessibility, look):
    page.emulate_media(color_scheme=look)
    page.goto("/notebooks/05_evaluation.html")
    page.evaluate(SETTLE)
    link = page.locator(f'.highlight a[href*="{FOLDER}/"]', has_text="read_experiment")
    link.click()
    page.wait_for_url("**/report/tables.html#read_experiment")
    assert page.evaluate("document.documentElement.dataset.theme") == look
    assert "def read_experiment(" in page.locator("pre").inner_text()
    assert page.locator("#read_experiment").bounding_box()["y"] < 400
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert accessibility(page) == []


@pytest.fixture
def term(page):
    """The first link of a page to the glossary, on a desk, and the box with its definition."""
    page.set_viewport_size({"width": DESK, "height": 800})
    page.goto("/notebooks/05_evaluation.html", wait_until="networkidle")
    link = page.locator("article a[aria-describedby]", has_text="sensitivity").first
    return link, page.locator(f"#{link.get_attribute('aria-describedby')}")


def inside(page, box):
    at, size = box.bounding_box(), page.viewport_size
    return 0 <= at["x"] <= size["width"] - at["width"] and 0 <= at["y"] <= size["height"] - at["height"]


def test_the_mouse_shows_what_a_term_means(page, term, accessibility):
    link, box = term
    assert not box.is_visible()
    link.hover()
    box.wait_for(state="visible")
    assert box.inner_text() == "The share of malignant images that are predicted malignant."
    assert inside(page, box) and accessibility(page) == []
    box.hover()  # it can be read to its end
    page.wait_for_timeout(400)
    assert box.is_visible()
    page.mouse.move(1, 1)
    box.wait_for(state="hidden")


def test_the_keyboard_shows_what_a_term_means_and_escape_hides_it(page, term):
    link, box = term
    page.keyboard.press("Tab")  # from here on the focus is the keyboard's
    link.focus()
    box.wait_for(state="visible")
    assert inside(page, box)
    page.keyboard.press("Escape")
    box.wait_for(state="hidden")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    box.wait_for(state="visible")
    page.keyboard.press("Tab")
    box.wait_for(state="hidden")


def test_a_finger_follows_the_link_to_the_glossary(browser, address):
    context = browser.new_context(viewport={"width": PHONE, "height": 800}, base_url=address, has_touch=True)
    page = context.new_page()
    page.goto("/notebooks/05_evaluation.html", wait_until="networkidle")
    page.locator("article a[aria-describedby]", has_text="sensitivity").first.tap()
    page.wait_for_url("**/glossary.html#term-sensitivity")
    assert page.locator(".definition:visible").count() == 0
    context.close()


def test_code_that_sets_up_is_one_line_that_unfolds(page):
    page.goto("/notebooks/05_evaluation.html", wait_until="networkidle")
    line = page.get_by_text("Set-up", exact=True).locator("visible=true")
    assert line.count() == 1 and line.bounding_box()["height"] < 40
    code = page.locator("details.hide", has_text="Set-up").locator("pre")
    assert not code.is_visible()
    line.click()
    assert code.is_visible() and "begin(" in code.inner_text()


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_first_column_of_an_unfolded_table_stays_in_view(page, accessibility, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/notebooks/05_evaluation.html", wait_until="networkidle")
    wide = brief(pd.DataFrame({f"quite a long name {i}": range(3) for i in range(30)}))
    page.evaluate("html => document.querySelector('article h1').insertAdjacentHTML('afterend', html)", wide.data)
    page.get_by_text("All 30 columns").click()
    box = page.locator("details:has(> summary:text('All 30 columns')) > div")
    box.evaluate("one => { one.scrollLeft = 500 }")
    left, first = box.bounding_box()["x"], box.locator("tbody th").first.bounding_box()["x"]
    assert box.evaluate("one => one.scrollLeft") == 500 and first == pytest.approx(left, abs=2)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert accessibility(page) == []
