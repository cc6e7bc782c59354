"""The recipe of our own: chosen for each test fold by networks that never saw it, then scored on it.

Every pair of folds is held out by one network of each candidate (`study/selection.toml`): one fold is its test part,
the other its validation part, and nothing was decided by either while it was trained. So a network serves both.

Nested selection: Varma and Simon 2006, https://doi.org/10.1186/1471-2105-7-91; Cawley and Talbot 2010, JMLR 11, 2079.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from histotransfer.evaluation.calibration import best_temperature
from histotransfer.evaluation.intervals import all_metrics, differences, mean_intervals
from histotransfer.evaluation.metrics import MEAN_OVER, PATIENT, class_names
from histotransfer.records import Run
from histotransfer.report.study import Study

EXPERIMENT, BAR = "selection", "frozen-probe"
CRITERION = "auroc"
METRICS = ("accuracy", "balanced_accuracy", CRITERION, "log_loss", "brier", "calibration_error")
OF_PATIENTS = (f"{PATIENT}accuracy", f"{PATIENT}{CRITERION}")


def held_out(runs: Sequence[Run]) -> pd.DataFrame:
    """Every prediction of an image by a network that saw neither its fold nor one more: `fold`, and `other`.

    Args:
        runs: of one candidate, every pair of folds held out once.

    Returns:
        Test and validation rows of all runs at `MEAN_OVER`; `fold` is the image's own fold, `other` the second one that
        the network never saw.
    """
    tables = []
    for run in runs:
        config = run.record["config"]
        test = config["fold"]
        validation = (test + config["validation_offset"]) % config["folds"]
        for part, fold, other in (("test", test, validation), ("validation", validation, test)):
            rows = run.predictions[run.predictions["part"] == part]
            tables.append(rows.assign(part="test", fold=fold, other=other))
    whole = pd.concat(tables, ignore_index=True)
    return whole[whole["magnification"].isin(MEAN_OVER)].reset_index(drop=True)


@dataclass(frozen=True)
class Selection:
    """What nested selection chose, and what its choices are worth.

    Attributes:
        criteria: one row per test fold, one column per candidate: the criterion on the other folds.
        chosen: test fold to the candidate that was chosen for it.
        ships: the candidate that the same rule chooses from all folds.
        temperatures: test fold to the temperature that is best on the other folds, by the same networks as the choice.
        temperature: the one that is best on all folds, for the network that ships.
        networks: predictions of the chosen candidates: four tables, in each of which every image is predicted once, by
            a network that never saw its fold.
        bar: the same of the frozen probe.
    """

    criteria: pd.DataFrame
    chosen: Mapping[int, str]
    ships: str
    temperatures: Mapping[int, float]
    temperature: float
    networks: Sequence[pd.DataFrame]
    bar: Sequence[pd.DataFrame]

    def score(self, tables: Sequence[pd.DataFrame] | None = None) -> pd.DataFrame:
        """One network of the chosen recipes: metrics with intervals, as `intervals.mean_intervals`.

        Args:
            tables: by default `networks`; or those of `calibrated`, or some of their rows.
        """
        return mean_intervals(tables or self.networks, "magnification", wanted=[*METRICS, *OF_PATIENTS])

    def calibrated(self) -> list[pd.DataFrame]:
        """`networks` with the logits of each fold divided by its temperature, which saw other patients only."""
        logits = [f"logit_{name}" for name in class_names(self.networks[0])]
        return [
            table.assign(**table[logits].div(table["fold"].map(self.temperatures), axis=0)) for table in self.networks
        ]

    def gain(self) -> pd.DataFrame:
        """One network minus one probe, as `intervals.differences`."""
        pairs = list(zip(self.networks, self.bar, strict=True))
        return differences(pairs, "magnification", metrics=[*METRICS, *OF_PATIENTS])


def select(study: Study) -> Selection:
    """Apply the rule's `[selection]` to the records.

    Raises:
        NotRunYet: runs of the plan are missing.
    """
    candidates = list(study.plan(EXPERIMENT).arms)
    tables = {arm: held_out(study.runs(EXPERIMENT, arm)) for arm in (*candidates, BAR)}
    folds = sorted(set(tables[BAR]["fold"]))
    criteria = pd.DataFrame(
        {arm: [_criterion(tables[arm].query("other == @fold")) for fold in folds] for arm in candidates},
        index=pd.Index(folds, name="test fold"),
    )
    chosen = {fold: str(criteria.loc[fold].idxmax()) for fold in folds}  # of equals the first
    over_all = {arm: sum(map(_criterion, once_each(dict.fromkeys(folds, tables[arm])))) for arm in candidates}
    ships = max(candidates, key=lambda arm: over_all[arm])
    return Selection(
        criteria,
        chosen,
        ships,
        {fold: best_temperature(tables[arm].query("other == @fold")) for fold, arm in chosen.items()},
        best_temperature(tables[ships]),
        once_each({fold: tables[arm] for fold, arm in chosen.items()}),
        once_each(dict.fromkeys(folds, tables[BAR])),
    )


def _criterion(predictions: pd.DataFrame) -> float:
    value = all_metrics(predictions, "magnification", [CRITERION])[CRITERION]
    return float("-inf") if value is None else value


def once_each(tables: Mapping[int, pd.DataFrame]) -> list[pd.DataFrame]:
    """Tables in each of which every image is predicted once: the second fold that was held out is as far on in each.

    Args:
        tables: test fold to the predictions, as `held_out` returns them, from which its images are taken.
    """
    count = len(tables)
    return [
        pd.concat(
            [
                table[(table["fold"] == fold) & (table["other"] == (fold + further) % count)]
                for fold, table in tables.items()
            ],
            ignore_index=True,
        )
        for further in range(1, count)
    ]
