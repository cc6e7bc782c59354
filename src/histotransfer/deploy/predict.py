"""Predict pictures with a trained network; a bad picture does not stop the others.

A thread reads pictures one batch ahead of the network, so that neither waits for the other. At most two batches are
in memory, however many pictures there are.
"""

import csv
import glob
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TextIO

import cv2
import numpy as np
import torch

from histotransfer.errors import HistotransferError
from histotransfer.models import openvino
from histotransfer.models.description import describe
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import load_model
from histotransfer.pictures import decode, resize
from histotransfer.tiles import TileSource, augmented_source, mean_over_views

Runtime = Literal["torch", "openvino"]
BATCH = 32
PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
SHIPPED = Path(__file__).parent / "models" / "final.safetensors"
HEAT = 0.5  # the largest share of an overlay in a pixel's colour


@dataclass(frozen=True)
class Prediction:
    """The more probable class of a picture, and its probability."""

    file: str
    label: str
    probability: float


@dataclass(frozen=True)
class Trouble:
    """Why a picture was not predicted; the message names the file."""

    file: str
    message: str


Prepared = list[np.ndarray | Trouble]


def _batches(files: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(itertools.islice(files, BATCH)):
        yield batch


def _one_ahead(
    prepare: Callable[[list[str]], Prepared], batches: Iterable[list[str]]
) -> Iterator[tuple[list[str], Prepared]]:
    """Each batch with the result of `prepare`, in order; a thread prepares the next batch while one is being used."""
    waiting: deque[tuple[list[str], Future[Prepared]]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for batch in batches:
            waiting.append((batch, reader.submit(prepare, batch)))
            if len(waiting) == 2:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()


class Predictor:
    """A network with the preprocessing that its weights file describes.

    Args:
        weights: a file written by `histotransfer ladder`, or an .xml written by `histotransfer export`.
        runtime: what runs the network; `openvino` needs the extra `export` and is faster on a CPU.

    Attributes:
        description: how pictures are prepared, and the names of the classes.
        model: the network in PyTorch; None if the weights are an .xml.

    Raises:
        HistotransferError: the file is not such a file, or not for this runtime.
    """

    def __init__(self, weights: str | Path, runtime: Runtime = "torch"):
        weights = Path(weights)
        self.model: SEDenseNet | None = None
        self.network: Callable[[torch.Tensor], torch.Tensor]
        if weights.suffix == ".xml":
            if runtime != "openvino":
                raise HistotransferError(f"{weights}: an OpenVINO model; use --runtime openvino")
            converted, metadata = openvino.load(weights)
            self.description = describe(metadata, weights)
            self.network = openvino.OpenVINONetwork(converted)
        else:
            self.model, metadata = load_model(weights)
            self.description = describe(metadata, weights)
            if runtime == "torch":
                self.network = self.model.to(memory_format=torch.channels_last)
            else:
                converted = openvino.convert(self.model, self.description.size, metadata)
                self.network = openvino.OpenVINONetwork(converted)

    def predict(self, files: Iterable[str | Path], overlays: Path | None = None) -> Iterator[Prediction | Trouble]:
        """Predict files in order, `BATCH` at a time; memory does not grow with their number.

        Args:
            files: pictures; may be a generator.
            overlays: a folder for one PNG per picture, ``<number>-<name>.png``: evidence for the predicted class.

        Raises:
            HistotransferError: overlays of an .xml are wanted, which has no gradients.
        """
        explain = None
        if overlays is not None:
            if self.model is None:
                raise HistotransferError("overlays need gradients: give the .safetensors that was exported")
            explain = partial(_write_overlays, self.model, overlays)
        done = 0
        for batch, prepared in _one_ahead(self._prepare, _batches(map(str, files))):
            yield from self._finish(batch, prepared, explain, done)
            done += len(batch)

    def _prepare(self, files: list[str]) -> Prepared:
        prepared: Prepared = []
        for file in files:
            try:
                tile, _ = self.description.normaliser.normalise(resize(decode(file), self.description.size))
                prepared.append(tile)
            except HistotransferError as error:
                prepared.append(Trouble(file, str(error)))
        return prepared

    def _finish(
        self,
        files: list[str],
        prepared: Prepared,
        explain: Callable[[np.ndarray, np.ndarray, list[str]], None] | None,
        done: int,
    ) -> list[Prediction | Trouble]:
        results: dict[int, Prediction | Trouble] = {}
        good: dict[int, np.ndarray] = {}
        for i, item in enumerate(prepared):
            if isinstance(item, Trouble):
                results[i] = item
            else:
                good[i] = item
        if not good:
            return list(results.values())
        tiles = np.stack(list(good.values()))
        with torch.inference_mode():
            logits = mean_over_views(
                self.network, augmented_source(tiles, **self.description.views), np.arange(len(good))
            )
        probabilities, classes = logits.softmax(dim=1).max(dim=1)
        for i, p, c in zip(good, probabilities.tolist(), classes.tolist(), strict=True):
            results[i] = Prediction(files[i], self.description.classes[c], p)
        if explain is not None:
            explain(tiles, classes.numpy(), [f"{done + i + 1:05d}-{Path(files[i]).stem}.png" for i in good])
        return [results[i] for i in range(len(files))]


def _write_overlays(model: SEDenseNet, folder: Path, tiles: np.ndarray, classes: np.ndarray, names: list[str]) -> None:
    from histotransfer.evaluation.explain import grad_cam  # slow to import, and rarely needed

    for name, tile, heat in zip(names, tiles, grad_cam(model, TileSource(tiles), classes), strict=True):
        write_overlay(folder / name, tile, heat)


def write_overlay(path: Path, tile: np.ndarray, heat: np.ndarray) -> None:
    """Write a picture with evidence for a class laid over it, as PNG.

    Args:
        path: file to write.
        tile: ``(H, W, 3)`` uint8 RGB.
        heat: ``(h, w)`` signed evidence; where it is not above 0, the picture is unchanged.

    Raises:
        HistotransferError: the file cannot be written.
    """
    strength = cv2.resize(np.maximum(heat, 0), tile.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    strength = strength / max(float(strength.max()), np.finfo(np.float32).tiny)
    colours = cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = HEAT * strength[..., None]
    blended = (1 - share) * tile[..., ::-1] + share * colours
    if not cv2.imwrite(str(path), np.rint(blended).astype(np.uint8)):
        raise HistotransferError(f"{path}: cannot be written")


def find_pictures(arguments: Iterable[str]) -> Iterator[str]:
    """Files as given; for a folder the pictures in and under it, for a pattern with * the files that match.

    Folders and patterns are sorted by name. One without pictures is yielded itself, so that its reader reports it.
    """
    for argument in arguments:
        if Path(argument).is_dir():
            files = sorted(str(path) for path in Path(argument).rglob("*") if path.suffix.lower() in PICTURES)
        elif glob.has_magic(argument) and not Path(argument).exists():
            files = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
        else:
            files = []
        yield from files or [argument]


class RowWriter:
    """Writes predictions to an open file as they come.

    Args:
        file: text, opened with ``newline=""``.
        form: csv with a header, or jsonl: one JSON object per line with the same keys.
        profile: the network's; each row carries it.
    """

    COLUMNS = ("file", "label", "probability", "profile")

    def __init__(self, file: TextIO, form: Literal["csv", "jsonl"], profile: str):
        self.file, self.form, self.profile = file, form, profile
        self.table = csv.DictWriter(file, self.COLUMNS, lineterminator="\n")
        if form == "csv":
            self.table.writeheader()

    def write(self, prediction: Prediction) -> None:
        """Write one row; the probability has four digits."""
        row = asdict(prediction) | {"profile": self.profile}
        if self.form == "csv":
            self.table.writerow(row | {"probability": f"{prediction.probability:.4f}"})
        else:
            row["probability"] = round(prediction.probability, 4)
            self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
