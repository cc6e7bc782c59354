"""The verdict on each claim, by the rule that was fixed beforehand in `study/claims.toml`, from the study's records.

This module lists the arms that a claim compares; `evaluation` computes their differences and applies the rule. A claim
whose experiment is not finished has the verdict `NOT_RUN`.
"""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from histotransfer.evaluation.comparisons import holm, permutation_test, resampled_interval, verdict
from histotransfer.evaluation.failures import convergence, convergence_level, curve
from histotransfer.evaluation.intervals import (
    Pairs,
    all_metrics,
    differences,
    intervals,
    mean_gaps,
    smallest_distance,
)
from histotransfer.evaluation.metrics import MEAN, MEAN_OVER
from histotransfer.records import Run
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import gap_within_folds, patients_of, with_intervals
from histotransfer.study.plan import read_plan

NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Comparison:
    """The arms that a claim of a difference compares.

    Attributes:
        claim: its id.
        experiment: the plan with the arms.
        metric: what is compared.
        pairs: an arm and the arm that is subtracted; the difference is averaged over several pairs.
        magnifications: of the test images; the metric is averaged over them, unweighted.
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
# C6: the treatment, the arm with it, the arm without. Colour normalisation first, then augmentation.
OVERFITTING = (
    ("Macenko", "macenko", "none"),
    ("Reinhard", "reinhard", "none"),
    ("Vahadane", "vahadane", "none"),
    ("flips and half turns", "macenko", "upright"),
    ("stain jitter", "stain-jitter", "none"),
    ("Macenko, then stain jitter", "macenko-jitter", "macenko"),
)
FROM_SCRATCH, TRANSFERS = "scratch", ("imagenet", "lung-only", "whole")  # C5
PROPOSED = "se-lung"  # the paper's model: SE, and LC25000 between ImageNet and BreakHis


def compared_pairs(study: Study, comparison: Comparison, seeds: Collection[int] = ()) -> Pairs:
    """The predictions that a comparison compares; of all seeds, or only of those given."""
    tables = {}
    for arm in {arm for pair in comparison.pairs for arm in pair}:
        table = study.predictions(comparison.experiment, arm, seeds=seeds)
        tables[arm] = table[table["magnification"].isin(comparison.magnifications)].reset_index(drop=True)
    return [(tables[one], tables[other]) for one, other in comparison.pairs]


def judge_differences(study: Study, comparisons: Sequence[Comparison], *, correct: bool = False) -> pd.DataFrame:
    """One row per comparison: `value, low, high, smallest, images, patients, verdict`.

    With `correct` also `p` and `p_holm`; comparisons that are not run yet count in Holm's family too.
    """
    rows: dict[str, dict[str, Any]] = {}
    tests: dict[str, float] = {}
    for comparison in comparisons:
        claim = study.claims[comparison.claim]
        over = MEAN if len(comparison.magnifications) > 1 else str(comparison.magnifications[0])
        row = {
            "claim": claim["claim"],
            "compared": "; ".join(f"{one} minus {other}" for one, other in comparison.pairs),
            "metric": comparison.metric,
            "magnification": over,
            "experiment": comparison.experiment,
        }
        try:
            pairs = compared_pairs(study, comparison)
        except NotRunYet:
            rows[comparison.claim] = row | {"verdict": NOT_RUN}
            continue
        by = "magnification" if over == MEAN else None
        difference = differences(pairs, by, metrics=[comparison.metric]).loc[comparison.metric]
        rows[comparison.claim] = {
            **row,
            **difference,
            "images": len(pairs[0][0]),
            "patients": patients_of(pairs[0][0]),
            "verdict": verdict(difference["low"], difference["high"], claim["threshold"]),
        }
        if correct:
            tests[comparison.claim] = permutation_test(pairs, comparison.metric, by).p
    if correct:
        family = holm({comparison.claim: tests.get(comparison.claim, 1.0) for comparison in comparisons})
        for name, p in tests.items():
            rows[name] |= {"p": p, "p_holm": family[name]}
    return pd.DataFrame.from_dict(rows, orient="index")


def differences_within_folds(study: Study, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """`tables.gap_within_folds` of each comparison, under its claim's id; those not run yet are left out.

    Raises:
        NotRunYet: none of them is run yet.
    """
    finished = []
    for comparison in comparisons:
        with contextlib.suppress(NotRunYet):
            runs = partial(study.runs, comparison.experiment)
            pairs = [(runs(one), runs(other)) for one, other in comparison.pairs]
            finished.append(gap_within_folds(pairs, comparison.claim))
    if not finished:
        raise NotRunYet(f"none of {', '.join(comparison.claim for comparison in comparisons)} is run yet")
    return pd.concat(finished, ignore_index=True)


def judge_accuracy(study: Study) -> pd.DataFrame:
    """C1: accuracy of the proposed model, split by patient, one row per magnification with its verdict."""
    threshold = study.claims["C1"]["threshold"]
    try:
        table = study.predictions("primary", PROPOSED)
    except NotRunYet:
        return pd.DataFrame([{"verdict": NOT_RUN}])
    rows = {}
    for magnification, images in table.groupby("magnification"):
        metrics = intervals(images)
        value, low, high = metrics.loc["accuracy"]
        rows[str(magnification)] = {
            "value": value,
            "low": low,
            "high": high,
            "smallest": smallest_distance(images, "accuracy"),
            "larger_class": max(np.mean(images["truth"] == name) for name in images["truth"].unique()),
            "balanced_accuracy": metrics.loc["balanced_accuracy", "value"],
            "images": len(images),
            "patients": patients_of(images),
            "verdict": verdict(low, high, threshold),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def by_seed(study: Study, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The result of each seed alone: one row per magnification of C1 and per comparison, one column per seed.

    What is not run yet is left out.
    """
    rows: dict[str, dict[str, float | None]] = {}
    for seed in read_plan(study.study / "primary.toml").seeds:
        with contextlib.suppress(NotRunYet):
            table = study.predictions("primary", PROPOSED, seeds=(seed,))
            for magnification, images in table.groupby("magnification"):
                row = rows.setdefault(f"C1 at {magnification}x", {})
                row[f"seed {seed}"] = all_metrics(images, wanted=["accuracy"])["accuracy"]
    for comparison in comparisons:
        by = "magnification" if len(comparison.magnifications) > 1 else None
        for seed in read_plan(study.study / f"{comparison.experiment}.toml").seeds:
            with contextlib.suppress(NotRunYet):
                pairs, metric = compared_pairs(study, comparison, (seed,)), comparison.metric
                values = [(all_metrics(one, by, [metric]), all_metrics(other, by, [metric])) for one, other in pairs]
                rows.setdefault(comparison.claim, {})[f"seed {seed}"] = mean_gaps(values)[metric]
    return pd.DataFrame.from_dict(rows, orient="index")


