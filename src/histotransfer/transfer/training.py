"""Training one stage with fastai's Learner, and predicting.

Order and views of each epoch are drawn from (seed, epoch) alone, not from a global generator: an epoch can be
repeated, or continued elsewhere, without running the ones before it.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from fastai.callback.schedule import Learner  # importing it from here adds fit_one_cycle to Learner
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import AvgMetric, RocAucBinary, accuracy
from fastai.optimizer import Adam
from torch import Tensor
from torch.nn import functional as F

from histotransfer.config import LadderConfig, Stage
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.transfer.unfreezing import (
    FrozenPrefix,
    first_thawed,
    group_rates,
    module_groups,
    parameter_groups,
)


class Source(Protocol):
    """What batches are cut from: N items, each in `views` symmetric views."""

    views: int

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """Item ``rows[i]`` in view ``views[i]``, as one float32 batch."""


class Batches:
    """One pass over a source an iteration: shuffled in random views for training, in order and upright otherwise.

    Args:
        source: the items.
        targets: ``(N,)`` class indices.
        batch_size: items a batch. In training an incomplete last batch is left out (BatchNorm on two or three images
            is noise); who is left out changes every epoch.
        seed: entropy of the training order; `None` for evaluation.
        device: where batches are put.
    """

    def __init__(self, source: Source, targets: np.ndarray, batch_size: int, seed: Sequence[int] | None, device: str):
        self.source, self.batch_size, self.seed, self.device = source, batch_size, seed, device
        self.targets = torch.as_tensor(targets, dtype=torch.int64)
        self.epoch = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.source), self.batch_size)
        return max(whole, 1) if self.seed is not None else whole + bool(rest)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rows = np.arange(len(self.source))
        views = np.zeros_like(rows)
        if self.seed is not None:
            generator = np.random.default_rng([*self.seed, self.epoch])
            rows, views = generator.permutation(rows), generator.integers(self.source.views, size=len(rows))
            self.epoch += 1
        for i in range(len(self)):
            part = slice(i * self.batch_size, (i + 1) * self.batch_size)
            x = self.source.batch(rows[part], views[part])
            yield x.to(self.device), self.targets[rows[part]].to(self.device)


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        HistotransferError: it is not there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HistotransferError(
            f"device: {device} cannot be used here ({str(error).splitlines()[0]}); use cpu"
        ) from error


def class_weights(targets: np.ndarray, classes: int) -> Tensor:
    """Inverse class frequencies, mean 1 over the items: ``(classes,)`` float32."""
    counts = np.bincount(targets, minlength=classes)
    return torch.tensor(len(targets) / (classes * counts), dtype=torch.float32)


def train_stage(
    model: SEDenseNet,
    train: Batches,
    validation: Batches,
    stage: Stage,
    epochs: int,
    config: LadderConfig,
    *,
    progress=False,
) -> list[dict[str, float]]:
    """Train `model` in place for one stage: one cycle, discriminative rates, everything below the stage frozen.

    Args:
        model: the network; on return in eval mode.
        train: shuffled batches.
        validation: batches of the validation part, upright.
        stage: the lowest group that trains.
        epochs: passes over `train`.
        config: rates, decay, class weights, patience.
        progress: show fastai's bar.

    Returns:
        One row an epoch: `train_loss` (as minimised: weighted, over the epoch), `train_accuracy`, `train_log_loss`,
        and the same of the validation part, with `auroc` for two classes.
    """
    classes = model.classifier.out_features
    weight = class_weights(train.targets.numpy(), classes).to(config.device) if config.class_weights else None
    thawed = first_thawed(model, stage)
    frozen = [module for _, modules in module_groups(model)[:thawed] for module in modules]
    metrics = [accuracy, AvgMetric(F.cross_entropy), *([RocAucBinary()] if classes == 2 else [])]
    names = ["loss", "accuracy", "log_loss", *(["auroc"] if classes == 2 else [])]

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as quiet:
        learner = Learner(
            DataLoaders(train, validation),
            model,
            loss_func=CrossEntropyLossFlat(weight=weight),
            opt_func=Adam,
            splitter=parameter_groups,
            train_bn=False,
            wd=config.weight_decay,
            metrics=metrics,
            cbs=[FrozenPrefix(frozen)],
            path=folder,
        )
        learner.recorder.train_metrics = True
        if config.patience:
            learner.add_cbs([EarlyStoppingCallback(patience=config.patience), SaveModelCallback()])
        if not progress:
            quiet.enter_context(learner.no_bar())
            quiet.enter_context(learner.no_logging())
            quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))  # early stopping prints all the same
        learner.freeze_to(thawed)
        # A gradient left by an earlier, deeper stage would let momentum and decay move weights that are frozen now.
        model.zero_grad(set_to_none=True)
        learner.fit_one_cycle(epochs, lr_max=group_rates(model, config.learning_rate, config.rate_decay))
    model.eval()
    columns = [f"{part}_{name}" for part in ("train", "validation") for name in names]
    return [dict(zip(columns, map(float, values), strict=True)) for values in learner.recorder.values]


@torch.inference_mode()
def predict_logits(model: SEDenseNet, source: Source, batch_size: int, device: str = "cpu") -> np.ndarray:
    """Logits of every item, upright: ``(N, classes)`` float32. The model is left in eval mode."""
    return _apply(model.eval(), source, batch_size, device)


@torch.inference_mode()
def pooled_features(model: SEDenseNet, source: Source, batch_size: int, device: str = "cpu") -> np.ndarray:
    """Features before the classifier, upright: ``(N, C)`` float32. The model is left in eval mode."""
    return _apply(model.eval().pooled, source, batch_size, device)


def _apply(function, source: Source, batch_size: int, device: str) -> np.ndarray:
    batches = Batches(source, np.zeros(len(source)), batch_size, None, device)
    return torch.cat([function(x).cpu() for x, _ in batches]).numpy()
