"""Names of patients and labels, compared as people read them.

Two spellings of one patient are two patients to a program: the split then puts one person into training and test, and
the audit sees nothing. What is invisible is removed; where a difference may be meant or not, a person must say.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

# What people, pandas and spreadsheets write for an empty cell, or a spreadsheet for what it could not compute.
MISSING = re.compile(
    r"[\W_]*|<na>|n[/.]?a\.?|-?nan|1\.#\w+|nat|\(?(none|null|undefined|missing)\)?|not (known|available)|unknown|tbd"
    r"|#[a-z/0!?]+"
)
ROUNDED = re.compile(r"\d([.,]\d+)?e\+\d+")  # 1.41093E+06: a spreadsheet's way to lose the last digits of a number
PARTS = re.compile(
    r"(train(ing)?|trn|test(ing)?|tst|val(id(ation)?)?|eval(uation)?|dev|hold[ _-]?out)([ ._-]?(set|data|images))?"
    r"[ _-]?\(?\d*\)?|(fold|split|cv)[ _-]?\d+"
)
SEPARATORS = {"Pd", "Zs"}  # Unicode's dashes and spaces
# Letters of other scripts that look like Latin ones, in small letters as `casefold` makes them.
LOOK_ALIKE = str.maketrans("авекмнорстухіјѕԁһԛԝαβεζηικμνορτυχ", "abekmhopctyxijsdhqwabezhikmnoptyx")
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
    """Whether a cleaned name means "not known", as ``nan``, ``?`` or ``#REF!`` do, or is a number that was rounded."""
    return bool(MISSING.fullmatch(text.lower()) or ROUNDED.fullmatch(text.lower()))


def is_part(label: str) -> bool:
    """Whether a cleaned label names a part of a split, as ``train`` does, and not a class."""
    return PARTS.fullmatch(label.lower()) is not None


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Cleaned names that people may read as one.

    They differ in case, quotation marks, ``.0``, zeros in front, what separates their parts, kinds of digits, or in
    letters of other scripts that look alike.

    Returns:
        The groups of at least two, sorted.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[_as_read(name)].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _as_read(name: str) -> str:
    """The same text for names that look or sound alike: what is compared, never shown."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).translate(LOOK_ALIKE)
    text = "".join(str(unicodedata.digit(letter, letter)) for letter in text)
    text = re.sub(r"[\"'`\u2018-\u201f]", "", text)
    text = re.sub(r"(?<=\d)[.,]0*$|\.$", "", text)  # a spreadsheet's 14.0 for 14
    text = re.sub(r"(?<![\d.,])0+(?=\d)", "", text)
    text = "".join(
        "-" if unicodedata.category(letter) in SEPARATORS or letter in "_/.,\u2212" else letter for letter in text
    )
    return re.sub(r"(?<=\w)-+(?=[^\W\d])|(?<=[^\W\d])-+(?=\w)", "", text)  # "P-7" is "P7", but "P1-1" is not "P11"
