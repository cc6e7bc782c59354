"""A trained network for others: exported, its outputs checked, with a model card beside it.

Model cards: Mitchell et al. 2019, https://arxiv.org/abs/1810.03993.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histotransfer.config import LadderConfig, validated
from histotransfer.deploy.export import SUFFIX, TOLERANCE, Format, Network, check_outputs, read_network, write_network
from histotransfer.deploy.measured import METRICS, PATIENT_METRICS, markdown, measured, there
from histotransfer.errors import HistotransferError
from histotransfer.files import file_hash, scratch_folder, write_text
from histotransfer.models import openvino
from histotransfer.models.description import describe
from histotransfer.models.se_densenet import OnArrays, SEDenseNet, parameter_count
from histotransfer.models.weights import load_model
from histotransfer.models.weights_file import load_beside
from histotransfer.records import Run, fingerprint
from histotransfer.report.tables import formatted, gap, with_intervals
from histotransfer.study.runner import predictions_of
from histotransfer.study.tasks import target_task
from histotransfer.tiles import JITTER_DRAWS, outputs_by_view
from histotransfer.transfer.stages import Report
from histotransfer.transfer.task import Task

CHECKED = 16  # outputs are compared on so many random images, and as many of the training part
CALIBRATION = 300  # training images that int8 is calibrated on
BATCH = 32


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
    if (config := describe(description, weights).config) is not None:
        validated(LadderConfig, config)
    task = None if data is None else trained_on(weights, description, data)
    name = weights.with_suffix(SUFFIX[to]).name
    with scratch_folder(out / name) as folder:
        path = folder / name
        write_network(model, description, to, path, load_beside(weights))
        images = _check_images(description["size"], task)
        difference = check_outputs(model, read_network(path, to), images)
        report(f"{len(images)} images: outputs differ by {difference:.1g} at most, {TOLERANCE:g} is allowed")
        sections = [section.in_markdown() for section in measured(weights)]
        if int8 and task is not None:
            path, section = _as_int8(path, model, task, report)
            sections.append(section)
        card = model_card(path.name, weights, description, parameter_count(model), sections)
        path.with_name(f"{path.name}.md").write_text(card, encoding="utf-8")
        return [file.replace(out / file.name) for file in sorted(folder.iterdir())]


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


def _check_images(size: int, task: Task | None) -> np.ndarray:
    images = np.random.default_rng(0).standard_normal((CHECKED, 3, size, size), dtype=np.float32)
    return images if task is None else np.concatenate([images, _some(task, "train", CHECKED)])


def _some(task: Task, part: str, count: int) -> np.ndarray:
    """At most `count` images of a part, drawn at random, upright."""
    rows = np.random.default_rng(0).permutation(task.rows(part))[:count]
    return task.predicted_source.arrays(rows, np.zeros_like(rows))


def _as_int8(path: Path, model: SEDenseNet, task: Task, report: Report) -> tuple[Path, str]:
    """Replace the network at `path` by one in int8; return its file and a section of the card on its cost."""
    calibration = _some(task, "train", CALIBRATION)
    smaller = openvino.quantise(openvino.load(path)[0], calibration)
    networks: dict[str, Network] = {"float32": OnArrays(model), "int8": openvino.OpenVINONetwork(smaller)}
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
        text += f"\n{title}:\n\n{markdown(formatted(table, there(table, metrics)))}\n"
    quantised = path.with_stem(f"{path.stem}-int8")
    openvino.save(smaller, quantised)
    for file in (path, path.with_suffix(".bin")):
        file.unlink()
    return quantised, text


def _predicted(name: str, network: Network, task: Task) -> Run:
    """A network's predictions of the test part, in the form of a run."""
    rows, source = task.rows("test"), task.predicted_source
    batches = np.array_split(rows, -(-len(rows) // BATCH))
    logits = np.concatenate([outputs_by_view(network, source, batch).mean(axis=0) for batch in batches])
    return Run(Path(name), {}, pd.DataFrame(), predictions_of(task, rows, logits, task.config), {})


def write_card(weights: str | Path, report: Report = print) -> Path:
    """Write the model card of a run's network beside it, ``model.safetensors.md``, and report what it measured.

    Raises:
        HistotransferError: the weights cannot be used.
    """
    weights = Path(weights)
    (model, description), sections = load_model(weights), measured(weights)
    for section in sections:
        report(section.in_plain_text())
    text = [section.in_markdown() for section in sections]
    card = model_card(weights.name, weights, description, parameter_count(model), text)
    write_text(path := weights.with_name(f"{weights.name}.md"), card)
    return path


def model_card(
    name: str,
    weights: Path,
    description: Mapping[str, Any],
    parameters: int,
    sections: list[str],
    warning: str = "",
) -> str:
    """The text of a model card.

    Args:
        name: of the exported file.
        weights: the file from which it was made.
        description: of the network, from its weights file.
        parameters: number of parameters.
        sections: those on metrics.
        warning: what a user must know first.
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
{warning and f"{chr(10)}{warning}{chr(10)}"}
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
- {_calibration(description)}
- It answers for any picture, also one without tissue: what is odd about it `predict` says in the column `note`.
- Images of one patient are alike: read intervals by patient, and single magnifications before all together.
"""


def _calibration(description: Mapping[str, Any]) -> str:
    if "temperature" not in description:
        return "Its probabilities are not calibrated."
    return (
        f"Its logits are divided by a temperature of {description['temperature']:.2f}, fitted out of fold to BreakHis:"
        " elsewhere its probabilities are not calibrated."
    )


def _reference(description: Mapping[str, Any]) -> str:
    return ", to the median of its training images" if description.get("reference") else ""


def _views(description: Mapping[str, Any]) -> str:
    known, upright = description["views"], "that of the picture upright"
    if known["augmentation"] == "none":
        return upright
    mean = f"the mean of the logits of {known['views']} symmetric views"
    mean += f" in {JITTER_DRAWS} draws of stain jitter" if known["augmentation"] == "views+stain" else ""
    averaged = known.get("averaged")
    if averaged is None:
        return mean
    fewer = upright if averaged == 1 else f"the mean of the logits of the first {averaged} views"
    return f"{fewer}; for the metrics below, {mean}"


def _split(description: Mapping[str, Any]) -> str:
    if "config" not in description:
        return "not recorded in the weights file"
    config = description["config"]
    if config["split"] == "none":
        return "none: every patient of these images was trained on"
    return f"by {config['split']}, test fold {config['fold'] + 1} of {config['folds']}, seed {config['seed']}"
