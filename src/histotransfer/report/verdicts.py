"""The verdict on each claim by the second edition of the rule, from the study's records.

This module lists the arms that a claim compares. A claim is judged on single networks: a metric is computed for each
seed's out-of-fold predictions and averaged over seeds. Beside it are the same for the average of the seeds' logits, for
patients, and the verdict of the first rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from histotransfer.evaluation.comparisons import holm, judge, permutation_test, verdict
from histotransfer.evaluation.convergence import Losses, epochs_saved
from histotransfer.evaluation.intervals import Pairs, differences, intervals, mean_intervals, smallest_distance
from histotransfer.evaluation.metrics import MEAN, MEAN_OVER, PATIENT
from histotransfer.evaluation.pooling import pool
from histotransfer.records import LOSSES, Run
from histotransfer.report.doses import asked, in_words, not_given, read_rule, typical
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import patients_of

NOT_RUN = "not run yet"
PROPOSED = "se-lung"  # the paper's model: SE, and LC25000 between ImageNet and BreakHis


@dataclass(frozen=True)
class Comparison:
    """The arms that a claim of a difference compares.

    Attributes:
        claim: its id.
        experiment: the plan with the arms.
        metric: what is compared.
        pairs: an arm and the arm that is subtracted; the difference is averaged over several pairs.
        magnifications: of the test images; the metric is averaged over them, unweighted.
        note: what sets this line of a claim apart from its others.
    """

    claim: str
    experiment: str
    metric: str
    pairs: tuple[tuple[str, str], ...]
    magnifications: tuple[int, ...] = MEAN_OVER
    note: str = ""

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, once."""
        return tuple(dict.fromkeys(arm for pair in self.pairs for arm in pair))


PRIMARY = (
    Comparison("C2", "primary", "auroc", (("se", "plain"), ("se-lung", "plain-lung"))),
    Comparison("C3a", "primary", "auroc", (("plain-lung", "plain"), ("se-lung", "se"))),
    Comparison("C3b", "scratch", "auroc", (("imagenet", "scratch"),), (200,)),
    Comparison("C4b", "primary", "accuracy", (("se-lung", "plain"),)),
)
EXPLORATORY = (
    Comparison("C2", "primary", "auroc", (("se-standard", "plain"),), note="gates as the SE paper starts them"),
    Comparison("C4a", "scratch", "accuracy", (("whole", "scratch"),), (200,)),
)
ACCURACIES = (("primary", PROPOSED, ""), ("stated", "stated", "the recipe that the paper states"))  # C1
TRANSFERS = ("imagenet", "lung-only", "whole")  # C5
PARTS = {"validation": "validation", "train": "training"}
SHARE, SHARES = 0.75, (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)  # of the way down, in claims.toml
OVERFITTING = {  # C6: the treatment, the arm with it, the arm without it, whose dose it is
    "Macenko": ("macenko", "none", "colours"),
    "Vahadane": ("vahadane", "none", "colours"),
    "Reinhard": ("reinhard", "none", "colours"),
    "flips and half turns": ("none", "upright", "views"),
    "stain jitter": ("stain-jitter", "none", "views"),
}
PLACEMENTS = {  # N1: the arm with gates, and where they are
    ("primary", "se"): "after blocks and transitions, r = 16, as in C2",
    ("se-placement", "layer"): "after every layer",
    ("se-placement", "block"): "after blocks",
    ("se-placement", "transition"): "after transitions",
    ("se-placement", "everywhere"): "after layers, blocks and transitions",
    ("se-placement", "r8"): "as in C2, r = 8",
    ("se-placement", "r32"): "as in C2, r = 32",
}
AMOUNTS = ("C1", "C4a", "C4b")  # claims that state an amount
ENDS = ["value", "low", "high"]


