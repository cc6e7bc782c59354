"""Predict pictures with a trained network, one bad picture never costing the others.

Pictures are read by a thread one batch ahead of the network, so that neither waits for the other; no more than two
batches are in memory, however many pictures there are.
"""

import csv
import glob
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TextIO

import cv2
import numpy as np
import torch

from histotransfer.errors import HistotransferError
from histotransfer.models import openvino
from histotransfer.models.description import describe
from histotransfer.models.weights import load_model
from histotransfer.tiles import TileSource, augmented_source, decode, mean_over_views, resize

Runtime = Literal["torch", "openvino"]
BATCH = 32
PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
SHIPPED = Path(__file__).parent / "models" / "final.safetensors"
HEAT = 0.5  # the most that an overlay covers of a picture


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
    """Each batch with what `prepare` makes of it, in order; a thread prepares the next while one is being used."""
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
    """A network with everything its weights file says about preprocessing.

    Args:
        weights: a file written by `histotransfer ladder`, or an .xml written by `histotransfer export`.
        runtime: what runs the network; `openvino` needs the extra `export` and is the faster one on a CPU.

    Attributes:
        description: how pictures are prepared, and the names of the classes.
        model: the network in PyTorch, None where the weights are an .xml.

    Raises:
        HistotransferError: not such a file, or not for this runtime.
    """

    def __init__(self, weights: str | Path, runtime: Runtime = "torch"):
        weights, self.model = Path(weights), None
        if weights.suffix == ".xml":
            if runtime != "openvino":
                raise HistotransferError(f"{weights}: an OpenVINO model; use --runtime openvino")
            converted, metadata = openvino.load(weights)
        else:
            self.model, metadata = load_model(weights)
        self.description = describe(metadata, weights)
        if runtime == "torch":
            self.network = self.model.to(memory_format=torch.channels_last)
        else:
            if self.model is not None:
                converted = openvino.convert(self.model, self.description.size, metadata)
            self.network = openvino.OpenVINONetwork(converted)

    def predict(self, files: Iterable[str | Path], overlays: Path | None = None) -> Iterator[Prediction | Trouble]:
        """Predict files in order, `BATCH` at a time; memory does not grow with their number.

        Args:
            files: pictures; may be a generator.
            overlays: a folder for one PNG a picture, ``<number>-<name>.png``: evidence for the predicted class.

        Raises:
            HistotransferError: overlays asked for of an .xml, which has no gradients.
        """
        if overlays is not None and self.model is None:
            raise HistotransferError("overlays need gradients: give the .safetensors that was exported")
        done = 0
        for batch, prepared in _one_ahead(self._prepare, _batches(map(str, files))):
            yield from self._finish(batch, prepared, overlays, done)
            done += len(batch)

    def _prepare(self, files: list[str]) -> Prepared:
        prepared: Prepared = []
        for file in files:
            try:
                prepared.append(self.description.normaliser.transform(resize(decode(file), self.description.size)))
            except HistotransferError as error:
                prepared.append(Trouble(file, str(error)))
        return prepared

    def _finish(
        self, files: list[str], prepared: Prepared, overlays: Path | None, done: int
    ) -> list[Prediction | Trouble]:
        results = list(prepared)
        good = [i for i, item in enumerate(prepared) if not isinstance(item, Trouble)]
        if not good:
            return results
        tiles = np.stack([prepared[i] for i in good])
        with torch.inference_mode():
            logits = mean_over_views(
                self.network, augmented_source(tiles, **self.description.views), np.arange(len(good))
            )
        probabilities, classes = logits.softmax(dim=1).max(dim=1)
        for i, p, c in zip(good, probabilities.tolist(), classes.tolist(), strict=True):
            results[i] = Prediction(files[i], self.description.classes[c], p)
        if overlays is not None:
            from histotransfer.evaluation.explain import grad_cam  # slow to import, and seldom wanted

            maps = grad_cam(self.model, TileSource(tiles), classes.numpy())
            for i, tile, heat in zip(good, tiles, maps, strict=True):
                name = f"{done + i + 1:05d}-{Path(files[i]).stem}.png"
                write_overlay(overlays / name, tile, heat)
        return results


def write_overlay(path: Path, tile: np.ndarray, heat: np.ndarray) -> None:
    """Write a picture with evidence for a class laid over it, as PNG.

    Args:
        path: file to write.
        tile: ``(H, W, 3)`` uint8 RGB.
        heat: ``(h, w)`` signed evidence; what is not above 0 leaves the picture as it is.

    Raises:
        HistotransferError: it cannot be written.
    """
    strength = cv2.resize(np.maximum(heat, 0), tile.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    strength = strength / max(float(strength.max()), np.finfo(np.float32).tiny)
    colours = cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = HEAT * strength[..., None]
    blended = (1 - share) * tile[..., ::-1] + share * colours
    if not cv2.imwrite(str(path), np.rint(blended).astype(np.uint8)):
        raise HistotransferError(f"{path}: cannot be written")


def find_pictures(arguments: Iterable[str]) -> Iterator[str]:
    """Files as they are given; for a folder the pictures in and under it, for a pattern with * what it matches.

    Both in the order of their names. A folder or pattern that yields nothing is yielded itself, to be complained of.
    """
    for argument in arguments:
        if Path(argument).is_dir():
            found = sorted(str(path) for path in Path(argument).rglob("*") if path.suffix.lower() in PICTURES)
        elif glob.has_magic(argument) and not Path(argument).exists():
            found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
        else:
            found = []
        yield from found or [argument]


class RowWriter:
    """Writes predictions to an open file as they come.

    Args:
        file: text, opened with ``newline=""``.
        form: csv with a header, or jsonl: a JSON object a line with the same keys.
        profile: of the network; each row carries it.
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
