"""How a study spreads over workers: measured on two cores, simulated for many machines.

    python benchmarks/cluster.py --out results/bench/cluster.json

1. `measured`: one plan of equal phantom runs by `histotransfer study run` with one worker, with two, and (the limit of
   the machine) as two halves side by side without Dask. Sides take turns, each cold, with an empty cache; seconds are
   of whole commands, the median of the repeats. The efficiency is the seconds of one worker over twice those of two.
2. `simulated`: the recorded runs of the study in their order, each as long as its record says, given to the first free
   worker. Before its first run a worker fetches the pictures over a network that all share, and it sends each record
   back. The bound is the longest run.
"""

import argparse
import heapq
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histotransfer.config import cache_dir
from histotransfer.datasets.phantom import write_phantom
from histotransfer.files import write_json
from histotransfer.study.whole import RECORD_BYTES

WORKERS = (1, 2, 8, 64, 512)
NETWORK = 125e6  # bytes per second of a gigabit link
PICTURE = 4e9 / 7909  # bytes of one of BreakHis, as published
WEIGHTS = "densenet121-imagenet.safetensors"
PLAN = """
experiment = "{name}"
answers = []
profile = "phantom"
folds = [0, 1]
seeds = {seeds}
minutes = 1
[settings]
threads = 1
size = 112
breakhis_schedule = "head:1,block4:{epochs}"
source = "none"
[arms.plain]
se_positions = []
"""


def command(plan: Path, root: Path, out: Path, workers: int) -> list[str]:
    run = [str(Path(sys.executable).with_name("histotransfer")), "study", "run", str(plan), "--data", str(root)]
    return [*run, "--out", str(out), *(["--workers", str(workers)] if workers else [])]


def seconds_of(plans: Sequence[Path], root: Path, workers: int) -> float:
    """Seconds until commands that start together have all ended, each with a cache and records of its own."""
    with tempfile.TemporaryDirectory() as name:
        start, processes = time.perf_counter(), []
        for plan in plans:
            cache = Path(name, plan.stem)
            cache.mkdir()
            (cache / WEIGHTS).symlink_to(cache_dir() / WEIGHTS)
            environment = os.environ | {"HISTOTRANSFER_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
            out = cache / "results"
            processes.append(
                subprocess.Popen(command(plan, root, out, workers), env=environment, stdout=subprocess.DEVNULL)
            )
        ended = [process.wait() for process in processes]
        if any(ended):
            sys.exit("a side failed")
        return time.perf_counter() - start


def measured(runs: int, epochs: int, repeats: int) -> dict[str, Any]:
    """The race of one worker, two, and two commands without Dask."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = write_phantom(folder / "data", size=112, images_per_magnification=2)
        seeds = list(range(runs // 2))
        parts = {"whole": seeds, "half-a": seeds[::2], "half-b": seeds[1::2]}
        for part, own in parts.items():
            (folder / f"{part}.toml").write_text(PLAN.format(name=part, seeds=own, epochs=epochs))
        whole, *halves = (folder / f"{part}.toml" for part in parts)
        sides = {"one worker": ([whole], 1), "two workers": ([whole], 2), "two commands": (halves, 0)}
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, (plans, workers) in sides.items():
                seconds[side].append(seconds_of(plans, root, workers))
    median = {side: statistics.median(values) for side, values in seconds.items()}
    return {
        "runs": runs,
        "seconds": seconds,
        "median_seconds": median,
        "efficiency": median["one worker"] / (2 * median["two workers"]),
        "share_of_two_commands": median["two commands"] / median["two workers"],
    }


def recorded(results: Path) -> tuple[list[float], int]:
    """How long each recorded run of the study took, plan by plan; and how many pictures the largest one reads."""
    runs = [folder for folder in sorted(results.glob("*/*")) if re.fullmatch(r".+-s\d+-f\d+(-v\d+)?", folder.name)]
    seconds = [json.loads((run / "provenance.json").read_text())["total_seconds"] for run in runs]
    return seconds, max(json.loads((run / "record.json").read_text())["data"]["images"] for run in runs)


def simulated(seconds: Sequence[float], pictures: int, workers: int) -> dict[str, float]:
    """Hours until the last record is there, and the share of the workers' time that runs take."""
    loaded = PICTURE * pictures * min(workers, len(seconds)) / NETWORK  # all share the link, so all wait alike
    free = [loaded] * min(workers, len(seconds))
    for run in seconds:
        heapq.heappush(free, heapq.heappop(free) + run + RECORD_BYTES / NETWORK)
    return {"workers": workers, "hours": max(free) / 3600, "efficiency": sum(seconds) / (workers * max(free))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/bench/cluster.json"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    seconds, pictures = recorded(options.results)
    record = {
        "measured": measured(options.runs, options.epochs, options.repeats),
        "recorded_runs": len(seconds),
        "pictures": pictures,
        "longest_minutes": max(seconds) / 60,
        "simulated": [simulated(seconds, pictures, workers) for workers in WORKERS],
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    write_json(options.out, record)
    print(f"two workers: {record['measured']['efficiency']:.0%} efficiency")
    for row in record["simulated"]:
        print(f"{row['workers']} workers: {row['hours']:.2f} hours, {row['efficiency']:.0%} efficiency")


if __name__ == "__main__":
    main()
