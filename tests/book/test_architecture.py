"""The page on the architecture is true: its layers are the checked ones, and its trails lead somewhere."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "architecture.md").read_text(encoding="utf-8")


def test_the_table_shows_the_layers_that_are_checked():
    table = re.search(r"^\|---\|---\|\n(.*?)^:::", PAGE, re.S | re.M)[1]
    shown = [" | ".join(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines()]
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert shown == contract["layers"]


def test_every_file_and_name_of_a_trail_is_there():
    trails = PAGE.partition("## Four trails")[2]
    files = re.findall(r"`([\w/]+\.(?:py|toml))`", trails)
    assert len(files) > 10
    for file in files:
        assert (ROOT / file).is_file() or (ROOT / "src/histotransfer" / file).is_file(), file
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for name in re.findall(r"`(\w+)\(\)`|`([A-Z]\w+)(?:\.\w+)?`", trails):
        assert re.search(rf"^ *(def|class) {''.join(name)}\b|^{''.join(name)} =", code, re.M), name
