"""Training failures provoked on purpose, on phantom tissue; each seed has its own patients.

Small networks::

    few images        overfitting: a high rate and many epochs on a few fields
    some images       neither few nor many: the only truth is what test patients show
    many images       the same network on many fields; the arm without transfer
    right labels      transfer: trunk from a source task, frozen, with a new head
    shuffled labels   negative transfer: the same, with the labels of the source task shuffled
    ..., again        the same patients, another initialisation and order: differs by chance alone

And DenseNet-121 from ImageNet and from scratch on one budget, for slow convergence.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from histotransfer.config import Stage, ladder_config
from histotransfer.datasets import breakhis, phantom
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, load_trunk
from histotransfer.tiles import TileSource
from histotransfer.transfer.training import Batches, predict_logits, train_stage

SMALL: dict[str, Any] = {"block_config": (2, 2, 2, 2), "growth_rate": 8, "stem_features": 16, "reduction": 4}
STARTS = {"DenseNet-121, scratch": False, "DenseNet-121, ImageNet": True}
MAGNIFICATION = 100
RATE, HIGH_RATE, SHOW_RATE = 3e-3, 1e-2, 3e-4
AGAIN = 1000  # added to a seed
Fields = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Effort:
    """How much is computed.

    Attributes:
        cases: synthetic histories of each family with each signature, and as many without it.
        seeds: runs of each arm on phantom tissue.
        show_seeds: runs of DenseNet-121 from each start.
        many: training fields, and as many fields of the source task; each field is of another patient.
        some, few: training fields of the runs on less.
        held_out: validation fields, and as many test fields.
        epochs: of a run; twice as many on few images.
        show_epochs: of a run of DenseNet-121.
        size: pixels per side.
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


FULL = Effort()


def fields(count: int, size: int, seed: int) -> Fields:
    """One field per patient, alternately benign and malignant: ``(count, S, S, 3)`` uint8, ``(count,)`` classes."""
    each, tiles = len(phantom.BENIGN_PATIENTS), []
    for pair in range(count // 2):
        several, patient = divmod(pair, each)
        for number in (patient, patient + each):
            tiles.append(phantom.breast_image(number, MAGNIFICATION, 0, size=size, seed=1000 * seed + several).image)
    return np.stack(tiles), np.arange(len(tiles)) % 2


def train(
    model: SEDenseNet, data: dict[str, Fields], epochs: int, rate: float, seed: int, stage: Stage = "all"
) -> pd.DataFrame:
    """Train on ``data["train"]`` and return the history, with a column `test_log_loss` beside the usual ones."""
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
    history.insert(0, "dataset", "phantom")
    return history


def provoked_runs(seed: int, effort: Effort) -> pd.DataFrame:
    """The histories of all arms of one seed, on that seed's patients."""
    sizes = {"train": effort.many, "validation": effort.held_out, "test": effort.held_out, "source": effort.many}
    data = {part: fields(count, effort.size, 4 * seed + i) for i, (part, count) in enumerate(sizes.items())}
    tiles, labels = data.pop("source")
    train_tiles, train_labels = data["train"]
    some, few = ({**data, "train": (train_tiles[:count], train_labels[:count])} for count in (effort.some, effort.few))
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
        arms[name] = _new_head(source, data, effort, seed + AGAIN)  # not the head that the source began with
        if name == "right labels":
            arms[f"{name}, again"] = _new_head(source, data, effort, seed + 2 * AGAIN)
    return pd.concat([history.assign(arm=arm, seed=seed) for arm, history in arms.items()], ignore_index=True)


def _new_head(source: SEDenseNet, data: dict[str, Fields], effort: Effort, seed: int) -> pd.DataFrame:
    model = _small(seed)
    model.features.load_state_dict(source.features.state_dict())
    return train(model, data, effort.epochs, HIGH_RATE, seed, "head")


def _small(seed: int) -> SEDenseNet:
    torch.manual_seed(seed)
    return SEDenseNet(**SMALL)


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
