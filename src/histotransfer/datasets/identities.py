"""Names of patients and labels, compared as people read them.

Two spellings of one patient are two patients to a program: the split then puts one person into training and test, and
the audit sees nothing. What is invisible is removed; where a difference may be meant or not, a person must say.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

# What pandas and spreadsheets write for an empty cell.
MISSING = {"", "-", "#n/a", "<na>", "n/a", "na", "nan", "nat", "none", "null"}
PARTS = re.compile(r"(train(ing)?|test(ing)?|val(id(ation)?)?|dev)([ _-]?(set|data|images))?")
# Drawn as nothing, though Unicode calls them letters or marks: fillers and variation selectors.
UNDRAWN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0]")


def clean(text: str) -> str:
    """A name in Unicode's normal form C, without invisible characters, with single spaces and none at its ends."""
    visible = (
        letter
        for letter in UNDRAWN.sub("", text)
        if letter.isspace() or unicodedata.category(letter) not in ("Cc", "Cf")
    )
    return unicodedata.normalize("NFC", " ".join("".join(visible).split()))


def is_missing(text: str) -> bool:
    """Whether a cleaned name stands for "not known", as ``nan`` does."""
    return text.lower() in MISSING


def is_part(label: str) -> bool:
    """Whether a cleaned label names a part of a split, as ``train`` does, and not a class."""
    return PARTS.fullmatch(label.lower()) is not None


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Cleaned names that people may read as one: those that differ in case, ``.0``, zeros in front, or kind of letter.

    Returns:
        The groups of at least two, sorted.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[_as_read(name)].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _as_read(name: str) -> str:
    """The same text for names that look or sound alike: what is compared, never shown."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = "".join("-" if unicodedata.category(letter) == "Pd" or letter == "\u2212" else letter for letter in text)
    text = re.sub(r"(?<!\d)\s|\s(?!\d)", "", text)  # but "P1 1" is not "P11"
    text = re.sub(r"(?<=\d)[.,]0*$", "", text)  # a spreadsheet's 14.0 for 14
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", text)
