"""What the verdicts depend on: the bar, the seed, the folds, the level of C5. The judged verdicts are not these."""

import contextlib
from collections.abc import Sequence
from functools import partial

import pandas as pd

from histotransfer.evaluation.comparisons import judge
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import all_metrics, differences, mean_gaps, mean_intervals
from histotransfer.evaluation.metrics import MEAN, MEAN_OVER, PATIENT, metric_name
from histotransfer.report.selection import BAR, select
from histotransfer.report.study import NotRunYet
from histotransfer.report.tables import gap_within_folds
from histotransfer.report.verdicts import EXPLORATORY, PARTS, PRIMARY, PROPOSED, Comparison, Judge, levels

EXPERIMENT = "primary"
ENDS = ["value", "low", "high"]
METRICS = ("auroc", "accuracy", f"{PATIENT}auroc", f"{PATIENT}accuracy")


def against_bar(judging: Judge) -> pd.DataFrame:
    """One network of each arm minus one frozen probe, mean over `MEAN_OVER`, as text.

    Returns:
        The first row is the probe itself; one column per metric of `METRICS`. The last row is the recipe of our own
        (`selection.Selection`) minus its probe; it is left out where that is not run yet.

    Raises:
        NotRunYet: runs of the primary experiment are missing.
    """
    probe = judging.of_seeds(EXPERIMENT, BAR)
    rows = {f"{BAR}, itself": mean_intervals(probe, "magnification", wanted=METRICS)}
    for arm in judging.study.plan(EXPERIMENT).arms:
        pairs = list(zip(judging.of_seeds(EXPERIMENT, arm), probe, strict=True))
        rows[f"{arm} minus it"] = differences(pairs, "magnification", metrics=METRICS)
    with contextlib.suppress(NotRunYet):
        rows["recipe of our own minus it"] = select(judging.study).gain()
    return pd.DataFrame(
        {
            name: {metric_name(metric): number(*table.loc[metric, ENDS]) for metric in METRICS}
            for name, table in rows.items()
        }
    ).T


def by_seed(judging: Judge) -> pd.DataFrame:
    """What each seed of the primary experiment alone gives: accuracy for C1, else the difference; one column per seed.

    Raises:
        NotRunYet: runs of the primary experiment are missing.
    """
    rows = {}
    for magnification in (*MEAN_OVER, 400):
        tables = judging.of_seeds(EXPERIMENT, PROPOSED, (magnification,))
        rows[f"C1 at {magnification}x"] = [all_metrics(table, wanted=["accuracy"])["accuracy"] for table in tables]
    for comparison in _of_the_primary():
        tables_of = {arm: judging.of_seeds(EXPERIMENT, arm) for arm in comparison.arms}
        values = {
            arm: [all_metrics(table, "magnification", [comparison.metric]) for table in tables]
            for arm, tables in tables_of.items()
        }
        gaps = zip(*(zip(values[one], values[other], strict=True) for one, other in comparison.pairs), strict=True)
        rows[_line(comparison)] = [mean_gaps(pairs)[comparison.metric] for pairs in gaps]
    seeds = judging.study.plan(EXPERIMENT).seeds
    return pd.DataFrame.from_dict(rows, orient="index", columns=[f"seed {seed}" for seed in seeds])


def by_folds(judging: Judge) -> pd.DataFrame:
    """The claims of AUROC of the primary experiment within folds: of pairs of images that one network scored, as text.

    Returns:
        One row per line of the claims: its `verdict`; the difference within folds, mean over `MEAN_OVER`, by image and
        by patient, with three decimals (verdicts can hang on the third); after each what the rule would make of it.

    Raises:
        NotRunYet: runs of the primary experiment are missing.
    """
    judged = pd.concat([judging.differences(PRIMARY), judging.differences(EXPLORATORY)])
    verdicts = dict(zip(judged["id"] + judged["note"].map(_noted), judged["verdict"], strict=True))
    runs, rows = partial(judging.study.runs, EXPERIMENT), {}
    for comparison in _of_the_primary("auroc"):
        pairs, line = [(runs(one), runs(other)) for one, other in comparison.pairs], _line(comparison)
        table = gap_within_folds(pairs, line)
        mean = table[table["magnification"] == MEAN].set_index("metric")[ENDS]
        rows[line] = {"verdict": verdicts[line]}
        for unit, prefix in (("image", ""), ("patient", PATIENT)):
            value, low, high = mean.loc[f"{prefix}auroc_within_folds"]
            rows[line][f"by {unit}"] = f"{value:.3f} [{low:.3f}, {high:.3f}]"
            rows[line][f"by {unit}, then"] = judge(low, high, 0.0, judging.rule["rule"]["margin"])
    return pd.DataFrame(rows).T


def by_level(judging: Judge) -> pd.DataFrame:
    """Epochs that transfer saves (C5) at each level of log-loss, as text: one row per share of the way down.

    Where runs are missing it is one row that says so.
    """
    table = levels(judging)
    if "arm" not in table:
        return table.head(1).set_index("id")[["verdict"]]
    table["text"] = [number(*row) for row in table[ENDS].to_numpy()]
    table["column"] = table["arm"] + ", " + table["part"].map(PARTS)
    return table.pivot(index="share", columns="column", values="text")[list(dict.fromkeys(table["column"]))]


def _of_the_primary(metric: str = "") -> Sequence[Comparison]:
    lines = [line for line in (*PRIMARY, *EXPLORATORY) if line.experiment == EXPERIMENT]
    return [line for line in lines if not metric or line.metric == metric]


def _line(comparison: Comparison) -> str:
    return comparison.claim + _noted(comparison.note)


def _noted(note: str) -> str:
    return f", {note}" if note else ""
