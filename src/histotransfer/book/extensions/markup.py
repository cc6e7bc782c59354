"""A Sphinx extension: pages for a phone and for a screen reader, where Sphinx and the theme fall short.

The templates in `book/_templates` do the same for what the theme writes by template.
"""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.writers.html5 import HTML5Translator


class BookTranslator(HTML5Translator):
    """Bibliography, pictures and signatures."""

    def starttag(self, node: Any, tagname: str, *args: Any, **attributes: Any) -> str:
        """The entries stand in a list, so each is an item of it; `doc-biblioentry` is deprecated."""
        if attributes.get("role") == "doc-biblioentry":
            attributes["role"] = "listitem"
        return super().starttag(node, tagname, *args, **attributes)

    def visit_image(self, node: nodes.image) -> None:
        """Figures are wider than a phone: a tap opens the picture itself."""
        super().visit_image(node)  # afterwards "uri" is where the page finds the file
        if not isinstance(node.parent, nodes.reference):
            self.body.insert(-1, self.starttag({}, "a", "", href=node["uri"]))
            self.body.append("</a>")

    def visit_desc_parameterlist(self, node: addnodes.desc_parameterlist) -> None:
        """Sphinx writes a signature of several lines as a `dl` that defines nothing, which is read out as a list."""
        if not node.get("multi_line_parameter_list"):
            super().visit_desc_parameterlist(node)
            return
        self.body.append('<span class="sig-paren">(</span>')
        for parameter in node:
            self.body.append('<span class="sig-line"><em class="sig-param">')
            for part in parameter:
                part.walkabout(self)
            self.body.append("</em>,</span>\n")
        self.body.append('<span class="sig-paren">)</span>')
        raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.set_translator("html", BookTranslator)
    app.connect("html-page-context", _name_arrows, priority=501)  # after the theme's
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _name_arrows(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Name the arrow beside an entry of the table of contents: it has no text that could be its name."""
    generate = context["generate_toctree_html"]

    def generate_named(*args: Any, **options: Any) -> Any:
        toctree = generate(*args, **options)
        for arrow in toctree("summary"):
            if not arrow.get_text():
                arrow["aria-label"] = "Pages of this part"
        return toctree

    context["generate_toctree_html"] = generate_named
