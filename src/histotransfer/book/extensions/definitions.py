"""A Sphinx extension that puts the definitions of the glossary on each page that links to them.

A link with `term` is described by its definition, for screen readers too; `book/_static/definitions.js` shows it beside
the link.
"""

import functools
import html
import re
from typing import Any

from docutils import nodes

LINK = re.compile(r'<a class="reference internal" href="[^"#]*#(term-[^"]+)"')


def setup(app: Any) -> dict[str, bool]:
    """Register the extension; called by Sphinx."""
    app.connect("html-page-context", _describe_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _describe_terms(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    known = _definitions(app)
    used = sorted(known.keys() & set(LINK.findall(context.get("body", ""))))
    if not used:
        return
    body = LINK.sub(lambda link: f'{link[0]} aria-describedby="definition-{link[1]}"', context["body"])
    boxes = (
        f'<div class="definition" id="definition-{term}" role="tooltip" hidden>{html.escape(known[term])}</div>\n'
        for term in used
    )
    context["body"] = body + "".join(boxes)
    app.add_js_file("definitions.js", loading_method="defer")


@functools.cache
def _definitions(app: Any) -> dict[str, str]:
    """The text of each definition, by the anchor of its term."""
    found: dict[str, str] = {}
    objects = app.env.domaindata["std"]["objects"]
    for page in sorted({name for (kind, _), (name, _) in objects.items() if kind == "term"}):
        glossary = app.env.get_and_resolve_doctree(page, app.builder)
        for item in glossary.findall(nodes.definition_list_item):
            text = " ".join(part.astext() for part in item.findall(nodes.paragraph))
            for term in item.findall(nodes.term):
                # Formulas are short: without its backslashes LaTeX can be read.
                found |= dict.fromkeys(term["ids"], " ".join(text.replace("\\", "").split()))
    return found
