"""Eight tumour subtypes, one against the rest (open question Q1): descriptive, and only of enough patients."""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from histotransfer.datasets.breakhis import BENIGN_CODES, LABELS, SUBTYPES
from histotransfer.evaluation.intervals import intervals
from histotransfer.evaluation.metrics import MEAN_OVER, class_names
from histotransfer.records import Run

FEWEST = 5  # base numbers of a subtype, below which nothing is said of it
REST = "rest"


def one_against_rest(predictions: pd.DataFrame, subtype: str) -> pd.DataFrame:
    """A table of many classes as one of two: `rest` and a subtype, with the same probabilities."""
    names = class_names(predictions)
    others = predictions[[f"logit_{name}" for name in names if name != subtype]].to_numpy()
    return predictions.drop(columns=[f"logit_{name}" for name in names]).assign(
        truth=np.where(predictions["truth"] == subtype, subtype, REST),
        logit_rest=logsumexp(others, axis=1),
        **{f"logit_{subtype}": predictions[f"logit_{subtype}"]},
    )


def as_two_classes(run: Run) -> Run:
    """A run on subtypes as one on benign and malignant: the probabilities of each side added up."""
    names, table = class_names(run.predictions), run.predictions
    label = {name: LABELS[code not in BENIGN_CODES] for code, name in SUBTYPES.items()}
    sides = {
        f"logit_{side}": logsumexp(table[[f"logit_{name}" for name in names if label[name] == side]], axis=1)
        for side in LABELS
    }
    kept = table.drop(columns=[f"logit_{name}" for name in names]).assign(truth=table["truth"].map(label))
    return replace(run, predictions=kept.assign(**sides))


def subtype_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """AUROC and recall of each subtype against the rest, mean over 40x, 100x and 200x, most patients first.

    Args:
        predictions: out of fold, of subtypes.

    Returns:
        Index `subtype`; `patients` (base numbers), `images`, and, missing of fewer than `FEWEST` base numbers, `auroc`
        and `recall`, each with `_low` and `_high`. Recall is of the class that the network finds most probable of all.
    """
    used = predictions[predictions["magnification"].isin(MEAN_OVER)].reset_index(drop=True)
    logits = used[[f"logit_{name}" for name in class_names(used)]]
    certain = 100.0 * logits.eq(logits.max(axis=1), axis=0)  # as if the most probable class had a probability of 1
    most_probable = used.assign(**certain)
    rows = {}
    for subtype, own in used.groupby("truth"):
        row = {"patients": own["group"].nunique(), "images": len(own)}
        if row["patients"] >= FEWEST:
            for name, metric, table in (("auroc", "auroc", used), ("recall", "sensitivity", most_probable)):
                found = intervals(one_against_rest(table, subtype), "magnification").loc[metric]
                row |= {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        rows[subtype] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("subtype")
    return table.sort_values(["patients", "images"], ascending=False)
