"""A frozen probe that predicts every image of a data set once, out of fold, and records the run.

It is fitted to features of a frozen ImageNet DenseNet-121, so two runs do not differ by the training of a network.
`leakage` compares splits with it, `normalisation` compares colours, `complexity` exits and picture sizes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.evaluation.baselines import PROBE_C, frozen_probe, probe_logits
from histotransfer.models.weights import imagenet_trunk
from histotransfer.records import fingerprint
from histotransfer.splits import content_hashes, group_folds
from histotransfer.stain import Fallback, count_reasons
from histotransfer.study.recorder import Recorder, described_trunk, predictions_table
from histotransfer.tiles import TileSource
from histotransfer.transfer.stages import history, initial_model
from histotransfer.transfer.training import check_device, pooled_features

FoldFeatures = Callable[[np.ndarray], np.ndarray]
"""Takes a mask ``(N,)`` of training images; returns features ``(N, C)`` of all images by a network fitted to those."""


@dataclass(frozen=True)
class Probed:
    """A data set as a probe sees it.

    Attributes:
        name: of the data set.
        table: N images.
        classes: labels in the order of the logits.
        features: ``(N, C)``, or a function that computes them for each fold.
        fallbacks: the images that could not be normalised.
    """

    name: str
    table: pd.DataFrame
    classes: tuple[str, ...]
    features: np.ndarray | FoldFeatures
    fallbacks: Sequence[Fallback]


class ProbeStudy:
    """Frozen features, and the runs of an experiment that probes them.

    Args:
        config: size, normaliser, folds, seed, device, weights.
        data_root: folder of the data sets.
        out: the experiment's folder.

    Raises:
        HistotransferError: the weights or the device cannot be used.
    """

    def __init__(self, config: LadderConfig, data_root: str | Path, out: str | Path):
        check_device(config.device)
        self.config, self.root, self.recorder = config, Path(data_root).resolve(), Recorder(config, out)
        self.trunk = imagenet_trunk(config.weights)
        self.model = initial_model(2, self.trunk, config)

    def features(self, tiles: np.ndarray) -> np.ndarray:
        """``(N, C)`` of tiles ``(N, S, S, 3)`` uint8."""
        return pooled_features(self.model, TileSource(tiles), self.config.batch_size, self.config.device)

    def write(
        self, run: str, probed: Probed, units: pd.Series, kind: str, settings: Mapping[str, str]
    ) -> dict[str, Any]:
        """Probe a data set and write the run.

        Args:
            run: the run's name.
            probed: the data set.
            units: ``(N,)`` what a fold keeps together.
            kind: the name of such a unit: `patient` or `image`.
            settings: what differs from other runs of the experiment, for the record's `config`.

        Returns:
            Metrics of all images.
        """
        config, table = self.config, probed.table
        images = table["path"].map(lambda path: Path(path).relative_to(self.root).as_posix())
        predictions, shared = out_of_fold(probed, images, units, config)
        metrics = self.recorder.write(
            run,
            predictions,
            config={
                "size": config.size,
                "folds": config.folds,
                "imagenet": described_trunk(self.trunk),
                "C": PROBE_C,
                **settings,
            },
            data={
                "name": probed.name,
                "images": len(table),
                "patients": int(table["patient"].nunique()),
                "fingerprint": fingerprint(images, content_hashes(table)),
                "not_normalised": count_reasons(probed.fallbacks),
            },
            split={"kind": f"{kind}, out of fold", "parts": {"test": len(table)}, "audit": shared},
            history=history(()),
        )
        return metrics["test"]["image"]["all"]


def out_of_fold(probed: Probed, images: pd.Series, units: pd.Series, config: LadderConfig) -> tuple[pd.DataFrame, dict]:
    """Predict every image with a probe that was fitted without the image's fold.

    Args:
        probed: N images.
        images: their names, the same on every machine.
        units: ``(N,)`` what a fold keeps together: patients, or single images.
        config: folds and seed.

    Returns:
        A predictions table, and for each fold how many groups its two sides share.
    """
    table, classes = probed.table, probed.classes
    targets = table["label"].map(classes.index).to_numpy()
    logits, fold_of = np.empty((len(table), len(classes))), np.empty(len(table), dtype=int)
    shared = {}
    for fold, test in enumerate(group_folds(table["label"], units, config.folds, config.seed)):
        features = probed.features(~test) if callable(probed.features) else probed.features
        probe = frozen_probe(features[~test], targets[~test])
        logits[test], fold_of[test] = probe_logits(probe, features[test]), fold
        groups = [set(table.loc[side, "group"]) for side in (test, ~test)]
        shared[f"fold {fold}"] = {"groups": len(groups[0] & groups[1]), "of": len(groups[0])}
    frame = predictions_table(
        table, images, table["label"], classes, logits, part="test", fold=fold_of, seed=config.seed
    )
    return frame, shared
