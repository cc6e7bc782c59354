"""Synthetic histories with a known truth, on which the detectors of failures are designed and judged.

A log-loss falls from a start to a floor; validation keeps a gap above training, is noisy, and jumps where a stage
unfreezes another block. On top of it, if asked for: a rise of validation after some epoch (overfitting), a higher floor
of validation (negative transfer), a slower fall (slow convergence). Two families::

                      "exponential" (design, judging)       "power" (judging only)
    fall              exp(-t / s)                           (1 + t / s) ** -1.5
    rise              straight from its onset               saturating from its onset
    noise             normal                                Student's t with 3 degrees of freedom
    epochs            15 to 40                              10 to 60

The noise has an autocorrelation of 0.3. All ranges stand in `draw_shape` and `SIGNATURES`.
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
class CurveShape:
    """What the loss curves of a case have in common; losses in nats, times in epochs."""

    family: Family
    epochs: int
    start: float
    floor: float
    gap: float
    scale: float
    noise: float
    unfreezings: tuple[tuple[int, float], ...]  # epoch, height of the jump


@dataclass(frozen=True)
class Case:
    """A run, one without the signature to compare it with, and others of the run's kind to set a level from."""

    run: pd.DataFrame
    reference: pd.DataFrame
    others: list[pd.DataFrame]


def draw_shape(generator: np.random.Generator, family: Family) -> CurveShape:
    """Draw a shape."""
    low, high = EPOCHS[family]
    epochs = int(generator.integers(low, high + 1))
    unfreezings = tuple(
        (int(epoch), generator.uniform(0, 0.2))
        for epoch in generator.integers(3, max(4, int(0.7 * epochs)), generator.integers(0, 3))
    )
    return CurveShape(
        family=family,
        epochs=epochs,
        start=np.log(2) + abs(generator.normal(0, 0.05)),
        floor=generator.uniform(0.02, 0.2),
        gap=generator.uniform(0, 0.25),
        scale=generator.uniform(1.0, 3.0),
        noise=generator.uniform(0.01, 0.06),
        unfreezings=unfreezings,
    )


def simulate(
    shape: CurveShape, generator: np.random.Generator, *, rise: float = 0, harm: float = 0, slower: float = 1
) -> pd.DataFrame:
    """One run on a shape: a history with `dataset, stage, epoch, train_log_loss, validation_log_loss`.

    Args:
        shape: of its curves.
        generator: its noise, and where a rise begins.
        rise: nats that validation gains until the end.
        harm: nats by which the floor of validation is higher.
        slower: times as many epochs for the same fall.
    """
    t = np.arange(shape.epochs)
    scale = shape.scale * slower
    left = np.exp(-t / scale) if shape.family == "exponential" else (1 + t / scale) ** -1.5
    onset = generator.uniform(0.2, 0.6) * shape.epochs
    through = np.clip((t - onset) / (shape.epochs - 1 - onset), 0, 1)
    ramp = through if shape.family == "exponential" else (1 - np.exp(-3 * through)) / (1 - np.exp(-3))
    jumps = sum(
        (height * (t >= epoch) * np.exp(-(t - epoch) / 1.5) for epoch, height in shape.unfreezings), np.zeros(len(t))
    )
    end = shape.floor + shape.gap + harm
    train = shape.floor + (shape.start - shape.floor) * left + 0.3 * _noise(shape, generator)
    validation = end + (shape.start - end) * left + rise * ramp + jumps + _noise(shape, generator)
    losses = {"train_log_loss": train, "validation_log_loss": validation}
    return pd.DataFrame(
        {"dataset": "synthetic", "stage": "all", "epoch": t + 1} | {k: np.maximum(v, 1e-3) for k, v in losses.items()}
    )


def _noise(shape: CurveShape, generator: np.random.Generator) -> np.ndarray:
    normal = shape.family == "exponential"
    draws = generator.standard_normal(shape.epochs) if normal else generator.standard_t(3, shape.epochs) / 3**0.5
    steady = (1 - AUTOCORRELATION**2) ** 0.5
    return shape.noise * lfilter([steady], [1, -AUTOCORRELATION], draws)


def draw_case(signature: str, provoked: bool, family: Family, seed: int) -> Case:
    """A run and its reference on one shape, with or without a signature.

    Args:
        signature: one of `SIGNATURES`.
        provoked: with it; without it nothing but noise tells the run from its reference.
        family: of curves.
        seed: of the case.
    """
    generator = np.random.default_rng([seed, len(signature), provoked])
    shape = draw_shape(generator, family)
    options = {}
    if provoked:
        name, low, high = SIGNATURES[signature]
        options = {name: generator.uniform(low, high)}
    others = [simulate(shape, generator, **options) for _ in range(LEVEL_RUNS)]
    return Case(simulate(shape, generator, **options), simulate(shape, generator), others)
