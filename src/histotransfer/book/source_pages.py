"""The source of the package as pages of the site, and links to them from the imports that a page shows."""

import ast
import functools
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import histotransfer
from histotransfer.files import write_text

PACKAGE = Path(histotransfer.__file__).parent
FOLDER = "source"  # in the site

# Names, operators and blanks have no colour of their own: without a span around each, a page has half of the size.
PLAIN = re.compile(r'<span class="(?![ckms]|n[cf]")[^"]*">([^<]*)</span>')

# What Pygments makes of `from histotransfer.module import name, name` and of the same in parentheses.
IMPORT = re.compile(
    r'(<span class="kn">from</span><span class="w"> </span><span class="nn">(histotransfer[\w.]*)</span>'
    r'<span class="w"> </span><span class="kn">import</span>)((?:(?!\()[^\n])*(?:\([^)]*\))?)'
)
IMPORTED = re.compile(r'(?<!as</span> )(<span class="n">)(\w+)(</span>)')

PAGE = """\
<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<link rel="icon" href="{up}favicon.ico">
<link rel="stylesheet" href="{up}_static/pygments.css">
<link rel="stylesheet" href="{up}_static/source.css">
<script src="{up}_static/source.js"></script>
</head>
<body>
<main>
<h1>{name}</h1>
<p><a href="{up}index.html">histotransfer</a></p>
<div class="highlight" tabindex="0"><pre>{code}</pre></div>
</main>
</body>
</html>
"""


def write_source_pages(folder: Path) -> None:
    """Write a page for each module of the package, in folders as the modules; nothing if the package has not changed.

    Args:
        folder: the one to fill; other files in it are removed.
    """
    sources = sorted(PACKAGE.rglob("*.py"))
    key = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
    made_from = folder.with_suffix(".key")
    if made_from.is_file() and made_from.read_text(encoding="utf-8") == key:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for source in sources:
        module = ".".join(source.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        page = _page(module)
        code = _highlighted(module, "../" * page.count("/"))
        write_text(folder / page, PAGE.format(name=module, up="../" * (page.count("/") + 1), code=code))
    write_text(made_from, key)


def link_imports(code: str, to: str) -> str:
    """Highlighted code in which the names that it imports from the package are links to their definitions.

    Args:
        code: HTML by Pygments.
        to: the way from the page to `FOLDER`, with a slash at the end.
    """

    def linked(name: re.Match[str], module: str) -> str:
        place = place_of(module, name[2])
        return f'{name[1]}<a href="{to}{place}">{name[2]}</a>{name[3]}' if place else name[0]

    def statement(found: re.Match[str]) -> str:
        return found[1] + IMPORTED.sub(lambda name: linked(name, found[2]), found[3])

    return IMPORT.sub(statement, code)


def place_of(module: str, name: str) -> str | None:
    """The page of `FOLDER` on which a name that a module offers is defined, and where on it; None if there is none."""
    defined, imported = _names(module)
    if name in defined:
        return f"{_page(module)}#{name}"
    if name in imported:
        return place_of(*imported[name])
    return _page(f"{module}.{name}") if _file(f"{module}.{name}").is_file() else None


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _page(module: str) -> str:
    return _file(module).relative_to(PACKAGE.parent).with_suffix(".html").as_posix()


@functools.cache
def _names(module: str) -> tuple[dict[str, int], dict[str, tuple[str, str]]]:
    """What a module defines, with its lines; and what it imports from the package: whence and under which name."""
    path = _file(module)
    defined: dict[str, int] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else ():
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE.name):
            imported |= {name.asname or name.name: (str(node.module), name.name) for name in node.names}
        defined |= dict.fromkeys(_defines(node), node.lineno) if hasattr(node, "lineno") else {}
    return defined, imported


def _defines(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def _highlighted(module: str, to: str) -> str:
    """The code of a module as HTML; each line that defines something begins with an anchor of that name."""
    code = highlight(_file(module).read_text(encoding="utf-8"), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    lines = PLAIN.sub(r"\1", link_imports(code, to)).split("\n")
    for name, line in _names(module)[0].items():
        lines[line - 1] = f'<span id="{name}"></span>{lines[line - 1]}'
    return "\n".join(lines)
