"""How it was chosen what tells that a picture is unlike the training pictures: without any picture of the external set.

``python -m research.familiarity --data DIR`` writes `results/familiarity`. UCSB is not read.

A network is trained for each of five folds by the plan of the primary experiment (arm `plain`, seed 0). Every candidate
is features of that network and an estimator, fitted to the training patients. As for the network that ships, the
threshold comes from other networks: that of a fold is what `FALSE_ALARMS` of the distances lie beyond that the other
four folds' networks gave their held-out patients.

The rule, fixed before the first run:

1. A candidate keeps its promise if the share of held-out pictures that it calls unlike, mean over folds, is at most
   `ALLOWED`.
2. Of those the one is taken whose rarest find is the most frequent: over the kinds of pictures that it must find (lung,
   phantom tissue, photographs, noise, blank pictures) the smallest share, mean over folds.
3. Within `LEVEL` of that, the one with the fewest false alarms in its worst fold; then the one with fewer features.
"""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis, lc25000
from histotransfer.datasets.oddities import NO_TISSUE
from histotransfer.datasets.roots import resolve_root
from histotransfer.errors import one_line_errors
from histotransfer.evaluation.familiarity import FALSE_ALARMS, threshold
from histotransfer.files import scratch_folder
from histotransfer.models.se_densenet import SEDenseNet, Transition
from histotransfer.records import environment, write_record
from histotransfer.stain import normaliser
from histotransfer.study.plan import planned_runs, read_plan
from histotransfer.study.runner import train_unrecorded
from histotransfer.tiles import load_tiles, network_input

PLAN, ARM, SEED = "study/primary.toml", "plain", 0
ALLOWED, LEVEL = 0.075, 0.01
COUNT = 100  # pictures of each kind that is made
BATCH = 32
NEIGHBOURS = 5

HELD_OUT = "held out"

Features = dict[str, np.ndarray]
Distance = Callable[[np.ndarray], np.ndarray]  # features (N, C) to distances (N,)


class Candidate(NamedTuple):
    """Features, an estimator of how far they are from those of training, and how many numbers a picture has."""

    features: str
    estimator: str
    numbers: int


Distances = dict[Candidate, dict[str, np.ndarray]]
"""Candidate to kind to the distances of its pictures."""


