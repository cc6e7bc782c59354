"""Predict pictures with a trained network; a bad picture does not stop the others.

A thread reads pictures one batch ahead of the network, so that neither waits for the other. At most two batches are
in memory, however many pictures there are. PyTorch is imported only where it runs the network or explains it.
"""

import glob
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from histotransfer.datasets.csv_files import is_table, read_column
from histotransfer.deploy.notes import UNLIKE, notes
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.familiarity import Familiarity, familiarity
from histotransfer.evaluation.sets import answer
from histotransfer.files import readable, whole_file
from histotransfer.folders import SYSTEM, PassedOver, is_dir, is_file, is_system, walk
from histotransfer.models import openvino
from histotransfer.models.description import describe
from histotransfer.models.weights_file import load_beside, load_metadata
from histotransfer.pictures import decode, resize
from histotransfer.tiles import TileSource, augmented_source, outputs_by_view

if TYPE_CHECKING:
    from histotransfer.models.se_densenet import SEDenseNet

Runtime = Literal["torch", "openvino"]
BATCH = 32
SHIPPED = Path(__file__).parent / "models" / "final.safetensors"
LONGEST = 50  # letters of a picture's name in that of its overlay: what file systems take is counted in bytes
HEAT = 0.5  # the largest share of an overlay in a pixel's colour


@dataclass(frozen=True)
class Prediction:
    """What a network says of a picture, and what is odd about the picture.

    Attributes:
        file: as it was given.
        label: the most probable class.
        probabilities: of the classes, in the order of the network's.
        set: the one class that is left at the coverage that the network states, or `sets.CANNOT_TELL`; empty where it
            states none.
        note: what is odd, joined by "; "; empty for an ordinary picture.
    """

    file: str
    label: str
    probabilities: tuple[float, ...]
    set: str
    note: str


@dataclass(frozen=True)
class Trouble:
    """Why a picture was not predicted; the message names the file."""

    file: str
    message: str


@dataclass(frozen=True)
class Ready:
    """A picture as the network sees it, ``(S, S, 3)`` uint8, and the notes on it."""

    tile: np.ndarray
    notes: list[str]


