"""The licences of what is locked, as the installed packages state them, for the page on data."""

import re
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

UNKNOWN = "none stated"


def licences(lock: Path) -> dict[str, list[str]]:
    """The packages of a lock file that are installed here, by the licence that each states."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(re.findall(r"^([\w.-]+)==", lock.read_text(encoding="utf-8"), re.M)):
        try:
            found[_stated(metadata(name))].append(name)
        except PackageNotFoundError:  # of another system or Python
            continue
    return dict(found)


def _stated(about: PackageMetadata) -> str:
    """The expression where there is one; else the classifiers; else the first line of the text."""
    classifiers = [line.split(" :: ")[-1] for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    texts = [line.strip() for text in about.get_all("License", []) for line in text.splitlines()]
    candidates = [*about.get_all("License-Expression", []), ", ".join(classifiers), *texts]
    return next(filter(None, candidates), UNKNOWN)


def licence_table(lock: Path) -> str:
    """`licences` as a table of the book, the most frequent first."""
    return "\n".join(_lines(licences(lock))) + "\n"


def _lines(found: dict[str, list[str]]) -> Iterator[str]:
    yield ":::{table} The packages of `requirements.lock` that this page was built with, by the licence they state."
    yield ":name: tab-data-licences\n"
    yield "| licence | packages |\n|---|---|"
    for licence, names in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"| {licence.replace('|', '/')} | {len(names)}: {', '.join(sorted(names))} |"
    yield "\n:::"
