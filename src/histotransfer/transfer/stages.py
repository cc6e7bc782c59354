"""Train a network on a task, stage by stage, from the stored activations of the groups that a stage keeps frozen.

Paper: arXiv 2404.09226, "multi-level transfer". What it does not state (stages, rates per layer, optimiser, split) is a
documented choice in `histotransfer.config`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from histotransfer.config import LadderConfig, Stage
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, load_trunk
from histotransfer.tiles import KeyedSource, Subset
from histotransfer.transfer.checkpoint import Checkpoint
from histotransfer.transfer.prefix_cache import cached_source, flush
from histotransfer.transfer.task import Task
from histotransfer.transfer.training import Batches, State, pooled_features, predict_logits, train_stage
from histotransfer.transfer.unfreezing import lowest_trained

Report = Callable[[str], None]


def architecture(classes: int, config: LadderConfig) -> dict:
    """Keyword arguments of `SEDenseNet` for a configuration."""
    return {
        "num_classes": classes,
        "positions": list(config.se_positions),
        "first_gated_block": config.se_first_block,
        "reduction": config.se_reduction,
        "gate": config.se_gate,
    }


def initial_model(classes: int, trunk: Trunk, config: LadderConfig) -> SEDenseNet:
    """The network before any training: trunk, untrained gates, random classifier from the seed.

    The trunk is ImageNet's or, with ``start="scratch"``, random from the seed too.
    """
    torch.manual_seed(config.seed)
    model = SEDenseNet(**architecture(classes, config))
    if config.start == "imagenet":
        load_trunk(model, trunk)
    return model.to(config.device).to(memory_format=torch.channels_last)


def with_new_head(model: SEDenseNet, classes: int, config: LadderConfig) -> SEDenseNet:
    """The same trunk and gates under a new classifier, for the next data set's classes."""
    torch.manual_seed(config.seed)
    other = SEDenseNet(**architecture(classes, config))
    other.features.load_state_dict(model.features.state_dict())
    return other.to(config.device).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class StageResult:
    """The result of one stage.

    Attributes:
        dataset: name of the data set.
        stage: the lowest group that was trained.
        seconds: duration of training and prediction.
        rows: what `train_stage` returned, one row per epoch.
        logits: of the task's evaluated rows by the network at the end of the stage, ``(M, classes)``.
        views: ``(T, views)`` bool, whether a training image was seen in a view.
        losses: ``(epochs, T + V)`` log-loss of each training and validation image in each epoch (`ImageLosses`); no
            columns unless `record_losses`.
    """

    dataset: str
    stage: Stage
    seconds: float
    rows: list[dict[str, float]]
    logits: np.ndarray
    views: np.ndarray
    losses: np.ndarray


def history(stages: Sequence[StageResult]) -> pd.DataFrame:
    """One row per epoch: `dataset`, `stage`, `epoch`, then `train_stage`'s columns."""
    rows = [
        {"dataset": s.dataset, "stage": s.stage, "epoch": i, **row} for s in stages for i, row in enumerate(s.rows, 1)
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["dataset", "stage", "epoch"])


def train_stages(
    model: SEDenseNet,
    task: Task,
    schedule: Sequence[tuple[Stage, int]],
    config: LadderConfig,
    checkpoint: Checkpoint | None = None,
    *,
    progress: bool = False,
    report: Report = print,
) -> list[StageResult]:
    """Train `model` in place through every stage of a schedule, each on activations of the groups that it freezes.

    Args:
        model: the network before this task.
        task: the data.
        schedule: stages with their epochs.
        config: everything else.
        checkpoint: where the state of the training is saved; an interrupted training continues, and a finished one is
            read back.
        progress: show bars.
        report: called with one line per stage.
    """
    return list(each_stage(model, task, schedule, config, checkpoint, progress=progress, report=report))