Prepared = list[Ready | Trouble]


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
        views: how many views of a picture to average, the upright one first; None: as many as the file says.

    Attributes:
        description: how pictures are prepared, and the names of the classes.
        familiarity: of the training pictures; None if the weights are an .xml, or do not hold it.
        views: how many views are averaged.

    Raises:
        HistotransferError: the file is not such a file, or not for this runtime, or the network has fewer views.
    """

    def __init__(self, weights: str | Path, runtime: Runtime = "torch", views: int | None = None):
        self.weights = Path(weights)
        self.familiarity: Familiarity | None = None
        self.network: Callable[[np.ndarray], np.ndarray]
        if self.weights.suffix == ".xml":
            self._use_exported(runtime)
        else:
            self._use(runtime)
        self.views = self._averaged(views)

    def _use_exported(self, runtime: Runtime) -> None:
        if runtime != "openvino":
            raise HistotransferError(f"{self.weights}: an OpenVINO model; use --runtime openvino")
        model, metadata = openvino.load(self.weights)
        self.description = describe(metadata, self.weights)
        if not openvino.fits(model, self.description.size, len(self.description.classes)):
            raise HistotransferError(f"{self.weights}: its description does not fit its network; export it again")
        self.network = openvino.OpenVINONetwork(model)

    def _use(self, runtime: Runtime) -> None:
        self.description = describe(load_metadata(self.weights), self.weights)
        if runtime == "openvino":
            model = openvino.converted(self.weights)
            self.network = openvino.OpenVINONetwork(model)
            channels = openvino.outputs(model) - len(self.description.classes)
        else:
            from histotransfer.models.se_densenet import OnArrays, WithFeatures

            with_features = WithFeatures(self.model)
            self.network, channels = OnArrays(with_features), with_features.channels
        if beside := load_beside(self.weights):
            self.familiarity = familiarity(beside, channels, self.weights)

    @cached_property
    def model(self) -> "SEDenseNet":
        """The network in PyTorch.

        Raises:
            HistotransferError: the weights are an .xml, which has no gradients.
        """
        from histotransfer.models.weights import load_model

        if self.weights.suffix == ".xml":
            raise HistotransferError("overlays need gradients: give the .safetensors that was exported")
        return load_model(self.weights)[0]

    def _averaged(self, views: int | None) -> int:
        known = self.description.views
        there = augmented_source(np.empty((0, 1, 1, 3), np.uint8), known.views, known.augmentation).views
        if views is not None and not 1 <= views <= there:
            raise HistotransferError(f"--views {views}: this network has 1 to {there}")
        return min(views or known.averaged or there, there)

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
            explain = partial(_write_overlays, self.model, overlays)
        done = 0
        for batch, prepared in _one_ahead(self.prepare, _batches(map(str, files))):
            yield from self._finish(batch, prepared, explain, done)
            done += len(batch)

    def prepare(self, files: list[str]) -> Prepared:
        """Each file as the network sees it with the notes on the picture itself, or why it is not predicted."""
        prepared: Prepared = []
        for file in files:
            try:
                if is_table(file):
                    read_column(file)  # says what a CSV file without pictures lacks
                picture = decode(file)
                tile = resize(picture, self.description.size)
                normalised, unchanged = self.description.colours.normalise(tile)
                prepared.append(Ready(normalised, notes(picture, tile, unchanged)))
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
        good: dict[int, Ready] = {}
        for i, item in enumerate(prepared):
            if isinstance(item, Trouble):
                results[i] = item
            else:
                good[i] = item
        if not good:
            return list(results.values())
        known, tiles = self.description, np.stack([ready.tile for ready in good.values()])
        source = augmented_source(tiles, known.views.views, known.views.augmentation)
        outputs = outputs_by_view(self.network, source, np.arange(len(good)), self.views)
        logits = outputs[:, :, : len(known.classes)].mean(axis=0).astype(float)
        features = outputs[0, :, len(known.classes) :]  # of the upright picture
        with np.errstate(invalid="ignore"):  # infinite logits have no probabilities: they are refused below
            # The softmax without scipy.special, which takes a third of a second to import.
            chances = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).tolist()
        unlike = np.zeros(len(good), dtype=bool)
        if self.familiarity and np.isfinite(features).all():
            unlike = self.familiarity.is_unlike(features)
        for (i, ready), p, is_unlike in zip(good.items(), chances, unlike, strict=True):
            if any(map(math.isnan, p)):
                results[i] = Trouble(files[i], f"{files[i]}: the network's output is no number; use other weights")
                continue
            label, one = known.classes[int(np.argmax(p))], answer(p, known.classes, known.sets.get("picture"))
            note = "; ".join([*ready.notes, *([UNLIKE] if is_unlike else [])])
            results[i] = Prediction(files[i], label, tuple(p), one, note)
        if explain is not None:
            explain(
                tiles,
                logits.argmax(axis=1),
                [f"{done + i + 1:05d}-{Path(readable(files[i])).stem[:LONGEST]}.png" for i in good],
            )
        return [results[i] for i in range(len(files))]


def _write_overlays(
    model: "SEDenseNet", folder: Path, tiles: np.ndarray, classes: np.ndarray, names: list[str]
) -> None:
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
        OSError: the file cannot be written.
    """
    strength = cv2.resize(np.maximum(heat, 0), tile.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    strength = strength / max(float(strength.max()), np.finfo(np.float32).tiny)
    colours = cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = HEAT * strength[..., None]
    blended = (1 - share) * tile[..., ::-1] + share * colours
    _, content = cv2.imencode(".png", np.rint(blended).astype(np.uint8))
    with whole_file(path) as temporary:
        temporary.write_bytes(content.tobytes())


def find_pictures(arguments: Iterable[str], passed_over: list[PassedOver] | None = None) -> Iterator[str]:
    """Files as given; for a folder the pictures in and under it, for a CSV file those in its column `path`, for a
    pattern with * the files that match.

    Folders and patterns are sorted by name. One without pictures is yielded itself, so that its reader reports it.
    What was not read of a folder or a pattern is appended to `passed_over`.
    """
    others = [] if passed_over is None else passed_over
    for argument in arguments:
        if is_dir(argument):
            files = [str(path) for path in walk(argument, others)]
        elif is_table(argument):
            files = _listed(argument)
        elif glob.has_magic(argument) and not is_file(argument):
            files = list(_matches(argument, others))
        else:
            files = []
        yield from files or [argument or "''"]


def _listed(table: str) -> list[str]:
    try:
        return [file for file, _ in read_column(table)]
    except HistotransferError:  # as every argument without pictures: its reader reports it
        return []


def _matches(pattern: str, passed_over: list[PassedOver]) -> Iterator[str]:
    """What a shell would make of a pattern, and the pictures in the folders among it."""
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
        if is_system(Path(match).name):
            passed_over.append(PassedOver(readable(match), SYSTEM))
        elif not Path(match).is_dir():
            yield match
        elif "**" not in pattern:  # which names what is in the folder itself
            yield from map(str, walk(match, passed_over))
