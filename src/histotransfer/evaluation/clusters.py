"""Every metric for thousands of redraws of whole patients at once.

Images of one patient are not independent, so whole patients are redrawn, left out or swapped. A cluster is a strict
patient (`group`) within a class. A redraw is given by how often it holds each cluster. So most metrics are ratios of
sums over clusters, AUROC is a bilinear form of the two classes' counts, and 10,000 redraws are a few matrix products.

These are weighted forms of the metrics that `metrics` takes from scikit-learn, and are tested against it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd
from scipy.special import softmax

from histotransfer.evaluation.metrics import (
    BINS,
    DECIMALS,
    PATIENT,
    TINY,
    bin_of,
    class_names,
    most_probable,
    positive_class,
    probabilities,
)

RECOGNITION = "recognition_rate"
BLOCK = 4_000_000  # numbers held at once while average precision is computed


@dataclass(frozen=True)
class Units:
    """Images (or patients, with the mean logit of their images), as the values that the metrics need.

    Attributes:
        cluster: ``(N,)`` index of the unit's cluster, of K.
        classes: ``(K,)`` index of each cluster's class, of C.
        right: ``(N,)`` bool.
        loss: ``(N,)`` log-loss, nats.
        positive: index of the positive class; None where there are not two classes.
        score: ``(N,)`` probability of the positive class.
    """

    cluster: np.ndarray
    classes: np.ndarray
    right: np.ndarray
    loss: np.ndarray
    positive: int | None
    score: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """``(K,)`` sums over the units of each cluster, of ``(N,)`` values."""
        return np.bincount(self.cluster, weights=values, minlength=len(self.classes))

    @property
    def sizes(self) -> np.ndarray:
        """``(K,)`` number of units in each cluster."""
        return self.sums(np.ones(len(self.cluster)))

    @property
    def target(self) -> np.ndarray:
        """``(N,)`` bool, whether a unit is of the positive class."""
        return self.classes[self.cluster] == self.positive

    @cached_property
    def pairs_won(self) -> np.ndarray:
        """Pairs of units in which the positive one scores higher, ties as half: ``(positive, negative clusters)``."""
        target, is_positive = self.target, self.classes == self.positive
        won = []
        for column in np.flatnonzero(~is_positive):
            others = np.sort(self.score[self.cluster == column])
            sides = [np.searchsorted(others, self.score[target], side) for side in ("left", "right")]
            won.append(np.bincount(self.cluster[target], np.mean(sides, axis=0), len(self.classes))[is_positive])
        return np.reshape(won, (len(won), is_positive.sum())).T


Statistic = Callable[[Units, np.ndarray], np.ndarray]


def _mean(units: Units, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return (counts @ units.sums(values)) / (counts @ units.sizes)


def _recall(units: Units, counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Share of right units in the `chosen` clusters, ``(K,)`` bool."""
    return (counts[:, chosen] @ units.sums(units.right)[chosen]) / (counts[:, chosen] @ units.sizes[chosen])


def _balanced_accuracy(units: Units, counts: np.ndarray) -> np.ndarray:
    return np.mean([_recall(units, counts, units.classes == one) for one in np.unique(units.classes)], axis=0)


def _confusion(units: Units, counts: np.ndarray) -> list[np.ndarray]:
    """True positives, false negatives, false positives, true negatives."""
    cells = (units.target, units.right), (units.target, ~units.right), (~units.target, ~units.right)
    return [counts @ units.sums(a & b) for a, b in (*cells, (~units.target, units.right))]


def _f1(units: Units, counts: np.ndarray) -> np.ndarray:
    hit, missed, false, _ = _confusion(units, counts)
    return 2 * hit / (2 * hit + missed + false)


def _matthews(units: Units, counts: np.ndarray) -> np.ndarray:
    hit, missed, false, rejected = _confusion(units, counts)
    square = (hit + missed) * (hit + false) * (rejected + missed) * (rejected + false)
    covariance = hit * rejected - missed * false
    return np.divide(covariance, np.sqrt(square), out=np.zeros_like(covariance), where=square > 0)  # as scikit-learn: 0


def _calibration_error(units: Units, counts: np.ndarray) -> np.ndarray:
    at, gaps = bin_of(units.score), units.score - units.target
    inside = [counts @ units.sums(gaps * (at == b)) for b in range(BINS)]
    return np.abs(inside).sum(axis=0) / (counts @ units.sizes)


def ordered_pairs(units: Units, counts: np.ndarray) -> np.ndarray:
    """``(2, D)``: per redraw, the (positive, negative) pairs in the right order, ties as half; and all such pairs."""
    chosen = units.classes == units.positive
    won, sizes = counts[:, chosen] @ units.pairs_won, units.sizes
    every = (counts[:, chosen] @ sizes[chosen]) * (counts[:, ~chosen] @ sizes[~chosen])
    return np.stack([(won * counts[:, ~chosen]).sum(axis=1), every])


