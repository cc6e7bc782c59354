"""Race of redraws of whole patients, all metrics and magnifications, against scipy.stats.bootstrap.

    python benchmarks/intervals.py --out results/bench/intervals.json

Both sides redraw the patients of each class of a recorded run and take the mean of a metric over its magnifications.
The peer computes one metric at a time with scikit-learn, from the rows of the redrawn patients. It is given fewer
draws, and time is counted per draw. `largest_difference` is that of the bounds of both sides on the same redraws.
"""

import argparse
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from histotransfer.evaluation.clusters import draw_counts, scored
from histotransfer.evaluation.metrics import MEAN_OVER, averaged, image_metrics
from histotransfer.files import write_json
from histotransfer.records import read_run

BY = "magnification"
LIMITS = (0.025, 0.975)
RUN = Path("results/leakage/breakhis-by-patient")


def metric_of(table: pd.DataFrame, metric: str) -> float:
    """The mean of a metric over the magnifications, NaN where one lacks a class."""
    value = averaged(lambda rows: image_metrics(rows, [metric]), table, BY)[metric]
    return np.nan if value is None else value


def statistic(table: pd.DataFrame, metric: str) -> Callable[..., float]:
    """The metric of the rows of redrawn patients, as `bootstrap` wants it: from their numbers, class by class."""
    rows = table.groupby(["truth", "group"]).indices
    by_class = [[rows[key] for key in rows if key[0] == truth] for truth in sorted(set(table["truth"]))]

    def compute(*drawn: np.ndarray) -> float:
        chosen = [of_class[int(at)] for of_class, ats in zip(by_class, drawn, strict=True) for at in ats]
        return metric_of(table.iloc[np.concatenate(chosen)], metric)

    return compute


def peer_seconds(table: pd.DataFrame, metrics: list[str], draws: int) -> float:
    counts = table.drop_duplicates(["truth", "group"])["truth"].value_counts().sort_index()
    patients = tuple(np.arange(count) for count in counts)
    start = time.perf_counter()
    for metric in metrics:
        bootstrap(patients, statistic(table, metric), n_resamples=draws, vectorized=False, method="percentile", rng=0)
    return time.perf_counter() - start


def difference(table: pd.DataFrame, metrics: list[str], draws: int) -> float:
    """Of the bounds by our side and by scikit-learn on the rows of the same redraws."""
    arm = scored(table, BY)
    counts = draw_counts(arm.classes, draws, seed=0)
    ours = arm.values(counts, metrics)
    largest = 0.0
    for metric in metrics:
        often = (counts[draw][arm.design.cluster] for draw in range(draws))
        theirs = [metric_of(table.loc[table.index.repeat(count)], metric) for count in often]
        bounds = [np.nanquantile(values, LIMITS) for values in (ours[metric], theirs)]
        largest = max(largest, float(np.abs(np.subtract(*bounds)).max()))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--out", type=Path, default=Path("results/bench/intervals.json"))
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--peer-draws", type=int, default=200)
    options = parser.parse_args()
    table = read_run(options.run).predictions
    table = table[(table["part"] == "test") & table[BY].isin(MEAN_OVER)].reset_index(drop=True)
    metrics = list(image_metrics(table))
    start = time.perf_counter()
    arm = scored(table, BY)
    arm.values(draw_counts(arm.classes, options.draws, seed=0), metrics)
    ours = time.perf_counter() - start
    peer = peer_seconds(table, metrics, options.peer_draws)
    record = {
        "images": len(table),
        "metrics": metrics,
        "draws": {"ours": options.draws, "scipy": options.peer_draws},
        "seconds": {"ours": ours, "scipy": peer},
        "ratio_per_draw": (peer / options.peer_draws) / (ours / options.draws),
        "largest_difference": difference(table, metrics, options.peer_draws),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {name: version(name) for name in ("numpy", "pandas", "scikit-learn", "scipy")},
    }
    write_json(options.out, record)
    print(f"{options.draws} draws in {ours:.2f} s; {record['ratio_per_draw']:.0f} times scipy per draw")


if __name__ == "__main__":
    main()
