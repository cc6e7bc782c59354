"""The parameters of a chapter that papermill may set: read and checked before anything runs."""

import ast
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from nbformat import NotebookNode

from histotransfer.book.build.sources import read_source
from histotransfer.config import ChapterParameters, validated
from histotransfer.errors import HistotransferError


def chapter_parameters(source: Path) -> dict[str, object]:
    """The names and default values in the `parameters` cell of a chapter; empty if it has no such cell.

    Raises:
        HistotransferError: the chapter has several such cells, or one with other lines than `name = literal`.
    """
    cell = parameters_cell(source, read_source(source))
    return {name: ast.literal_eval(value) for name, value in _assignments(source, cell)} if cell else {}


def check_parameters(source: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Check `parameters` against those of the chapter, before anything runs.

    Args:
        source: the chapter.
        parameters: values by name, in their final types: "3" is not a seed.

    Returns:
        Every parameter of the chapter with its value: the given one, else the chapter's default.

    Raises:
        HistotransferError: the chapter has no such parameter, or a value is of the wrong type or out of bounds; the
            message names the chapter, the parameter and what is allowed.
    """
    chapter, defaults = source.stem, chapter_parameters(source)
    for name in parameters:
        if name not in defaults:
            allowed = ", ".join(defaults) or "none at all"
            raise HistotransferError(f"chapter {chapter}: no parameter {name!r}; it takes {allowed}")
    values = {**defaults, **parameters}
    try:
        validated(ChapterParameters, values)
    except HistotransferError as error:
        raise HistotransferError(f"chapter {chapter}: parameter {error}") from error
    return values


def typed_parameters(source: Path, texts: Mapping[str, str]) -> dict[str, object]:
    """Convert values from a command line to the types of the chapter's defaults.

    A text that cannot be converted, or whose name the chapter lacks, is kept as text: `check_parameters` then reports
    the error.
    """
    defaults, values = chapter_parameters(source), dict[str, object](texts)
    for name, text in texts.items():
        convert: Callable[[str], object] = type(defaults.get(name, ""))
        with suppress(ValueError):
            values[name] = convert(text)
    return values


def described_parameters(source: Path) -> list[str]:
    """One line for each parameter of a chapter: name, type and bounds, default, meaning."""
    schema = ChapterParameters.model_json_schema()["properties"]
    rows = []
    for name, value in check_parameters(source, {}).items():
        known = schema[name]
        kind = "|".join(known["enum"]) if "enum" in known else {"string": "text"}.get(known["type"], known["type"])
        if "minimum" in known:
            kind += f", {known['minimum']} to {known['maximum']}"
        rows.append((name, kind, f"default {json.dumps(value)}", known["description"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def parameters_cell(source: Path, notebook: NotebookNode) -> NotebookNode | None:
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) > 1:
        raise HistotransferError(f"chapter {source.stem}: {len(tagged)} cells are tagged `parameters`; keep one")
    return tagged[0] if tagged else None


def _assignments(source: Path, cell: NotebookNode) -> list[tuple[str, ast.expr]]:
    """The (name, value node) pairs of a parameters cell, which holds plain assignments of literals only."""
    trouble = f"chapter {source.stem}: the parameters cell may hold only lines such as `seed = 0`"
    try:
        statements = ast.parse(cell.source).body
        pairs = []
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    pairs.append((name, value))
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pairs.append((name, value))
                case _:
                    raise HistotransferError(f"{trouble}, not `{ast.unparse(statement)}`")
            ast.literal_eval(value)
    except (SyntaxError, ValueError) as error:
        raise HistotransferError(f"{trouble}: {error}") from error
    return pairs


def with_values(source: Path, cell: NotebookNode, values: Mapping[str, object]) -> str:
    """The cell's text with `values` in place of its defaults; comments and layout are kept."""
    # ast counts columns in UTF-8 bytes.
    lines = cell.source.encode().split(b"\n")
    for name, node in reversed(_assignments(source, cell)):
        value = values[name]
        if value == ast.literal_eval(node):
            continue
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        merged = lines[first][: node.col_offset] + text.encode() + lines[last][node.end_col_offset :]
        lines[first : last + 1] = [merged]
    return b"\n".join(lines).decode()
