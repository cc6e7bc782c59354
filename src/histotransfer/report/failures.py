"""Tables of what the detectors of training failures find in runs."""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from histotransfer.evaluation import failures as detectors
from histotransfer.evaluation.formatting import number
from histotransfer.experiments.provoked import STARTS
from histotransfer.experiments.synthetic import SIGNATURES


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Counts as text, such as `9 of 10: 0.90 [0.60, 0.98]`, with hits and false alarms side by side."""
    text = [f"{row.found} of {row.n}: {number(row.rate, row.low, row.high)}" for row in table.itertuples()]
    columns = table["truth"].map({True: "hits", False: "false alarms"})
    wide = table.assign(text=text, column=columns).pivot(
        index=["signature", "histories"], columns="column", values="text"
    )
    order = product(SIGNATURES, dict.fromkeys(table["histories"]))
    return wide.reindex(order)[["hits", "false alarms"]].dropna(how="all").fillna("–").rename_axis(columns=None)


def overfitting_by_dataset(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Apply the detector of overfitting to each data set that some runs trained on.

    Args:
        histories: history of each run, by its name.

    Returns:
        One row per run and data set: `found`, `nats` of rise, and the `epoch` to stop at.
    """
    rows = {}
    for name, history in histories.items():
        for dataset, epochs in history.groupby("dataset", sort=False):
            finding = detectors.overfitting(epochs)
            rows[name, dataset] = {"found": finding.found, "nats": round(finding.amount, 3), "epoch": finding.epoch}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["run", "dataset"])
    return table.astype({"epoch": "Int64"})


def signatures_by_arm(arms: Mapping[str, Sequence[pd.DataFrame]], control: str) -> pd.DataFrame:
    """Count the runs of each arm that show a signature of failure.

    Args:
        arms: histories by arm; every arm has the same folds and seeds in the same order.
        control: the arm without transfer. Its runs set the level of convergence, as in claim C5.

    Returns:
        One row per arm: `runs`; how many of them show `overfitting`, and how many `negative transfer` compared with the
        control; and `slow convergence`: how many runs of the control show it compared with the arm's runs.

    Raises:
        ValueError: an arm has more or fewer runs than the control.
    """
    level = detectors.convergence_level(arms[control])
    rows = {}
    for arm, runs in arms.items():
        pairs = list(zip(runs, arms[control], strict=True))
        findings = {
            "overfitting": [detectors.overfitting(run) for run in runs],
            "negative transfer": [detectors.negative_transfer(run, other) for run, other in pairs],
            "slow convergence": [detectors.slow_convergence(other, run, level) for run, other in pairs],
        }
        rows[arm] = {"runs": len(runs)} | {
            name: sum(each.found for each in several) for name, several in findings.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def convergence_of_starts(histories: pd.DataFrame) -> pd.DataFrame:
    """Epochs until DenseNet-121 passes a level of validation log-loss, which its runs from scratch set.

    Args:
        histories: those of the record.

    Returns:
        One row per start: the restricted `mean` of the epochs, the `epochs` of each seed (`10+`: not within the
        budget), the `level` (nats) and the `horizon` (epochs).
    """
    runs = {start: [run for _, run in histories[histories["arm"] == start].groupby("seed")] for start in STARTS}
    level = detectors.convergence_level(runs["DenseNet-121, scratch"])
    horizon = min(len(run) for arm in runs.values() for run in arm)
    rows = {}
    for start, arm in runs.items():
        table = detectors.convergence(arm, level, horizon)
        epochs = [f"{row.epochs}{'' if row.passed else '+'}" for row in table.itertuples()]
        rows[start] = {"mean": table["epochs"].mean().round(1), "epochs": ", ".join(epochs)}
    return pd.DataFrame.from_dict(rows, orient="index").assign(level=round(level, 3), horizon=horizon)
