"""Synthetic histories with a known truth, on which the detectors of failures are designed and judged.

A log-loss falls from a start to a floor; validation keeps a gap above training, is noisy, and jumps where a stage thaws
another block. On top of it, if asked for: a rise of validation after some epoch (overfitting), a higher floor of
validation (negative transfer), a slower fall (slow convergence). Two families::

                      "exponential" (design, judging)       "power" (judging only)
    fall              exp(-t / s)                           (1 + t / s) ** -1.5
    rise              straight from its onset               saturating from its onset
    noise             normal                                Student's t with 3 degrees of freedom
    epochs            15 to 40                              10 to 60

The noise has an autocorrelation of 0.3. All ranges stand in `draw_task` and `SIGNATURES`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.signal import lfilter

Family = Literal["exponential", "power"]
EPOCHS = {"exponential": (15, 40), "power": (10, 60)}
AUTOCORRELATION = 0.3
LEVEL_RUNS = 5
# What a signature adds to a run, and how much of it.
SIGNATURES = {
    "overfitting": ("rise", 0.15, 0.8),
    "negative transfer": ("harm", 0.15, 0.5),
    "slow convergence": ("slower", 2.5, 6.0),
}


@dataclass(frozen=True)
class Task:
    """What runs on one task have in common; losses in nats, times in epochs."""

    family: Family
    epochs: int
    start: float
    floor: float
    gap: float
    scale: float
    noise: float
    thaws: tuple[tuple[int, float], ...]  # epoch, height of the jump


@dataclass(frozen=True)
class Case:
    """A run, one without the signature to compare it with, and others of the run's kind to set a level from."""

    run: pd.DataFrame
    reference: pd.DataFrame
    others: list[pd.DataFrame]


def draw_task(generator: np.random.Generator, family: Family) -> Task:
    """Draw a task."""
    low, high = EPOCHS[family]
    epochs = int(generator.integers(low, high + 1))
    thaws = tuple(
        (int(epoch), generator.uniform(0, 0.2))
        for epoch in generator.integers(3, max(4, int(0.7 * epochs)), generator.integers(0, 3))
    )
    return Task(
        family=family,
        epochs=epochs,
        start=np.log(2) + abs(generator.normal(0, 0.05)),
        floor=generator.uniform(0.02, 0.2),
        gap=generator.uniform(0, 0.25),
        scale=generator.uniform(1.0, 3.0),
        noise=generator.uniform(0.01, 0.06),
        thaws=thaws,
    )


def simulate(
    task: Task, generator: np.random.Generator, *, rise: float = 0, harm: float = 0, slower: float = 1
) -> pd.DataFrame:
    """One run on a task: a history with `rung, stage, epoch, train_log_loss, validation_log_loss`.

    Args:
        task: what it trains on.
        generator: its noise, and where a rise begins.
        rise: nats that validation gains until the end.
        harm: nats by which the floor of validation is higher.
        slower: times as many epochs for the same fall.
    """
    t = np.arange(task.epochs)
    scale = task.scale * slower
    left = np.exp(-t / scale) if task.family == "exponential" else (1 + t / scale) ** -1.5
    onset = generator.uniform(0.2, 0.6) * task.epochs
    through = np.clip((t - onset) / (task.epochs - 1 - onset), 0, 1)
    ramp = through if task.family == "exponential" else (1 - np.exp(-3 * through)) / (1 - np.exp(-3))
    jumps = sum((height * (t >= epoch) * np.exp(-(t - epoch) / 1.5) for epoch, height in task.thaws), np.zeros(len(t)))
    end = task.floor + task.gap + harm
    train = task.floor + (task.start - task.floor) * left + 0.3 * _noise(task, generator)
    validation = end + (task.start - end) * left + rise * ramp + jumps + _noise(task, generator)
    losses = {"train_log_loss": train, "validation_log_loss": validation}
    return pd.DataFrame(
        {"rung": "synthetic", "stage": "all", "epoch": t + 1} | {k: np.maximum(v, 1e-3) for k, v in losses.items()}
    )


def _noise(task: Task, generator: np.random.Generator) -> np.ndarray:
    normal = task.family == "exponential"
    draws = generator.standard_normal(task.epochs) if normal else generator.standard_t(3, task.epochs) / 3**0.5
    steady = (1 - AUTOCORRELATION**2) ** 0.5
    return task.noise * lfilter([steady], [1, -AUTOCORRELATION], draws)


def draw_case(signature: str, provoked: bool, family: Family, seed: int) -> Case:
    """A run and its reference on one task, with or without a signature.

    Args:
        signature: one of `SIGNATURES`.
        provoked: with it; without it nothing but noise tells the run from its reference.
        family: of curves.
        seed: of the case.
    """
    generator = np.random.default_rng([seed, len(signature), provoked])
    task = draw_task(generator, family)
    options = {}
    if provoked:
        name, low, high = SIGNATURES[signature]
        options = {name: generator.uniform(low, high)}
    others = [simulate(task, generator, **options) for _ in range(LEVEL_RUNS)]
    return Case(simulate(task, generator, **options), simulate(task, generator), others)
