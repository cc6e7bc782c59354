"""The dose of each treatment of a run, for its record: what `evaluation.dose` measures, on the run's own images.

Everything is measured on training and validation images of the target task, and on held-out images of the source task.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from histotransfer.config import LadderConfig
from histotransfer.evaluation.dose import (
    Kernels,
    accuracy_by_original,
    colour_shift,
    gate_statistics,
    kernels,
    linear_cka,
    movement,
)
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.stain import normaliser
from histotransfer.tiles import Subset, TileSource, load_tiles
from histotransfer.transfer.stages import StageResult, frozen_features
from histotransfer.transfer.task import Task


def dose_of_source(
    source: Task,
    stages: Sequence[StageResult],
    initial: SEDenseNet,
    model: SEDenseNet,
    target: Task,
    config: LadderConfig,
) -> dict[str, Any]:
    """What the source task did to the network before the target task.

    Args:
        source: the source task.
        stages: its training.
        initial: the network before it.
        model: the network after it.
        target: the target task; its training images show how features changed.
        config: all settings.

    Returns:
        `accuracy` on held-out images of the source task, each original once; `moved`, by group; `cka`, the linear CKA
        of pooled features before and after it.
    """
    test = source.rows("test")
    guesses = np.array(source.classes)[stages[-1].logits[-len(test) :].argmax(axis=1)]
    train = target.rows("train")
    before, after = (frozen_features(network, target, config)[train] for network in (initial, model))
    return {
        "accuracy": accuracy_by_original(source.truth.iloc[test], source.table["group"].iloc[test], guesses),
        "moved": movement(kernels(initial), kernels(model)),
        "cka": linear_cka(before, after),
    }


def dose_of_target(task: Task, stages: Sequence[StageResult], start: Kernels, model: SEDenseNet) -> dict[str, Any]:
    """What the target task did to the network, and how its images were changed.

    Args:
        task: the target task.
        stages: its training.
        start: convolutions before it.
        model: the network after it.

    Returns:
        `training_log_loss` (nats) in the last epoch; `moved`, by group; `views`: how many different ones a training
        image was seen in on average (`drawn`), and how many there are (`of`); with gates `gates`: mean `distance` from
        1 (also `by_gate`), and mean `spread` over validation images; with a normaliser `colours` of training images, as
        `colour_shift` returns them.
    """
    drawn = np.any([stage.views for stage in stages], axis=0)
    dose: dict[str, Any] = {
        "training_log_loss": stages[-1].rows[-1]["train_log_loss"],
        "moved": movement(start, kernels(model)),
        "views": {"drawn": float(drawn.sum(axis=1).mean()), "of": drawn.shape[1]},
    }
    if task.config.se_positions and len(task.rows("validation")):
        gates = gate_statistics(model, Subset(TileSource(task.tiles), task.rows("validation")))
        dose["gates"] = {
            "distance": float(gates["moved"].mean()),
            "spread": float(gates["by_image"].mean()),
            "by_gate": gates["moved"].to_dict(),
        }
    if task.config.normaliser != "none":
        train = task.rows("train")
        scanned, _ = load_tiles(task.table["path"].iloc[train].tolist(), task.config.size, normaliser("none"))
        dose["colours"] = colour_shift(scanned, task.tiles[train])
    return dose
