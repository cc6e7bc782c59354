"""How much of a treatment a run was given: weights moved, gates moved, features changed, colours changed.

A difference between two arms says something of a treatment only where the treatment was given. Every record of a
network holds these numbers, and `study/claims.toml` says how large they must be.

Papers: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414, equation 3 (linear CKA). The other measures are plain
norms and distances.
"""

from collections.abc import Mapping

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from histotransfer.evaluation.explain import gates
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.tiles import Source
from histotransfer.transfer.unfreezing import module_groups

Kernels = dict[str, list[Tensor]]


def kernels(model: SEDenseNet) -> Kernels:
    """Copies of the convolutions of each group that has any, by the group's name."""
    groups = {
        name: [
            inner.weight.detach().cpu().clone()
            for module in modules
            for inner in module.modules()
            if isinstance(inner, nn.Conv2d)
        ]
        for name, modules in module_groups(model)
    }
    return {name: weights for name, weights in groups.items() if weights}


def movement(start: Kernels, end: Kernels) -> dict[str, float]:
    """Relative change of the convolutions of each group, ``norm(end - start) / norm(start)``.

    Args:
        start: as `kernels` returns them.
        end: of the same network later.
    """
    return {
        name: _norm([one - other for one, other in zip(end[name], weights, strict=True)]) / _norm(weights)
        for name, weights in start.items()
    }


def _norm(weights: list[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.cat([weight.double().flatten() for weight in weights])))


def gate_statistics(model: SEDenseNet, source: Source) -> pd.DataFrame:
    """How far each gate is from 1, over all its channels and all images.

    Args:
        model: a network with gates, in eval mode.
        source: N images.

    Returns:
        One row per gate, in the network's order: `channels`; `lowest` and `highest` of its ``(N, C)`` values; `moved`,
        the mean of ``|gate - 1|``; `by_image`, the standard deviation over images, averaged over channels (0: the gate
        is the same for every image).

    Raises:
        HistotransferError: the network has no gates.
    """
    rows = {
        name: {
            "channels": values.shape[1],
            "lowest": values.min(),
            "highest": values.max(),
            "moved": np.abs(values - 1.0).mean(dtype=float),
            "by_image": values.std(axis=0, dtype=float).mean(),
        }
        for name, values in gates(model, source).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"channels": int}).rename_axis("gate")


def linear_cka(features: np.ndarray, others: np.ndarray) -> float:
    """Similarity of two networks' features of the same images: 1 if equal up to rotation and scale, 0 if unrelated.

    Args:
        features: ``(N, C)``.
        others: ``(N, D)``.

    Returns:
        Linear centred kernel alignment, 0 to 1; NaN where one of the two is the same for every image.
    """
    x, y = (each.astype(float) - each.mean(axis=0, dtype=float) for each in (features, others))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale > 0 else np.nan


def colour_shift(tiles: np.ndarray, changed: np.ndarray) -> dict[str, float]:
    """How far a normaliser moved the colours of tiles.

    Args:
        tiles: ``(N, S, S, 3)`` uint8, as scanned.
        changed: the same tiles after it.

    Returns:
        `changed`, the share of tiles with any other pixel; `distance`, the mean over all pixels of the CIELAB distance
        (CIE 1976; 2.3 is about just noticeable).
    """
    distances = [
        np.linalg.norm(_lab(one) - _lab(other), axis=-1).mean(dtype=float)
        for one, other in zip(tiles, changed, strict=True)
    ]
    return {"changed": float(np.mean((tiles != changed).any(axis=(1, 2, 3)))), "distance": float(np.mean(distances))}


def _lab(tile: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(tile.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def accuracy_by_original(truth: pd.Series, groups: pd.Series, guesses: np.ndarray) -> float:
    """Accuracy in which every original counts once, however many copies of it there are.

    Args:
        truth: ``(N,)`` true classes.
        groups: ``(N,)`` originals.
        guesses: ``(N,)`` predicted classes.
    """
    return float(pd.Series(guesses == truth.to_numpy()).groupby(groups.to_numpy()).mean().mean())


def rounded(dose: Mapping[str, object], digits: int = 5) -> dict[str, object]:
    """The same with every number rounded, and None for NaN, as a record holds it."""

    def written(value: object) -> object:
        if isinstance(value, Mapping):
            return rounded(value, digits)
        if isinstance(value, float):
            return None if np.isnan(value) else round(value, digits)
        return value

    return {name: written(value) for name, value in dose.items()}
