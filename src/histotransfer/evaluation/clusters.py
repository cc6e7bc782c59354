"""Every metric for thousands of redraws of whole patients at once.

Images of one patient are not independent, so patients are what is redrawn, left out or swapped. A cluster is a strict
patient (`group`) within a class; a redraw is how often each cluster is in it, so most metrics are ratios of sums over
clusters, AUROC is a bilinear form of the two classes' counts, and 10,000 redraws are a few matrix products.

These are weighted forms of what `metrics` asks of scikit-learn, and are tested against it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd

from histotransfer.evaluation.metrics import (
    BINS,
    DECIMALS,
    PATIENT,
    bin_of,
    class_names,
    most_probable,
    positive_class,
    probabilities,
)

PATIENT_LEVEL = (PATIENT, "recognition_")
BLOCK = 4_000_000  # numbers held at once while average precision is computed


@dataclass(frozen=True)
class Units:
    """Images, or patients by their mean probability, as what the metrics need of each.

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
        """``(K,)`` sums of a value of each unit over the clusters."""
        return np.bincount(self.cluster, weights=values, minlength=len(self.classes))

    @property
    def sizes(self) -> np.ndarray:
        """``(K,)`` units of each cluster."""
        return self.sums(np.ones(len(self.cluster)))

    @property
    def target(self) -> np.ndarray:
        """``(N,)`` bool, whether of the positive class."""
        return self.classes[self.cluster] == self.positive

    @cached_property
    def pairs_won(self) -> np.ndarray:
        """Pairs of units that the positive one wins, ties counted half: ``(positive clusters, negative clusters)``."""
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


def _recall(units: Units, counts: np.ndarray, of: int) -> np.ndarray:
    chosen = units.classes == of
    return (counts[:, chosen] @ units.sums(units.right)[chosen]) / (counts[:, chosen] @ units.sizes[chosen])


def _balanced_accuracy(units: Units, counts: np.ndarray) -> np.ndarray:
    return np.mean([_recall(units, counts, of) for of in np.unique(units.classes)], axis=0)


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
    """``(2, D)``: (positive, negative) pairs in the right order, ties counted half, and all such pairs of a redraw."""
    chosen = units.classes == units.positive
    won, sizes = counts[:, chosen] @ units.pairs_won, units.sizes
    every = (counts[:, chosen] @ sizes[chosen]) * (counts[:, ~chosen] @ sizes[~chosen])
    return np.stack([(won * counts[:, ~chosen]).sum(axis=1), every])


def _auroc(units: Units, counts: np.ndarray) -> np.ndarray:
    won, every = ordered_pairs(units, counts)
    return won / every


