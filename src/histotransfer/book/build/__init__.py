"""From chapters to pages: papermill executes, a staging folder collects, Jupyter Book renders.

Chapters are py:percent files `notebooks/NN_name.py`. Everything made here lies under `_build/`::

    executed/   the chapters as executed notebooks, each with the key of what it was made from
    failed/     what was executed of a chapter that broke, for inspection; never staged
    book-src/   the configuration, the pages and the executed chapters: all that Jupyter Book gets to see
    html/       the finished site

A notebook that is executed twice from the same inputs is the same file byte for byte: what a run leaves
behind (timestamps, durations, process numbers, memory addresses, random cell ids) is removed.
"""
