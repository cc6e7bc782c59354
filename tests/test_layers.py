"""Imports point downwards, and the command line starts without the libraries that compute."""

import ast
import resource
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import histotransfer

SOURCE = Path(histotransfer.__file__).parent
LAYERS = [
    {"cli"},
    {"bookbuild", "chapters", "course", "exercises", "study", "predict", "figures"},
    {"transfer", "evaluation"},
    {"models", "tiles"},
    {"datasets", "splits", "stain"},
    {"config", "errors"},
    {""},  # the package itself: its version
]


def modules():
    """Dotted name below the package to file."""
    names = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = path
    return names


MODULES = modules()


def imports(name):
    """The project's modules that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        for target in targets:
            head, *rest = target.split(".")
            if head != "histotransfer":
                continue
            while ".".join(rest) not in MODULES:
                rest.pop()  # a function or class: the module it is in
            found.add(".".join(rest))
    return found - {name}


def layer(name):
    return next(i for i, names in enumerate(LAYERS) if name.split(".")[0] in names)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name):
    upwards = [other for other in imports(name) if layer(other) < layer(name)]
    assert upwards == []


def test_there_are_no_cycles():
    graph = {name: imports(name) for name in MODULES}
    assert "errors" in graph["config"]
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("config") < order.index("cli")


def test_every_module_has_its_place():
    assert {name.split(".")[0] for name in MODULES} == set().union(*LAYERS)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from histotransfer.cli import main; sys.argv = ['histotransfer', '--help']\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "histotransfer.cli" in loaded
    assert not {"torch", "fastai", "pandas", "sklearn", "matplotlib", "PIL", "cv2"} & set(loaded)


def test_help_answers_in_under_a_second():
    """Processor time, the best of three: a busy machine must not fail it."""
    command = [str(Path(sys.executable).with_name("histotransfer")), "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert all(name in shown for name in ("data", "weights", "ladder", "predict", "book"))
    assert min(seconds) < 1
