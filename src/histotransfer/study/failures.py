"""Failure signatures: how well the detectors of `evaluation.failures` find them, and each provoked on purpose.

* Design: each threshold is the smallest of its grid with at most `DESIGN_ALARMS` false alarms on synthetic histories.
* Judging: other synthetic histories of the same family and of one that the design never saw; and runs of small networks
  on phantom tissue, each on patients of its own. What is true of a run is said twice: by what was provoked, and by the
  same rule applied to its log-loss on test patients, whom no detector saw.
* Show: DenseNet-121 from ImageNet and from scratch on one budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from histotransfer.datasets import phantom
from histotransfer.evaluation import failures as detectors
from histotransfer.models.weights import imagenet_trunk
from histotransfer.study.provoked import FULL, MAGNIFICATION, STARTS, Effort, provoked_runs, shown_run
from histotransfer.study.records import FLOATS, environment, run_folder, write_json
from histotransfer.study.synthetic import SIGNATURES, Case, draw_case
from histotransfer.study.tables import number
from histotransfer.transfer.ladder import Report

DESIGN_ALARMS = 0.05
THRESHOLDS = {"overfitting": "rise", "negative transfer": "harm", "slow convergence": "delay"}
GRIDS = {
    "overfitting": (0.05, 0.075, 0.1, 0.125, 0.15, 0.2),
    "negative transfer": (0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    "slow convergence": (1.25, 1.5, 1.75, 2.0, 2.5, 3.0),
}
JUDGING = 1_000_000  # first seed of the judging histories; the design's begin at 0
# Signature, arm, the arm it is compared with (itself where the detector looks at one run), and whether it was provoked.
COMPARED = (
    ("overfitting", "few images", "few images", True),
    ("overfitting", "some images", "some images", None),
    ("overfitting", "many images", "many images", False),
    ("negative transfer", "shuffled labels", "many images", True),
    ("negative transfer", "right labels", "many images", False),
    ("negative transfer", "many images, again", "many images", False),
    ("slow convergence", "many images", "right labels", True),
    ("slow convergence", "right labels, again", "right labels", False),
)


def run_failures(out: str | Path, weights: str = "", effort: Effort = FULL, report: Report = print) -> Path:
    """Design, judge and provoke, and write the record.

    Args:
        out: folder of the record: `record.json`, `design.csv`, `counts.csv`, `findings.csv`, `histories.csv` (of the
            runs on phantom tissue) and `provenance.json`.
        weights: as `LadderConfig.weights`.
        effort: how much is computed.
        report: called with one line a step.

    Returns:
        `out`.

    Raises:
        HistotransferError: ImageNet weights that cannot be had.
    """
    around, trunk = environment(), imagenet_trunk(weights)
    sweep = design(effort.cases)
    report(f"design: {len(sweep)} thresholds tried")
    findings = [synthetic_findings(family, effort.cases) for family in ("exponential", "power")]
    report("judged on synthetic histories")
    runs = []
    for seed in range(effort.seeds):
        runs.append(provoked_runs(seed, effort))
        report(f"provoked: seed {seed}")
    histories = pd.concat(runs, ignore_index=True)
    findings.append(provoked_findings(histories))
    shown = [shown_run(start, seed, trunk, effort) for seed in range(effort.show_seeds) for start in STARTS]
    report("DenseNet-121 from scratch and from ImageNet")
    whole = pd.concat(findings, ignore_index=True)
    record = {
        "effort": asdict(effort),
        "design_alarms": DESIGN_ALARMS,
        "thresholds": {name: getattr(detectors, THRESHOLDS[name].upper()) for name in SIGNATURES},
        "imagenet": {"source": trunk.source, "content_hash": trunk.content_hash},
        "phantom": {"version": phantom.VERSION, "magnification": MAGNIFICATION},
    }
    tables = {
        "design": sweep,
        "counts": counts(whole),
        "findings": whole[~whole["histories"].str.startswith("synthetic")],
        "histories": pd.concat([histories, *shown], ignore_index=True),
    }
    with run_folder(Path(out)) as temporary:
        for name, table in tables.items():
            table.to_csv(temporary / f"{name}.csv", index=False, float_format=FLOATS, lineterminator="\n")
        write_json(temporary / "record.json", record)
        write_json(temporary / "provenance.json", around)
    return Path(out)


def detect(signature: str, case: Case, **threshold: float) -> detectors.Finding:
    """What the detector of a signature says of a case."""
    if signature == "overfitting":
        return detectors.overfitting(case.run, **threshold)
    if signature == "negative transfer":
        return detectors.negative_transfer(case.run, case.reference, **threshold)
    return detectors.slow_convergence(case.run, case.reference, detectors.convergence_level(case.others), **threshold)


def design(cases: int) -> pd.DataFrame:
    """Hits and false alarms of every threshold of the grids on the design histories, and which one is chosen."""
    rows = []
    for signature, grid in GRIDS.items():
        drawn = [[draw_case(signature, truth, "exponential", i) for i in range(cases)] for truth in (True, False)]
        for threshold in grid:
            name = {THRESHOLDS[signature]: threshold}
            hits, alarms = (np.mean([detect(signature, case, **name).found for case in own]) for own in drawn)
            about = {"signature": signature, "threshold": threshold, "cases": cases}
            rows.append({**about, "hits": hits, "false alarms": alarms})
    sweep = pd.DataFrame(rows)
    allowed = sweep[sweep["false alarms"] <= DESIGN_ALARMS]
    return sweep.assign(chosen=sweep.index.isin(allowed.groupby("signature")["threshold"].idxmin()))


def synthetic_findings(family: str, cases: int) -> pd.DataFrame:
    """What the detectors say of the judging histories of a family: `signature, histories, truth, found`."""
    rows = [
        {
            "signature": signature,
            "histories": f"synthetic, {family}",
            "truth": truth,
            "found": detect(signature, draw_case(signature, truth, family, JUDGING + i)).found,
        }
        for signature in SIGNATURES
        for truth in (True, False)
        for i in range(cases)
    ]
    return pd.DataFrame(rows)


def counts(findings: pd.DataFrame) -> pd.DataFrame:
    """Hits among histories with a signature and false alarms among those without, with Wilson's 95 % intervals.

    Runs on phantom tissue that share a seed share patients, which the intervals do not know.

    Args:
        findings: `signature, histories, truth, found`, one row a history.

    Returns:
        One row a signature, set of histories and truth: `n`, `found`, `rate`, `low`, `high`.
    """
    rows = []
    for key, own in findings.groupby(["signature", "histories", "truth"], sort=False):
        found = int(own["found"].sum())
        interval = binomtest(found, len(own)).proportion_ci(method="wilson")
        rows.append([*key, len(own), found, found / len(own), interval.low, interval.high])
    return pd.DataFrame(rows, columns=["signature", "histories", "truth", "n", "found", "rate", "low", "high"])


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Counts as people read them: `9 of 10: 0.90 [0.60, 0.98]`, hits and false alarms side by side."""
    text = [f"{row.found} of {row.n}: {number(row.rate, row.low, row.high)}" for row in table.itertuples()]
    columns = table["truth"].map({True: "hits", False: "false alarms"})
    wide = table.assign(text=text, column=columns).pivot(
        index=["signature", "histories"], columns="column", values="text"
    )
    order = product(SIGNATURES, dict.fromkeys(table["histories"]))
    return wide.reindex(order)[["hits", "false alarms"]].dropna(how="all").fillna("–").rename_axis(columns=None)


