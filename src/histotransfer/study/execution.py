"""Carrying out a plan: on this machine one run after the other, or on a Dask cluster.

Runs are independent and each is a function of its settings, so it does not matter where or in which order they are
done: a run's folder appears whole or not at all, a finished run is skipped, a broken one continues from its
checkpoint. A worker that dies takes nothing with it: Dask gives its run to another.
"""

import contextlib
import ctypes
import gc
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from histotransfer.errors import HistotransferError, needs_extra
from histotransfer.study.plan import Plan, PlannedRun, is_finished, planned_runs
from histotransfer.study.runner import run_arm
from histotransfer.transfer.stages import Report

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 2**31, "MALLOC_MMAP_THRESHOLD_": 2**31, "OMP_NUM_THREADS": 1}  # of glibc


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `trouble` is empty when it is recorded."""

    name: str
    seconds: float
    trouble: str


def run_plan(
    plan: Plan,
    data_root: str | Path,
    out: str | Path,
    *,
    scheduler: str = "",
    workers: int = 0,
    report: Report = print,
) -> list[Outcome]:
    """Do what is left of a plan; a run that fails does not stop the others.

    Args:
        plan: the experiment.
        data_root: folder with the data sets, at the same path on every machine.
        out: folder of all experiments, shared by all machines; records go to ``out/<experiment>/<run>``.
        scheduler: address of a Dask scheduler; empty for this machine.
        workers: that many worker processes on this machine; 0: in this process, one run after the other.
        report: called with one line a run: how many are done, how long the rest may take.

    Returns:
        The outcome of every run that was done now, in the order in which they ended.

    Raises:
        HistotransferError: a scheduler that cannot be reached, or the extra `[cluster]` is not installed.
    """
    folder = Path(out).resolve() / plan.experiment
    runs = planned_runs(plan)
    left = [run for run in runs if not is_finished(run, folder)]
    report(f"{plan.experiment}: {len(runs)} runs, {len(runs) - len(left)} finished before, {len(left)} to do")
    started, outcomes = time.monotonic(), []
    with _executor(scheduler, workers) as execute:
        for outcome in execute(left, Path(data_root).resolve(), folder):
            outcomes.append(outcome)
            rest = (time.monotonic() - started) / len(outcomes) * (len(left) - len(outcomes))
            state = f"failed: {outcome.trouble.splitlines()[-1]}" if outcome.trouble else f"{outcome.seconds:.0f} s"
            report(f"[{len(outcomes)}/{len(left)}] {outcome.name}: {state}; about {rest / 60:.0f} min left")
    return outcomes


def _do(run: PlannedRun, data_root: Path, folder: Path) -> Outcome:
    started = time.monotonic()
    trouble = ""
    try:
        run_arm(run.config, data_root, folder, run.name, run.method, report=lambda line: None)
    except HistotransferError as error:
        trouble = str(error)
    except Exception:  # whatever it is, the other runs go on and the whole story is told at the end
        trouble = traceback.format_exc().strip()
    _hand_memory_back()
    return Outcome(run.name, time.monotonic() - started, trouble)


def _hand_memory_back() -> None:
    """What a run has freed, to the system: between runs only, see `KEEP_MEMORY`."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _executor(scheduler: str, workers: int) -> Iterator:
    """A function from runs to their outcomes as they end."""
    if not (scheduler or workers):
        yield lambda runs, data_root, folder: (_do(run, data_root, folder) for run in runs)
        return
    with needs_extra("cluster"):
        import dask
        from distributed import Client, LocalCluster, as_completed

    def execute(runs: list[PlannedRun], data_root: Path, folder: Path) -> Iterator[Outcome]:
        futures = client.map(_do, runs, data_root=data_root, folder=folder, key=[run.name for run in runs], pure=False)
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            else:  # its workers died under it more often than Dask allows
                yield Outcome(future.key, 0.0, f"{type(future.exception()).__name__}: {future.exception()}")

    with contextlib.ExitStack() as stack:
        try:
            if not scheduler:
                # Dask has its workers hand freed memory back at once; training, which asks for it again with every
                # batch, then spends half its time on page faults. Nor may it stop a worker for what its files map.
                stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_MEMORY}))
                # One thread a worker: two runs side by side are nearly twice as fast as one with two threads.
                scheduler = stack.enter_context(
                    LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None)
                )
            client = stack.enter_context(Client(scheduler))
        except (OSError, ValueError) as error:
            raise HistotransferError(f"--scheduler {scheduler}: cannot be reached ({error})") from error
        yield execute
