"""A trained network for others: exported, its outputs checked, with a model card beside it.

Model cards: Mitchell et al. 2019, https://arxiv.org/abs/1810.03993.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from histotransfer.config import LadderConfig, validated
from histotransfer.deploy.export import SUFFIX, TOLERANCE, Format, Network, check_outputs, read_network, write_network
from histotransfer.errors import HistotransferError
from histotransfer.files import file_hash
from histotransfer.models import openvino
from histotransfer.models.se_densenet import SEDenseNet, parameter_count
from histotransfer.models.weights import load_model, save_model
from histotransfer.records import Run, fingerprint, read_run
from histotransfer.report.study import Study
from histotransfer.report.tables import formatted, gap, with_intervals
from histotransfer.study.plan import planned_runs, read_plan
from histotransfer.study.runner import predictions_of, train_on_everything
from histotransfer.study.tasks import target_task
from histotransfer.tiles import JITTER_DRAWS, mean_over_views
from histotransfer.transfer.stages import Report
from histotransfer.transfer.task import Task

CHECKED = 16  # outputs are compared on so many random images, and as many of the training part
CALIBRATION = 300  # training images that int8 is calibrated on
BATCH = 32
METRICS = ("accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity")
PATIENT_METRICS = ("recognition_rate", "patient_accuracy", "patient_auroc")


def release(
    weights: str | Path,
    to: Format,
    out: str | Path,
    *,
    int8: bool = False,
    data: str | Path | None = None,
    report: Report = print,
) -> list[Path]:
    """Write a network in another format with its model card; nothing is left behind unless its outputs are right.

    Args:
        weights: a file written by the ladder.
        to: the format.
        out: a folder that exists.
        int8: quantise (openvino only), calibrated on the training patients of the network's own split; the cost in
            accuracy is measured on its test part and reported in the card.
        data: the images that it was trained on: a folder of data sets, or one's own as given to the ladder.
        report: called with one line per step.

    Returns:
        The files written.

    Raises:
        HistotransferError: the weights or images cannot be used, the images are not those it was trained on, an
            extra is missing, or outputs differ.
    """
    weights, out = Path(weights), Path(out)
    if int8 and to != "openvino":
        raise HistotransferError("int8 is written for openvino only: use --to openvino")
    if int8 and data is None:
        raise HistotransferError("int8 is calibrated on the training patients: give their images with --data")
    model, description = load_model(weights)
    task = None if data is None else trained_on(weights, description, data)
    with TemporaryDirectory(dir=out, prefix=".export-") as folder:
        path = Path(folder) / weights.with_suffix(SUFFIX[to]).name
        write_network(model, description, to, path)
        images = _check_images(description["size"], task)
        difference = check_outputs(model, read_network(path, to), images)
        report(f"{len(images)} images: outputs differ by {difference:.1g} at most, {TOLERANCE:g} is allowed")
        sections = [_measured(weights)]
        if int8 and task is not None:
            path, section = _as_int8(path, model, task, report)
            sections.append(section)
        card = model_card(path.name, weights, description, parameter_count(model), sections)
        path.with_name(f"{path.name}.md").write_text(card, encoding="utf-8")
        return [file.replace(out / file.name) for file in sorted(Path(folder).iterdir())]


def ship(
    study: Study, data: str | Path, out: str | Path, experiment: str = "final", report: Report = print
) -> list[Path]:
    """Train the network that ships, the one arm of an experiment, on every patient; write it in float16 with its card.

    The card's metrics are those of the same recipe out of fold: no patient is left to test the network itself on.

    Args:
        study: plans and records; the experiment must be finished.
        data: folder of the data sets.
        out: folder for ``<experiment>.safetensors`` and its card; created if missing.
        experiment: its plan has one arm, of the same name.
        report: called with one line per step.

    Returns:
        The files written.

    Raises:
        HistotransferError: the experiment is not finished, or the data cannot be used.
    """
    out, sections = Path(out), _of_the_recipe(study, experiment)
    run = next(run for run in planned_runs(read_plan(study.study / f"{experiment}.toml")) if run.arm == experiment)
    config = run.config.model_copy(update={"split": "none", "fold": 0, "external": False})
    model, description = train_on_everything(config, data, out, report=report)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{experiment}.safetensors"
    save_model(model.half(), path, description)
    card = path.with_name(f"{path.name}.md")
    card.write_text(model_card(path.name, path, description, parameter_count(model), sections), encoding="utf-8")
    return [path, card]


def _of_the_recipe(study: Study, experiment: str) -> list[str]:
    """Sections of the card, from the records of an experiment: metrics out of fold, and on UCSB if tested there."""
    tested, record = study.pooled(experiment, experiment), f"Records: `results/{experiment}`"
    sections = [
        "## Metrics of the recipe, out of fold\n\nTrained on about seven tenths of the patients, with one tenth for"
        " validation, and tested on the others, five folds, the logits of"
        f" {tested.predictions['seeds'].iloc[0]} seeds averaged; 95 % intervals, clustered by patient. {record}.\n\n"
        f"{_metrics('recipe', tested, METRICS)}\n",
        f"## The same by patient\n\n{_metrics('recipe', tested, PATIENT_METRICS)}\n",
    ]
    if study.runs(experiment, experiment)[0].record["config"].get("external"):
        sections.append(
            "## The recipe on slides from elsewhere\n\nUCSB, never used for a choice, as all networks of that"
            " experiment see it together (mean logits); 95 % intervals, clustered by slide; a slide with fields of both"
            f" classes counts in each. {record}, part `ucsb`.\n\n"
            f"{_metrics('recipe', study.pooled(experiment, experiment, part='ucsb'), METRICS, 'ucsb')}\n"
        )
    return sections


def _metrics(name: str, run: Run, metrics: tuple[str, ...], part: str = "test") -> str:
    table = with_intervals({name: run}, part)
    unit = "slides" if part == "ucsb" else "patients"
    return _markdown(formatted(table, _there(table, metrics), unit=unit))


def trained_on(weights: Path, description: Mapping[str, Any], data: str | Path) -> Task:
    """The images that a network was trained on, in the same split.

    Raises:
        HistotransferError: the weights file does not describe the split, or `data` holds other images.
    """
    try:
        config, known = validated(LadderConfig, description["config"]), description["data"]
    except KeyError as error:
        raise HistotransferError(f"{weights}: its description lacks {error}; train it again with `ladder`") from error
    is_own = known["name"] not in ("breakhis", "phantom")
    task = target_task(config, None, data) if is_own else target_task(config, data)
    if fingerprint(task.images, task.hashes) != known["fingerprint"]:
        raise HistotransferError(
            f"{data}: not the {known['images']} images of {known['name']} that {weights} was trained on"
        )
    return task


def _check_images(size: int, task: Task | None) -> torch.Tensor:
    images = torch.randn(CHECKED, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images if task is None else torch.cat([images, _some(task, "train", CHECKED)])


def _some(task: Task, part: str, count: int) -> torch.Tensor:
    """At most `count` images of a part, drawn at random, upright."""
    rows = np.random.default_rng(0).permutation(task.rows(part))[:count]
    return task.source.batch(rows, np.zeros_like(rows))


def _as_int8(path: Path, model: SEDenseNet, task: Task, report: Report) -> tuple[Path, str]:
    """Replace the network at `path` by one in int8; return its file and a section of the card on its cost."""
    calibration = _some(task, "train", CALIBRATION)
    smaller = openvino.quantise(openvino.load(path)[0], calibration)
    networks: dict[str, Network] = {"float32": model, "int8": openvino.OpenVINONetwork(smaller)}
    runs = {name: _predicted(name, network, task) for name, network in networks.items()}
    lost = gap(runs["float32"], runs["int8"])
    everything = lost[(lost["magnification"] == "all") & (lost["metric"] == "patient_accuracy")].iloc[0]
    report(f"int8 minus float32, patient accuracy: {everything['value']:+.3f}")
    text = (
        f"## What int8 costs\n\nCalibrated on {len(calibration)} images of training patients. Both networks on the test"
        " part, and their difference, paired by patient, with 95 % intervals.\n"
    )
    for title, metrics in (("By image", METRICS), ("By patient", PATIENT_METRICS)):
        table = pd.concat([with_intervals(runs), lost], ignore_index=True)
        text += f"\n{title}:\n\n{_markdown(formatted(table, _there(table, metrics)))}\n"
    quantised = path.with_stem(f"{path.stem}-int8")
    openvino.save(smaller, quantised)
    for file in (path, path.with_suffix(".bin")):
        file.unlink()
    return quantised, text


@torch.inference_mode()
def _predicted(name: str, network: Network, task: Task) -> Run:
    """A network's predictions of the test part, in the form of a run."""
    rows, source = task.rows("test"), task.predicted_source
    batches = np.array_split(rows, -(-len(rows) // BATCH))
    logits = torch.cat([mean_over_views(network, source, batch) for batch in batches]).numpy()
    return Run(Path(name), {}, pd.DataFrame(), predictions_of(task, rows, logits, task.config), {})


def _there(table: pd.DataFrame, metrics: tuple[str, ...]) -> list[str]:
    return [metric for metric in metrics if (table["metric"] == metric).any()]


def _measured(weights: Path) -> str:
    """A section of the card: metrics from the record beside the weights."""
    text = "## Metrics\n\n"
    try:
        run = read_run(weights.parent)
    except HistotransferError:
        return text + "No record lies beside the weights: not measured here.\n"
    if run.record["artifacts"].get(weights.name) != file_hash(weights):
        return text + "The record beside the weights is another network's: not measured here.\n"
    split, config = run.record["split"], run.record["config"]
    parts = ", ".join(f"{name} {count}" for name, count in split["parts"].items())
    return text + (
        f"Float32, test part of fold {config['fold'] + 1} of {config['folds']}, split by {split['kind']} with seed"
        f" {run.record['seed']} (images: {parts}); 95 % intervals, clustered by patient. Record: experiment"
        f" `{run.record['experiment']}`, run `{run.record['run']}`.\n\n"
        f"{_metrics('network', run, METRICS + PATIENT_METRICS)}\n"
    )


def _markdown(table: pd.DataFrame) -> str:
    frame = table.reset_index().astype(str)
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def model_card(name: str, weights: Path, description: Mapping[str, Any], parameters: int, sections: list[str]) -> str:
    """The text of a model card.

    Args:
        name: of the exported file.
        weights: the file from which it was made.
        description: of the network, from its weights file.
        parameters: number of parameters.
        sections: those on metrics.
    """
    data = description.get("data", {})
    known = f"{data['images']} images of {data['patients']} slide ids (`{data['name']}`)" if data else "not recorded"
    kind = "SE-DenseNet" if description["architecture"].get("positions", True) else "DenseNet without SE gates"
    tissue = (
        "Trained on **synthetic** tissue: it knows nothing of real tissue."
        if description["profile"] == "phantom"
        else "Trained and tested on the images named above; elsewhere stain, scanner and patients differ, and so will"
        " the results."
    )
    return f"""# Model card: {name}

**For research and teaching. Not a medical device: not for diagnosis, and not tested for any clinical use.**

## Network

- {kind}, {parameters:,} parameters; architecture: `{description["architecture"]}`
- classes, in the order of the logits: {", ".join(description["classes"])}
- input: RGB fields squeezed to {description["size"]} x {description["size"]} pixels; colour normalisation:
  {description["normaliser"]}{_reference(description)}; then ImageNet mean and standard deviation
- a prediction: {_views(description)}
- start: ImageNet weights from {description["imagenet"]}
- weights: `{weights.name}`, sha256 `{file_hash(weights)}`

## Data

- profile `{description["profile"]}`; {known}
- sha256 of the images' names and contents: `{data.get("fingerprint", "not recorded")}`
- split: {_split(description)}

{chr(10).join(sections)}
## Limits

- {tissue}
- It sees single fields, chosen by a pathologist; not slides, and not what lies around a field.
- Its probabilities are not calibrated, and it answers for any picture, also one without tissue.
- Images of one patient are alike: read intervals by patient, and single magnifications before all together.
"""


def _reference(description: Mapping[str, Any]) -> str:
    return ", to the median of its training images" if description.get("reference") else ""


def _views(description: Mapping[str, Any]) -> str:
    if "views" not in description:
        return "not recorded in the weights file"
    views, augmentation = description["views"]["views"], description["views"]["augmentation"]
    if augmentation == "none":
        return "that of the picture upright"
    mean = f"the mean of the logits of {views} symmetric views"
    return f"{mean} in {JITTER_DRAWS} draws of stain jitter" if augmentation == "views+stain" else mean


def _split(description: Mapping[str, Any]) -> str:
    if "config" not in description:
        return "not recorded in the weights file"
    config = description["config"]
    if config["split"] == "none":
        return "none: every patient of these images was trained on"
    return f"by {config['split']}, test fold {config['fold'] + 1} of {config['folds']}, seed {config['seed']}"
