"""Whether the sets of `predict` cover what they promise: calibrated on some patients, measured on others."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from histotransfer.evaluation.conformal import strangeness, threshold
from histotransfer.evaluation.intervals import LEVEL, enough, fewest, jackknife, leave_one_out, limits
from histotransfer.evaluation.metrics import class_names, patient_table, probabilities
from histotransfer.evaluation.sets import CANNOT_TELL, COVERAGE, answer

PICTURE, PATIENT = "picture", "patient"
DRAWS = 20  # of one picture of each patient, for each network
OF_A_PATIENT = ["group", "truth"]  # whose images are of two classes counts once in each


def scored_patients(networks: Sequence[pd.DataFrame], level: str) -> list[pd.DataFrame]:
    """Tables with one row per patient and class, from predictions by networks that never saw the patient.

    Args:
        networks: of each network a table of predictions; with `fold`, the fold of the image.
        level: `PICTURE`: one picture of each patient at random, `DRAWS` times; `PATIENT`: the mean log-probability of
            a patient's pictures at one magnification, for each magnification.
    """
    if level == PICTURE:
        shuffled = (table.sample(frac=1, random_state=seed) for table in networks for seed in range(DRAWS))
        return [table.drop_duplicates(OF_A_PATIENT) for table in shuffled]
    folds = networks[0].groupby("group")["fold"].first()
    means = [patient_table(rows) for table in networks for _, rows in table.groupby("magnification")]
    return [table.assign(fold=table["group"].map(folds)) for table in means]


def calibrated_sets(networks: Sequence[pd.DataFrame]) -> dict[str, float]:
    """The thresholds for pictures and for patients, from all patients: what is shipped."""
    return {level: threshold(scored_patients(networks, level)) for level in (PICTURE, PATIENT)}


def coverage_of_sets(networks: Sequence[pd.DataFrame], level: str, coverage: float = COVERAGE) -> pd.DataFrame:
    """How often sets hold the truth, and how often they cannot tell, on folds left out of the calibration.

    Args:
        networks: as for `scored_patients`.
        level: `PICTURE` or `PATIENT`.
        coverage: what the sets promise.

    Returns:
        One row per class and one for all (index `class`): `covered`, `low`, `high` (95 %, by patient), `cannot_tell`
        and its `cannot_tell_low`, `cannot_tell_high`; `patients`.

    Raises:
        HistotransferError: crepes is not installed, or a logit is not finite.
    """
    tables = scored_patients(networks, level)
    folds = sorted(set(pd.concat(tables)["fold"]))
    rest = {fold: threshold([table[table["fold"] != fold] for table in tables], coverage) for fold in folds}
    judged = pd.concat([_judged(table, rest) for table in tables])
    patients = judged.groupby(OF_A_PATIENT)[["covered", "cannot_tell"]].mean().reset_index()
    rows = {name: _rates(patients[patients["truth"] == name]) for name in class_names(tables[0])}
    return pd.DataFrame.from_dict(rows | {"all": _rates(patients)}, orient="index").rename_axis("class")


def _judged(table: pd.DataFrame, rest: Mapping[int, float]) -> pd.DataFrame:
    """Whether the set of each row holds the truth, and whether it cannot tell, by the thresholds of its fold."""
    limits_of_rows, names = table["fold"].map(rest).to_numpy(), class_names(table)
    answers = [
        answer(chances, names, limit) for chances, limit in zip(probabilities(table), limits_of_rows, strict=True)
    ]
    return table[OF_A_PATIENT].assign(
        covered=strangeness(table) <= limits_of_rows, cannot_tell=np.equal(answers, CANNOT_TELL)
    )


def _rates(patients: pd.DataFrame) -> dict[str, float]:
    covered, unsure = (_with_limits(patients, column) for column in ("covered", "cannot_tell"))
    return {
        "covered": covered[0], "low": covered[1], "high": covered[2],
        "cannot_tell": unsure[0], "cannot_tell_low": unsure[1], "cannot_tell_high": unsure[2],
        "patients": len(patients),
    }  # fmt: skip


def _with_limits(patients: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """The mean over patients, with the interval of `evaluation.intervals`."""
    values, classes = patients[column].to_numpy(dtype=float), patients["truth"].to_numpy()
    if not len(values) or not enough(classes):
        return float(values.mean()) if len(values) else np.nan, np.nan, np.nan
    ones = np.ones(len(values))
    error, freedom = jackknife(leave_one_out(classes) @ values / (len(values) - 1), ones, classes)
    return float(values.mean()), *limits(column, values.mean(), error, freedom, fewest(ones, classes), LEVEL)
