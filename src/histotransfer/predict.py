"""Predict pictures with a trained network, one bad picture never costing the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from histotransfer.errors import HistotransferError
from histotransfer.models.weights import load_model
from histotransfer.stain import normaliser
from histotransfer.tiles import TileSource, decode, resize

BATCH = 32


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


class Predictor:
    """A network with everything its weights file says about preprocessing.

    Args:
        weights: a file written by `histotransfer ladder`.

    Attributes:
        profile: the profile it was trained under; a phantom network knows no tissue.

    Raises:
        HistotransferError: not such a file.
    """

    def __init__(self, weights: str | Path):
        model, description = load_model(Path(weights))
        self.model = model.to(memory_format=torch.channels_last)
        try:
            self.classes: list[str] = description["classes"]
            self.size: int = description["size"]
            self.profile: str = description["profile"]
            self.normaliser = normaliser(description["normaliser"])
        except KeyError as error:
            raise HistotransferError(f"{weights}: its description lacks {error}; train it with `ladder`") from error

    def predict(self, files: Sequence[str | Path]) -> Iterator[Prediction | Trouble]:
        """Predict files in order, `BATCH` at a time; memory does not grow with their number."""
        for start in range(0, len(files), BATCH):
            yield from self._batch([str(file) for file in files[start : start + BATCH]])

    @torch.inference_mode()
    def _batch(self, files: list[str]) -> Iterator[Prediction | Trouble]:
        tiles, troubles = {}, {}
        for file in dict.fromkeys(files):
            try:
                tiles[file] = self.normaliser.transform(resize(decode(file), self.size))
            except HistotransferError as error:
                troubles[file] = str(error)
        found = {}
        if tiles:
            upright = np.zeros(len(tiles), dtype=int)
            x = TileSource(np.stack(list(tiles.values()))).batch(np.arange(len(tiles)), upright)
            probability, index = self.model(x).softmax(dim=1).max(dim=1)
            for file, p, i in zip(tiles, probability.tolist(), index.tolist(), strict=True):
                found[file] = Prediction(file, self.classes[i], p)
        for file in files:
            yield found[file] if file in found else Trouble(file, troubles[file])
