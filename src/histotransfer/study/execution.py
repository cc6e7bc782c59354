"""Carrying out a plan: on this machine one run after the other, or on a Dask cluster.

Runs are independent, and each is a function of its settings, so it does not matter where or in which order they are
done. A run's folder appears whole or not at all; a finished run is skipped, an interrupted one continues from its
checkpoint. When a worker dies, Dask gives its run to another.
"""

import contextlib
import ctypes
import gc
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from histotransfer.errors import HistotransferError, needs_extra, one_line
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


Execute = Callable[[list[PlannedRun], Path, Path], Iterator[Outcome]]


def run_plan(
    plan: Plan,
    data_root: str | Path,
    out: str | Path,
    *,
    scheduler: str = "",
    workers: int = 0,
    report: Report = print,
) -> list[Outcome]:
    """Do the unfinished runs of a plan; a run that fails does not stop the others.

    Args:
        plan: the experiment.
        data_root: folder with the data sets, at the same path on every machine.
        out: folder of all experiments, shared by all machines; records go to ``out/<experiment>/<run>``.
        scheduler: address of a Dask scheduler; empty for this machine.
        workers: number of worker processes on this machine; 0: in this process, one run after the other.
        report: called with one line per run: how many are done, how long the rest may take.

    Returns:
        The outcome of every run done by this call, in the order in which they ended.

    Raises:
        HistotransferError: the scheduler cannot be reached or dies, or the extra `[cluster]` is not installed.
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
    except (HistotransferError, OSError) as error:
        trouble = one_line(error)
    except Exception:  # whatever it is, the other runs go on; the traceback is shown at the end
        trouble = traceback.format_exc().strip()
    _hand_memory_back()
    return Outcome(run.name, time.monotonic() - started, trouble)


def _hand_memory_back() -> None:
    """Return the memory that a run has freed to the system: between runs only, see `KEEP_MEMORY`."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _executor(scheduler: str, workers: int) -> Iterator[Execute]:
    """A function that does runs and yields their outcomes as they end."""
    if not (scheduler or workers):
        yield lambda runs, data_root, folder: (_do(run, data_root, folder) for run in runs)
        return
    with needs_extra("cluster"):
        import dask
        from distributed import Client, LocalCluster, as_completed
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # tells of a lost scheduler by a traceback

    def execute(runs: list[PlannedRun], data_root: Path, folder: Path) -> Iterator[Outcome]:
        futures = client.map(_do, runs, data_root=data_root, folder=folder, key=[run.name for run in runs], pure=False)
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            elif future.status == "cancelled":
                raise HistotransferError(
                    f"{address}: the scheduler is gone; what is finished is kept: start it, and the same command again"
                )
            else:  # it lost its worker more often than Dask allows
                yield Outcome(future.key, 0.0, f"{type(future.exception()).__name__}: {future.exception()}")

    with contextlib.ExitStack() as stack:
        try:
            if not scheduler:
                # By default Dask makes its workers return freed memory at once. Training needs it again with every
                # batch and would spend half its time on page faults. Without a memory limit, Dask does not stop a
                # worker for the files that it has mapped.
                stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_MEMORY}))
                # One thread per worker: two runs side by side are nearly twice as fast as one with two threads. The
                # dashboard has any free port: on its own, Dask takes 8787 of every address and warns if it is in use.
                scheduler = stack.enter_context(
                    LocalCluster(
                        n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0"
                    )
                )
            client = stack.enter_context(Client(scheduler))
            address = client.scheduler.address
        except (OSError, ValueError) as error:
            raise HistotransferError(f"--scheduler {scheduler}: cannot be reached ({error})") from error
        yield execute
