"""A Sphinx extension that numbers and captions tables in the output of a cell as tables.

If a cell's metadata has a caption, MyST-NB wraps the cell's output in a figure, and counts it as one even if it is a
table. Here a figure whose name begins with `tab-` becomes a table: its caption is above it and begins with `Table 5.2`,
and `numref` finds it.
"""

from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

PREFIX = "tab-"


class OutputTable(nodes.General, nodes.Element):
    """A table in the output of a cell, below its caption."""


class OutputCaption(nodes.caption):
    """The caption of an `OutputTable`."""


class FiguresToTables(SphinxTransform):
    """Replaces figures that hold tables by `OutputTable`, before Sphinx collects what to number and to link."""

    default_priority = 200

    def apply(self, **options: Any) -> None:
        """Transform the document; called by docutils."""
        for figure in list(self.document.findall(nodes.figure)):
            if any(name.startswith(PREFIX) for name in figure["names"]):
                captions = [child for child in figure.children if isinstance(child, nodes.caption)]
                others = [child for child in figure.children if child not in captions]
                table = OutputTable("", *(OutputCaption("", "", *one.children) for one in captions), *others)
                figure.replace_self(table)
                self.document.ids.update(dict.fromkeys(table["ids"], table))


def setup(app: Any) -> dict[str, bool]:
    """Register the extension; called by Sphinx."""
    app.add_enumerable_node(OutputTable, "table", html=(_begin_table, _end_table))
    app.add_node(OutputCaption, html=(_begin_caption, _end_caption))
    app.add_transform(FiguresToTables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _begin_table(writer: Any, node: OutputTable) -> None:
    writer.body.append(writer.starttag(node, "figure", CLASS="output-table"))


def _end_table(writer: Any, node: OutputTable) -> None:
    writer.body.append("</div></figure>\n")


def _begin_caption(writer: Any, node: OutputCaption) -> None:
    writer.body.append("<figcaption><p>")
    writer.add_fignumber(node.parent)
    writer.body.append(writer.starttag(node, "span", "", CLASS="caption-text"))


def _end_caption(writer: Any, node: OutputCaption) -> None:
    writer.body.append("</span>")
    writer.add_permalink_ref(node.parent, "Link to this table")
    # A table that is too wide scrolls; the theme lets the keyboard scroll elements of this class.
    writer.body.append('</p></figcaption>\n<div class="pst-scrollable-table-container">\n')
