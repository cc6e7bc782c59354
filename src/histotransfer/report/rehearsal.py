"""The rehearsal: arms compared on validation patients only, before any of them was tested."""

import contextlib

import pandas as pd

from histotransfer.evaluation.intervals import all_metrics
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import patients_of
from histotransfer.report.verdicts import mean_difference
from histotransfer.study.plan import read_plan


def rehearsal_patients(study: Study, experiment: str = "rehearsal") -> set[str]:
    """The strict patients on whose images the arms of a rehearsal are compared.

    Raises:
        NotRunYet: its first arm is not run yet.
    """
    base, *_ = read_plan(study.study / f"{experiment}.toml").arms
    return set(study.predictions(experiment, base, part="validation")["group"])


def rehearsal(study: Study, experiment: str = "rehearsal") -> pd.DataFrame:
    """Every arm of a rehearsal on validation patients, best first, and its difference from the first arm.

    Returns:
        Index `arm`; `changes` (its settings beside the common ones); `auroc` (mean over `MEAN_OVER`, the validation
        parts of all folds together), `minus_base` with `low` and `high` (paired by patient), `log_loss`, `images`,
        `patients`. Arms that are not run yet are left out.

    Raises:
        NotRunYet: the first arm is not run yet.
    """
    arms = read_plan(study.study / f"{experiment}.toml").arms
    base, *others = arms
    tables = {base: study.predictions(experiment, base, part="validation")}
    for arm in others:
        with contextlib.suppress(NotRunYet):
            tables[arm] = study.predictions(experiment, arm, part="validation")
    rows = {}
    for arm, table in tables.items():
        metrics = all_metrics(table, "magnification", ["auroc", "log_loss"])
        gain = mean_difference([(table, tables[base])], "auroc")
        rows[arm] = {
            "changes": ", ".join(f"{name}: {value}" for name, value in arms[arm].items()) or "–",
            "auroc": metrics["auroc"],
            **gain[["value", "low", "high"]].rename({"value": "minus_base"}),
            "log_loss": metrics["log_loss"],
            "images": len(table),
            "patients": patients_of(table),
        }
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("auroc", ascending=False).rename_axis("arm")
