"""One set of versions: pyproject.toml, requirements.lock and environment.yml agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;+]+)(?:\+cpu)?")


def pins(lines):
    return {match[1].lower(): match[2] for line in lines if (match := PIN.match(line.strip()))}


@pytest.fixture(scope="module")
def lock():
    return pins((ROOT / "requirements.lock").read_text().splitlines())


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_direct_dependency_is_pinned_and_locked_at_that_version(project, lock):
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    wanted = [name for name in (*project["dependencies"], *extras) if not name.startswith("histotransfer[")]
    direct = pins(wanted)
    assert len(direct) == len(wanted), "each dependency needs =="
    direct.pop("kagglehub")  # an extra for downloads, not in the development lock
    unlike = {name: (version, lock.get(name)) for name, version in direct.items() if lock.get(name) != version}
    assert not unlike, f"`make lock` was not run: {unlike}"


def test_the_conda_environment_has_the_locked_versions(project, lock):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    lines = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    packages = pins(lines)
    assert {name: lock[name] for name in packages} == packages
    assert packages.keys() == pins(project["dependencies"]).keys()
    assert all("+cpu" in line for line in lines if line.startswith(("torch==", "torchvision==")))


def test_the_toolchain_is_the_one_that_builds_clean(lock):
    assert {name: lock[name] for name in ("torch", "torchvision", "fastai", "jupyter-book", "sphinx")} == {
        "torch": "2.14.1",
        "torchvision": "0.29.1",
        "fastai": "2.8.12",
        "jupyter-book": "1.0.4.post1",
        "sphinx": "7.4.7",
    }
