"""Training one stage with fastai's Learner, and predicting.

Order and views of each epoch are drawn from (seed, epoch) alone, not from a global generator: an epoch can be
repeated, or continued elsewhere, without running the ones before it.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import Learner  # importing it from here adds fit_one_cycle to Learner
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import AvgMetric, RocAucBinary, accuracy
from fastai.optimizer import SGD, Adam
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from histotransfer.config import LadderConfig, Stage
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.tiles import Source
from histotransfer.transfer.unfreezing import (
    FrozenPrefix,
    Suffix,
    frozen_modules,
    lowest_trained,
    module_groups,
    optimiser_groups,
    run_groups,
)

State = dict[str, Any]


class Batches:
    """One pass over a source per iteration: for training shuffled and in random views, otherwise in order and upright.

    Args:
        source: the items.
        targets: ``(N,)`` class indices.
        batch_size: items per batch. In training an incomplete last batch is left out (BatchNorm on two or three images
            is noise); the items left out change every epoch.
        seed: entropy of the training order; `None` for evaluation.
        device: where batches are put.
        view: the view that evaluation sees; 0 is upright.
        balanced: a pass draws every class equally often on average, with replacement, instead of every item once.
    """

    def __init__(
        self,
        source: Source,
        targets: np.ndarray,
        batch_size: int,
        seed: Sequence[int] | None,
        device: str,
        *,
        view: int = 0,
        balanced: bool = False,
    ):
        self.source, self.batch_size, self.seed, self.device = source, batch_size, seed, device
        self.view, self.balanced = view, balanced
        self.targets = torch.as_tensor(targets, dtype=torch.int64)
        self.epoch = 0
        self.current = np.arange(0)  # positions of the items of the batch that was drawn last
        self.losses: list[np.ndarray] = []  # by `ImageLosses`

    def __len__(self) -> int:
        whole, rest = divmod(len(self.source), self.batch_size)
        return max(whole, 1) if self.seed is not None else whole + bool(rest)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rows, views = self.order(self.epoch)
        self.epoch += self.seed is not None
        for i in range(len(self)):
            part = slice(i * self.batch_size, (i + 1) * self.batch_size)
            self.current = rows[part]
            x = self.source.batch(rows[part], views[part])
            yield x.to(self.device), self.targets[rows[part]].to(self.device)

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The items of an epoch, and the view that each is seen in."""
        rows = np.arange(len(self.source))
        if self.seed is None:
            return rows, np.full_like(rows, self.view)
        generator = np.random.default_rng([*self.seed, epoch])
        if self.balanced:
            rows = generator.choice(rows, len(rows), p=self._draw_probabilities())
        else:
            rows = generator.permutation(rows)
        return rows, generator.integers(self.source.views, size=len(rows))

    def views_drawn(self, epochs: int) -> np.ndarray:
        """``(N, views)`` bool: whether an item is seen in a view within so many epochs."""
        drawn = np.zeros((len(self.source), self.source.views), dtype=bool)
        for epoch in range(epochs):
            rows, views = (each[: len(self) * self.batch_size] for each in self.order(epoch))
            drawn[rows, views] = True
        return drawn

    def _draw_probabilities(self) -> np.ndarray:
        """``(N,)`` probability of each item in one draw: equal between classes, and equal within each class."""
        _, classes, counts = np.unique(self.targets, return_inverse=True, return_counts=True)
        return 1 / (len(counts) * counts[classes])


