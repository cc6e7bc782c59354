"""From chapters to pages: papermill executes, a staging folder collects, Jupyter Book renders.

Chapters are py:percent files `notebooks/NN_name.py`. Everything made from them is in `_build/`::

    executed/   the chapters as executed notebooks, each with a hash of its inputs
    failed/     chapters that failed, as far as they were executed, for inspection; never staged
    book-src/   the configuration, the pages and the executed chapters: all that Jupyter Book sees
    html/       the finished site

A notebook that is executed twice from the same inputs gives the same file byte for byte: timestamps, durations, process
numbers, memory addresses and random cell ids are removed.
"""
