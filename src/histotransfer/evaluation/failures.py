"""Failure signatures of training, read from histories: overfitting, negative transfer, slow convergence (F1 to F3).

A curve is the log-loss over the epochs of a history's last data set, as means of `WINDOW` epochs, so that no single
noisy epoch decides. The thresholds were chosen on simulated histories (`research/detectors.py`) and tested on others.

Sources: none prescribes these rules; they quantify what Goodfellow et al. 2016, section 7.8 (validation error rises
while training error falls) and Wang et al. 2019, https://arxiv.org/abs/1811.09751 (a source that makes the target worse
than no source) describe. Restricted means: Royston and Parmar 2013, https://doi.org/10.1186/1471-2288-13-152.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError

WINDOW = 3  # epochs per mean, as in claim C5
RISE = 0.1  # nats of validation log-loss above its lowest: overfitting
HARM = 0.05  # nats of validation log-loss above the arm without transfer: negative transfer
LASTING = 3  # means at the end of training that must all show it
DELAY = 1.75  # times the epochs of the reference: slow convergence
WAY = 0.75  # of the way down: at the bottom, noise decides when a level is passed


@dataclass(frozen=True)
class Finding:
    """The result of a detector on a run.

    Attributes:
        found: whether the run shows the signature.
        amount: how strongly: nats, or a ratio of epochs.
        epoch: where it begins, counted from 1 over all stages of the data set; None where it was not found.
    """

    found: bool
    amount: float
    epoch: int | None


def curve(history: pd.DataFrame, part: str = "validation") -> pd.Series:
    """Means of `WINDOW` epochs of the log-loss (nats) on the last data set, indexed by the last epoch of each, from 1.

    Args:
        history: of one run, one row per epoch: `dataset`, `train_log_loss`, `validation_log_loss`.
        part: train or validation.

    Raises:
        HistotransferError: missing columns, fewer than `WINDOW` epochs, a loss that is not finite.
    """
    column = f"{part}_log_loss"
    if missing := {"dataset", column} - set(history):
        raise HistotransferError(f"history: no column {', '.join(sorted(missing))}; give a run's history.csv")
    datasets = history["dataset"]
    losses = history.loc[datasets.eq(datasets.iloc[-1]) if len(history) else [], column].to_numpy(float)
    if len(losses) < WINDOW:
        raise HistotransferError(f"history: {len(losses)} epochs on the last data set; at least {WINDOW} are needed")
    if not np.isfinite(losses).all():
        raise HistotransferError(f"history: {column} is not finite in epoch {np.argmin(np.isfinite(losses)) + 1}")
    means = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), "valid")
    return pd.Series(means, index=range(WINDOW, len(losses) + 1))


def overfitting(history: pd.DataFrame, rise: float = RISE) -> Finding:
    """F1: at the end validation log-loss is `rise` above its lowest value, and training log-loss has not risen with it.

    Args:
        history: of one run.
        rise: nats. Training log-loss must rise by less than half as much as validation log-loss; else training itself
            has failed.

    Returns:
        The epoch is that of the lowest validation log-loss, at which training should have stopped.
    """
    validation, train = curve(history), curve(history, "train")
    lowest = validation.idxmin()
    amount = validation.iloc[-1] - validation[lowest]
    overfits = amount > rise and train.iloc[-1] - train[lowest] < amount / 2
    return Finding(bool(overfits), float(amount), int(lowest) if overfits else None)


def negative_transfer(transfer: pd.DataFrame, control: pd.DataFrame, harm: float = HARM) -> Finding:
    """F2: the transfer arm's validation log-loss stays `harm` above that of the arm without it until the end.

    Args:
        transfer: history of the arm with transfer.
        control: history of the arm without it: the same target, epochs, seed.
        harm: nats, in each of the last `LASTING` means.

    Returns:
        The amount is the least of these differences; the epoch is where the last stretch above `harm` begins.

    Raises:
        HistotransferError: arms of different lengths.
    """
    difference = curve(transfer) - curve(control)
    if difference.isna().any():
        raise HistotransferError("histories: the arms have different numbers of epochs; train them with one budget")
    amount = difference.iloc[-LASTING:].min()
    within = difference.index[difference <= harm]
    begin = int(within[-1]) + 1 if len(within) else int(difference.index[0])
    return Finding(bool(amount > harm), float(amount), begin if amount > harm else None)


def epochs_to(history: pd.DataFrame, level: float) -> tuple[int, bool]:
    """Epochs until validation log-loss first falls to `level`, and whether it does; else all epochs (censored)."""
    validation = curve(history)
    below = validation.index[validation <= level]
    return (int(below[0]), True) if len(below) else (int(validation.index[-1]), False)


def convergence_level(histories: Iterable[pd.DataFrame], share: float = WAY) -> float:
    """The validation log-loss (nats) that is `share` of the way from the first mean to the lowest; median over runs.

    Args:
        histories: of the runs from which the level is set, not of those that are judged by it.
        share: 0 to 1.
    """
    curves = [curve(history) for history in histories]
    return float(np.median([losses.iloc[0] - share * (losses.iloc[0] - losses.min()) for losses in curves]))


def slow_convergence(history: pd.DataFrame, reference: pd.DataFrame, level: float, delay: float = DELAY) -> Finding:
    """F3: the run takes at least `delay` times the epochs of its reference to pass a level of validation log-loss.

    Args:
        history: of the run.
        reference: of the run to compare with, such as one that began from pre-trained weights.
        level: nats; set from other runs than these.
        delay: ratio of epochs.

    Returns:
        The amount is the ratio, a lower bound where the run never passes the level. Where the reference does not
        pass it either, the signature is not found.
    """
    (epochs, _), (usual, passed) = epochs_to(history, level), epochs_to(reference, level)
    slow = passed and epochs / usual >= delay
    return Finding(slow, epochs / usual, epochs if slow else None)


def convergence(histories: Iterable[pd.DataFrame], level: float, horizon: int) -> pd.DataFrame:
    """Epochs until each run passes `level`, cut off at `horizon`: the mean of `epochs` is the restricted mean.

    Args:
        histories: of the runs of one arm.
        level: of validation log-loss, nats.
        horizon: number of epochs that every run must have.

    Returns:
        Columns `epochs` and `passed`; a run that does not pass within the horizon is censored there.

    Raises:
        HistotransferError: a run that is shorter than the horizon and does not pass.
    """
    rows = []
    for history in histories:
        epochs, passed = epochs_to(history, level)
        if not passed and epochs < horizon:
            raise HistotransferError(f"history: {epochs} epochs, fewer than the horizon of {horizon}; shorten it")
        rows.append({"epochs": min(epochs, horizon), "passed": passed and epochs <= horizon})
    return pd.DataFrame(rows)
