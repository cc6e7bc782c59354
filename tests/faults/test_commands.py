"""Every command that writes: killed at random moments, on a full disk, at a target that is read-only, two at once.

Afterwards the same command gives, to the byte, what an undisturbed one gives; no process and no half-written file is
left, and nobody sees a traceback. The commands are those that the program itself names, so that no new one escapes.
The table of what held is printed at the end. `HISTOTRANSFER_KILLS` is how often each command is killed (20).

Libraries are loaded once (`warm.py`), so what is killed is the work of a command.
"""

import ctypes
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
import typer
from safetensors.torch import save_file

from histotransfer.cli import app
from histotransfer.datasets import breakhis
from histotransfer.datasets.own import write_csv
from histotransfer.datasets.phantom import write_phantom
from histotransfer.deploy.shipping import SHIPPED
from histotransfer.models.se_densenet import SEDenseNet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' adopted orphans")
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("HISTOTRANSFER_KILLS", "20"))
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
SMALL = ["--set", "size=48", "--set", "normaliser=none", "--set", "threads=1", "--set", "folds=3"]
SHORT = [
    "--set",
    "record_stages=false",
    "--set",
    "breakhis_schedule=head:1,block4:1",
    "--set",
    "lc25000_schedule=head:1",
]
FEW = ["--set", "threads=1", "--set", "folds=3", "--set", "breakhis_schedule=head:1"]

# What is given to a command, with {place} for paths; it writes below {out}, or in the folder that is named last.
WRITERS = {
    "ladder": (["--out", "{out}/x", "--data", "{data}", *SMALL, *SHORT], "out"),
    "predict": (["{pictures}", "--weights", "{network}", "--out", "{out}/x.csv", "--overlays", "{out}/o"], "out"),
    "export": (["{network}", "--to", "safetensors", "--out", "{out}/x"], "out"),
    "data groups": (["{lung}"], "lung/lc25000_groups"),
    "weights fetch": (["--weights", "{trunk}"], "cache"),
    "book run": (["{chapter}", "--out", "{out}/x.ipynb"], "out"),
    "course export": (["--out", "{out}/x"], "out"),
    "study run": (["{plan}", "--data", "{data}", "--out", "{out}"], "out"),
    "study all": (["--data", "{data}", "--out", "{out}/x"], "out"),
    "study ship": (["--data", "{data}", "--out", "{out}/x"], "out"),
    "experiment adapt": (
        ["--own", "{own}", "--weights", "{network}", "--profile", "phantom", "--draws", "1", "--out", "{out}/x", *FEW],
        "out",
    ),
    "experiment complexity": (["scratch", "--out", "{out}/x", "--data", "{data}", *SMALL], "out"),
    "experiment duplicates": (["--data", "{data}", "--out", "{out}/x"], "out"),
    "experiment explanations": (["{run}", "--data", "{data}", "--out", "{out}/x"], "out"),
    "experiment failures": (["--out", "{out}/x"], "out"),
    "experiment flagged": (["--data", "{abroad}", "--weights", "{shipped}", "--out", "{out}/x"], "out"),
    "experiment gates": (["{run}", "--data", "{data}", "--out", "{out}/x"], "out"),
    "experiment leakage": (["--out", "{out}/x", "--data", "{data}", *SMALL], "out"),
    "experiment normalisation": (["--out", "{out}/x", "--data", "{data}", *SMALL], "out"),
    "experiment patients": (["--data", "{data}", "--out", "{out}/x"], "out"),
    "experiment splits": (["--data", "{data}", "--out", "{out}/x"], "out"),
}
READERS = {"data summary", "data verify", "study list", "cache ls", "runs diff"}
ELSEWHERE = {
    "book build": "tests/book/test_build.py kills it",
    "cache clear": "removes, and writes nothing",
    "data fetch": "tests/datasets/test_fetch.py kills it and fills its disk",
}
TINY = """
experiment = "tiny"
answers = ["C2"]
profile = "phantom"
folds = [0]
seeds = [0]
minutes = 1
[settings]
size = 48
normaliser = "none"
threads = 1
folds = 3
breakhis_schedule = "head:1,block4:1"
lc25000_schedule = "head:1"
[arms.plain]
se_positions = []
"""
RECIPES = """
experiment = "{}"
answers = []
profile = "phantom"
folds = [0, 1, 2]
seeds = [2]
minutes = 1
{}
[settings]
size = 48
normaliser = "none"
threads = 1
folds = 3
source = "none"
record_stages = false
average_views = true
breakhis_schedule = "head:1"
[arms.one]
{}
"""
SELECTION = RECIPES.format("selection", 'validation_offsets = [1]\nbaselines = ["frozen-probe"]', "")
VIEWS = RECIPES.format("views", "", "record_views = [1]")


