"""A trained network's predictions of unseen images, ready to be explained; and the record of the explanations."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from histotransfer.datasets import breakhis
from histotransfer.datasets.phantom import truth
from histotransfer.datasets.roots import resolve_root
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.explain import gate_differences, gate_profiles, gates, sanity_check
from histotransfer.files import file_hash
from histotransfer.models.description import describe
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import load_model
from histotransfer.records import Run, environment, image_paths, read_run, write_record
from histotransfer.tiles import TileSource, load_tiles
from histotransfer.transfer.training import predict_logits

BATCH = 32


@dataclass(frozen=True)
class PredictedImages:
    """Images as a network sees them, and the class that it predicts for each.

    Attributes:
        model: the network.
        source: the images as its input.
        paths: their files.
        predicted: ``(N,)`` index of the predicted class.
        labels: ``(N,)`` true labels.
        groups: ``(N,)`` patients.
        classes: labels in the order of the logits.
    """

    model: SEDenseNet
    source: TileSource
    paths: list[str]
    predicted: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    classes: list[str]

    @property
    def tiles(self) -> np.ndarray:
        """``(N, S, S, 3)`` uint8."""
        return self.source.tiles

    @property
    def guess(self) -> np.ndarray:
        """``(N,)`` predicted labels."""
        return np.array(self.classes)[self.predicted]

    def masks(self) -> np.ndarray:
        """Where in each tile the diagnosis is visible: ``(N, S, S)`` bool.

        Raises:
            HistotransferError: the images are no phantoms, so the place is unknown.
        """
        shape = self.tiles.shape[1:3]
        masks = [truth(path).diagnostic_mask.astype(np.uint8) for path in self.paths]
        return np.stack([cv2.resize(mask, shape, interpolation=cv2.INTER_NEAREST) for mask in masks]) > 0


def predict_images(weights: str | Path, table: pd.DataFrame) -> PredictedImages:
    """Predict the images of a table with a trained network, upright, and keep what its explanations need.

    Args:
        weights: a file written by `histotransfer ladder`.
        table: N rows of an image table. The caller ensures that the network was trained on none of its patients.

    Raises:
        HistotransferError: the weights or an image cannot be read, or the network does not know a label.
    """
    model, metadata = load_model(Path(weights))
    model = model.to(memory_format=torch.channels_last)  # as `predict` runs it: the same last digits
    known = describe(metadata, Path(weights))
    if unknown := sorted(set(table["label"]) - set(known.classes)):
        raise HistotransferError(f"{weights}: knows {', '.join(known.classes)}, not {unknown[0]}; give images of these")
    paths = table["path"].astype(str).tolist()
    source = TileSource(load_tiles(paths, known.size, known.colours)[0])
    predicted = predict_logits(model, source, BATCH).argmax(axis=1)
    labels, groups = (table[name].to_numpy(str) for name in ("label", "group"))
    return PredictedImages(model, source, paths, predicted, labels, groups, known.classes)


def unseen_images(run: Run, data_root: str | Path) -> pd.DataFrame:
    """Images of patients that a run never saw: new phantom patients for a run on phantom tissue, else its test images.

    Args:
        run: a run of the ladder.
        data_root: folder of the data sets that it was made from.

    Returns:
        Image table. Of phantoms it has one field per patient and magnification, from the phantom data of the next seed.
    """
    if run.record["profile"] == "phantom":
        table = breakhis.load(resolve_root("phantom", seed=run.record["seed"] + 1))
        return table.groupby(["group", "magnification"]).head(1).reset_index(drop=True)
    test = run.predictions[run.predictions["part"] == "test"]
    return test.assign(path=image_paths(test["image"], data_root), label=test["truth"]).reset_index(drop=True)


def run(folder: str | Path, data_root: str | Path, out: str | Path) -> Path:
    """Explain the network of a recorded run on images it never saw; the record holds numbers only, no pixels.

    Args:
        folder: of the run, with its `model.safetensors`.
        data_root: folder of the data sets that it was made from.
        out: folder of the record: `sanity.csv`, `gates.csv` (profiles), `gate_differences.csv`, `record.json`,
            `provenance.json`.

    Raises:
        HistotransferError: the run or an image cannot be read, or the weights are not the run's.
    """
    recorded, weights = read_run(Path(folder)), Path(folder) / "model.safetensors"
    if not weights.is_file() or file_hash(weights) != recorded.record["artifacts"].get("model.safetensors"):
        raise HistotransferError(f"{weights}: missing, or not the weights of this run; run the ladder again")
    shown = predict_images(weights, unseen_images(recorded, data_root))
    profiles = gate_profiles(gates(shown.model, shown.source), shown.groups, shown.labels)
    checked = sanity_check(shown.model, shown.source, shown.predicted, shown.groups, shown.labels)
    tables = {
        "sanity": checked.rename_axis("step"),
        "gate_differences": gate_differences(profiles, *shown.classes).rename_axis("gate"),
        "gates": profiles.set_index("gate"),
    }
    record = {
        "run": recorded.record["run"],
        "experiment": recorded.record["experiment"],
        "profile": recorded.record["profile"],
        "data": recorded.record["data"],
        "weights": recorded.record["artifacts"]["model.safetensors"],
        "images": len(shown.groups),
        "patients": len(set(shown.groups)),
    }
    return write_record(Path(out), record, tables, environment())
