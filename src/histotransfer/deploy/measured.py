"""What a run measured of its network: sections of its model card, which `ladder` also prints when it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import POWER
from histotransfer.files import file_hash
from histotransfer.records import Run, read_run
from histotransfer.report.tables import formatted, gap, read_experiment, with_intervals
from histotransfer.study.runner import BESIDE

METRICS = ("accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity")
PATIENT_METRICS = ("recognition_rate", "patient_accuracy", "patient_auroc")
PROBABILITIES = ("log_loss", "brier", "calibration_error")
COMPARED = ("log_loss", "accuracy", "auroc")
PROBE, NETWORK = "frozen-probe", "network"

BAR = (
    " Beside it, on the same split: the larger class, and a probe, which is a logistic regression on ImageNet's"
    " features."
)
LEAD = (
    "On the same images, paired by patient: where an interval holds 0, no difference is shown. The last column is"
    f" the smallest true difference that so few patients would show with a power of {POWER}."
)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, its index in the first columns."""
    frame = table.reset_index().astype(str)
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def there(table: pd.DataFrame, metrics: tuple[str, ...]) -> list[str]:
    """Those of some metrics that a long table has."""
    return [metric for metric in metrics if (table["metric"] == metric).any()]


@dataclass(frozen=True)
class Section:
    """A section of a card, in both forms that it is read in.

    Attributes:
        title: its heading.
        text: before the table.
        table: of text; None for a section without one.
    """

    title: str
    text: str
    table: pd.DataFrame | None = None

    def in_markdown(self) -> str:
        """For a card."""
        table = "" if self.table is None else f"\n{markdown(self.table)}\n"
        return f"## {self.title}\n{self.text and f'{chr(10)}{self.text}{chr(10)}'}{table}"

    def in_plain_text(self) -> str:
        """For a terminal."""
        table = "" if self.table is None else self.table.to_string()
        return "\n".join(filter(None, [f"{self.title}\n{'-' * len(self.title)}", self.text, f"{table}\n"]))


def measured(weights: Path) -> list[Section]:
    """What the record beside a network says of it: metrics beside the bar, and the dose of its training.

    Args:
        weights: a file in a run's folder. The bar are the baselines of the same experiment, where they are.

    Returns:
        One section that says so, where no record lies beside the weights or it is another network's.
    """
    try:
        run = read_run(weights.parent)
    except HistotransferError:
        return [Section("Metrics", "No record lies beside the weights: not measured here.")]
    if run.record["artifacts"].get(weights.name) != file_hash(weights):
        return [Section("Metrics", "The record beside the weights is another network's: not measured here.")]
    if not (run.predictions["part"] == "test").any():
        return [Section("Metrics", "No patient was kept for a test: not measured here."), *_dose(run)]
    return [*_metrics(run, _bar(run)), *_dose(run)]


def _bar(run: Run) -> dict[str, Run]:
    """The baselines of a run's experiment, if they were evaluated on the same images."""
    try:
        runs = read_experiment(run.folder.parent, [*BESIDE, run.folder.name])
    except HistotransferError:
        return {}
    return {name: runs[name] for name in BESIDE}


def _metrics(run: Run, bar: Mapping[str, Run]) -> list[Section]:
    split, config = run.record["split"], run.record["config"]
    table = with_intervals({**bar, NETWORK: run})
    own = table[table["run"] == NETWORK]
    parts = ", ".join(f"{name} {count}" for name, count in split["parts"].items())
    text = (
        f"Float32, test part of fold {config['fold'] + 1} of {config['folds']}, split by {split['kind']} with seed"
        f" {run.record['seed']} (images: {parts}); 95 % intervals, clustered by patient. Record: experiment"
        f" `{run.record['experiment']}`, run `{run.record['run']}`."
    )
    sections = [
        Section("Metrics", text + (BAR if bar else ""), formatted(table, there(table, METRICS))),
        Section(
            "Metrics by patient",
            "The mean logit of a patient's images.",
            formatted(table, there(table, PATIENT_METRICS)),
        ),
        Section("Its probabilities", "", formatted(own, there(own, PROBABILITIES))),
    ]
    if bar:
        metrics = there(own, COMPARED)
        lead = gap(bar[PROBE], run, metrics=metrics)
        sections.append(Section("The network minus the probe", LEAD, formatted(lead, metrics, smallest=metrics[-1])))
    return sections


def _dose(run: Run) -> list[Section]:
    lines = "\n".join(f"- {line}" for line in _in_words(run.record["dose"]))
    return [Section("Dose of the training", lines)] if lines else []


def _in_words(dose: Mapping[str, Any]) -> list[str]:
    lines = []
    if "source" in dose:
        source = dose["source"]
        lines.append(
            f"the source task before it: accuracy {source['accuracy']:.2f} on held-out originals; weights"
            f" {_moved(source['moved'])}"
        )
    if "moved" in dose:
        lines.append(f"weights {_moved(dose['moved'])}")
    if dose.get("training_log_loss") is not None:
        lines.append(f"log-loss of the training images in the last epoch: {dose['training_log_loss']:.2f} nats")
    if "views" in dose:
        lines.append(f"a training image was seen in {dose['views']['drawn']:.1f} of {dose['views']['of']} views")
    if "gates" in dose:
        gates = dose["gates"]
        lines.append(
            f"SE gates: {gates['distance']:.3f} from 1 on average, {gates['spread']:.3f} apart from image to image"
        )
    if "colours" in dose:
        colours = dose["colours"]
        lines.append(
            f"colours: {colours['changed']:.0%} of training images changed, by {colours['distance']:.0f} in CIELAB"
        )
    return lines


def _moved(groups: Mapping[str, float]) -> str:
    """Relative movement of the convolutions of each group that moved at all."""
    moved = [f"{name} by {share:.1%}" for name, share in groups.items() if share]
    return f"moved from where they started: {', '.join(moved)}" if moved else "below the head stayed where they were"