def _average_precision(units: Units, counts: np.ndarray) -> np.ndarray:
    """Precision at each distinct score, weighted by the positives found there."""
    values, at = np.unique(-units.score, return_inverse=True)
    found = [np.zeros((len(units.classes), len(values))) for _ in range(2)]  # positives, all
    np.add.at(found[0], (units.cluster, at), units.target)
    np.add.at(found[1], (units.cluster, at), 1)
    with_positive = found[0].any(axis=0)
    gained, hits = found[0][:, with_positive], found[0].cumsum(axis=1)[:, with_positive]
    taken = found[1].cumsum(axis=1)[:, with_positive]
    result = np.empty(len(counts))
    step = max(1, BLOCK // max(1, gained.shape[1]))
    for start in range(0, len(counts), step):
        own = counts[start : start + step]
        more, hit, every = own @ gained, own @ hits, own @ taken
        precision = np.divide(hit, every, out=np.zeros_like(hit), where=every > 0)
        result[start : start + step] = (more * precision).sum(axis=1) / more.sum(axis=1)
    return result


ANY_CLASSES: dict[str, Statistic] = {
    "accuracy": lambda units, counts: _mean(units, units.right, counts),
    "balanced_accuracy": _balanced_accuracy,
    "log_loss": lambda units, counts: _mean(units, units.loss, counts),
}
TWO_CLASSES: dict[str, Statistic] = {
    "auroc": _auroc,
    "average_precision": _average_precision,
    "sensitivity": lambda units, counts: _recall(units, counts, units.positive),
    "specificity": lambda units, counts: _recall(units, counts, 1 - units.positive),
    "f1": _f1,
    "matthews_correlation": _matthews,
    "brier": lambda units, counts: _mean(units, (units.score - units.target) ** 2, counts),
    "calibration_error": _calibration_error,
}


@dataclass(frozen=True)
class _Who:
    """Who the images of one table are of, of those tables that are averaged.

    Attributes:
        rows: ``(N,)`` its rows in the whole.
        at: ``(k,)`` its clusters among all.
        cluster: ``(N,)`` each image's, of k.
        patient: ``(N,)`` each image's, of P.
        of: ``(P,)`` each patient's cluster, of k.
        share: ``(N,)`` 1 / images of the same patient.
    """

    rows: np.ndarray
    at: np.ndarray
    cluster: np.ndarray
    patient: np.ndarray
    of: np.ndarray
    share: np.ndarray


class Design:
    """Who the images of a predictions table are of: its clusters, whatever is predicted.

    Attributes:
        groups: ``(K,)`` strict patient of each cluster.
        classes: ``(K,)`` index of its class in the order of the logits.
        cluster: ``(N,)`` cluster of each row, so that ``draw_counts(...)[:, cluster]`` are weights of images.
    """

    def __init__(self, predictions: pd.DataFrame, by: str | None = None):
        """Count once.

        Args:
            predictions: rows of one part.
            by: a column over whose values metrics are averaged, as in `metrics.scopes`; None: over none.
        """
        self.names, self.positive = class_names(predictions), positive_class(predictions)
        keys = pd.MultiIndex.from_frame(predictions[["truth", "group"]])
        self.cluster, unique = keys.factorize()
        self.classes = np.array([self.names.index(truth) for truth, _ in unique])
        self.groups = unique.get_level_values(1).to_numpy()
        patient = predictions.groupby(["patient", "truth", "group"]).ngroup().to_numpy()
        parts = np.zeros(len(patient), dtype=int) if by is None else pd.factorize(predictions[by])[0]
        names = pd.factorize(predictions["patient"])[0]
        self.who = [_who(np.flatnonzero(parts == part), self.cluster, patient, names) for part in np.unique(parts)]

    def scored(self, chances: np.ndarray) -> "Scored":
        """These clusters as a model scores them.

        Args:
            chances: ``(N, C)`` probabilities of the table's rows.
        """
        return Scored(self, chances)

    def shares(self, metric: str) -> np.ndarray:
        """``(K,)`` share of each cluster in its class, of the images or patients that a metric counts.

        Args:
            metric: its name; those of patients begin with `patient` or `recognition`.
        """
        shares = np.zeros(len(self.classes))
        for who in self.who:
            units = who.of if metric.startswith(PATIENT_LEVEL) else who.cluster
            sizes, classes = np.bincount(units), self.classes[who.at]
            shares[who.at] += sizes / np.bincount(classes, weights=sizes)[classes]
        return shares / len(self.who)


def _who(rows: np.ndarray, cluster: np.ndarray, patient: np.ndarray, names: np.ndarray) -> _Who:
    at, inside = np.unique(cluster[rows], return_inverse=True)
    _, first, own = np.unique(patient[rows], return_index=True, return_inverse=True)
    return _Who(rows, at, inside, own, inside[first], 1 / np.bincount(names[rows])[names[rows]])


@dataclass(frozen=True)
class _Part:
    images: Units
    patients: Units
    hits: np.ndarray  # share of right images, summed over the patients of each cluster
    seen: np.ndarray  # patients of each cluster


PartStatistic = Callable[[_Part, np.ndarray], np.ndarray]


def _statistics(two: bool) -> dict[str, PartStatistic]:
    """All the metrics, in the order of `metrics`."""
    found: dict[str, PartStatistic] = {
        name: lambda part, counts, one=one: one(part.images, counts)
        for name, one in (ANY_CLASSES | (TWO_CLASSES if two else {})).items()
    }
    found["recognition_rate"] = lambda part, counts: (counts @ part.hits) / (counts @ part.seen)
    found["patient_accuracy"] = lambda part, counts: ANY_CLASSES["accuracy"](part.patients, counts)
    if two:
        found["patient_auroc"] = lambda part, counts: _auroc(part.patients, counts)
    return found


class Scored:
    """Every metric of a scored design, for any redraw of its clusters."""

    def __init__(self, design: Design, chances: np.ndarray):
        self.design, self.classes, self.shares = design, design.classes, design.shares
        self.parts = [self._part(who, chances[who.rows]) for who in design.who]

    def _part(self, who: _Who, chances: np.ndarray) -> _Part:
        images = self._units(who.cluster, self.classes[who.at], chances)
        sums = np.stack([np.bincount(who.patient, weights=column) for column in chances.T], axis=1)
        means = (sums / np.bincount(who.patient)[:, None]).round(DECIMALS)
        patients = self._units(who.of, self.classes[who.at], means)
        return _Part(images, patients, images.sums(images.right * who.share), images.sums(who.share))

    def _units(self, cluster: np.ndarray, classes: np.ndarray, chances: np.ndarray) -> Units:
        names, positive = self.design.names, self.design.positive
        truth = classes[cluster]
        right = most_probable(chances, names, positive) == truth
        loss = -np.log(np.clip(chances[np.arange(len(truth)), truth], np.finfo(float).eps, 1))  # as scikit-learn
        at = None if positive is None else names.index(positive)
        return Units(cluster, classes, right, loss, at, chances[:, at or 0])

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Metrics of every redraw, ``(D,)`` each; NaN where a class is missing from one.

        Args:
            counts: ``(D, K)`` how often each cluster is in each redraw.
            metrics: which; None: all there are, for more than two classes those that these have.
        """
        counts, found = np.asarray(counts, dtype=float), _statistics(self.design.positive is not None)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                name: np.mean(
                    [
                        found[name](part, counts[:, who.at])
                        for part, who in zip(self.parts, self.design.who, strict=True)
                    ],
                    axis=0,
                )
                for name in (found if metrics is None else metrics)
            }


class Redrawable(Protocol):
    """Clusters whose metrics can be had for any redraw, as `Scored`."""

    classes: np.ndarray

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """As `Scored.values`."""

    def shares(self, metric: str) -> np.ndarray:
        """As `Design.shares`."""


def scored(predictions: pd.DataFrame, by: str | None = None) -> Scored:
    """The clusters of a predictions table and its metrics; `by` as for `Design`."""
    return Design(predictions, by).scored(probabilities(predictions))


def draw_counts(classes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each cluster is in each bootstrap draw: ``(draws, K)``, as many of each class as there are.

    Args:
        classes: ``(K,)`` class of each cluster.
        draws: number of draws.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    counts = np.zeros((draws, len(classes)), dtype=int)
    for value in np.unique(classes):
        own = np.flatnonzero(classes == value)
        picks = generator.integers(len(own), size=(draws, len(own))) + len(own) * np.arange(draws)[:, None]
        counts[:, own] = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)
    return counts
