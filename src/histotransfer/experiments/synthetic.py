"""Synthetic histories with a known truth, on which the detectors of failures are designed and judged.

The log-loss falls from a start to a floor. That on validation images stays above that on training images, is noisy, and
jumps where a stage unfreezes another block. A signature adds to this: a rise of the validation loss after some epoch
(overfitting), a higher floor of it (negative transfer), or a slower fall (slow convergence). There are two families::

                      "exponential" (design, judging)       "power" (judging only)
    fall              exp(-t / s)                           (1 + t / s) ** -1.5
    rise              straight from its onset               saturating from its onset
    noise             normal                                Student's t with 3 degrees of freedom
    epochs            15 to 40                              10 to 60

The noise has an autocorrelation of 0.3. All ranges are in `draw_shape` and `SIGNATURES`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.signal import lfilter

Family = Literal["exponential", "power"]
FAMILIES: tuple[Family, ...] = get_args(Family)
EPOCHS: dict[Family, tuple[int, int]] = {"exponential": (15, 40), "power": (10, 60)}
AUTOCORRELATION = 0.3
LEVEL_RUNS = 5  # runs that a level of convergence is set from
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
    """A run, a reference run without the signature, and other runs like the first, which set a level of convergence."""

    run: pd.DataFrame
    reference: pd.DataFrame
    others: list[pd.DataFrame]


def draw_shape(generator: np.random.Generator, family: Family) -> CurveShape:
    """Draw the shape of a case's curves."""
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
        generator: draws its noise, and where a rise begins.
        rise: nats that the validation loss gains until the end.
        harm: nats by which the floor of the validation loss is higher.
        slower: factor on the number of epochs that the same fall takes.
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
        provoked: whether the run has it; if not, it differs from its reference by noise alone.
        family: of the curves.
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
