"""Failure signatures: how well the detectors of `evaluation.failures` find them, and each provoked on purpose.

The thresholds were chosen by `research/detectors.py`, on synthetic histories that are not used here.

* Judging: on other synthetic histories, of the same family and of one that the design never saw; and on runs of small
  networks on phantom tissue, where each seed has its own patients. Such a run has two truths: what was provoked, and
  what the same rule says of its log-loss on test patients, whom no detector saw.
* Show: DenseNet-121 from ImageNet and from scratch on one budget.
"""

from dataclasses import asdict
from itertools import product
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from histotransfer.datasets import phantom
from histotransfer.evaluation import failures as detectors
from histotransfer.experiments.provoked import FULL, MAGNIFICATION, STARTS, Effort, provoked_runs, shown_run
from histotransfer.experiments.synthetic import FAMILIES, SIGNATURES, Case, Family, draw_case
from histotransfer.models.weights import imagenet_trunk
from histotransfer.records import environment, write_record
from histotransfer.transfer.stages import Report

THRESHOLDS = {"overfitting": "rise", "negative transfer": "harm", "slow convergence": "delay"}
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


def run(out: str | Path, weights: str = "", effort: Effort = FULL, report: Report = print) -> Path:
    """Judge the detectors and provoke each failure, and write the record.

    Args:
        out: folder of the record: `record.json`, `counts.csv`, `findings.csv`, `histories.csv` (of the
            runs on phantom tissue) and `provenance.json`.
        weights: as `LadderConfig.weights`.
        effort: how much is computed.
        report: called with one line per step.

    Returns:
        `out`.

    Raises:
        HistotransferError: the ImageNet weights cannot be loaded.
    """
    around, trunk = environment(), imagenet_trunk(weights)
    findings = [synthetic_findings(family, effort.cases) for family in FAMILIES]
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
        "thresholds": {name: getattr(detectors, THRESHOLDS[name].upper()) for name in SIGNATURES},
        "imagenet": {"source": trunk.source, "content_hash": trunk.content_hash},
        "phantom": {"version": phantom.VERSION, "magnification": MAGNIFICATION},
    }
    tables = {
        "counts": counts(whole),
        "findings": whole[~whole["histories"].str.startswith("synthetic")],
        "histories": pd.concat([histories, *shown], ignore_index=True),
    }
    return write_record(Path(out), record, tables, around)


def detect(signature: str, case: Case, **threshold: float) -> detectors.Finding:
    """Apply the detector of a signature to a case."""
    if signature == "overfitting":
        return detectors.overfitting(case.run, **threshold)
    if signature == "negative transfer":
        return detectors.negative_transfer(case.run, case.reference, **threshold)
    return detectors.slow_convergence(case.run, case.reference, detectors.convergence_level(case.others), **threshold)


def synthetic_findings(family: Family, cases: int) -> pd.DataFrame:
    """The detectors' findings on the judging histories of a family: `signature, histories, truth, found`."""
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

    The intervals do not account for runs on phantom tissue that share a seed and so share patients.

    Args:
        findings: `signature, histories, truth, found`, one row per history.

    Returns:
        One row per signature, set of histories and truth: `n`, `found`, `rate`, `low`, `high`.
    """
    rows = []
    for key, cases in findings.groupby(["signature", "histories", "truth"], sort=False):
        positive, n = int(cases["found"].sum()), len(cases)
        interval = binomtest(positive, n).proportion_ci(method="wilson")
        rows.append([*key, n, positive, positive / n, interval.low, interval.high])
    return pd.DataFrame(rows, columns=["signature", "histories", "truth", "n", "found", "rate", "low", "high"])


def provoked_findings(histories: pd.DataFrame) -> pd.DataFrame:
    """The detectors' findings on the runs of `provoked_runs`, once for each of the two truths.

    Returns:
        Columns `signature, histories, truth, found, amount, epoch, arm, seed`.
    """
    runs = dict(list(histories.groupby(["arm", "seed"])))
    rows = []
    for (signature, arm, reference, provoked), seed in product(COMPARED, sorted(set(histories["seed"]))):
        names = (arm, reference, "many images, again")  # the last sets the level of convergence
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
    """The history with the log-loss on test patients in place of that on validation patients."""
    return history.assign(validation_log_loss=history["test_log_loss"])
