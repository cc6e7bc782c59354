from importlib.metadata import metadata
from pathlib import Path

from histotransfer.book.build.licences import UNKNOWN, licence_table, licences

ROOT = Path(__file__).parents[2]


def test_every_installed_pin_has_a_licence():
    found = licences(ROOT / "requirements.lock")
    assert set(found.get(UNKNOWN, [])) <= {"cuda-toolkit"}  # an empty package that names others
    assert "torch" in found[metadata("torch")["License-Expression"]]
    assert sum(map(len, found.values())) > 200


def test_what_is_not_installed_is_not_listed(tmp_path):
    (tmp_path / "lock").write_text(
        "no-such-package==1.0 \\\n    --hash=sha256:00\nnumpy==2.0 \\\n    --hash=sha256:00\n"
    )
    assert [name for names in licences(tmp_path / "lock").values() for name in names] == ["numpy"]
    table = licence_table(tmp_path / "lock")
    assert table.startswith(":::{table} ") and table.endswith("\n\n:::\n") and "| 1: numpy |" in table
