"""What of the theme's markup weighs on a phone, or trips a reader by ear, put right in the built pages."""

import re
from pathlib import Path


def _plain_lines(signature: re.Match) -> str:
    """A signature on several lines without the list of definitions that defines nothing."""
    text = re.sub(r"\s*</?dl>\s*", "", signature[0])
    return text.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


REPAIRS = (
    # One and a half megabytes that draw as pictures the icons which the theme's style draws as letters anyway.
    (re.compile(r'\s*<script src="[^"]*/scripts/fontawesome\.js[^"]*"></script>'), ""),
    # The name of the button then is what it shows, its shortcut too.
    (re.compile(r'(<button class="[^"]*\bsearch-button-field\b[^>]*) aria-label="Search"'), r"\1"),
    # An arrow beside an entry of the table of contents has no text that could be its name.
    (re.compile(r'<summary>(?=<span class="toctree-toggle")'), '<summary aria-label="Pages of this part">'),
    # A list of definitions without a term, in a heading at that, is announced as a list of nothing.
    (re.compile(r'<dt class="sig .*?</dt>', re.DOTALL), _plain_lines),
    # Figures are wider than a phone: a tap opens the picture itself.
    (re.compile(r'<img alt="[^"]*" src="(\.\./_images/[^"]+)" />'), r'<a href="\1">\g<0></a>'),
    # A role that WAI-ARIA gave up: the entries of a bibliography are the items of a list.
    (re.compile(r'\brole="doc-biblioentry"'), 'role="listitem"'),
)


def repaired(html: str) -> str:
    """`html` with `REPAIRS` made."""
    for pattern, replacement in REPAIRS:
        html = pattern.sub(replacement, html)
    return html


def repair_pages(site: Path) -> None:
    """Repair every page of a site, in place."""
    for page in site.rglob("*.html"):
        page.write_text(repaired(page.read_text(encoding="utf-8")), encoding="utf-8")
