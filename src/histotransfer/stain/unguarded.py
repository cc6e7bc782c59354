"""The published formulas of stain normalisation without guards: chapter 02 compares them with the guarded methods.

Not for use: nothing here checks whether a tile has tissue, two stains, or contrast.
"""

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.decomposition import MiniBatchDictionaryLearning

from histotransfer.stain import Macenko, Reinhard, map_lab, optical_density, to_lab
from histotransfer.stain.density import LIGHT, SPARSITY, TRANSPARENT


def unguarded(name: str, image: np.ndarray) -> np.ndarray | str:
    """What the formulas of macenko, vahadane or reinhard make of an image with the published reference.

    Args:
        name: of the method.
        image: `(H, W, 3)` uint8 RGB.

    Returns:
        An image of that shape; or the kind of error that the computation ends with.
    """
    compute = {"macenko": _by_stains, "vahadane": _by_stains, "reinhard": _by_moments}[name]
    estimate = _extreme_angles if name == "macenko" else _dictionary
    with warnings.catch_warnings(action="ignore"):
        try:
            return compute(image, estimate)
        except (ValueError, IndexError) as error:  # numpy's LinAlgError is a ValueError
            return type(error).__name__


def _by_stains(image: np.ndarray, estimate: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    density, reference = optical_density(image).reshape(-1, 3).astype(float), Macenko().reference
    stains = estimate(density[(density >= TRANSPARENT).all(axis=1)])
    amounts = np.linalg.lstsq(stains.T, density.T)[0]
    amounts *= (reference.max_concentrations / np.percentile(amounts, 99, axis=1))[:, None]
    light = LIGHT * np.exp(-reference.stain_matrix.T @ amounts)
    return np.clip(np.nan_to_num(light), 0, 255).T.reshape(image.shape).astype(np.uint8)


def _extreme_angles(tissue: np.ndarray) -> np.ndarray:
    plane = np.linalg.eigh(np.cov(tissue.T))[1][:, 1:]
    angles = np.arctan2(*(tissue @ plane).T[::-1])  # the first axis comes last: no angle wraps around
    extremes = [plane @ (np.cos(a), np.sin(a)) for a in np.percentile(angles, (1, 99))]
    return np.array(sorted(extremes, key=lambda stain: -stain[0]))


def _dictionary(tissue: np.ndarray) -> np.ndarray:
    learned = MiniBatchDictionaryLearning(
        2, alpha=SPARSITY, fit_algorithm="cd", positive_code=True, positive_dict=True, max_iter=10, random_state=0
    ).fit(tissue)
    return np.array(sorted(learned.components_, key=lambda stain: -stain[0]))


def _by_moments(image: np.ndarray, _: object) -> np.ndarray:
    lab, reference = to_lab(image), Reinhard().reference
    scale = reference.std / lab.std(axis=(0, 1))
    if not np.isfinite(scale).all():
        return np.zeros_like(image)  # as in the public codes, where NaN becomes grey level 0
    return map_lab(image, scale, reference.mean - scale * lab.mean(axis=(0, 1)))
