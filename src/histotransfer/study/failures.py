"""Failure signatures: how well the detectors of `evaluation.failures` find them, and each provoked on purpose.

* Design: each threshold is the smallest of its grid with at most `DESIGN_ALARMS` false alarms on synthetic histories.
* Judging: other synthetic histories of the same family and of one that the design never saw; and runs of small networks
  on phantom tissue, each on patients of its own. What is true of a run is said twice: by what was provoked, and by the
  same rule applied to its log-loss on test patients, whom no detector saw.
* Show: DenseNet-121 from ImageNet and from scratch on one budget.

The runs on phantom tissue::

    few images        overfitting: a high rate and many epochs on a few fields
    some images       neither few nor many: no truth but what test patients show
    many images       the same network on many fields; the arm without transfer
    right labels      transfer: trunk from a source task, frozen, under a new head
    shuffled labels   negative transfer: the same, with the labels of the source shuffled
    ..., again        the same patients, another initialisation and order: no difference but chance
"""

from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch.nn import functional as F

from histotransfer.config import Stage, ladder_config
from histotransfer.datasets import breakhis, phantom
from histotransfer.evaluation import failures as detectors
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, imagenet_trunk, load_trunk
from histotransfer.study.records import FLOATS, environment, run_folder, write_json
from histotransfer.study.synthetic import SIGNATURES, Case, draw_case
from histotransfer.tiles import TileSource
from histotransfer.transfer.ladder import Report
from histotransfer.transfer.training import Batches, predict_logits, train_stage

DESIGN_ALARMS = 0.05
GRIDS = {
    "overfitting": (0.05, 0.075, 0.1, 0.125, 0.15, 0.2),
    "negative transfer": (0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    "slow convergence": (1.25, 1.5, 1.75, 2.0, 2.5, 3.0),
}
JUDGING = 1_000_000  # first seed of the judging histories; the design's begin at 0
SMALL = {"block_config": (2, 2, 2, 2), "growth_rate": 8, "stem_features": 16, "reduction": 4}
MAGNIFICATION = 100
RATE, HIGH_RATE, SHOW_RATE = 3e-3, 1e-2, 3e-4
AGAIN = 1000  # added to a seed
Fields = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Effort:
    """How much is computed.

    Attributes:
        cases: synthetic cases with and as many without each signature: for the design, and for each family of judging.
        seeds: runs of each arm on phantom tissue.
        show_seeds: runs of DenseNet-121 from each start.
        many: training fields, and fields of the source task; each field is of another patient.
        some, few: training fields of the runs on less.
        held_out: validation fields, and as many test fields.
        epochs: of a run; twice as many on few images.
        show_epochs: of a run of DenseNet-121.
        size: pixels a side.
    """

    cases: int = 500
    seeds: int = 10
    show_seeds: int = 3
    many: int = 240
    some: int = 64
    few: int = 16
    held_out: int = 96
    epochs: int = 20
    show_epochs: int = 10
    size: int = 48


def run_failures(out: str | Path, weights: str = "", effort: Effort = Effort(), report: Report = print) -> Path:
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


# ----------------------------------------------------------------------------------------------------
# Synthetic histories

THRESHOLDS = {"overfitting": "rise", "negative transfer": "harm", "slow convergence": "delay"}


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
        drawn = {with_it: [draw_case(signature, with_it, "exponential", i) for i in range(cases)] for with_it in (1, 0)}
        for threshold in grid:
            name = {THRESHOLDS[signature]: threshold}
            share = {
                with_it: np.mean([detect(signature, case, **name).found for case in own])
                for with_it, own in drawn.items()
            }
            rows.append(
                {
                    "signature": signature,
                    "threshold": threshold,
                    "cases": cases,
                    "hits": share[1],
                    "false alarms": share[0],
                }
            )
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


# ----------------------------------------------------------------------------------------------------
# Runs on phantom tissue


def fields(count: int, size: int, seed: int) -> Fields:
    """One field of each of `count` patients, benign and malignant in turn: ``(N, S, S, 3)`` uint8, ``(N,)`` classes."""
    each, tiles = len(phantom.BENIGN_PATIENTS), []
    for number in range(count // 2):
        several, patient = divmod(number, each)
        for own in (patient, patient + each):
            tiles.append(phantom.breast_image(own, MAGNIFICATION, 0, size=size, seed=1000 * seed + several).image)
    return np.stack(tiles), np.arange(len(tiles)) % 2


def train(
    model: SEDenseNet, data: dict[str, Fields], epochs: int, rate: float, seed: int, stage: Stage = "all"
) -> pd.DataFrame:
    """Train on ``data["train"]``: the history, with `test_log_loss` beside the usual columns."""
    config = ladder_config("phantom", {"learning_rate": rate, "rate_decay": 1.0})
    tested: list[float] = []

    def test(state: object) -> None:
        tiles, targets = data["test"]
        logits = predict_logits(model, TileSource(tiles), config.batch_size)
        tested.append(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets)).item())

    def batches(part: str, entropy: tuple[int, ...] | None) -> Batches:
        tiles, targets = data[part]
        return Batches(TileSource(tiles, breakhis.VIEWS), targets, config.batch_size, entropy, "cpu")

    rows = train_stage(model, batches("train", (seed,)), batches("validation", None), stage, epochs, config, keep=test)
    history = pd.DataFrame(rows)[["train_log_loss", "validation_log_loss"]].assign(test_log_loss=tested)
    history.insert(0, "epoch", range(1, len(history) + 1))
    history.insert(0, "stage", stage)
    history.insert(0, "rung", "phantom")
    return history


