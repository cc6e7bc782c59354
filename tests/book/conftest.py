"""A browser, and servers of pages for it."""

import contextlib
import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"
AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def handle(self):
        # A browser that closes a page no longer waits for the rest of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def _served(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def served():
    """A context manager: the address of a server of a folder on this machine."""
    return _served


@pytest.fixture(scope="module")
def address():
    """Of a server of the site on this machine."""
    if not (SITE / "index.html").is_file():
        pytest.skip("no site has been built: `make book`")
    with _served(SITE) as one:
        yield one


@contextlib.contextmanager
def _started():
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


@pytest.fixture(scope="session")
def started():
    """A context manager: a Chromium of its own, for a thread."""
    return _started


@pytest.fixture(scope="module")
def browser():
    with _started() as one:
        yield one


CHECK = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
    .filter(found => ['serious', 'critical'].includes(found.impact))
    .map(found => `${found.id}, ${found.nodes.length} times: ${found.help}: ` +
        found.nodes.slice(0, 3).map(node => `${node.target} ${node.any.map(one => one.message)}`).join(' | '))"""


@pytest.fixture(scope="session")
def accessibility():
    """A function: the serious and critical violations that axe-core finds on a page."""

    def found(page) -> list[str]:
        page.add_script_tag(path=AXE)
        return page.evaluate(CHECK)

    return found