def every_writer(test):
    """One command after the other."""
    return pytest.mark.slow(pytest.mark.parametrize("command", WRITERS, scope="module")(test))


def _commands(group, path=()):
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        elif not command.hidden:  # an old name of another
            yield " ".join((*path, name))


def test_no_command_escapes():
    assert sorted(_commands(typer.main.get_command(app))) == sorted([*WRITERS, *READERS, *ELSEWHERE])


@pytest.fixture(scope="module")
def table(request):
    """How many of how many trials held, by command and fault; printed at the end."""
    counts = defaultdict(lambda: [0, 0])
    yield counts
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print()
        for (command, fault), (passed, tried) in sorted(counts.items()):
            print(f"{command:<26} {fault:<10} {passed}/{tried}")


@pytest.fixture
def trial(request, table):
    """Counts a trial when it begins, and as passed when it has held."""

    def count(command, fault):
        table[command, fault][1] += 1

        def held():
            table[command, fault][0] += 1

        return held

    return count


@pytest.fixture(scope="module")
def warm():
    """A function that starts a command in the process of `warm.py`; it returns the id of a child of this process."""
    assert ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1) == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program, pipes = [sys.executable, Path(__file__).with_name("warm.py")], {"stdin": PIPE, "stdout": PIPE}
    with subprocess.Popen(program, cwd=ROOT, env=environment, text=True, **pipes) as server:

        def start(**command):
            server.stdin.write(json.dumps(command) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        start.server = server.pid
        yield start
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 0)


class Running:
    """A command as a process."""

    def __init__(self, pid, errors):
        self.pid, self._errors, self.status = pid, errors, None

    def wait(self, seconds=600):
        """Its exit status, negative if a signal ended it; None if it still runs after `seconds`."""
        end = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                break
            else:
                time.sleep(0.002)
        return self.status

    def kill(self):
        os.kill(self.pid, 9)
        return self.wait()

    @property
    def errors(self):
        return self._errors.read_text(errors="replace")


