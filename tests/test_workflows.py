"""The workflows run the Makefile's own targets with pinned actions, and publish from main alone."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def read(path):
    # YAML 1.1 reads the key `on` as True.
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


WORKFLOWS = {path.stem: read(path) for path in FILES}
every_workflow = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands(workflow):
    """Those of jobs that work in the Makefile's environment: all but `installed`, which is where there is none."""
    jobs = (job for name, job in workflow["jobs"].items() if name != "installed")
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@every_workflow
def test_every_command_is_a_target_of_the_makefile(workflow):
    assert commands(workflow)
    for command in commands(workflow):
        make, target = command.split()
        assert make == "make" and target in TARGETS, command


def test_a_pinned_action_names_its_version_and_has_one_commit():
    found = re.findall(r"uses: (\S+)@(\S+)(.*)", "".join(path.read_text() for path in FILES))
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, _, version in found)
    assert len({name for name, _, _ in found}) == len(set(found))


@every_workflow
def test_actions_are_pinned_and_rights_are_few(workflow):
    assert all(
        re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]) for step in steps(workflow) if "uses" in step
    )
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["on"]) == {"push", "pull_request"} and workflow["on"]["push"] == {"branches": ["main"]}


def test_together_they_do_what_ci_does():
    wanted = re.findall(r"^step make ([a-z-]+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    run = {command.split()[1] for workflow in WORKFLOWS.values() for command in commands(workflow)}
    assert run == {*wanted, "audit"}  # what is known of yesterday's versions says nothing of a change
    book = [command.split()[1] for command in commands(WORKFLOWS["book"])]
    assert book.index("book") < book.index("test-slow") and book.index("browser") < book.index("test-slow")


def test_the_wheel_is_tested_on_each_python_that_the_project_names():
    job = WORKFLOWS["tests"]["jobs"]["installed"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    label = "Programming Language :: Python :: "
    named = [line.removeprefix(label) for line in project["classifiers"] if line.startswith(label)]
    assert job["strategy"]["matrix"]["python"] == named
    assert project["requires-python"].startswith(f">={named[0]}")
    assert "${{ matrix.python }}" in [step.get("with", {}).get("python-version") for step in job["steps"]]
    install, *_, test = (step["run"] for step in job["steps"] if "run" in step)
    assert install.startswith("pip install ") and " . " in install
    paths = [word for word in test.split() if word.startswith("tests/")]
    assert paths and all((ROOT / path).exists() for path in paths)


def test_hooks_are_the_tools_of_the_environment():
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert hooks["repo"] == "local" and {hook["id"] for hook in hooks["hooks"]} == {"ruff", "ruff-format", "pairs"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks["hooks"])


def test_the_site_is_kept_for_every_change_and_published_from_main_alone():
    build, publish = (WORKFLOWS["book"]["jobs"][name] for name in ("build", "publish"))
    kept = {step["uses"].split("@")[0]: step for step in build["steps"] if "uses" in step}
    assert "_build/html" in kept["actions/upload-artifact"]["with"]["path"].split()
    assert kept["actions/upload-artifact"]["if"] == "always()"
    assert kept["actions/upload-pages-artifact"]["with"]["path"] == "_build/html"
    assert publish["needs"] == "build" and publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert publish["if"] == "github.event_name == 'push' && github.ref == 'refs/heads/main'"
