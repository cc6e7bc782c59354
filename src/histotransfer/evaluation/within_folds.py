"""AUROC over pairs of images of the same fold.

Out of fold, each fold's images are scored by a different network. Pooling compares scores of different networks: where
the general level of the scores differs between folds, a pair of images from two folds tells more about the folds than
about the networks. Here a pair counts only if one network scored both images. This is the average of the folds' AUROC,
weighted by pairs: a fold where a class is missing at some magnification has weight 0 and does not make the average
undefined (Airola et al. 2011, https://doi.org/10.1016/j.csda.2010.11.018, compare both ways).
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
        value: both metrics without any redraw; None where not defined.
    """

    def __init__(self, predictions: pd.DataFrame, by: str | None = None):
        """Find the clusters of every fold and seed.

        Args:
            predictions: test rows of all runs of an arm, two classes, with `fold` and `seed`: one row per image and
                seed. The metric is computed for every seed and averaged.
            by: a column over whose values the metric is averaged, as in `metrics.scopes`; None: over none.

        Raises:
            HistotransferError: no image, or a logit that is not finite.
        """
        averaged = ["seed", *([] if by is None else [by])]
        cell = predictions.groupby([*averaged, "fold"]).ngroup().rename("cell")
        arm = Design(predictions.assign(cell=cell), "cell").scored(probabilities(predictions))
        self.classes = arm.classes
        self._of = predictions.groupby(averaged).ngroup().to_numpy()[[table.rows[0] for table in arm.design.tables]]
        parts = [(table.clusters, part) for table, part in zip(arm.design.tables, arm.parts, strict=True)]
        self._parts = {
            AUROC: [(clusters, part.images) for clusters, part in parts],
            PATIENT_AUROC: [(clusters, part.patients) for clusters, part in parts],
        }
        values = self.values(np.ones((1, len(self.classes))))
        self.value: Metrics = {name: None if np.isnan(value) else float(value) for name, (value,) in values.items()}

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """``(D,)`` AUROC of images and of patients (each by the mean logit of its images) in every redraw.

        NaN where no fold of a seed holds both classes.

        Args:
            counts: ``(D, K)`` how often each cluster is in each redraw.
            metrics: names of metrics; None: both.
        """
        counts = np.asarray(counts, dtype=float)
        return {metric: self._auroc(self._parts[metric], counts) for metric in metrics or self._parts}

    def shares(self, metric: str) -> np.ndarray:
        """``(K,)`` share of each cluster in its class: of the pairs that count, averaged as the metric is."""
        pairs = np.zeros((self._of.max() + 1, len(self.classes)))
        for of, (at, units) in zip(self._of, self._parts[metric], strict=True):
            positive, sizes = units.classes == units.positive, units.sizes
            pairs[of, at] += sizes * np.where(positive, sizes[~positive].sum(), sizes[positive].sum())
        every = np.stack([pairs[:, self.classes == one].sum(axis=1) for one in self.classes], axis=1)
        return np.divide(pairs, every, out=np.zeros_like(pairs), where=every > 0).mean(axis=0)

    def _auroc(self, parts: list[tuple[np.ndarray, Units]], counts: np.ndarray) -> np.ndarray:
        pairs = np.stack([ordered_pairs(units, counts[:, at]) for at, units in parts])
        with np.errstate(invalid="ignore", divide="ignore"):
            won, every = np.stack([pairs[self._of == of].sum(axis=0) for of in np.unique(self._of)], axis=1)
            return (won / every).mean(axis=0)
