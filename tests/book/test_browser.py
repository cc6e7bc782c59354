"""The built site as a reader has it: in a browser, on a phone, in the dark, by keyboard and by screen reader."""

import contextlib
import functools
import gzip
import http.server
import itertools
import queue
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"
AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
PHONE, DESK = 360, 1280  # pixels
MEGABYTE = 1_000_000
BROWSERS = 2

pytestmark = pytest.mark.slow


class Quiet(http.server.SimpleHTTPRequestHandler):
    def handle(self):
        # A browser that closes a page no longer waits for the rest of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    """Of a server of the site on this machine."""
    if not (SITE / "index.html").is_file():
        pytest.skip("no site has been built: `make book`")
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def started():
    """Debian's Chromium, else the one that `playwright install chromium` has fetched."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not AXE.is_file():
        pytest.skip("no axe-core: `make browser`")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            # As root there is no sandbox; the rest keeps the browser from calling home.
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )


@pytest.fixture(scope="module")
def browser():
    with started() as one:
        yield one


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
    without_alt: [...document.images].filter(image => !image.alt).map(image => image.src),
    broken: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
    unset: [...document.querySelectorAll('.math')]
        .filter(formula => !formula.querySelector('mjx-container')).map(formula => formula.textContent),
    wrong: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(formula => formula.textContent),
    undrawn: [...document.querySelectorAll('i[class*="fa-"]')]
        .filter(icon => getComputedStyle(icon, '::before').content == 'none').map(icon => icon.className),
    headings: [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')]
        .filter(heading => heading.checkVisibility()).map(heading => Number(heading.tagName[1])),
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
CHECK = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
    .filter(found => ['serious', 'critical'].includes(found.impact))
    .map(found => `${found.id}, ${found.nodes.length} times: ${found.help}: ` +
        found.nodes.slice(0, 3).map(node => `${node.target} ${node.any.map(one => one.message)}`).join(' | '))"""


def accessibility(page) -> list[str]:
    page.add_script_tag(path=AXE)
    return page.evaluate(CHECK)


def visit(browser, address: str, name: str, look: str) -> Visit:
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


def visit_all(address, tasks: queue.SimpleQueue) -> list[Visit]:
    """Open pages until none is left, in a browser of its own: playwright's objects belong to one thread."""
    found = []
    with started() as browser, contextlib.suppress(queue.Empty):
        while True:
            found.append(visit(browser, address, *tasks.get_nowait()))
    return found


@pytest.fixture(scope="module")
def visits(address):
    """Every page, in light on a phone and in dark on a desk; `BROWSERS` share them."""
    names = [path.relative_to(SITE).as_posix() for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]
    tasks = queue.SimpleQueue()
    for task in itertools.product(names, ("light", "dark")):
        tasks.put(task)
    with ThreadPoolExecutor(BROWSERS) as pool:
        shares = list(pool.map(visit_all, [address] * BROWSERS, [tasks] * BROWSERS))
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


def test_no_serious_or_critical_violation_of_accessibility(visits):
    trouble = [f"{one}: {what}" for one in visits for what in one.violations]
    assert not trouble, "\n".join(trouble)


def test_a_flaw_would_be_seen(page):
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
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < 40 * MEGABYTE


def test_search_finds_a_word(page):
    page.goto("/book/index.html", wait_until="networkidle")
    page.keyboard.press("Control+k")
    page.locator("input[name=q]:focus").wait_for()
    page.keyboard.type("Macenko")
    page.keyboard.press("Enter")
    page.locator("#search-results li a[href*='02_normalization']").first.wait_for(timeout=20_000)  # or it fails


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
    assert page.url.endswith("#main-content")
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
