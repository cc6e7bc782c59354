"""Eight tumour subtypes, each against the rest (open question Q1): descriptive, where patients are enough."""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from histotransfer.datasets.breakhis import BENIGN_CODES, LABELS, SUBTYPES
from histotransfer.evaluation.intervals import intervals
from histotransfer.evaluation.metrics import MEAN_OVER, class_names
from histotransfer.records import Run

FEWEST = 5  # base numbers that a subtype needs to be evaluated
REST = "rest"


def one_against_rest(predictions: pd.DataFrame, subtype: str) -> pd.DataFrame:
    """Turn a predictions table of many classes into one of two, `rest` and a subtype, with the same probabilities."""
    names = class_names(predictions)
    others = predictions[[f"logit_{name}" for name in names if name != subtype]].to_numpy()
    return predictions.drop(columns=[f"logit_{name}" for name in names]).assign(
        truth=np.where(predictions["truth"] == subtype, subtype, REST),
        logit_rest=logsumexp(others, axis=1),
        **{f"logit_{subtype}": predictions[f"logit_{subtype}"]},
    )


def as_two_classes(run: Run) -> Run:
    """Turn a run on subtypes into one on benign and malignant by adding up the probabilities of each side."""
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
        Index `subtype`; `patients` (base numbers), `images`, `auroc` and `recall`, each with `_low` and `_high`; these
        are NaN for subtypes of fewer than `FEWEST` base numbers. For recall the network's answer is the most probable
        of all classes.
    """
    used = predictions[predictions["magnification"].isin(MEAN_OVER)].reset_index(drop=True)
    logits = used[[f"logit_{name}" for name in class_names(used)]]
    certain = 100.0 * logits.eq(logits.max(axis=1), axis=0)  # as if the most probable class had a probability of 1
    most_probable = used.assign(**certain)
    rows = {}
    for subtype, images in used.groupby("truth"):
        row = {"patients": images["group"].nunique(), "images": len(images)}
        if row["patients"] >= FEWEST:
            for name, metric, table in (("auroc", "auroc", used), ("recall", "sensitivity", most_probable)):
                interval = intervals(one_against_rest(table, subtype), "magnification").loc[metric]
                row |= {name: interval["value"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]}
        rows[subtype] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("subtype")
    return table.sort_values(["patients", "images"], ascending=False)
