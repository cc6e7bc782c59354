"""A Sphinx extension: tables that a cell puts out are numbered and captioned as tables.

MyST-NB wraps what a cell puts out in a figure, if the cell's metadata have a caption: a table too, which would then be
counted as a figure. Here a figure whose name begins with `tab-` becomes a table: its caption stands above it and begins
with `Table 5.2`, and `numref` finds it.
"""

from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

PREFIX = "tab-"


class OutputTable(nodes.General, nodes.Element):
    """A table that a cell put out, below its caption."""


class OutputCaption(nodes.caption):
    """Its caption."""


class FiguresToTables(SphinxTransform):
    """Puts `OutputTable` in place of figures that hold tables, before Sphinx looks for what to number and to link."""

    default_priority = 200

    def apply(self, **options: Any) -> None:
        """What docutils calls."""
        for figure in list(self.document.findall(nodes.figure)):
            if any(name.startswith(PREFIX) for name in figure["names"]):
                captions = [child for child in figure.children if isinstance(child, nodes.caption)]
                others = [child for child in figure.children if child not in captions]
                table = OutputTable("", *(OutputCaption("", "", *one.children) for one in captions), *others)
                figure.replace_self(table)
                self.document.ids.update(dict.fromkeys(table["ids"], table))


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
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
    # What is below the caption scrolls where it is too wide; the theme lets the keyboard scroll what is of this class.
    writer.body.append('</p></figcaption>\n<div class="pst-scrollable-table-container">\n')
