"""Which code of a chapter the pages fold: what sets up, checks, or reshapes records for a table, is one line there.

The notebooks show all of it.
"""

import ast

from nbformat import NotebookNode

SETUP, CHECK, TABLE = "Set-up", "A check that passed", "How this table is made"


def folded(notebook: NotebookNode) -> NotebookNode:
    """An executed chapter as its page shows it; the parameters and the cell that calls `begin` are one there."""
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        label = _label(cell)
        if label == SETUP and cells and _label(cells[-1]) == SETUP:
            cells[-1]["source"] += f"\n\n{cell.source}"
            cells[-1]["outputs"] += cell.outputs
            continue
        if label:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            look = {"code_prompt_show": label, "code_prompt_hide": label}
            cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), **look}
        cells.append(cell)
    return NotebookNode({**notebook, "cells": cells})


def _label(cell: NotebookNode) -> str | None:
    """What the line says to which the code of a cell is folded; None: it is shown."""
    tags = cell.metadata.get("tags", [])
    if cell.cell_type != "code" or "exercise" in tags:
        return None
    if "parameters" in tags or _calls_begin(cell.source):
        return SETUP
    if cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "").startswith("tab-"):
        return TABLE
    ends = _statements(cell.source)[-1:]
    return CHECK if not cell.get("outputs") and any(isinstance(end, ast.Assert) for end in ends) else None


def _calls_begin(code: str) -> bool:
    calls = (node.func for line in _statements(code) for node in ast.walk(line) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == "begin" for called in calls)


def _statements(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code).body
    except SyntaxError:  # of IPython's own
        return []
