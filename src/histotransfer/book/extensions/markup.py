"""A Sphinx extension: pages for a phone and for a screen reader, where Sphinx and the theme fall short.

The templates in `book/_templates` do the same for what the theme writes by template.
"""

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.writers.html5 import HTML5Translator

from histotransfer.book.source_pages import FOLDER, link_imports, place_of

_PRE = re.compile(r"(?<=>)[^<>]+(?=</span>)")  # what stands in a `pre` span
_SEAM = re.compile(r"([_/=](?=\w)|\.(?=[A-Za-z_]))")  # not within a decimal number


class BookTranslator(HTML5Translator):
    """Bibliography, pictures, signatures, and ways to the source."""

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

    def visit_Text(self, node: nodes.Text) -> None:
        """Long names break behind an underscore, a dot, a slash or an equals sign, not in the middle of a word."""
        begin = len(self.body)
        super().visit_Text(node)
        if self.protect_literal_text:
            self.body[begin:] = [
                _PRE.sub(lambda part: _SEAM.sub(r"\1<wbr>", part[0]), piece) for piece in self.body[begin:]
            ]

    @property
    def to_source(self) -> str:
        """The way from this page to the pages of the source."""
        return "../" * self.builder.current_docname.count("/") + FOLDER + "/"

    def visit_literal_block(self, node: nodes.literal_block) -> None:
        """What code imports from the package is linked to its source."""
        try:
            super().visit_literal_block(node)
        finally:  # after highlighting Sphinx raises SkipNode
            self.body[-1] = link_imports(self.body[-1], self.to_source)

    def depart_desc_signature(self, node: addnodes.desc_signature) -> None:
        """So is each entry of the reference."""
        if place := place_of(node.get("module") or "", node.get("fullname", "")):
            self.body.append(f'<a class="to-source" href="{self.to_source}{place}">source</a>')
        super().depart_desc_signature(node)

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
    app.connect("html-page-context", _load_instruments)
    app.connect("html-page-context", _unname_folds)
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


def _load_instruments(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Load the JavaScript of the instruments that are on a page (`histotransfer.book.instruments`)."""
    for name in sorted(set(re.findall(r'data-instrument="(\w+)"', context.get("body", "")))):
        app.add_js_file(f"instruments/{name}.js", loading_method="defer")


def _unname_folds(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """MyST-NB names every folded cell "Toggle hidden content" for screen readers, whatever its line says."""
    context["body"] = context.get("body", "").replace('<summary aria-label="Toggle hidden content">', "<summary>")
