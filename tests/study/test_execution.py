import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import dask
import distributed  # noqa: F401  its settings must be there before one of them is set for a while
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.records import read_run
from histotransfer.study import execution
from histotransfer.study.execution import run_plan
from histotransfer.study.plan import Plan, is_finished, planned_runs

SETTINGS = {
    "size": 48, "threads": 1, "source": "none", "breakhis_schedule": "head:1,block4:1", "batch_size": 8,
}  # fmt: skip


def plan(**fields):
    made = {"experiment": "tiny", "answers": (), "profile": "phantom", "folds": (0, 1), "seeds": (0,), "minutes": 1}
    arms = {"plain": {"se_positions": []}, "se": {}}
    return Plan(**{**made, "settings": SETTINGS, "arms": arms, "baselines": ("majority",), **fields})


def files(folder):
    """Every file that equal runs have in common, by relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


@pytest.fixture(scope="module")
def local(phantom_root, small_network, tmp_path_factory):
    """The plan, done in this process."""
    out = tmp_path_factory.mktemp("local")
    lines = []
    outcomes = run_plan(plan(), phantom_root, out, report=lines.append)
    return out / "tiny", outcomes, lines


def test_every_run_is_done_and_told(local):
    folder, outcomes, lines = local
    names = [run.name for run in planned_runs(plan())]
    assert [outcome.name for outcome in outcomes] == names
    assert not any(outcome.trouble for outcome in outcomes)
    stages = [f"{name}-after-head" for name in names if not name.startswith("majority")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, *stages])
    assert lines[0] == "tiny: 6 runs, 0 finished before, 6 to do"
    assert lines[1].startswith("[1/6] majority-s0-f0: ")
    assert lines[-1].endswith("about 0 min left")
    for name in names:
        record = read_run(folder / name).record
        assert (record["experiment"], record["run"]) == ("tiny", name)


def test_finished_runs_are_skipped_and_changed_ones_are_not(local, phantom_root, monkeypatch):
    folder, _, _ = local
    done = []
    monkeypatch.setattr(execution, "run_arm", lambda config, data, folder, name, *rest, **more: done.append(name))
    lines = []
    assert run_plan(plan(), phantom_root, folder.parent, report=lines.append) == []
    assert lines == ["tiny: 6 runs, 6 finished before, 0 to do"]
    other = plan(arms={"plain": {"se_positions": []}, "se": {"se_reduction": 8}})
    run_plan(other, phantom_root, folder.parent, report=lines.append)
    assert done == ["se-s0-f0", "se-s0-f1"]


def test_a_record_older_than_a_setting_was_made_as_its_default_says(local, tmp_path):
    shutil.copytree(local[0], tmp_path / "tiny")
    run = next(run for run in planned_runs(plan()) if run.method == "ladder")
    path = tmp_path / "tiny" / run.name / "record.json"
    record = json.loads(path.read_text())
    del record["config"]["record_training"]
    path.write_text(json.dumps(record))
    assert is_finished(run, tmp_path / "tiny")
    asked = run.config.model_copy(update={"record_training": True})
    assert not is_finished(replace(run, config=asked), tmp_path / "tiny")


@pytest.mark.parametrize("change", [{"config": None}, {"config": {"a": [[[[]]]]}}, {"metrics": None}, None])
def test_a_record_that_was_edited_by_hand_is_of_no_finished_run(local, tmp_path, change):
    run = planned_runs(plan())[0]
    folder = shutil.copytree(local[0] / run.name, tmp_path / run.name)
    assert is_finished(run, tmp_path)
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text("[" * 100_000 if change is None else json.dumps(record | change))
    assert not is_finished(run, tmp_path)


def test_a_run_that_fails_does_not_stop_the_others(phantom_root, tmp_path, monkeypatch):
    done = []

    def fails(config, data, folder, name, *rest, **more):
        done.append(name)
        if name == "plain-s0-f0":
            raise HistotransferError("plain: no luck")
        if name == "se-s0-f0":
            raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(execution, "run_arm", fails)
    lines = []
    outcomes = {o.name: o.trouble for o in run_plan(plan(), phantom_root, tmp_path, report=lines.append)}
    assert len(done) == len(outcomes) == 6
    assert outcomes.pop("plain-s0-f0") == "plain: no luck"
    assert "Traceback" in outcomes["se-s0-f0"]
    assert outcomes.pop("se-s0-f0").endswith("ZeroDivisionError: division by zero")
    assert set(outcomes.values()) == {""}
    assert any("plain-s0-f0: failed: plain: no luck" in line for line in lines)


def test_a_scheduler_that_is_not_there_is_one_line(phantom_root, tmp_path):
    with pytest.raises(HistotransferError, match=r"^--scheduler nonsense: cannot be reached \("):
        run_plan(plan(), phantom_root, tmp_path, scheduler="nonsense", report=print)


@pytest.mark.slow
def test_two_workers_make_the_records_that_one_process_makes(local, small_network, phantom_root, tmp_path):
    with dask.config.set({"distributed.worker.preload": [str(small_network)]}):
        outcomes = run_plan(plan(), phantom_root, tmp_path, workers=2, report=print)
    assert len(outcomes) == 6
    assert not any(outcome.trouble for outcome in outcomes)
    assert files(tmp_path / "tiny") == files(local[0])


@pytest.mark.slow
def test_a_worker_killed_in_mid_run_loses_and_doubles_nothing(local, small_network, phantom_root, tmp_path):
    """A real scheduler, two worker processes of their own; one is killed while it trains and is not replaced."""
    scheduler_file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(scheduler_file)]
    processes = [subprocess.Popen([*command, "--port", "0", "--no-dashboard", "--host", "127.0.0.1"])]
    try:
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(scheduler_file)]
        _wait(scheduler_file.is_file)
        for _ in range(2):
            options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--preload", str(small_network)]
            processes.append(subprocess.Popen([*worker, *options]))
        address = json.loads(scheduler_file.read_text())["address"]
        killed = []

        def kill_one(line):
            if "finished before" in line:
                return
            if not killed:  # the first run is done: both workers are busy with others
                os.kill(processes[1].pid, signal.SIGKILL)
                killed.append(line)

        outcomes = run_plan(plan(), phantom_root, tmp_path, scheduler=address, report=kill_one)
        assert killed
        assert processes[1].wait(timeout=10) == -signal.SIGKILL
        assert sorted(outcome.name for outcome in outcomes) == sorted(run.name for run in planned_runs(plan()))
        assert not any(outcome.trouble for outcome in outcomes)
        assert files(tmp_path / "tiny") == files(local[0])
        assert not list((tmp_path / "tiny").glob(".*"))
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_and_costs_no_finished_run(small_network, phantom_root, tmp_path, capfd):
    scheduler_file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(scheduler_file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*command, "--port", "0", "--no-dashboard", "--host", "127.0.0.1"], **quiet)]
    try:
        _wait(scheduler_file.is_file)
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(scheduler_file)]
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--preload", str(small_network)]
        processes.append(subprocess.Popen([*worker, *options], **quiet))
        address = json.loads(scheduler_file.read_text())["address"]
        lines = []

        def kill(line):
            lines.append(line)
            if len(lines) == 2:  # the first run is done
                processes[0].kill()

        with pytest.raises(HistotransferError, match=f"^{address}: the scheduler is gone") as error:
            run_plan(plan(), phantom_root, tmp_path, scheduler=address, report=kill)
        assert "\n" not in str(error.value)
        assert not any("failed" in line for line in lines)
        assert "Traceback" not in capfd.readouterr().err
        assert sum(is_finished(run, tmp_path / "tiny") for run in planned_runs(plan())) >= 1
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def _wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
