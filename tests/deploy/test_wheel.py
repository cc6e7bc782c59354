"""What `pip install` brings: the code with the network that ships, which predicts wherever it is called."""

import csv
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from histotransfer.datasets.phantom import breast_image
from histotransfer.deploy.notes import UNLIKE

ROOT = Path(__file__).parents[2]
MODELS = "histotransfer/deploy/models"
PREDICT = """
import sys, histotransfer
from histotransfer.cli import main
print(histotransfer.__file__, file=sys.stderr)
main()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves `build/` where it works, and would pack what lies there from before."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    (path,) = (folder / "dist").glob("histotransfer-*.whl")
    return path


def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel):
    source = ROOT / "src"
    there = {path.relative_to(source).as_posix() for path in (source / "histotransfer").rglob("*") if path.is_file()}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {name for name in there if "__pycache__" not in name}
    for name in (f"{MODELS}/final.safetensors", f"{MODELS}/final.safetensors.md", "histotransfer/py.typed"):
        assert name in packed


def test_the_unpacked_wheel_predicts_in_another_folder(wheel, tmp_path):
    unpacked, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(unpacked)
    elsewhere.mkdir()
    Image.fromarray(breast_image(0, 200, 0, size=400).image).save(elsewhere / "tissue.png")
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, "predict", "tissue.png", "."],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines() == [
        str(unpacked / "histotransfer/__init__.py"),
        "predicted: 2; noted: 2; refused: 0; passed over: 0",
    ]
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["file"] for row in rows] == ["tissue.png", "tissue.png"]
    assert {row["note"] for row in rows} == {UNLIKE}  # drawn tissue, and the network knows real tissue only
    assert {row["label"] for row in rows} <= {"benign", "malignant"} and {row["profile"] for row in rows} == {"lite"}