def check_device(device: str) -> None:
    """Check that a device can be used on this machine.

    Raises:
        HistotransferError: it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HistotransferError(
            f"device: {device} cannot be used here ({str(error).splitlines()[0]}); use cpu"
        ) from error


def class_weights(targets: np.ndarray, classes: int) -> Tensor:
    """Inverse class frequencies, mean 1 over the items: ``(classes,)`` float32; 0 for a class without items."""
    counts = np.bincount(targets, minlength=classes)
    weights = len(targets) / ((counts > 0).sum() * np.maximum(counts, 1)) * (counts > 0)
    return torch.tensor(weights, dtype=torch.float32)


class StageProgress(Callback):
    """The history of a stage epoch by epoch, its early stopping, and its checkpoints.

    Args:
        names: of the metrics, in fastai's order.
        patience: stop after so many epochs without a lower validation loss and go back to the best; 0: never.
        resumed: a `state` of this stage, to continue from.
        keep: called with the state after each epoch.
    """

    order = 80  # after the Recorder (50) and SkipToEpoch (70)

    def __init__(self, names: Sequence[str], patience: int, resumed: State | None, keep: Callable[[State], None]):
        self.names, self.patience, self.keep = names, patience, keep
        self.rows: list[dict[str, float]] = list(resumed["rows"]) if resumed else []
        self.best: dict[str, Tensor] | None = resumed["best"] if resumed else None
        self.resumed = resumed
        self.trouble: HistotransferError | None = None

    def before_fit(self) -> None:
        if self.resumed:
            self.opt.load_state_dict({"state": self.resumed["optimiser"], "hypers": self.opt.hypers})

    def after_epoch(self) -> None:
        if self.epoch < len(self.rows):
            return  # an epoch of the interrupted run: fastai skips it
        values = list(self.recorder.values[-1])
        # Each half starts with fastai's own loss: in training a running mean over epochs, which is not this epoch's.
        train, validation = values[1 : len(values) // 2], values[len(values) // 2 + 1 :]
        columns = [f"{part}_{name}" for part in ("train", "validation") for name in self.names]
        numbers = [math.nan if value is None else float(value) for value in train + validation]  # None: no value
        self.rows.append(dict(zip(columns, numbers, strict=True)))
        losses = [row["validation_loss"] for row in self.rows]
        best = losses.index(min(losses))
        if self.patience and best == len(losses) - 1:
            self.best = copy.deepcopy(self.model.state_dict())
        if self.patience and len(losses) - 1 - best >= self.patience:
            raise CancelFitException
        # Rates and momenta are not kept: the one-cycle schedule sets them anew from the epoch and the batch.
        state = {"rows": self.rows, "best": self.best, "optimiser": list(self.opt.state_dict()["state"])}
        if hasattr(self.learn, "average_weights"):
            state["average"] = self.learn.average_weights.average.state_dict()
        if hasattr(self.learn, "image_losses"):
            state["losses"] = self.learn.image_losses.state()
        try:
            self.keep(state)
        except HistotransferError as error:  # fastai would rewrite its message
            self.trouble = error
            raise CancelFitException from error

    def after_fit(self) -> None:
        if self.best is not None:
            self.model.load_state_dict(self.best)


class SeededEpochs(Callback):
    """Set torch's generator from (seed, epoch) before each epoch, so that mixup's draws are reproducible."""

    def __init__(self, seed: Sequence[int]):
        self.seed = seed

    def before_epoch(self) -> None:
        torch.manual_seed(int(np.random.SeedSequence([*self.seed, self.epoch]).generate_state(1)[0]))


class ImageLosses(Callback):
    """The log-loss of every item in every epoch, in `Batches.losses`: in training of the view that was drawn.

    Args:
        parts: batches of the training part and of the validation part.
        resumed: a state to continue from, as `StageProgress` keeps it.
    """

    order = 75  # after SkipToEpoch (70), before StageProgress (80) saves it

    def __init__(self, parts: Sequence[Batches], resumed: State | None):
        self.parts = parts
        for number, batches in enumerate(parts):
            batches.losses = [row.numpy() for row in resumed["losses"][number]] if resumed else []

    def state(self) -> list[Tensor]:
        """``(epochs, N)`` of each part."""
        return [torch.from_numpy(np.array(batches.losses)) for batches in self.parts]

    def before_epoch(self) -> None:
        for batches in self.parts:  # NaN: an item of the last, incomplete batch, which training leaves out
            batches.losses.append(np.full(len(batches.source), np.nan, dtype=np.float32))

    def after_batch(self) -> None:
        losses = F.cross_entropy(self.pred.detach(), self.yb[0], reduction="none")
        self.dl.losses[-1][self.dl.current] = losses.cpu().numpy()


class AverageWeights(Callback):
    """An exponential moving average of weights and BatchNorm statistics, which replaces them when the stage ends.

    Polyak and Juditsky 1992, https://doi.org/10.1137/0330046; computed by `torch.optim.swa_utils`.

    Args:
        decay: 0 to 1, per step.
        resumed: the average's `state_dict` to continue from.
    """

    run_valid, order = False, 75  # the average is updated before StageProgress (80) saves it

    def __init__(self, decay: float, resumed: State | None):
        self.decay, self.resumed = decay, resumed

    def before_fit(self) -> None:
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=True)
        if self.resumed:
            self.average.load_state_dict(self.resumed)

    def after_batch(self) -> None:
        self.average.update_parameters(self.model)

    def after_fit(self) -> None:
        self.model.load_state_dict(self.average.module.state_dict())


def train_stage(
    model: SEDenseNet,
    train: Batches,
    validation: Batches,
    stage: Stage,
    epochs: int,
    config: LadderConfig,
    *,
    start: int = 0,
    resumed: State | None = None,
    keep: Callable[[State], None] = lambda state: None,
    progress: bool = False,
) -> list[dict[str, float]]:
    """Train `model` in place for one stage: one cycle, discriminative rates, everything below the stage frozen.

    Args:
        model: the network; on return in eval mode.
        train: shuffled batches.
        validation: batches of the validation part, upright.
        stage: names the lowest group that trains.
        epochs: passes over `train`.
        config: rates, decay, class weights, patience.
        start: the cut of both sources: 0 for tiles, else activations after the groups below it, all of them frozen.
        resumed: a state that an interrupted run passed to `keep`; `model` must have the weights of that moment.
        keep: called after each epoch with everything besides the weights that is needed to continue.
        progress: show fastai's bar.

    Returns:
        One row per epoch: `train_loss` (as minimised: weighted), `train_accuracy`, `train_log_loss`,
        and the same of the validation part, with `auroc` for two classes.

    Raises:
        ValueError: `start` is above the lowest group that trains, or `train` has no seed.
    """
    lowest = lowest_trained(model, stage)
    if train.seed is None:
        raise ValueError("batches to train on need a seed")
    if start > lowest:
        raise ValueError(f"stage {stage} trains group {lowest}, which the source has already applied (cut {start})")
    classes, done = model.classifier.out_features, len(resumed["rows"]) if resumed else 0
    weight = class_weights(train.targets.numpy(), classes).to(config.device) if config.class_weights else None
    loss, train.epoch = CrossEntropyLossFlat(weight=weight), done
    names, metrics = _metrics(loss, classes)
    following = StageProgress(names, config.patience, resumed, keep)
    model.requires_grad_(False)  # fastai's freeze_to then unfreezes what the optimiser is given
    groups = [group for group in optimiser_groups(model, config) if group.number >= start]
    with contextlib.ExitStack() as quiet:
        learner = Learner(
            DataLoaders(train, validation),
            Suffix(model, start),
            loss_func=loss,
            opt_func={"adam": Adam, "sgd": SGD}[config.optimiser],
            splitter=lambda suffix: [group.parameters for group in groups],
            train_bn=False,
            wd=config.weight_decay,
            metrics=metrics,
            cbs=[
                FrozenPrefix(frozen_modules(model, stage)),
                following,
                *_extras(config, train, validation, resumed),
            ],
        )
        learner.recorder.train_metrics = True
        if not progress:
            quiet.enter_context(learner.no_bar())
            quiet.enter_context(learner.no_logging())
        learner.freeze_to(sum(group.number < lowest for group in groups))
        # A gradient left by an earlier, deeper stage would let momentum and decay move weights that are frozen now.
        model.zero_grad(set_to_none=True)
        learner.fit_one_cycle(epochs, lr_max=[group.rate for group in groups], start_epoch=done)
    if following.trouble:
        raise following.trouble
    model.eval().requires_grad_(True)
    return following.rows


def _metrics(loss: CrossEntropyLossFlat, classes: int) -> tuple[list[str], list]:
    """Names and fastai's metrics of a history: the loss as minimised, accuracy, log-loss; AUROC for two classes."""
    names, metrics = ["loss", "accuracy", "log_loss"], [AvgMetric(loss), accuracy, AvgMetric(F.cross_entropy)]
    return (names, metrics) if classes > 2 else ([*names, "auroc"], [*metrics, RocAucBinary()])