class Places:
    """Folders of one trial, and what its command is given."""

    def __init__(self, base, shared, warm):
        self.base, self.shared, self.warm, self.started = base, shared, warm, 0
        self.out, self.cache, self.lung, self.home = (base / name for name in ("out", "cache", "lung", "home"))
        self.clear()

    def clear(self):
        for folder in (self.out, self.cache, self.lung, self.home):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        (self.lung / "lung_colon_image_set").symlink_to(self.shared["data"] / "lung_colon_image_set")

    def start(self, command, limit=None, **places):
        """Begin the command; `limit` is the size in bytes that files may have."""
        paths = {"out": self.out, "lung": self.lung, **self.shared, **places}
        self.started += 1
        errors = self.base / f"errors-{self.started}"
        errors.touch()
        environment = {"HISTOTRANSFER_CACHE": self.cache, "TMPDIR": self.home, "JUPYTER_DATA_DIR": self.home}
        arguments = [*command.split(), *(argument.format(**paths) for argument in WRITERS[command][0])]
        environment = {name: str(folder) for name, folder in environment.items()}
        options = {"folder": str(self.shared["repository"]), "errors": str(errors), "limit": limit}
        pid = self.warm(arguments=arguments, environment=environment, **options)
        return Running(pid, errors)

    def run(self, command, **options):
        running = self.start(command, **options)
        assert running.wait() is not None, "it hangs"
        return running.status, running.errors

    def written(self, command):
        """The hash of every file; what is on purpose different each time is left out."""
        folder = self.base / WRITERS[command][1]
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"]
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.name != "provenance.json"
        }

    def half_written(self):
        """Temporary files; the lock that git would hold in this checkout too."""
        ask = ["git", "rev-parse", "--git-path", "index.lock"]
        lock = ROOT / subprocess.run(ask, cwd=ROOT, capture_output=True, text=True).stdout.strip()
        left = [lock] if lock.is_file() else []  # outside of a checkout it is the folder itself
        left += [path for path in self.home.rglob("*") if path.is_file()]
        return left + [path for folder in (self.out, self.cache, self.lung) for path in folder.rglob("*.part")]

    def orphans(self, seconds=20):
        """Processes that a command has left behind and that are still alive after `seconds`."""
        end = time.monotonic() + seconds
        while left := self._adopted():
            if time.monotonic() >= end:
                break
            time.sleep(0.05)
        return left

    def _adopted(self):
        """Ids of the children that this process did not start itself; those that have ended are let go."""
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        adopted = [int(child) for child in children if int(child) != self.warm.server]
        return [child for child in adopted if os.waitpid(child, os.WNOHANG)[0] == 0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, warm):
    """What the commands read."""
    base = tmp_path_factory.mktemp("read")
    data = write_phantom(base / "data", size=48, images_per_magnification=1, lung_originals=5, lung_copies=2)
    torch.manual_seed(0)
    state = SEDenseNet(positions=()).state_dict()
    save_file(
        {name: value for name, value in state.items() if name.startswith("features.")}, base / "trunk.safetensors"
    )
    (base / "chapter.py").write_text("# %% tags=['parameters']\nseed = 0\n\n# %%\nprint(seed)\n")
    study = shutil.copytree(ROOT / "study", base / "study")
    (study / "tiny.toml").write_text(TINY)
    (study / "selection.toml").write_text(SELECTION)
    (study / "views.toml").write_text(VIEWS)
    (study / "plans.toml").write_text('plans = ["tiny"]\n')
    (base / "book").symlink_to(ROOT / "book")
    (base / "notebooks").symlink_to(ROOT / "notebooks")
    of_the_lab = "- file: notebooks/01_data\n- file: notebooks/05_evaluation\n"  # the chapters with its exercises
    (base / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{of_the_lab}")
    (base / "pictures").mkdir()
    for picture in sorted((data / "BreaKHis_v1").rglob("*.png"))[:12]:
        shutil.copy(picture, base / "pictures")
    table = breakhis.load(data)
    found = {"own": write_csv(table[table["magnification"] == 100], base / "own.csv"), "abroad": base / "abroad"}
    (base / "abroad").mkdir()
    for entry in data.iterdir():
        (base / "abroad" / entry.name).symlink_to(entry)
    (base / "abroad" / "UCSB_breast").mkdir()
    for number, row in enumerate(table.groupby("label").head(3).itertuples(), start=1):
        shutil.copy(row.path, base / "abroad" / "UCSB_breast" / f"ytma{number}_010203_{row.label}1_ccd.png")
    found |= {"data": data, "trunk": base / "trunk.safetensors", "chapter": base / "chapter.py"}
    found |= {"plan": study / "tiny.toml", "pictures": base / "pictures", "repository": base}
    made = Places(base / "made", found, warm)
    assert made.run("ladder") == (0, "")
    for plan in ("selection", "views"):
        assert made.run("study run", plan=study / f"{plan}.toml", out=base / "results") == (0, "")
    assert made.run("study ship", out=base / "shipped") == (0, "")
    found |= {"run": made.out / "x" / "ladder", "network": made.out / "x" / "ladder" / "model.safetensors"}
    return found | {"shipped": base / "shipped" / "x" / SHIPPED}


@pytest.fixture(scope="module")
def undisturbed(shared, warm, tmp_path_factory):
    """What a command writes if nothing happens, and its seconds."""
    known = {}

    def of(command):
        if command not in known:
            places = Places(tmp_path_factory.mktemp("undisturbed"), shared, warm)
            begin = time.monotonic()
            status, errors = places.run(command)
            assert sound(status, errors), errors
            known[command] = places.written(command), time.monotonic() - begin
            print(command, known[command][1])
            assert known[command][0]
            assert not places.orphans() and not places.half_written()
        return known[command]

    return of


@pytest.fixture
def places(shared, warm, tmp_path):
    return Places(tmp_path, shared, warm)


def sound(status, errors):
    """Whether all went well, or had before: some commands do nothing twice. `predict` has a line on standard error."""
    if status == 0:
        return not errors or (len(errors.splitlines()) == 1 and errors.startswith("predicted: "))
    return status == 2 and one_line(errors) and ("already there" in errors or "there already" in errors)


def one_line(errors):
    """Whether a command says in a line what is wrong; of a run of a plan there is one before it, with its name."""
    first, *more = errors.splitlines() or [""]
    return (first[:7], len(more)) in (("error: ", 0), ("failed:", 1))


def finish(places, command, expected):
    """Run the command to its end, with what was left of an earlier one: it writes what an undisturbed one does."""
    status, errors = places.run(command)
    assert sound(status, errors), errors
    assert places.written(command) == expected
    assert not places.orphans() and not places.half_written()


@every_writer
def test_killed(command, places, undisturbed, trial):
    """Once in each twentieth of its time, in any order: what one has left is there when the next begins."""
    expected, seconds = undisturbed(command)
    chance = random.Random(command)
    for part in chance.sample(range(KILLS), KILLS):
        held = trial(command, "killed")
        moment = chance.uniform(part, part + 1) / KILLS * seconds
        running = places.start(command)
        while running.wait(moment) is not None:  # it was faster, for it went on with what was there
            assert sound(running.status, running.errors), running.errors
            assert places.written(command) == expected
            places.clear()
            moment, running = 0.8 * moment, places.start(command)
        running.kill()
        assert not running.errors or sound(0, running.errors) or sound(2, running.errors), running.errors
        assert not places.orphans()
        held()
    finish(places, command, expected)


@every_writer
@pytest.mark.parametrize("limit", [100, 20_000])
def test_disk_full(command, limit, places, undisturbed, trial):
    expected, _ = undisturbed(command)
    held = trial(command, "full")
    status, errors = places.run(command, limit=limit)
    assert one_line(errors) if status else sound(status, errors), errors
    assert status or limit > 100
    finish(places, command, expected)
    held()


@every_writer
def test_read_only(command, places, undisturbed, trial):
    undisturbed(command)
    held = trial(command, "read-only")
    closed = Path("/sys") if os.geteuid() == 0 else places.base / "closed"  # root may write anywhere else
    if closed.name == "closed":
        closed.mkdir(mode=0o555)
    if "{out}" in "".join(WRITERS[command][0]):
        status, errors = places.run(command, out=closed)
    else:
        shutil.rmtree(places.base / WRITERS[command][1], ignore_errors=True)
        (places.base / WRITERS[command][1]).symlink_to(closed / "x")
        status, errors = places.run(command)
    assert status and one_line(errors), errors
    assert not places.orphans() and not places.half_written()
    held()


@every_writer
def test_two_at_once(command, places, undisturbed, trial):
    expected, _ = undisturbed(command)
    held = trial(command, "two")
    for running in [places.start(command), places.start(command)]:
        status = running.wait()
        assert sound(status, running.errors) or (status is not None and one_line(running.errors)), running.errors
    finish(places, command, expected)
    held()