def each_stage(
    model: SEDenseNet,
    task: Task,
    schedule: Sequence[tuple[Stage, int]],
    config: LadderConfig,
    checkpoint: Checkpoint | None = None,
    *,
    progress: bool = False,
    report: Report = print,
) -> Iterator[StageResult]:
    """As `train_stages`, one stage after the other: when the result of a stage comes, the network is as of its end.

    Stages that a checkpoint holds come first, and the network is then as of the last of them.
    """
    finished: list[StageResult] = []
    within: State | None = None
    if checkpoint and (kept := checkpoint.load()):
        model.load_state_dict(kept["model"])
        finished = [_as_arrays(stage) for stage in kept["finished"]]
        within = kept["within"]
        report(f"{task.name}: {len(finished)} of {len(schedule)} stages were trained before")
        yield from finished

    def keep(within: State | None) -> None:
        if checkpoint and (within is None or checkpoint.due()):
            stages = [_as_tensors(stage) for stage in finished]
            checkpoint.save({"finished": stages, "within": within, "model": model.state_dict()})

    cuts = [lowest_trained(model, stage) if config.cache else 0 for stage, _ in schedule]
    for number in range(len(finished), len(schedule)):
        (stage, epochs), cut, started = schedule[number], cuts[number], time.perf_counter()
        # Groups above the cut are about to change: each stage builds its source anew, never above its cut.
        source = cached_source(task.source, model, cuts, cut, config.device)
        train = _batches(task, source, config, "train", (config.seed, *task.name.encode(), number))
        validation = _batches(task, source, config, "validation", None)
        rows = train_stage(
            model,
            train,
            validation,
            stage,
            epochs,
            config,
            start=cut,
            resumed=within,
            keep=keep,
            progress=progress,
        )
        logits = _predicted(model, Subset(source, task.evaluated), config, cut)
        flush(source)
        seconds = round(time.perf_counter() - started, 3)
        losses = np.hstack([np.reshape(part.losses, (len(rows), -1)) for part in (train, validation)])
        finished.append(StageResult(task.name, stage, seconds, rows, logits, train.views_drawn(len(rows)), losses))
        within = None
        keep(None)
        part = "validation" if len(task.rows("validation")) else "train"
        report(
            f"{task.name}, {stage}: {len(rows)} epochs in {seconds:.0f} s, {part} log-loss"
            f" {rows[-1][f'{part}_log_loss']:.3f}, accuracy {rows[-1][f'{part}_accuracy']:.3f}"
        )
        yield finished[-1]
    model.eval()


def _as_tensors(stage: StageResult) -> dict[str, Any]:
    """A stage as a checkpoint keeps it: torch reads tensors without unpickling."""
    fields = vars(stage).items()
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in fields}


def _as_arrays(kept: dict[str, Any]) -> StageResult:
    fields: dict[str, Any] = {name: each.numpy() if torch.is_tensor(each) else each for name, each in kept.items()}
    return StageResult(**fields)


def final_logits(
    model: SEDenseNet,
    task: Task,
    rows: np.ndarray,
    schedule: Sequence[tuple[Stage, int]],
    config: LadderConfig,
    views: int | None = None,
) -> np.ndarray:
    """Logits of some images of a task by a network that was trained through `schedule`: ``(M, classes)``.

    Activations of the groups that the last stage kept frozen are read from the cache, as in `train_stages`.

    Args:
        model: the network.
        task: the data.
        rows: positions of the images in it.
        schedule: stages that the network was trained through.
        config: everything else.
        views: number of views to average, the upright one first; None: as the configuration says.

    Raises:
        HistotransferError: the task has fewer views than that.
    """
    cuts = [lowest_trained(model, stage) if config.cache else 0 for stage, _ in schedule]
    source = cached_source(task.source, model.eval(), cuts, cuts[-1], config.device)
    logits = _predicted(model, Subset(source, rows), config, cuts[-1], views)
    flush(source)
    return logits


def frozen_features(model: SEDenseNet, task: Task, config: LadderConfig) -> np.ndarray:
    """Pooled features of every image, upright: ``(N, C)``; cached like the inputs of a head stage."""
    if not config.cache:
        return pooled_features(model, task.source, config.batch_size, config.device)
    head = lowest_trained(model, "head")
    cuts = [lowest_trained(model, stage) for stage, _ in config.breakhis_schedule]
    source = cached_source(task.source, model.eval(), cuts, head, config.device)
    features = pooled_features(model, source, config.batch_size, config.device, start=head)
    flush(source)
    return features


def _predicted(
    model: SEDenseNet, source: Subset, config: LadderConfig, cut: int, views: int | None = None
) -> np.ndarray:
    if not len(source):
        return np.empty((0, model.classifier.out_features), dtype=np.float32)
    if views is None:
        views = source.views if config.average_views else 1
    if views > source.views:
        raise HistotransferError(
            f"{views} views are to be averaged, but augmentation={config.augmentation} has {source.views}"
        )
    return predict_logits(model, source, config.batch_size, config.device, start=cut, views=views)


def _batches(task: Task, source: KeyedSource, config: LadderConfig, part: str, seed: tuple[int, ...] | None) -> Batches:
    rows = task.rows(part)
    return Batches(
        Subset(source, rows),
        task.targets[rows],
        config.batch_size,
        seed,
        config.device,
        balanced=config.balanced_sampling and seed is not None,
    )