def overfitting_by_rung(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What the detector of overfitting says of each rung of some runs: `found`, `nats` of rise, `epoch` to stop at."""
    rows = {}
    for name, history in histories.items():
        for rung, own in history.groupby("rung", sort=False):
            finding = detectors.overfitting(own)
            rows[name, rung] = {"found": finding.found, "nats": round(finding.amount, 3), "epoch": finding.epoch}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["run", "rung"])
    return table.astype({"epoch": "Int64"})


def signatures_by_arm(arms: Mapping[str, Sequence[pd.DataFrame]], control: str) -> pd.DataFrame:
    """In how many runs of each arm a signature is found, beside the arm without transfer.

    Args:
        arms: histories by arm, every arm on the same folds and seeds, in one order.
        control: the arm without transfer. Slow convergence is asked of its runs, each against the arm's; the level is
            set from them, too, so that it is the one of claim C5.

    Returns:
        One row an arm: `runs` and how many of them show `overfitting` and `negative transfer`, and beside how many
        the control shows `slow convergence`.

    Raises:
        ValueError: an arm with more or fewer runs than the control.
    """
    level = detectors.convergence_level(arms[control])
    rows = {}
    for arm, runs in arms.items():
        pairs = list(zip(runs, arms[control], strict=True))
        found = {
            "overfitting": [detectors.overfitting(run) for run in runs],
            "negative transfer": [detectors.negative_transfer(run, other) for run, other in pairs],
            "slow convergence": [detectors.slow_convergence(other, run, level) for run, other in pairs],
        }
        rows[arm] = {"runs": len(runs)} | {name: sum(one.found for one in own) for name, own in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def provoked_findings(histories: pd.DataFrame) -> pd.DataFrame:
    """What the detectors say of the runs of `provoked_runs`, once for each reading of the truth.

    Returns:
        Columns `signature, histories, truth, found, amount, epoch, arm, seed`.
    """
    runs = dict(list(histories.groupby(["arm", "seed"])))
    rows = []
    for (signature, arm, reference, provoked), seed in product(COMPARED, sorted(set(histories["seed"]))):
        names = (arm, reference, "many images, again")  # from the last the level of convergence is set
        case, tested = (
            Case(run, other, [level])
            for run, other, level in (
                [column(runs[name, seed]) for name in names] for column in (lambda run: run, as_tested)
            )
        )
        finding = detect(signature, case)
        about = {"found": finding.found, "amount": finding.amount, "epoch": finding.epoch, "arm": arm, "seed": seed}
        truths = {"as provoked": provoked, "as test patients show": detect(signature, tested).found}
        rows += [
            {"signature": signature, "histories": f"phantom, {reading}", "truth": truth, **about}
            for reading, truth in truths.items()
            if truth is not None
        ]
    return pd.DataFrame(rows).astype({"epoch": "Int64"})


def as_tested(history: pd.DataFrame) -> pd.DataFrame:
    """The history with the log-loss on test patients in the place of that on validation patients."""
    return history.assign(validation_log_loss=history["test_log_loss"])


def convergence_of_starts(histories: pd.DataFrame) -> pd.DataFrame:
    """Epochs until DenseNet-121 passes a level of validation log-loss that is set from its runs from scratch.

    Args:
        histories: of the record.

    Returns:
        One row a start: the restricted `mean` of the epochs, the `epochs` of each seed (`10+`: not within the budget),
        the `level` (nats) and the `horizon`.
    """
    runs = {start: [own for _, own in histories[histories["arm"] == start].groupby("seed")] for start in STARTS}
    level = detectors.convergence_level(runs["DenseNet-121, scratch"])
    horizon = min(len(own) for arm in runs.values() for own in arm)
    rows = {}
    for start, arm in runs.items():
        table = detectors.convergence(arm, level, horizon)
        epochs = [f"{row.epochs}{'' if row.passed else '+'}" for row in table.itertuples()]
        rows[start] = {"mean": table["epochs"].mean().round(1), "epochs": ", ".join(epochs)}
    return pd.DataFrame.from_dict(rows, orient="index").assign(level=round(level, 3), horizon=horizon)