class Judge:
    """The rule, applied to the records of a study.

    Args:
        study: plans and records.
    """

    def __init__(self, study: Study):
        self.study, self.rule = study, read_rule(study.study)

    def of_seeds(
        self, experiment: str, arm: str, magnifications: Sequence[int] = MEAN_OVER, stage: str = ""
    ) -> list[pd.DataFrame]:
        """The out-of-fold test predictions of an arm, one table per seed: each image once, by one network.

        They are those after a stage or, without one, after the last.

        Raises:
            NotRunYet: runs of the plan are missing.
        """
        runs = self.study.runs(experiment, arm, stage)
        tables = []
        for seed in sorted({run.record["seed"] for run in runs}):
            table = pool(run.predictions for run in runs if run.record["seed"] == seed)
            tables.append(table[table["magnification"].isin(magnifications)].reset_index(drop=True))
        return tables

    def missing_doses(self, claim: str, arms: Sequence[Sequence[Run]], more: Sequence[str] = ()) -> list[str]:
        """The treatments of a claim that these arms were not given."""
        entry = self.study.claims[claim]
        return not_given(arms, [*entry["dose"], *more], asked(entry, self.rule))

    def about_doses(
        self,
        claim: str,
        arms: Sequence[Sequence[Run]],
        metric: str,
        ends: pd.Series,
        first: pd.Series,
        more: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The cells of a line on doses, and its verdicts by both rules.

        Args:
            claim: its id.
            arms: the runs of each arm that is compared.
            metric: what is judged: its unit sets the margin.
            ends: `low` and `high` of single networks.
            first: the same by the first edition's estimator.
            more: treatments beside those of the claim.
        """
        entry, rule = self.study.claims[claim], self.rule["rule"]
        missing = self.missing_doses(claim, arms, more)
        margin = None if claim in AMOUNTS else rule["margin_epochs" if metric == "epochs" else "margin"]
        threshold = entry["threshold"]
        return {
            "dose": in_words(typical(arms, [*entry["dose"], *more])),
            "not_given": ", ".join(missing),
            "verdict": judge(ends["low"], ends["high"], threshold, margin, given=not missing),
            "first_verdict": verdict(first["low"], first["high"], threshold),
        }

    def compare(self, comparison: Comparison) -> dict[str, Any]:
        """One line: single networks, the average of seeds, patients, doses, verdicts.

        Raises:
            NotRunYet: runs of the plan are missing.
        """
        tables = {arm: self.of_seeds(comparison.experiment, arm, comparison.magnifications) for arm in comparison.arms}
        single: Pairs = [
            pair for one, other in comparison.pairs for pair in zip(tables[one], tables[other], strict=True)
        ]
        pooled = {arm: pool(self._tested(each)) for arm, each in tables.items()}
        averaged: Pairs = [(pooled[one], pooled[other]) for one, other in comparison.pairs]
        by = "magnification" if len(comparison.magnifications) > 1 else None
        metric, of_patients = comparison.metric, f"{PATIENT}{comparison.metric}"
        networks = differences(single, by, metrics=[metric, of_patients])
        together = differences(averaged, by, metrics=[metric])
        arms = [self.study.runs(comparison.experiment, arm) for arm in comparison.arms]
        return {
            **networks.loc[metric],
            **_named("average", together.loc[metric]),
            **_named("patient", networks.loc[of_patients]),
            "images": len(single[0][0]),
            "patients": patients_of(single[0][0]),
            "p": permutation_test(averaged, metric, by).p,
            **self.about_doses(comparison.claim, arms, metric, networks.loc[metric], together.loc[metric]),
        }

    @staticmethod
    def _tested(tables: Sequence[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for seed, table in enumerate(tables):
            yield table.assign(seed=seed)

    def differences(self, comparisons: Sequence[Comparison], *, correct: bool = False) -> pd.DataFrame:
        """One row per comparison; with `correct` also `p_holm`, for which those not run yet count in the family."""
        rows = []
        for comparison in comparisons:
            over = MEAN if len(comparison.magnifications) > 1 else str(comparison.magnifications[0])
            row: dict[str, Any] = {
                "id": comparison.claim,
                "compared": "; ".join(f"{one} minus {other}" for one, other in comparison.pairs),
                "note": comparison.note,
                "metric": comparison.metric,
                "magnification": over,
                "experiment": comparison.experiment,
            }
            try:
                rows.append(row | self.compare(comparison))
            except NotRunYet:
                rows.append(row | {"verdict": NOT_RUN, "first_verdict": NOT_RUN})
        if correct:
            family = holm({row["id"]: row.get("p", 1.0) for row in rows})
            rows = [row | ({"p_holm": family[row["id"]]} if "p" in row else {}) for row in rows]
        return pd.DataFrame(rows)

    def accuracy(self) -> pd.DataFrame:
        """C1: accuracy of the proposed model and of the stated recipe, split by patient, one row per magnification."""
        rows: list[dict[str, Any]] = []
        for experiment, arm, note in ACCURACIES:
            row = {
                "id": "C1",
                "compared": f"{arm} with 0.84",
                "note": note,
                "metric": "accuracy",
                "experiment": experiment,
            }
            try:
                tables, runs = self.of_seeds(experiment, arm, (*MEAN_OVER, 400)), self.study.runs(experiment, arm)
            except NotRunYet:
                rows.append(row | {"verdict": NOT_RUN, "first_verdict": NOT_RUN})
                continue
            for magnification in sorted(set(tables[0]["magnification"])):
                at = [table[table["magnification"] == magnification].reset_index(drop=True) for table in tables]
                rows.append(row | {"magnification": str(magnification)} | self._accurate(at, runs))
        return pd.DataFrame(rows)

    def _accurate(self, tables: Sequence[pd.DataFrame], runs: Sequence[Run]) -> dict[str, Any]:
        metrics = ["accuracy", f"{PATIENT}accuracy", "balanced_accuracy"]
        networks = mean_intervals(tables, wanted=metrics)
        together = pool(self._tested(tables))
        first, images = intervals(together).loc["accuracy"], tables[0]
        return {
            **networks.loc["accuracy"],
            **_named("average", first),
            **_named("patient", networks.loc[f"{PATIENT}accuracy"]),
            "smallest": smallest_distance(together, "accuracy"),
            "balanced_accuracy": networks.loc["balanced_accuracy", "value"],
            "larger_class": images["truth"].value_counts(normalize=True).max(),
            "images": len(images),
            "patients": patients_of(images),
            **self.about_doses("C1", [runs], "accuracy", networks.loc["accuracy"], first),
        }

    def convergence(self, share: float = SHARE) -> pd.DataFrame:
        """C5: epochs that transfer saves until a level of log-loss, by validation and by training images.

        Args:
            share: how much of the way down the level is, in the runs that set it.
        """
        rows: list[dict[str, Any]] = []
        try:
            outside = _losses(self.study.runs("scratch-level", "scratch"))
            runs = {arm: self.study.runs("scratch", arm) for arm in ("scratch", *TRANSFERS)}
        except NotRunYet:
            return pd.DataFrame([{"id": "C5", "verdict": NOT_RUN, "first_verdict": NOT_RUN}])
        losses = {arm: _losses(of_arm) for arm, of_arm in runs.items()}
        for part in PARTS:
            level = Losses(outside, part).level_at(share)
            for arm in TRANSFERS:
                saved = epochs_saved(losses["scratch"], losses[arm], part, level)
                ends, arms = pd.Series(saved), [runs["scratch"], runs[arm]]
                images = pd.concat(losses[arm]).query("part == @part").drop_duplicates("image")
                rows.append(
                    {
                        "id": "C5",
                        "compared": f"scratch minus {arm}",
                        "arm": arm,
                        "part": part,
                        "metric": "epochs",
                        "level": level,
                        "share": share,
                        "images": len(images),
                        "patients": patients_of(images),
                        **saved,
                        **self.about_doses("C5", arms, "epochs", ends, ends),
                    }
                )
        return pd.DataFrame(rows)

    def overfitting(self) -> pd.DataFrame:
        """C6: how much less an arm overfits with a treatment than without it; one row per treatment of `OVERFITTING`.

        Overfitting is the log-loss (nats) of images as a network tested them, minus that of the same images as networks
        were trained on them, mean over `MEAN_OVER`. An image counts once for each network that was trained on it.

        Returns:
            `value, low, high`: overfitting without the treatment minus overfitting with it, paired by patient;
            `test_drop` and `train_rise` (with `_low`, `_high`), which add up to it; `gain_*`: test AUROC with it minus
            without it.
        """
        rows: list[dict[str, Any]] = []
        for name, (treated, untreated, treatment) in OVERFITTING.items():
            row = {"id": "C6", "note": name, "compared": f"{untreated} minus {treated}", "metric": "log_loss"}
            try:
                rows.append(row | self._overfits(treated, untreated, treatment))
            except NotRunYet:
                rows.append(row | {"verdict": NOT_RUN, "first_verdict": NOT_RUN})
        return pd.DataFrame(rows)

    def _overfits(self, treated: str, untreated: str, treatment: str) -> dict[str, Any]:
        treated_test, treated_train = self._tested_and_trained(treated)
        test, train = self._tested_and_trained(untreated)
        halves = {"test_drop": (test, treated_test), "train_rise": (treated_train, train)}
        both = differences(list(halves.values()), "magnification", metrics=["log_loss"]).loc["log_loss"]
        loss = 2 * both  # the mean of two paired differences is half of the difference of differences
        parts = {
            name: differences([half], "magnification", metrics=["log_loss"]).loc["log_loss"]
            for name, half in halves.items()
        }
        (with_it,), (without,) = (self.of_seeds("colour", arm) for arm in (treated, untreated))
        gain = differences([(with_it, without)], "magnification", metrics=["auroc", f"{PATIENT}auroc"])
        arms = [self.study.runs("colour", arm) for arm in (treated, untreated)]
        cells = {end: value for name, part in parts.items() for end, value in _named(name, part).items()}
        return {
            **loss,
            **cells,
            **_named("gain", gain.loc["auroc"]),
            **_named("patient", gain.loc[f"{PATIENT}auroc"]),
            "images": train["of"].nunique(),
            "patients": patients_of(train),
            **self.about_doses("C6", arms, "log_loss", loss, loss, [treatment]),
        }

    def placements(self) -> pd.DataFrame:
        """N1: gates at other places and of other widths, each minus the network without gates; one row per arm.

        Exploratory, of the first seed alone; the verdicts are what the rule of C2 would say.
        """
        rows: list[dict[str, Any]] = []
        for (experiment, arm), where in PLACEMENTS.items():
            row = {"id": "N1", "note": where, "compared": f"{arm} minus plain", "metric": "auroc"}
            try:
                rows.append(row | self._placed(experiment, arm))
            except NotRunYet:
                rows.append(row | {"verdict": NOT_RUN, "first_verdict": NOT_RUN})
        return pd.DataFrame(rows)

    def _placed(self, experiment: str, arm: str) -> dict[str, Any]:
        seed = min(self.study.plan(experiment).seeds)
        pair = (self.of_seeds(experiment, arm)[0], self.of_seeds("primary", "plain")[0])
        gap = differences([pair], "magnification", metrics=["auroc", f"{PATIENT}auroc"])
        arms = [self.study.runs(experiment, arm, seeds=(seed,)), self.study.runs("primary", "plain", seeds=(seed,))]
        return {
            **gap.loc["auroc"],
            **_named("patient", gap.loc[f"{PATIENT}auroc"]),
            "images": len(pair[0]),
            "patients": patients_of(pair[0]),
            **self.about_doses("C2", arms, "auroc", gap.loc["auroc"], gap.loc["auroc"]),
        }

    def _tested_and_trained(self, arm: str) -> list[pd.DataFrame]:
        """Two tables, one row per image and network trained on it: as tested with the same seed, and as trained on."""
        whole = pd.concat(run.predictions for run in self.study.runs("colour", arm))
        whole = whole[whole["magnification"].isin(MEAN_OVER)]
        seen = whole[whole["part"] == "train"].reset_index(drop=True)
        key = ["seed", "image"]
        tested = whole[whole["part"] == "test"].set_index(key)
        tested = tested.loc[pd.MultiIndex.from_frame(seen[key])].reset_index()
        name = seen["image"] + ", seed " + seen["seed"].astype(str) + ", fold " + seen["fold"].astype(str)
        return [table.assign(of=seen["image"], image=name) for table in (tested, seen)]


def _named(prefix: str, row: pd.Series) -> dict[str, float]:
    """`value, low, high` under names of their own."""
    return {prefix: row["value"], f"{prefix}_low": row["low"], f"{prefix}_high": row["high"]}


def _losses(runs: Sequence[Run]) -> list[pd.DataFrame]:
    return [pd.read_csv(run.folder / LOSSES, dtype={"group": str}) for run in runs]


def levels(judge_of: Judge) -> pd.DataFrame:
    """How C5 depends on its level: `convergence` at each of `SHARES`."""
    return pd.concat([judge_of.convergence(share) for share in SHARES], ignore_index=True)