def provoked_runs(seed: int, effort: Effort) -> pd.DataFrame:
    """The histories of all arms of one seed, on patients of its own."""
    sizes = {"train": effort.many, "validation": effort.held_out, "test": effort.held_out, "source": effort.many}
    data = {part: fields(count, effort.size, 4 * seed + i) for i, (part, count) in enumerate(sizes.items())}
    tiles, labels = data.pop("source")
    some, few = (
        {**data, "train": tuple(array[:count] for array in data["train"])} for count in (effort.some, effort.few)
    )
    arms = {
        "few images": train(_small(seed), few, 2 * effort.epochs, HIGH_RATE, seed),
        "some images": train(_small(seed), some, effort.epochs, RATE, seed),
        "many images": train(_small(seed), data, effort.epochs, RATE, seed),
        "many images, again": train(_small(seed + AGAIN), data, effort.epochs, RATE, seed + AGAIN),
    }
    shuffled = np.random.default_rng(seed).permutation(labels)
    for name, target, rate in (("right labels", labels, RATE), ("shuffled labels", shuffled, HIGH_RATE)):
        source = _small(seed)
        train(source, {**data, "train": (tiles, target)}, effort.epochs, rate, seed)
        arms[name] = _new_head(source, data, effort, seed)
        if name == "right labels":
            arms[f"{name}, again"] = _new_head(source, data, effort, seed + AGAIN)
    return pd.concat([history.assign(arm=arm, seed=seed) for arm, history in arms.items()], ignore_index=True)


def _new_head(source: SEDenseNet, data: dict[str, Fields], effort: Effort, seed: int) -> pd.DataFrame:
    model = _small(seed)
    model.features.load_state_dict(source.features.state_dict())
    return train(model, data, effort.epochs, HIGH_RATE, seed, "head")


def _small(seed: int) -> SEDenseNet:
    torch.manual_seed(seed)
    return SEDenseNet(**SMALL)


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
        truths = {"as test patients show": detect(signature, tested).found}
        if provoked is not None:
            truths["as provoked"] = provoked
        rows += [
            {"signature": signature, "histories": f"phantom, {reading}", "truth": truth, **about}
            for reading, truth in truths.items()
        ]
    return pd.DataFrame(rows).astype({"epoch": "Int64"})


def as_tested(history: pd.DataFrame) -> pd.DataFrame:
    """The history with the log-loss on test patients in the place of that on validation patients."""
    return history.assign(validation_log_loss=history["test_log_loss"])


# ----------------------------------------------------------------------------------------------------
# The show

STARTS = {"DenseNet-121, scratch": False, "DenseNet-121, ImageNet": True}


def shown_run(start: str, seed: int, trunk: Trunk, effort: Effort) -> pd.DataFrame:
    """DenseNet-121 trained whole on phantom tissue from one of `STARTS`."""
    sizes = {"train": effort.many, "validation": effort.held_out, "test": effort.held_out}
    data = {part: fields(count, effort.size, 4 * seed + i) for i, (part, count) in enumerate(sizes.items())}
    torch.manual_seed(seed)
    model = SEDenseNet()
    if STARTS[start]:
        load_trunk(model, trunk)
    history = train(model.to(memory_format=torch.channels_last), data, effort.show_epochs, SHOW_RATE, seed)
    return history.assign(arm=start, seed=seed)