def _extras(config: LadderConfig, train: Batches, validation: Batches, resumed: State | None) -> list[Callback]:
    """The callbacks for what a configuration adds to plain training."""
    extras: list[Callback] = []
    if config.mixup and train.seed is not None:
        extras += [SeededEpochs(train.seed), MixUp(config.mixup)]
    if config.record_losses:
        extras += [ImageLosses((train, validation), resumed)]
    if config.average_weights:
        extras += [AverageWeights(config.average_weights, resumed and resumed["average"])]
    return extras


def predict_logits(
    model: SEDenseNet, source: Source, batch_size: int, device: str = "cpu", *, start: int = 0, views: int = 1
) -> np.ndarray:
    """Logits of every item: ``(N, classes)`` float32. The model is left in eval mode.

    Args:
        model: the network.
        source: tiles, or activations at cut `start`.
        batch_size: items per forward pass.
        device: where it runs.
        start: groups that the source has already applied.
        views: number of views to average over; the first is upright.
    """
    stop = len(module_groups(model))
    return np.mean([_outputs(model, source, batch_size, device, start, stop, view) for view in range(views)], axis=0)


def pooled_features(
    model: SEDenseNet, source: Source, batch_size: int, device: str = "cpu", *, start: int = 0
) -> np.ndarray:
    """Features before the classifier, upright: ``(N, C)`` float32. As `predict_logits`."""
    return _outputs(model, source, batch_size, device, start, len(module_groups(model)) - 1)


@torch.inference_mode()
def _outputs(
    model: SEDenseNet, source: Source, batch_size: int, device: str, start: int, stop: int, view: int = 0
) -> np.ndarray:
    model.eval()
    batches = Batches(source, np.zeros(len(source)), batch_size, None, device, view=view)
    return torch.cat([run_groups(model, x, start, stop).cpu() for x, _ in batches]).numpy()
