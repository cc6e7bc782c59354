"""What the study's records say of each claim, by the rule that was fixed beforehand in `study/claims.toml`.

Nothing is decided here: the arms that a claim compares are listed, `evaluation` computes, and the rule speaks. A claim
whose experiment is not finished has no verdict yet, and the row says so.
"""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

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
# C6: what is added, the arm with it, the arm without. Colour normalisation first, then augmentation.
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
    """The predictions that a comparison is about; of some seeds only, if these are given."""
    tables = {}
    for arm in {arm for pair in comparison.pairs for arm in pair}:
        table = study.predictions(comparison.experiment, arm, seeds=seeds)
        tables[arm] = table[table["magnification"].isin(comparison.magnifications)].reset_index(drop=True)
    return [(tables[one], tables[other]) for one, other in comparison.pairs]


def judge_differences(study: Study, comparisons: Sequence[Comparison], *, correct: bool = False) -> pd.DataFrame:
    """One row a comparison: `value, low, high, smallest, images, patients, verdict`.

    With `correct` also `p` and `p_holm`, of a family that keeps its size while some of it is not run yet.
    """
    rows, tests = {}, {}
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
        found = differences(pairs, by, metrics=[comparison.metric]).loc[comparison.metric]
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


def differences_within_folds(study: Study, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """What `tables.gap_within_folds` says of each comparison, under its claim's id; those not run are left out.

    Raises:
        NotRunYet: none of them is run.
    """
    found = []
    for comparison in comparisons:
        with contextlib.suppress(NotRunYet):
            pairs = [tuple(study.runs(comparison.experiment, arm) for arm in pair) for pair in comparison.pairs]
            found.append(gap_within_folds(pairs, comparison.claim))
    if not found:
        raise NotRunYet(f"none of {', '.join(comparison.claim for comparison in comparisons)} is run yet")
    return pd.concat(found, ignore_index=True)


def judge_accuracy(study: Study) -> pd.DataFrame:
    """C1: accuracy of the proposed model, split by patient, one row a magnification with its verdict."""
    threshold = study.claims["C1"]["threshold"]
    try:
        table = study.predictions("primary", PROPOSED)
    except NotRunYet:
        return pd.DataFrame([{"verdict": NOT_RUN}])
    rows = {}
    for magnification, own in table.groupby("magnification"):
        found = intervals(own)
        value, low, high = found.loc["accuracy"]
        rows[str(magnification)] = {
            "value": value,
            "low": low,
            "high": high,
            "smallest": smallest_distance(own, "accuracy"),
            "larger_class": max(np.mean(own["truth"] == name) for name in own["truth"].unique()),
            "balanced_accuracy": found.loc["balanced_accuracy", "value"],
            "images": len(own),
            "patients": patients_of(own),
            "verdict": verdict(low, high, threshold),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def by_seed(study: Study, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """What each seed alone would have given: one row a magnification of C1 and a comparison, one column a seed.

    What is not run yet is left out.
    """
    rows: dict[str, dict[str, float]] = {}
    for seed in read_plan(study.study / "primary.toml").seeds:
        with contextlib.suppress(NotRunYet):
            table = study.predictions("primary", PROPOSED, seeds=(seed,))
            for magnification, own in table.groupby("magnification"):
                row = rows.setdefault(f"C1 at {magnification}x", {})
                row[f"seed {seed}"] = all_metrics(own, wanted=["accuracy"])["accuracy"]
    for comparison in comparisons:
        by = "magnification" if len(comparison.magnifications) > 1 else None
        for seed in read_plan(study.study / f"{comparison.experiment}.toml").seeds:
            with contextlib.suppress(NotRunYet):
                pairs, metric = compared_pairs(study, comparison, (seed,)), comparison.metric
                values = [tuple(all_metrics(table, by, [metric]) for table in pair) for pair in pairs]
                rows.setdefault(comparison.claim, {})[f"seed {seed}"] = mean_gaps(values)[metric]
    return pd.DataFrame.from_dict(rows, orient="index")


def judge_overfitting(study: Study) -> pd.DataFrame:
    """C6: how much less an arm overfits with a treatment than without: one row a treatment of `OVERFITTING`.

    Overfitting is the log-loss (nats) of images that a network tested minus that of the same images by the networks
    that trained on them, mean over `MEAN_OVER`; `value, low, high` is that without the treatment minus that with
    it, paired by patient: the sum of `test_drop` (how much lower the treatment makes the tested log-loss) and
    `train_rise` (how much higher the trained one), each with `_low` and `_high`. An image counts once for each
    network that trained on it; `images` and `patients` count those: who is never in a training part, but always
    validates, is left out. `auroc_gain` (with `_low`, `_high`) is the test AUROC with the treatment minus without,
    of `gain_images` and `gain_patients`, all that are tested. The verdict is on the log-loss.
    """
    rows = {}
    for name, treated, untreated in OVERFITTING:
        try:
            # The mean of two paired differences is half of the difference of differences.
            (treated_test, treated_train), (test, train) = (
                _tested_and_trained(study, arm) for arm in (treated, untreated)
            )
            halves = {"test_drop": (test, treated_test), "train_rise": (treated_train, train)}
            loss = 2 * mean_difference(list(halves.values()), "log_loss")
            parts = {name: mean_difference([half], "log_loss") for name, half in halves.items()}
            whole = [study.predictions("colour", arm) for arm in (treated, untreated)]
        except NotRunYet:
            rows[name] = {"verdict": NOT_RUN}
            continue
        pair = tuple(table[table["magnification"].isin(MEAN_OVER)] for table in whole)
        parts["auroc_gain"] = mean_difference([pair], "auroc")
        known = whole[0][whole[0]["image"].isin(train["of"])]
        rows[name] = {
            "arms": f"{treated} against {untreated}",
            **loss,
            **{name: own["value"] for name, own in parts.items()},
            **{f"{name}_{end}": own[end] for name, own in parts.items() for end in ("low", "high")},
            "images": len(known),
            "patients": patients_of(known),
            "gain_images": len(pair[0]),
            "gain_patients": patients_of(pair[0]),
            "verdict": verdict(loss["low"], loss["high"], study.claims["C6"]["threshold"]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _tested_and_trained(study: Study, arm: str) -> list[pd.DataFrame]:
    """An arm's images once for each network that trained on them: as tested with the same seed, and as trained on.

    No logits are averaged, so that the losses of both tables are those of single networks. `of` is the image.
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
    """C5: restricted mean number of epochs to a validation log-loss, one row an arm, and what transfer saves.

    The level is set from the runs from scratch. `value, low, high` is their epochs minus those of the arm, paired
    by fold and seed (`comparisons.resampled_interval`); a run that never passes counts with all its epochs.
    `one_class` counts the runs whose validation images are all of one class: their log-loss rewards a network
    that answers with that class always.
    """
    try:
        runs = {arm: study.runs("scratch", arm) for arm in (FROM_SCRATCH, *TRANSFERS)}
    except NotRunYet:
        return pd.DataFrame([{"verdict": NOT_RUN}])
    level = convergence_level(run.history for run in runs[FROM_SCRATCH])
    parts = [run.record["split"]["parts"] for run in runs[FROM_SCRATCH]]
    ratio = float(np.mean([part["validation"] / part["train"] for part in parts]))
    horizon = int(min(curve(run.history).index[-1] for own in runs.values() for run in own))
    found = {arm: convergence([run.history for run in own], level, horizon) for arm, own in runs.items()}
    rows = {}
    for arm, own in found.items():
        rows[arm] = {
            "epochs": own["epochs"].mean(),
            "passed": int(own["passed"].sum()),
            "runs": len(own),
            "one_class": sum(_classes_validated(run) == 1 for run in runs[arm]),
            "level": level,
        }
        if arm != FROM_SCRATCH:
            saved = (found[FROM_SCRATCH]["epochs"] - own["epochs"]).to_numpy()
            value, low, high = resampled_interval(saved, ratio)
            said = verdict(low, high, study.claims["C5"]["threshold"])
            rows[arm] |= {"value": value, "low": low, "high": high, "verdict": said}
    return pd.DataFrame.from_dict(rows, orient="index")


def external(study: Study, arms: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """N3: UCSB as all networks of an arm see it together (mean logits), nothing tuned on it.

    Args:
        arms: experiment and arm; those that are not run yet are left out.

    Returns:
        As `tables.with_intervals`; its patients are the five slides, of which some hold both classes.
    """
    found = {}
    for experiment, arm in arms:
        with contextlib.suppress(NotRunYet):
            found[f"{experiment}: {arm}"] = study.pooled(experiment, arm, part="ucsb")
    return with_intervals(found, "ucsb")


def mean_difference(pairs: Pairs, metric: str) -> pd.Series:
    """A metric's row of `differences`, mean over magnifications."""
    return differences(pairs, "magnification", metrics=[metric]).loc[metric]


def _classes_validated(run: Run) -> int:
    return run.predictions.query("part == 'validation'")["truth"].nunique()
