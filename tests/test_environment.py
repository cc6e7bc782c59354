"""One set of versions: ranges in pyproject.toml, exact ones in requirements.lock, which environment.yml repeats."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

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


def ranges(project, *extras):
    """What the core and the `extras` ask for, by name; extras of the project itself left out."""
    wanted = [*project["dependencies"], *(name for extra in extras for name in project["optional-dependencies"][extra])]
    return {one.name.lower(): one.specifier for one in map(Requirement, wanted) if one.name != "histotransfer"}


def test_the_lock_is_within_every_range(project, lock):
    direct = ranges(project, *project["optional-dependencies"].keys() - {"kaggle"})  # for downloads, not in the lock
    outside = {
        name: f"{lock.get(name)} is not {allowed}"
        for name, allowed in direct.items()
        if name not in lock or lock[name] not in allowed
    }
    assert not outside, f"`make lock` was not run: {outside}"


def test_no_range_is_a_pin_and_each_begins_somewhere(project):
    for name, allowed in ranges(project, *project["optional-dependencies"]).items():
        operators = {part.operator for part in allowed}
        assert ">=" in operators and "==" not in operators, f"{name}{allowed}"


def test_the_lock_is_exact_to_the_byte():
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert all(PIN.match(line) and " --hash=sha256:" in line for line in lines)


def test_the_conda_environment_has_the_locked_versions_of_core_and_book(project, lock):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    lines = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    packages = pins(lines)
    assert packages == {name: lock[name] for name in ranges(project, "book")}
    assert all("+cpu" in line for line in lines if line.startswith(("torch==", "torchvision==")))
    assert lines[-1] == "-e .[book]"
