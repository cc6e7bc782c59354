"""From chapters to pages: papermill executes, a staging folder collects, Jupyter Book renders.

Chapters are py:percent files `notebooks/NN_name.py`. Everything made here lies under `_build/`::

    executed/   the chapters as executed notebooks, each with the key of what it was made from
    failed/     what was executed of a chapter that broke, for inspection; never staged
    book-src/   the configuration, the pages and the executed chapters: all that Jupyter Book gets to see
    html/       the finished site

A notebook that is executed twice from the same inputs is the same file byte for byte: what a run leaves
behind (timestamps, durations, process numbers, memory addresses, random cell ids) is removed.
"""

from histotransfer.bookbuild.execution import ChapterError, execute_chapter, execute_chapters, normalise
from histotransfer.bookbuild.parameters import (
    chapter_parameters,
    check_parameters,
    described_parameters,
    typed_parameters,
)
from histotransfer.bookbuild.site import build_book, stage
from histotransfer.bookbuild.sources import (
    NEEDS,
    chapter_sources,
    find_chapter,
    pair,
    pair_text,
    prerequisites,
    read_source,
    stale_pairs,
    toc_files,
)

__all__ = [
    "NEEDS",
    "ChapterError",
    "build_book",
    "chapter_parameters",
    "chapter_sources",
    "check_parameters",
    "described_parameters",
    "execute_chapter",
    "execute_chapters",
    "find_chapter",
    "normalise",
    "pair",
    "pair_text",
    "prerequisites",
    "read_source",
    "stage",
    "stale_pairs",
    "toc_files",
    "typed_parameters",
]
