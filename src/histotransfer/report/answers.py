"""The verdict table: for each claim what was run, the number with its interval and n, and the verdict of the rule.

`verdicts` computes all numbers from the records; this module puts them into the words of a table.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from histotransfer.evaluation.comparisons import CONTRADICTED, verdict
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.metrics import metric_name
from histotransfer.paper import STATED_MB, STATED_PARAMETERS
from histotransfer.report.study import Study
from histotransfer.report.verdicts import (
    EXPLORATORY,
    NOT_RUN,
    PRIMARY,
    PROPOSED,
    judge_accuracy,
    judge_convergence,
    judge_differences,
    judge_overfitting,
)

JUDGED = {"C5": ("imagenet", "whole"), "C6": ("Macenko", "flips and half turns")}  # what the paper does
GAIN = (0.02, 0.06)  # "2 to 6 points": the magnitude of C4, reported beside its verdict
COLUMNS = ("claim", "compared", "metric", "result", "n", "smallest", "verdict", "plan", "record")


def answers(study: Study) -> pd.DataFrame:
    """One row per claim, or several where a claim has parts: index `id`, columns `COLUMNS`.

    `smallest` is the smallest true difference (for C1: distance from its threshold) that the design would have shown
    with a power of 0.8; `plan` is the file from which `histotransfer study run` makes the `record`.
    """
    rows = [*_accuracy(study), *_differences(study), *_convergence(study), *_overfitting(study), _size()]
    table = pd.DataFrame(rows).set_index("id").sort_index(kind="stable")
    return table.reindex(columns=COLUMNS).astype(object).fillna("–")


def _accuracy(study: Study) -> Iterator[dict]:
    for magnification, row in judge_accuracy(study).iterrows():
        at = f", at {magnification}x" if row["verdict"] != NOT_RUN else ""
        yield _row("C1", study, "primary", row) | {
            "claim": study.claims["C1"]["claim"] + at,
            "compared": f"{PROPOSED} with 0.84",
            "metric": "accuracy, split by patient, Macenko's colours",
        }


def _differences(study: Study) -> Iterator[dict]:
    both = [judge_differences(study, PRIMARY, correct=True), judge_differences(study, EXPLORATORY)]
    for claim, row in pd.concat(both).iterrows():
        text = _row(claim, study, row["experiment"], row)
        where = f"at {row['magnification']}x" if row["magnification"] != "mean" else "mean over 40x, 100x, 200x"
        least = study.claims[claim]["threshold"]
        compared = row["compared"] + (f", at least {least:.2f}" if least else "")
        text |= {"compared": compared, "metric": f"{metric_name(row['metric'])}, {where}"}
        if pd.notna(row.get("p_holm")):
            text["result"] += f", p = {row['p_holm']:.2g} after Holm"
        if claim.startswith("C4") and row["verdict"] != NOT_RUN and GAIN[0] <= row["value"] <= GAIN[1]:
            text["verdict"] += "; magnitude consistent"
        yield text


def _convergence(study: Study) -> Iterator[dict]:
    table = judge_convergence(study)
    for arm in JUDGED["C5"] if "value" in table else table.index:
        row = table.loc[arm]
        yield _row("C5", study, "scratch", row) | {
            "compared": f"scratch minus {arm}" if "value" in table else "scratch minus transfer",
            "metric": "epochs to a fixed validation log-loss, restricted mean",
        }


def _overfitting(study: Study) -> Iterator[dict]:
    table = judge_overfitting(study)
    for name in JUDGED["C6"]:
        row = table.loc[name]
        text = _row("C6", study, "colour", row) | {
            "claim": f"{study.claims['C6']['claim']}: {name}",
            "compared": "without it minus with it",
            "metric": "test minus training log-loss, nats; AUROC: with it minus without, on test images",
        }
        if row["verdict"] != NOT_RUN:
            parts = (row[[part, f"{part}_low", f"{part}_high"]] for part in ("test_drop", "auroc_gain"))
            tested, gain = (number(*part) for part in parts)
            of_auroc = verdict(row["auroc_gain_low"], row["auroc_gain_high"], study.claims["C6"]["threshold"])
            text["compared"] = " minus ".join(reversed(row["arms"].split(" against ")))
            text["result"] += f", of it on test images {tested}; test AUROC {gain}"
            text["verdict"] += f"; test AUROC {of_auroc}"
        yield text


def _size() -> dict:
    stated = 4 * STATED_PARAMETERS / 1e6  # bytes of float32
    return {
        "id": "C7",
        "claim": f"{STATED_PARAMETERS:,} parameters and {STATED_MB} MB",
        "compared": "its count in float32 with its megabytes",
        "metric": "arithmetic",
        "result": f"{stated:.1f} MB, not {STATED_MB}",
        "verdict": f"{CONTRADICTED}, as one float32 network",
        "plan": "none",
        "record": "the chapter on SE-DenseNet",
    }


def _row(claim: str, study: Study, experiment: str, row: pd.Series) -> dict:
    """The cells that every row has; `row` may hold `value, low, high, smallest, images, patients, runs, verdict`."""
    cells = {
        "id": claim,
        "claim": study.claims[claim]["claim"],
        "verdict": row["verdict"],
        "plan": f"study/{experiment}.toml",
        "record": f"results/{experiment}",
    }
    if row["verdict"] == NOT_RUN:
        return cells
    about = f"{row['images']:.0f} images, {row['patients']} patients" if "images" in row else f"{row['runs']:.0f} runs"
    smallest = row.get("smallest", np.nan)
    return cells | {
        "result": number(row["value"], row["low"], row["high"]),
        "n": about,
        "smallest": "–" if pd.isna(smallest) else f"{smallest:.2f}",
    }
