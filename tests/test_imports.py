"""What is read imports nothing that computes: the command line and the pages start at once."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "fastai", "sphinx", "papermill"}
READ = {
    "help": (["--help"], {"pandas", "sklearn", "matplotlib", "PIL", "cv2"}),
    "a plan": (["study", "list", "study/primary.toml"], {"matplotlib", "cv2"}),
    "parameters of a chapter": (["book", "run", "13", "--list-parameters"], {"pandas", "sklearn", "matplotlib"}),
    "two runs": (["runs", "diff", "results/spine/ladder", "results/spine/ladder"], {"matplotlib", "cv2"}),
}


def modules_after(code):
    """Top-level names of what a fresh interpreter has imported."""
    whole = f"import sys\n{code}\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", whole], cwd=ROOT, check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in done.stdout.rpartition("MODULES")[2].split()}


@pytest.mark.parametrize("what", READ)
def test_reading_imports_nothing_that_computes(what):
    arguments, others = READ[what]
    loaded = modules_after(
        f"sys.argv = ['histotransfer', *{arguments}]\n"
        "from histotransfer.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code"
    )
    assert "histotransfer" in loaded
    assert not (HEAVY | others) & loaded


def test_verdicts_and_tables_are_drawn_without_torch():
    loaded = modules_after(
        "from histotransfer.report import answers, coverage, selection, study, subtypes, summary, tables, verdicts\n"
        "whole = study.Study('study', 'results')\n"
        "run = whole.pooled('primary', 'plain')\n"
        "tables.formatted(tables.with_intervals({'plain': run}), ['auroc'])\n"
        "verdicts.Judge(whole).accuracy()"
    )
    assert "pandas" in loaded and not HEAVY & loaded


def test_a_network_is_read_without_the_compiler():
    loaded = modules_after(
        "from histotransfer.deploy.predict import SHIPPED\n"
        "from histotransfer.models.weights import load_model\n"
        "load_model(SHIPPED)"
    )
    assert "torch" in loaded and "sympy" not in loaded  # which only the compiler needs


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
