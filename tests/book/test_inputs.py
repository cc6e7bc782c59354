import subprocess
import sys

import pytest

from histotransfer.book.build import inputs
from histotransfer.book.build.inputs import LOG, PACKAGE, STARTUP, changed, content, inputs_of, keep

SCRIPT = """
import os
from pathlib import Path
from histotransfer.evaluation.formatting import number
Path("results/one.csv").read_text()
os.listdir("results")
Path("_build/experiments/mine").mkdir(parents=True)
Path("_build/experiments/mine/made.csv").write_text("1")
Path("_build/experiments/mine/made.csv").read_text()
Path("_build/experiments/other.csv").read_text()
Path("_build/executed/page.ipynb").read_text()
with open("results/log.csv", "a") as file:
    file.write("x")
open("results/log.csv").read()
os.rename("results/half", "results/whole")
open("results/whole/file.csv").read()
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with records, in which `SCRIPT` has run under `STARTUP`; and the inputs found."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("results/one.csv", "results/two.csv", "_build/experiments/other.csv", "_build/executed/page.ipynb"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "results/half").mkdir()
    (root / "results/half/file.csv").write_text("half")
    log = root.parent / LOG
    code = STARTUP.replace("{log!r}", repr(str(log))) + SCRIPT
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    return root, inputs_of(log, root)


def test_inputs_are_what_was_read_and_not_made_by_the_run_itself(checkout):
    root, found = checkout
    own = {name for name in found if not name.startswith("histotransfer:")}
    assert own == {"results/", "results/one.csv", "_build/experiments/other.csv"}
    assert found["results/one.csv"] == content("results/one.csv", root)


def test_modules_are_inputs_compiled_or_not(checkout):
    _, found = checkout
    modules = {name for name in found if name.startswith("histotransfer:")}
    assert {"histotransfer:evaluation/formatting.py", "histotransfer:__init__.py"} <= modules
    assert not any("__pycache__" in name for name in modules)
    assert "histotransfer:deploy/predict.py" not in modules, "what was not imported is no input"
    assert found["histotransfer:evaluation/formatting.py"] == content("histotransfer:evaluation/formatting.py", PACKAGE)


def test_a_change_is_named(checkout, tmp_path, monkeypatch):
    root, found = checkout
    manifest = tmp_path / "page.inputs.json"
    assert list(changed(manifest, "key", root)) == ["never run"]
    keep(manifest, "key", found)
    assert list(changed(manifest, "key", root)) == []
    assert list(changed(manifest, "other", root)) == ["its text, a parameter or a version"]
    before = (root / "results/one.csv").read_text()
    (root / "results/one.csv").write_text("new")
    assert list(changed(manifest, "key", root)) == ["results/one.csv"]
    (root / "results/one.csv").unlink()
    assert list(changed(manifest, "key", root)) == ["results/", "results/one.csv"]
    (root / "results/one.csv").write_text(before)
    (root / "results/three.csv").touch()
    assert list(changed(manifest, "key", root)) == ["results/"]
    (root / "results/three.csv").unlink()
    (root / "results/two.csv").write_text("nobody reads this")
    assert list(changed(manifest, "key", root)) == []
    module = tmp_path / "package"
    (module / "evaluation").mkdir(parents=True)
    monkeypatch.setattr(inputs, "PACKAGE", module)
    assert "histotransfer:evaluation/formatting.py" in set(changed(manifest, "key", root))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', '{"key": "key", "inputs": 3}'])
def test_a_manifest_that_is_none_runs_the_chapter(tmp_path, text):
    (tmp_path / "page.inputs.json").write_text(text)
    assert list(changed(tmp_path / "page.inputs.json", "key", tmp_path)) == ["never run"]


def test_the_startup_leaves_nothing_behind(tmp_path):
    path = tmp_path / "start.py"
    path.write_text(f"import subprocess, sys\n{STARTUP.replace('{log!r}', repr(str(tmp_path / LOG)))}")
    code = f"import runpy; names = runpy.run_path({str(path)!r}); assert '_watch' not in names"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / LOG).is_file()
