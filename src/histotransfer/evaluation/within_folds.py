"""AUROC over pairs of images of the same fold.

Out of fold, each fold's images are scored by a network of its own. Pooling compares scores of different networks: where
folds differ in how high all their scores lie, a pair of images from two folds says less about the networks than about
the folds. Here a pair counts only if one network scored both, as in the average of folds' AUROC, but weighted by pairs,
so that a fold where a class is missing at some magnification has no say instead of none having an answer (Airola et al.
2011, https://doi.org/10.1016/j.csda.2010.11.018, compare both ways of cross-validating AUROC).
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from histotransfer.evaluation.clusters import Design, Units, ordered_pairs
from histotransfer.evaluation.metrics import Metrics, probabilities

AUROC, PATIENT_AUROC = "auroc", "patient_auroc"


class WithinFolds:
    """AUROC within folds for any redraw of patients; a `clusters.Redrawable`.

    Attributes:
        classes: ``(K,)`` class of each cluster, as `Design` finds them.
        value: both metrics of the patients as they are; None where not defined.
    """

    def __init__(self, predictions: pd.DataFrame, by: str | None = None):
        """Count once.

        Args:
            predictions: test rows of all runs of an arm, two classes, with `fold` and `seed`: one row an image and
                seed. A value of every seed is computed, and the mean of these.
            by: a column over whose values the metric is averaged, as in `metrics.scopes`; None: over none.

        Raises:
            HistotransferError: no image, or a logit that is not finite.
        """
        averaged = ["seed", *([] if by is None else [by])]
        cell = predictions.groupby([*averaged, "fold"]).ngroup().rename("cell")
        arm = Design(predictions.assign(cell=cell), "cell").scored(probabilities(predictions))
        self.classes = arm.classes
        self._of = predictions.groupby(averaged).ngroup().to_numpy()[[who.rows[0] for who in arm.design.who]]
        self._parts = {
            AUROC: [(who.at, part.images) for who, part in zip(arm.design.who, arm.parts, strict=True)],
            PATIENT_AUROC: [(who.at, part.patients) for who, part in zip(arm.design.who, arm.parts, strict=True)],
        }
        found = self.values(np.ones((1, len(self.classes))))
        self.value: Metrics = {name: None if np.isnan(own[0]) else float(own[0]) for name, own in found.items()}

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """``(D,)`` AUROC of images and of patients (each by the mean of its probabilities) in every redraw.

        NaN where no fold of a seed holds both classes.

        Args:
            counts: ``(D, K)`` how often each cluster is in each redraw.
            metrics: which; None: both.
        """
        counts = np.asarray(counts, dtype=float)
        return {metric: self._auroc(self._parts[metric], counts) for metric in metrics or self._parts}

    def shares(self, metric: str) -> np.ndarray:
        """``(K,)`` share of each cluster in its class, of the pairs that count, the mean over what is averaged."""
        found = np.zeros((self._of.max() + 1, len(self.classes)))
        for of, (at, units) in zip(self._of, self._parts[metric], strict=True):
            positive, sizes = units.classes == units.positive, units.sizes
            found[of, at] += sizes * np.where(positive, sizes[~positive].sum(), sizes[positive].sum())
        every = np.stack([found[:, self.classes == own].sum(axis=1) for own in self.classes], axis=1)
        return np.divide(found, every, out=np.zeros_like(found), where=every > 0).mean(axis=0)

    def _auroc(self, parts: list[tuple[np.ndarray, Units]], counts: np.ndarray) -> np.ndarray:
        pairs = np.stack([ordered_pairs(units, counts[:, at]) for at, units in parts])
        with np.errstate(invalid="ignore", divide="ignore"):
            won, every = np.moveaxis([pairs[self._of == of].sum(axis=0) for of in np.unique(self._of)], 1, 0)
            return (won / every).mean(axis=0)
