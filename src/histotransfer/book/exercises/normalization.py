"""Chapter 02: densities add, stains can be told apart, and one tile misleads a normaliser."""

from collections.abc import Callable

import numpy as np

from histotransfer.book.exercises import require, self_check
from histotransfer.datasets import phantom
from histotransfer.experiments.normalisation import delta_e
from histotransfer.stain import Macenko

WINDOW = 48  # pixels per side
FAR = 6.0  # CIELAB; about 2 is just visible


@self_check
def check_level(level: float) -> str:
    """Exercise `ex-stain-level`: the grey level under two stains that let a half and a quarter through."""
    require(level != 90, "light is not averaged: the second stain gets only what the first lets through")
    require(level >= 0, "there is no negative light: levels multiply, densities add")
    require(abs(level - 29) > 0.01, "29 is the code's level, which adds 1 to avoid log 0; take the law itself")
    require(abs(level - 30) < 0.01, f"{level} is not it: a quarter of the half of 240")
    return "levels multiply; their logarithms, the densities, add."


@self_check
def check_unmix(unmix: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> str:
    """Exercise `ex-stain-unmix`: amounts of two stains from densities."""
    generator = np.random.default_rng(0)
    amounts = generator.gamma(2, 0.3, (50, 2))
    for patient in (0, 12):
        stains = phantom.breast_image(patient, 200, 0).stain_matrix
        density = amounts @ stains
        estimated = np.asarray(unmix(density, stains))
        require(
            estimated.shape == amounts.shape, f"for densities (50, 3) return amounts (50, 2), not {estimated.shape}"
        )
        projected = np.allclose(estimated, density @ stains.T)
        require(not projected, "a projection on each stain counts twice what both absorb: they are not at right angles")
        off = np.abs(estimated - amounts).max()
        require(off < 1e-6, f"amounts are off by up to {off:.2g}")
    return (
        "least squares undoes the mixture; with noise its amounts may turn negative, which Vahadane's method forbids."
    )


@self_check
def check_window(window: Callable[[np.ndarray], tuple[int, int]]) -> str:
    """Exercise `ex-stain-break`: a window whose colours come out wrong when it is normalised alone."""
    method, distances = Macenko(), []
    for patient in (3, 17):
        field = phantom.breast_image(patient, 200, 0).image
        row, column = window(field.copy())
        inside = 0 <= row <= field.shape[0] - WINDOW and 0 <= column <= field.shape[1] - WINDOW
        require(inside, f"({row}, {column}): a window of {WINDOW} pixels from there is not inside the field")
        distances.append(disagreement(method, field, int(row), int(column)))
    shown = " and ".join(f"{distance:.1f}" for distance in distances)
    require(
        min(distances) > FAR,
        f"alone and within its field the window's colours differ by {shown}; more than {FAR:.0f} is to be had",
    )
    return f"differences of {shown} in CIELAB: the same pixels, normalised with and without their surroundings."


def disagreement(method: Macenko, field: np.ndarray, row: int, column: int) -> float:
    """Mean CIELAB distance between a window normalised alone and the same window of the normalised field.

    Args:
        method: a normaliser.
        field: ``(H, W, 3)`` uint8 RGB.
        row: of the window's upper left corner; the window has `WINDOW` pixels per side.
        column: of that corner.
    """
    place = np.s_[row : row + WINDOW, column : column + WINDOW]
    (alone, _), (whole, _) = method.normalise(field[place]), method.normalise(field)
    return delta_e(alone, whole[place])
