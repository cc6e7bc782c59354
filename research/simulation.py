"""Simulated data sets with the real numbers of patients and images: two arms of which the truth is known."""

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from histotransfer.evaluation.clusters import Design, Redrawable, Scored, draw_counts, scored
from histotransfer.evaluation.metrics import MALIGNANT, class_names, scopes
from histotransfer.evaluation.pooling import aligned

SEPARATION = 0.95

DataSet = dict[str, tuple[Redrawable, Redrawable]]  # scope to its two arms


def margins(predictions: pd.DataFrame) -> np.ndarray:
    """``(N,)`` logit of malignant minus that of benign."""
    return (predictions[f"logit_{MALIGNANT}"] - predictions["logit_benign"]).to_numpy()


def variance_components(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean of the logits and their variance between and within strict patients, by one-way analysis of variance.

    Returns:
        Indexed by `magnification` and `truth`: `mean`, `between` (at least 0), `within`, `intraclass` (correlation),
        `images`, `patients`. Source: Searle, Casella and McCulloch 1992, section 3.6.
    """
    rows = {}
    for key, table in predictions.assign(margin=margins(predictions)).groupby(["magnification", "truth"]):
        sizes, means = table.groupby("group")["margin"].size(), table.groupby("group")["margin"].mean()
        groups, images = len(sizes), len(table)
        within = ((table["margin"] - table["group"].map(means)) ** 2).sum() / (images - groups)
        outer = (sizes * (means - table["margin"].mean()) ** 2).sum() / (groups - 1)
        between = max((outer - within) * (groups - 1) / (images - (sizes**2).sum() / images), 0.0)
        rows[key] = {
            "mean": table["margin"].mean(),
            "between": between,
            "within": within,
            "intraclass": between / (between + within),
            "images": images,
            "patients": groups,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["magnification", "truth"])


def network_variance(predictions: pd.DataFrame) -> float:
    """How much the networks of the folds differ: variance of their offsets, as a share of that of an image's logit.

    One-way analysis of variance of patients' mean logits, standardised within class and magnification, with the fold
    as the group. Below 0 where networks differ by less than their patients do.
    """
    table = predictions.assign(margin=margins(predictions))
    own = table.groupby(["magnification", "truth"])["margin"]
    table["margin"] = (table["margin"] - own.transform("mean")) / own.transform("std")
    means = table.groupby(["fold", "group"])["margin"].mean()
    folds = means.groupby(level="fold")
    sizes, patients = folds.size(), len(means)
    within = ((means - folds.transform("mean")) ** 2).sum() / (patients - len(sizes))
    outer = (sizes * (folds.mean() - means.mean()) ** 2).sum() / (len(sizes) - 1)
    return float((outer - within) * (len(sizes) - 1) / (patients - (sizes**2).sum() / patients))


def correlations(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    """Correlation of two arms' logits `between` patients (their means) and `within`, per class and magnification."""
    ours, theirs = aligned([ours, theirs])
    both = pd.DataFrame({"ours": margins(ours), "theirs": margins(theirs)})
    keys = [ours[name].to_numpy() for name in ("magnification", "truth", "group")]
    means = both.groupby(keys).mean()
    centred = means - means.groupby(level=[0, 1]).transform("mean")
    left = both - both.groupby(keys).transform("mean")
    return {"between": float(centred.corr().iloc[0, 1]), "within": float(left.corr().iloc[0, 1])}


def separated(components: pd.DataFrame) -> pd.DataFrame:
    """The same variances with means placed around 0 so that AUROC is `SEPARATION` at each magnification."""
    spread = np.sqrt(components[["between", "within"]].sum(axis=1).groupby("magnification").transform("sum"))
    sign = np.where(components.index.get_level_values("truth") == MALIGNANT, 1, -1)
    return components.assign(mean=sign * spread * norm.ppf(SEPARATION) / 2)


class NormalArms:
    """Two arms whose patients have normal effects, and the networks of their folds, if they differ."""

    def __init__(
        self,
        table: pd.DataFrame,
        components: pd.DataFrame,
        correlation: dict[str, float],
        gap: float,
        networks: float = 0.0,
    ):
        """Lay out the data sets.

        Args:
            table: predictions, of which only the images and their patients are used.
            components: as `variance_components` returns them.
            correlation: as `correlations` returns it.
            gap: by how many logits the classes of the second arm are closer together.
            networks: variance between the networks of the folds, as `network_variance` returns it; those of the second
                arm are drawn apart from those of the first.
        """
        effects = components.loc[pd.MultiIndex.from_frame(table[["magnification", "truth"]])]
        sign = np.where(table["truth"] == MALIGNANT, 1, -1)
        self.table, self.correlation, self.networks = table.reset_index(drop=True), correlation, networks
        self.means = [effects["mean"].to_numpy() - sign * closer / 2 for closer in (0, gap)]
        self.between, self.within = np.sqrt(effects["between"].to_numpy()), np.sqrt(effects["within"].to_numpy())
        self.offset = np.sqrt(networks * (effects["between"] + effects["within"]).to_numpy())
        self.group, self.fold = (pd.factorize(table[name])[0] for name in ("group", "fold"))

    def logits(self, generator: np.random.Generator) -> list[np.ndarray]:
        """``(N,)`` logits of malignant against benign, of both arms, in one data set."""
        patients = _pair(generator, self.group.max() + 1, self.correlation["between"])
        images = _pair(generator, len(self.group), self.correlation["within"])
        networks = generator.standard_normal((2, self.fold.max() + 1))
        return [
            mean + self.between * patient[self.group] + self.within * image + self.offset * network[self.fold]
            for mean, patient, image, network in zip(self.means, patients, images, networks, strict=True)
        ]

    def sets(self, generators: Iterable[np.random.Generator]) -> Iterator[DataSet]:
        """One data set per generator."""
        designs = {name: (rows.index, Design(rows, by)) for name, rows, by in scopes(self.table)}
        signs = [1 if name == MALIGNANT else -1 for name in class_names(self.table)]
        for generator in generators:
            ours, theirs = (expit(np.outer(logits, signs)) for logits in self.logits(generator))
            yield {
                name: (design.scored(ours[rows]), design.scored(theirs[rows]))
                for name, (rows, design) in designs.items()
            }

    def population(self, generators: Sequence[np.random.Generator]) -> list[list[pd.DataFrame]]:
        """Both arms' predictions in one data set per generator: a metric's mean over them is nearly the truth.

        They are put together, except where networks differ: a pooled AUROC compares images of the same few networks.
        """
        names = ("image", "patient", "group")
        sets = []
        for i, generator in enumerate(generators):
            copy = self.table.assign(**{name: f"{i} " + self.table[name] for name in names})
            sets.append([copy.assign(logit_benign=0.0, logit_malignant=logits) for logits in self.logits(generator)])
        if self.networks:
            return sets
        return [[pd.concat(arm, ignore_index=True) for arm in zip(*sets, strict=True)]]


def _pair(generator: np.random.Generator, size: int, correlation: float) -> list[np.ndarray]:
    shared, *separate = generator.standard_normal((3, size))
    return [np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * one for one in separate]


class RedrawnArms:
    """Two arms with real logits, whose patients are drawn with replacement within each class."""

    def __init__(self, ours: pd.DataFrame, theirs: pd.DataFrame):
        """Score both arms once.

        Args:
            ours: predictions of the first arm.
            theirs: predictions of the second, of the same images.
        """
        self.tables = aligned([ours, theirs])
        self.scopes = {
            name: (scored(rows, by), scored(self.tables[1].loc[rows.index], by))
            for name, rows, by in scopes(self.tables[0].reset_index(drop=True))
        }

    def sets(self, generators: Iterable[np.random.Generator]) -> Iterator[DataSet]:
        """One data set per generator."""
        for generator in generators:
            seed = int(generator.integers(2**32))
            yield {name: (Redrawn(one, seed), Redrawn(other, seed)) for name, (one, other) in self.scopes.items()}

    def population(self, generators: Sequence[np.random.Generator]) -> list[list[pd.DataFrame]]:
        """The tables themselves, which are exactly the truth; nothing is drawn."""
        return [self.tables]


class Redrawn:
    """A scored design whose clusters are redrawn; each copy is a separate cluster."""

    def __init__(self, arm: Scored, seed: int):
        (counts,) = draw_counts(arm.classes, 1, seed)
        self.arm, self.drawn = arm, np.repeat(np.arange(len(counts)), counts)
        self.classes, self.copies = arm.classes[self.drawn], np.eye(len(counts))[self.drawn]

    def values(self, counts: np.ndarray, metrics: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """As `Scored.values`."""
        return self.arm.values(counts @ self.copies, metrics)

    def shares(self, metric: str) -> np.ndarray:
        """As `Scored.shares`, up to one factor per class."""
        return self.arm.shares(metric)[self.drawn]
