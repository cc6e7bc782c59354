"""What the detectors of training failures say of runs, as people read it."""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from histotransfer.evaluation import failures as detectors
from histotransfer.evaluation.formatting import number
from histotransfer.experiments.provoked import STARTS
from histotransfer.experiments.synthetic import SIGNATURES


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Counts as people read them: `9 of 10: 0.90 [0.60, 0.98]`, hits and false alarms side by side."""
    text = [f"{row.found} of {row.n}: {number(row.rate, row.low, row.high)}" for row in table.itertuples()]
    columns = table["truth"].map({True: "hits", False: "false alarms"})
    wide = table.assign(text=text, column=columns).pivot(
        index=["signature", "histories"], columns="column", values="text"
    )
    order = product(SIGNATURES, dict.fromkeys(table["histories"]))
    return wide.reindex(order)[["hits", "false alarms"]].dropna(how="all").fillna("–").rename_axis(columns=None)


def overfitting_by_dataset(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What the detector of overfitting says of each data set that some runs trained on.

    Args:
        histories: name of a run to its history.

    Returns:
        One row per run and data set: `found`, `nats` of rise, and the `epoch` to stop at.
    """
    rows = {}
    for name, history in histories.items():
        for dataset, own in history.groupby("dataset", sort=False):
            finding = detectors.overfitting(own)
            rows[name, dataset] = {"found": finding.found, "nats": round(finding.amount, 3), "epoch": finding.epoch}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["run", "dataset"])
    return table.astype({"epoch": "Int64"})


def signatures_by_arm(arms: Mapping[str, Sequence[pd.DataFrame]], control: str) -> pd.DataFrame:
    """In how many runs of each arm a signature is found, beside the arm without transfer.

    Args:
        arms: histories by arm, every arm on the same folds and seeds, in one order.
        control: the arm without transfer. Slow convergence is asked of its runs, each against the arm's; the level is
            set from them, too, so that it is the one of claim C5.

    Returns:
        One row an arm: `runs` and how many of them show `overfitting` and `negative transfer`, and beside how many
        the control shows `slow convergence`.

    Raises:
        ValueError: an arm with more or fewer runs than the control.
    """
    level = detectors.convergence_level(arms[control])
    rows = {}
    for arm, runs in arms.items():
        pairs = list(zip(runs, arms[control], strict=True))
        found = {
            "overfitting": [detectors.overfitting(run) for run in runs],
            "negative transfer": [detectors.negative_transfer(run, other) for run, other in pairs],
            "slow convergence": [detectors.slow_convergence(other, run, level) for run, other in pairs],
        }
        rows[arm] = {"runs": len(runs)} | {name: sum(one.found for one in own) for name, own in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def convergence_of_starts(histories: pd.DataFrame) -> pd.DataFrame:
    """Epochs until DenseNet-121 passes a level of validation log-loss that is set from its runs from scratch.

    Args:
        histories: of the record.

    Returns:
        One row a start: the restricted `mean` of the epochs, the `epochs` of each seed (`10+`: not within the budget),
        the `level` (nats) and the `horizon`.
    """
    runs = {start: [own for _, own in histories[histories["arm"] == start].groupby("seed")] for start in STARTS}
    level = detectors.convergence_level(runs["DenseNet-121, scratch"])
    horizon = min(len(own) for arm in runs.values() for own in arm)
    rows = {}
    for start, arm in runs.items():
        table = detectors.convergence(arm, level, horizon)
        epochs = [f"{row.epochs}{'' if row.passed else '+'}" for row in table.itertuples()]
        rows[start] = {"mean": table["epochs"].mean().round(1), "epochs": ", ".join(epochs)}
    return pd.DataFrame.from_dict(rows, orient="index").assign(level=round(level, 3), horizon=horizon)