def judge_overfitting(study: Study) -> pd.DataFrame:
    """C6: how much less an arm overfits with a treatment than without; one row per treatment of `OVERFITTING`.

    Overfitting is the log-loss (nats) of images as a network tested them, minus that of the same images as networks
    were trained on them, mean over `MEAN_OVER`. An image counts once for each network that was trained on it.

    Returns:
        `arms`; `value, low, high`: overfitting without the treatment minus overfitting with it, paired by patient. This
        is the sum of `test_drop` (how much the treatment lowers the log-loss of tested images) and `train_rise` (how
        much it raises that of trained images), each with `_low` and `_high`. `images` and `patients`: those that some
        network was trained on; patients who only ever validate are left out. `auroc_gain` (with `_low`, `_high`): the
        test AUROC with the treatment minus that without, on `gain_images` of `gain_patients`: all that are tested.
        `verdict`: on the log-loss.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, treated, untreated in OVERFITTING:
        try:
            rows[name] = _effect_on_overfitting(study, treated, untreated)
        except NotRunYet:
            rows[name] = {"verdict": NOT_RUN}
    return pd.DataFrame.from_dict(rows, orient="index")


def _effect_on_overfitting(study: Study, treated: str, untreated: str) -> dict[str, Any]:
    """A row of `judge_overfitting`."""
    treated_test, treated_train = _tested_and_trained(study, treated)
    test, train = _tested_and_trained(study, untreated)
    halves = {"test_drop": (test, treated_test), "train_rise": (treated_train, train)}
    # The mean of two paired differences is half of the difference of differences.
    loss = 2 * mean_difference(list(halves.values()), "log_loss")
    parts = {name: mean_difference([half], "log_loss") for name, half in halves.items()}
    with_it, without_it = (study.predictions("colour", arm) for arm in (treated, untreated))
    trained_on = with_it[with_it["image"].isin(train["of"])]
    with_it, without_it = (table[table["magnification"].isin(MEAN_OVER)] for table in (with_it, without_it))
    parts["auroc_gain"] = mean_difference([(with_it, without_it)], "auroc")
    return {
        "arms": f"{treated} against {untreated}",
        **loss,
        **{name: part["value"] for name, part in parts.items()},
        **{f"{name}_{end}": part[end] for name, part in parts.items() for end in ("low", "high")},
        "images": len(trained_on),
        "patients": patients_of(trained_on),
        "gain_images": len(with_it),
        "gain_patients": patients_of(with_it),
        "verdict": verdict(loss["low"], loss["high"], study.claims["C6"]["threshold"]),
    }


def _tested_and_trained(study: Study, arm: str) -> list[pd.DataFrame]:
    """Two tables with one row per image and network trained on it: as tested with the same seed, and as trained on.

    No logits are averaged, so the losses in both tables are those of single networks. `of` is the image's name.
    """
    whole = pd.concat(run.predictions for run in study.runs("colour", arm))
    whole = whole[whole["magnification"].isin(MEAN_OVER)]
    seen = whole[whole["part"] == "train"].reset_index(drop=True)
    key = ["seed", "image"]
    tested = whole[whole["part"] == "test"].set_index(key)
    tested = tested.loc[pd.MultiIndex.from_frame(seen[key])].reset_index()
    name = seen["image"] + ", seed " + seen["seed"].astype(str) + ", fold " + seen["fold"].astype(str)
    return [table.assign(of=seen["image"], image=name) for table in (tested, seen)]


def judge_convergence(study: Study) -> pd.DataFrame:
    """C5: restricted mean number of epochs to a level of validation log-loss, and how many of them transfer saves.

    The runs from scratch set the level.

    Returns:
        One row per arm: `epochs`; the number of `runs` and of those that `passed` the level; `one_class`, the number of
        runs whose validation images are of one class only, so that their log-loss rewards a network that always gives
        that class; `level` (nats). For arms with transfer also `value, low, high`: the epochs from scratch minus those
        of the arm, paired by fold and seed (`comparisons.resampled_interval`), where a run that never passes counts
        with all its epochs; and the `verdict`.
    """
    try:
        runs = {arm: study.runs("scratch", arm) for arm in (FROM_SCRATCH, *TRANSFERS)}
    except NotRunYet:
        return pd.DataFrame([{"verdict": NOT_RUN}])
    level = convergence_level(run.history for run in runs[FROM_SCRATCH])
    parts = [run.record["split"]["parts"] for run in runs[FROM_SCRATCH]]
    ratio = float(np.mean([part["validation"] / part["train"] for part in parts]))
    horizon = int(min(curve(run.history).index[-1] for arm in runs.values() for run in arm))
    passing = {arm: convergence([run.history for run in of_arm], level, horizon) for arm, of_arm in runs.items()}
    rows: dict[str, dict[str, Any]] = {
        arm: {
            "epochs": table["epochs"].mean(),
            "passed": int(table["passed"].sum()),
            "runs": len(table),
            "one_class": sum(_classes_validated(run) == 1 for run in runs[arm]),
            "level": level,
        }
        for arm, table in passing.items()
    }
    for arm in TRANSFERS:
        saved = (passing[FROM_SCRATCH]["epochs"] - passing[arm]["epochs"]).to_numpy()
        value, low, high = resampled_interval(saved, ratio)
        of_rule = verdict(low, high, study.claims["C5"]["threshold"])
        rows[arm] |= {"value": value, "low": low, "high": high, "verdict": of_rule}
    return pd.DataFrame.from_dict(rows, orient="index")


def external(study: Study, arms: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """N3: UCSB as predicted by all networks of an arm together (mean logits); nothing was tuned on it.

    Args:
        study: the plans and their records.
        arms: experiment and arm; those that are not run yet are left out.

    Returns:
        As `tables.with_intervals`. Its patients are the five slides, some of which hold both classes.
    """
    pooled = {}
    for experiment, arm in arms:
        with contextlib.suppress(NotRunYet):
            pooled[f"{experiment}: {arm}"] = study.pooled(experiment, arm, part="ucsb")
    return with_intervals(pooled, "ucsb")


def mean_difference(pairs: Pairs, metric: str) -> pd.Series:
    """A metric's row of `differences`, averaged over magnifications."""
    return differences(pairs, "magnification", metrics=[metric]).loc[metric]


def _classes_validated(run: Run) -> int:
    return run.predictions.query("part == 'validation'")["truth"].nunique()