@torch.inference_mode()
def features_of(model: SEDenseNet, tiles: np.ndarray) -> Features:
    """What a network makes of tiles ``(N, S, S, 3)`` on its way, averaged over the field: by name, ``(N, C)``.

    `classifier`: what the classifier sees; `transition1`, ...: after each transition; `transitions`: all of them;
    `transitions and spread`: with their standard deviations over the field.
    """
    found: dict[str, list[np.ndarray]] = {}
    for batch in np.array_split(tiles, -(-len(tiles) // BATCH)):
        x, means, spreads = torch.from_numpy(network_input(batch, np.zeros(len(batch), dtype=int))), [], []
        for module in model.features:
            x = module(x)
            if isinstance(module, Transition):
                means.append(x.mean(dim=(2, 3)))
                spreads.append(x.std(dim=(2, 3), correction=0))
                found.setdefault(f"transition{len(means)}", []).append(means[-1].numpy())
        found.setdefault("transitions", []).append(torch.cat(means, dim=1).numpy())
        found.setdefault("transitions and spread", []).append(torch.cat([*means, *spreads], dim=1).numpy())
        found.setdefault("classifier", []).append(model.pool(x).numpy())
    return {name: np.concatenate(parts).astype(float) for name, parts in found.items()}


def _components(count: int) -> Callable[[np.ndarray], Distance]:
    """Probabilistic PCA: how much less likely features are than training pictures' on average.

    Tipping and Bishop 1999, https://doi.org/10.1111/1467-9868.00196.
    """

    def fit(features: np.ndarray) -> Distance:
        pca = PCA(min(count, (min(features.shape) - 1) // 2), svd_solver="full").fit(features)
        usual = pca.score(features)
        return lambda others: usual - pca.score_samples(others)

    return fit


def _mahalanobis(features: np.ndarray) -> Distance:
    """A normal distribution whose covariance is shrunk (Ledoit and Wolf 2004)."""
    scaler = StandardScaler().fit(features)
    normal = LedoitWolf().fit(scaler.transform(features))
    usual = normal.mahalanobis(scaler.transform(features)).mean()
    return lambda others: np.log(normal.mahalanobis(scaler.transform(others)) / usual)


def _neighbours(features: np.ndarray) -> Distance:
    """The mean distance to the nearest training pictures, relative to theirs: the log of `evaluation.familiarity`'s."""
    scaler = StandardScaler().fit(features)
    known = scaler.transform(features)
    usual = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(known).kneighbors()[0].mean()  # each without itself
    search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(known)
    return lambda others: np.log(search.kneighbors(scaler.transform(others))[0].mean(axis=1) / usual)


ESTIMATORS: dict[str, Callable[[np.ndarray], Distance]] = {
    **{f"PCA of {count}": _components(count) for count in (8, 32, 128)},
    "Mahalanobis": _mahalanobis,
    "neighbours": _neighbours,
}


def other_pictures(root: Path, config: LadderConfig) -> dict[str, np.ndarray]:
    """Tiles of every kind that must be found: a picture of each LC25000 original, `COUNT` of those that are made."""
    tissue = {
        "lung": lc25000.load(root).groupby("group").head(1),
        "phantom": breakhis.load(resolve_root("phantom")).groupby(["group", "magnification"]).head(1),
    }
    colours = normaliser(config.normaliser)
    kinds = {name: load_tiles(table["path"].tolist(), config.size, colours)[0] for name, table in tissue.items()}
    return kinds | {name: np.stack(list(make(COUNT, config.size, SEED))) for name, make in NO_TISSUE.items()}


def distances_of_fold(config: LadderConfig, root: Path, others: dict[str, np.ndarray], folder: Path) -> Distances:
    """By the network of one fold; the kind `held out` is its test patients."""
    model, task, _ = train_unrecorded(config, root, folder)
    model.eval()
    train = features_of(model, task.tiles[task.rows("train")])
    kinds = {HELD_OUT: task.tiles[task.rows("test")]} | others
    features = {kind: features_of(model, tiles) for kind, tiles in kinds.items()}
    found = {}
    for (name, own), (estimator, fit) in product(train.items(), ESTIMATORS.items()):
        distance, candidate = fit(own), Candidate(name, estimator, own.shape[1])
        found[candidate] = {kind: distance(each[name]) for kind, each in features.items()}
    return found


def judge(folds: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """How one candidate did: false alarms (mean over folds, and in the worst), and the share found of each kind.

    Args:
        folds: kind to distances, of each fold; `held out` of a fold helps to set the threshold of the others.
    """
    rows = []
    for number, fold in enumerate(folds):
        others = [own[HELD_OUT] for other, own in enumerate(folds) if other != number]
        limit = threshold(np.concatenate(others))
        rows.append({kind: np.mean(own > limit) for kind, own in fold.items()})
    shares = pd.DataFrame(rows)
    alarms, kinds = shares.pop(HELD_OUT), shares.mean()
    return {"false alarms": alarms.mean(), "worst fold": alarms.max(), **kinds, "rarest find": kinds.min()}


def choose(candidates: pd.DataFrame) -> int:
    """The row of the candidate that the rule takes.

    Raises:
        ValueError: none keeps its promise.
    """
    kept = candidates[candidates["false alarms"] <= ALLOWED]
    if kept.empty:
        raise ValueError("no candidate keeps its promise")
    level = kept[kept["rarest find"] >= kept["rarest find"].max() - LEVEL]
    return int(level.sort_values(["worst fold", "numbers"]).index[0])


def compare(folds: Sequence[Distances]) -> pd.DataFrame:
    """One row per candidate; `chosen` marks the one that the rule takes."""
    rows = [candidate._asdict() | judge([fold[candidate] for fold in folds]) for candidate in folds[0]]
    table = pd.DataFrame(rows)
    return table.assign(chosen=table.index == choose(table))


def main(
    data: Annotated[Path, typer.Option(help="Folder with BreaKHis_v1 and lung_colon_image_set.")],
    out: Annotated[Path, typer.Option(help="Folder for the record.")] = Path("results/familiarity"),
    plan: Annotated[Path, typer.Option(help="The plan whose networks are used.")] = Path(PLAN),
) -> None:
    """Choose what tells that a picture is unlike the training pictures. Trains five networks: about 15 minutes."""
    around, runs = environment(), [run for run in planned_runs(read_plan(plan)) if run.arm == ARM]
    configs = [run.config.model_copy(update={"external": False}) for run in runs if run.config.seed == SEED]
    root, others = data.resolve(), other_pictures(data.resolve(), configs[0])
    with scratch_folder(out) as folder:
        folds = [distances_of_fold(config, root, others, folder) for config in configs]
    table = compare(folds)
    record = {
        "plan": str(plan),
        "arm": ARM,
        "seed": SEED,
        "folds": len(folds),
        "pictures": {kind: len(tiles) for kind, tiles in others.items()},
        "rule": {"false_alarms": FALSE_ALARMS, "allowed": ALLOWED, "level": LEVEL},
        "chosen": table.loc[table["chosen"], ["features", "estimator"]].iloc[0].to_dict(),
    }
    print(write_record(out, record, {"candidates": table.round(4)}, around) / "candidates.csv")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
