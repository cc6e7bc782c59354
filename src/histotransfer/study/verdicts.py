"""What the study's records say of each claim, by the rule that was fixed beforehand in `study/claims.toml`.

Nothing is decided here: the arms that a claim compares are listed, `evaluation` computes, and the rule speaks. A claim
whose experiment is not finished has no verdict yet, and the row says so.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.comparisons import holm, permutation_test, verdict
from histotransfer.evaluation.intervals import Pairs, differences, intervals
from histotransfer.evaluation.metrics import MEAN, MEAN_OVER
from histotransfer.evaluation.pooling import pool
from histotransfer.study.plan import planned_runs, read_plan
from histotransfer.study.records import read_run
from histotransfer.study.tables import patients_of

NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Comparison:
    """The arms behind a claim of a difference.

    Attributes:
        claim: its id.
        experiment: the plan that holds the arms.
        metric: what is compared.
        pairs: arm and what it is held against; of several pairs the mean difference.
        magnifications: tested on; of several the unweighted mean.
    """

    claim: str
    experiment: str
    metric: str
    pairs: tuple[tuple[str, str], ...]
    magnifications: tuple[int, ...] = MEAN_OVER


PRIMARY = (
    Comparison("C2", "primary", "auroc", (("se", "plain"), ("se-lung", "plain-lung"))),
    Comparison("C3a", "primary", "auroc", (("plain-lung", "plain"), ("se-lung", "se"))),
    Comparison("C3b", "scratch", "auroc", (("imagenet", "scratch"),), (200,)),
    Comparison("C4b", "primary", "accuracy", (("se-lung", "plain"),)),
)
EXPLORATORY = (Comparison("C4a", "scratch", "accuracy", (("whole", "scratch"),), (200,)),)
PROPOSED = "se-lung"  # the paper's model: SE, and LC25000 between ImageNet and BreakHis


def read_claims(study: str | Path) -> dict[str, dict]:
    """The claims of `claims.toml`, by id.

    Raises:
        HistotransferError: missing, or not such a file.
    """
    path = Path(study) / "claims.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))["claims"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise HistotransferError(f"{path}: not the file of claims ({error})") from error


class Study:
    """The plans and the records made from them.

    Args:
        study: folder of the plans and of `claims.toml`.
        results: folder of the experiments.
    """

    def __init__(self, study: str | Path, results: str | Path):
        self.study, self.results = Path(study), Path(results)
        self.claims = read_claims(study)

    def predictions(self, experiment: str, arm: str, stage: str = "") -> pd.DataFrame:
        """Out-of-fold predictions of an arm, averaged over its seeds; with `stage`, as that stage left the network.

        Raises:
            HistotransferError: runs of the plan are missing.
        """
        names = [run.name for run in planned_runs(read_plan(self.study / f"{experiment}.toml")) if run.arm == arm]
        suffix = f"-after-{stage}" if stage else ""
        folders = [self.results / experiment / f"{name}{suffix}" for name in names]
        missing = [folder.name for folder in folders if not (folder / "record.json").is_file()]
        if missing or not folders:
            raise HistotransferError(
                f"{experiment}, arm {arm}: {len(missing)} of {len(folders)} runs are not there yet;"
                f" `histotransfer study run {self.study / experiment}.toml` makes them"
            )
        return pool(read_run(folder).predictions for folder in folders)

    def pairs(self, comparison: Comparison) -> Pairs:
        """The predictions that a comparison is about."""
        tables = {}
        for arm in {arm for pair in comparison.pairs for arm in pair}:
            table = self.predictions(comparison.experiment, arm)
            tables[arm] = table[table["magnification"].isin(comparison.magnifications)].reset_index(drop=True)
        return [(tables[one], tables[other]) for one, other in comparison.pairs]

    def differences(self, comparisons: Sequence[Comparison], *, correct: bool = False) -> pd.DataFrame:
        """One row a comparison: `value, low, high, smallest, images, patients, verdict`.

        With `correct` also `p` and `p_holm`, of a family that keeps its size while some of it is not run yet.
        """
        rows, tests = {}, {}
        for comparison in comparisons:
            claim = self.claims[comparison.claim]
            over = MEAN if len(comparison.magnifications) > 1 else str(comparison.magnifications[0])
            row = {
                "claim": claim["claim"],
                "compared": "; ".join(f"{one} minus {other}" for one, other in comparison.pairs),
                "metric": comparison.metric,
                "magnification": over,
                "experiment": comparison.experiment,
            }
            try:
                pairs = self.pairs(comparison)
            except HistotransferError:
                rows[comparison.claim] = row | {"verdict": NOT_RUN}
                continue
            by = "magnification" if over == MEAN else None
            found = differences(pairs, by).loc[comparison.metric]
            rows[comparison.claim] = {
                **row,
                **found,
                "images": len(pairs[0][0]),
                "patients": patients_of(pairs[0][0]),
                "verdict": verdict(found["low"], found["high"], claim["threshold"]),
            }
            if correct:
                tests[comparison.claim] = permutation_test(pairs, comparison.metric, by).p
        if correct:
            family = holm({comparison.claim: tests.get(comparison.claim, 1.0) for comparison in comparisons})
            for claim, p in tests.items():
                rows[claim] |= {"p": p, "p_holm": family[claim]}
        return pd.DataFrame.from_dict(rows, orient="index")

    def accuracy(self) -> pd.DataFrame:
        """C1: accuracy of the proposed model, split by patient, one row a magnification with its verdict."""
        threshold = self.claims["C1"]["threshold"]
        try:
            table = self.predictions("primary", PROPOSED)
        except HistotransferError:
            return pd.DataFrame([{"verdict": NOT_RUN}])
        rows = {}
        for magnification, own in table.groupby("magnification"):
            found = intervals(own)
            value, low, high = found.loc["accuracy"]
            rows[str(magnification)] = {
                "value": value,
                "low": low,
                "high": high,
                "majority": max(np.mean(own["truth"] == name) for name in own["truth"].unique()),
                "balanced_accuracy": found.loc["balanced_accuracy", "value"],
                "images": len(own),
                "patients": patients_of(own),
                "verdict": verdict(low, high, threshold),
            }
        return pd.DataFrame.from_dict(rows, orient="index")