def _auroc(units: Units, counts: np.ndarray) -> np.ndarray:
    won, every = ordered_pairs(units, counts)
    return won / every


def _average_precision(units: Units, counts: np.ndarray) -> np.ndarray:
    """Precision at each distinct score that a positive has, weighted by the positives with that score."""
    values, at = np.unique(-units.score, return_inverse=True)
    has_positive, chosen = np.unique(at[units.target]), units.classes == units.positive

    def ranked(of_class: np.ndarray) -> np.ndarray:
        """Units of each cluster of a class that score at least as high as each of the scores that count."""
        found = np.zeros((len(units.classes), len(values)))
        np.add.at(found, (units.cluster, at), 1)
        return found[of_class].cumsum(axis=1)[:, has_positive]

    positives, negatives, result = ranked(chosen), ranked(~chosen), np.empty(len(counts))
    step = max(1, BLOCK // max(1, len(has_positive)))
    for start in range(0, len(counts), step):
        block = counts[start : start + step]
        hit = block[:, chosen] @ positives
        every = block[:, ~chosen] @ negatives + hit
        every[every == 0] = 1  # nothing is taken yet, nothing hit
        gained = np.diff(hit, axis=1, prepend=0)
        gained *= hit
        gained /= every
        result[start : start + step] = gained.sum(axis=1) / hit.max(axis=1, initial=0)
    return result


ANY_CLASSES: dict[str, Statistic] = {
    "accuracy": lambda units, counts: _mean(units, units.right, counts),
    "balanced_accuracy": _balanced_accuracy,
    "log_loss": lambda units, counts: _mean(units, units.loss, counts),
}
TWO_CLASSES: dict[str, Statistic] = {
    "auroc": _auroc,
    "average_precision": _average_precision,
    "sensitivity": lambda units, counts: _recall(units, counts, units.classes == units.positive),
    "specificity": lambda units, counts: _recall(units, counts, units.classes != units.positive),
    "f1": _f1,
    "matthews_correlation": _matthews,
    "brier": lambda units, counts: _mean(units, (units.score - units.target) ** 2, counts),
    "calibration_error": _calibration_error,
}


@dataclass(frozen=True)
class _Table:
    """One of the tables over which metrics are averaged: N images in k of the K clusters.

    Attributes:
        rows: ``(N,)`` positions of its images among all rows.
        clusters: ``(k,)`` indices of its clusters among all K.
        cluster: ``(N,)`` position in `clusters` of each image's cluster.
        share: ``(N,)`` 1 / number of images of the same slide id.
    """

    rows: np.ndarray
    clusters: np.ndarray
    cluster: np.ndarray
    share: np.ndarray


class Design:
    """The clusters of a predictions table; they do not depend on what is predicted.

    Attributes:
        groups: ``(K,)`` strict patient of each cluster.
        classes: ``(K,)`` index of its class in the order of the logits.
        cluster: ``(N,)`` cluster of each row, so that ``draw_counts(...)[:, cluster]`` are weights of images.
        tables: the tables over which metrics are averaged.
    """

    def __init__(self, predictions: pd.DataFrame, by: str | None = None):
        """Find the clusters.

        Args:
            predictions: rows of one part.
            by: a column over whose values metrics are averaged, as in `metrics.scopes`; None: over none.
        """
        self.names, self.positive = class_names(predictions), positive_class(predictions)
        keys = pd.MultiIndex.from_frame(predictions[["truth", "group"]])
        self.cluster, unique = keys.factorize()
        self.classes = np.array([self.names.index(truth) for truth, _ in unique])
        self.groups = unique.get_level_values(1).to_numpy()
        parts = np.zeros(len(predictions), dtype=int) if by is None else pd.factorize(predictions[by])[0]
        slides = pd.factorize(predictions["patient"])[0]
        self.tables = [_table(np.flatnonzero(parts == part), self.cluster, slides) for part in np.unique(parts)]

    def scored(self, chances: np.ndarray) -> "Scored":
        """These clusters with a model's predictions.

        Args:
            chances: ``(N, C)`` probabilities of the table's rows.
        """
        return Scored(self, chances)

    def shares(self, metric: str) -> np.ndarray:
        """``(K,)`` share of each cluster in its class: of images, slides or patients, whichever the metric counts.

        Args:
            metric: its name; those of patients begin with `PATIENT`.
        """
        shares = np.zeros(len(self.classes))
        for table in self.tables:
            classes = self.classes[table.clusters]
            if metric.startswith(PATIENT):
                sizes = np.ones(len(classes))
            else:
                sizes = np.bincount(table.cluster, weights=table.share if metric == RECOGNITION else None).astype(float)
            shares[table.clusters] += sizes / np.bincount(classes, weights=sizes)[classes]
        return shares / len(self.tables)


def _table(rows: np.ndarray, cluster: np.ndarray, slides: np.ndarray) -> _Table:
    clusters, inside = np.unique(cluster[rows], return_inverse=True)
    return _Table(rows, clusters, inside, 1 / np.bincount(slides[rows])[slides[rows]])


@dataclass(frozen=True)
class _Part:
    images: Units
    patients: Units
    hits: np.ndarray  # share of right images, summed over the slides of each cluster
    seen: np.ndarray  # slides of each cluster


PartStatistic = Callable[[_Part, np.ndarray], np.ndarray]


def _statistics(two: bool) -> dict[str, PartStatistic]:
    """All the metrics, in the order of `metrics`."""
    of_images = ANY_CLASSES | (TWO_CLASSES if two else {})
    statistics = {name: _on_images(statistic) for name, statistic in of_images.items()}
    statistics[RECOGNITION] = lambda part, counts: (counts @ part.hits) / (counts @ part.seen)
    statistics["patient_accuracy"] = lambda part, counts: ANY_CLASSES["accuracy"](part.patients, counts)
    if two:
        statistics["patient_auroc"] = lambda part, counts: _auroc(part.patients, counts)
    return statistics


def _on_images(statistic: Statistic) -> PartStatistic:
    return lambda part, counts: statistic(part.images, counts)


class Scored:
    """A design with a model's predictions: every metric, for any redraw of its clusters."""

    def __init__(self, design: Design, chances: np.ndarray):
        self.design, self.classes, self.shares = design, design.classes, design.shares
        self.parts = [self._part(table, chances[table.rows]) for table in design.tables]

    def _part(self, table: _Table, chances: np.ndarray) -> _Part:
        images = self._units(table.cluster, self.classes[table.clusters], chances)
        logits = np.log(chances.clip(TINY)).T
        sums = np.stack([np.bincount(table.cluster, weights=column) for column in logits], axis=1)
        means = (sums / np.bincount(table.cluster)[:, None]).round(DECIMALS)
        patients = self._units(np.arange(len(means)), self.classes[table.clusters], softmax(means, axis=1))
        return _Part(images, patients, images.sums(images.right * table.share), images.sums(table.share))

    def _units(self, cluster: np.ndarray, classes: np.ndarray, chances: np.ndarray) -> Units:
        names, positive = self.design.names, self.design.positive
        truth = classes[cluster]
        right = most_probable(chances, names, positive) == truth
        loss = -np.log(np.clip(chances[np.arange(len(truth)), truth], np.finfo(float).eps, 1))  # as scikit-learn
        at = None if positive is None else names.index(positive)
        return Units(cluster, classes, right, loss, at, chances[:, at or 0])

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Metrics of every redraw, ``(D,)`` each; NaN where a redraw lacks a class.

        Args:
            counts: ``(D, K)`` how often each cluster is in each redraw.
            metrics: names of metrics; None: all that are defined for this number of classes.
        """
        counts, statistics = np.asarray(counts, dtype=float), _statistics(self.design.positive is not None)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                name: np.mean(
                    [
                        statistics[name](part, counts[:, table.clusters])
                        for part, table in zip(self.parts, self.design.tables, strict=True)
                    ],
                    axis=0,
                )
                for name in (statistics if metrics is None else metrics)
            }


class Redrawable(Protocol):
    """Clusters whose metrics can be computed for any redraw, such as `Scored`."""

    classes: np.ndarray

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """As `Scored.values`."""

    def shares(self, metric: str) -> np.ndarray:
        """As `Design.shares`."""


class MeanOf:
    """Several models on the same images; a metric is the mean of theirs, each model on its own. A `Redrawable`.

    Args:
        arms: of tables with the same images in the same order.
    """

    def __init__(self, arms: Sequence[Scored]):
        self.arms, self.classes, self.shares = arms, arms[0].classes, arms[0].shares

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """As `Scored.values`."""
        each = [arm.values(counts, metrics) for arm in self.arms]
        return {metric: np.mean([values[metric] for values in each], axis=0) for metric in each[0]}


def scored(predictions: pd.DataFrame, by: str | None = None) -> Scored:
    """The clusters of a predictions table and its metrics; `by` as for `Design`."""
    return Design(predictions, by).scored(probabilities(predictions))


def draw_counts(classes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each cluster is in each bootstrap draw: ``(draws, K)``; a draw has as many of each class as there are.

    Args:
        classes: ``(K,)`` class of each cluster.
        draws: number of draws.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    counts = np.zeros((draws, len(classes)), dtype=int)
    for value in np.unique(classes):
        stratum = np.flatnonzero(classes == value)
        picks = generator.integers(len(stratum), size=(draws, len(stratum)))
        picks += len(stratum) * np.arange(draws)[:, None]
        counts[:, stratum] = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)
    return counts
