"""histotransfer: an open, re-runnable reproduction of arXiv 2404.09226 on breast-cancer histology."""

__version__ = "0.1.0"
