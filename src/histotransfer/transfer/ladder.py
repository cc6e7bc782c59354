"""The ladder ImageNet -> LC25000 -> BreakHis: rungs, and how a network climbs one.

Paper: arXiv 2404.09226, "multi-level transfer". What it does not state (stages, rates per layer, optimiser, split) is a
documented choice in `histotransfer.config`. Every rung is split by group.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from histotransfer.config import LadderConfig
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, load_trunk
from histotransfer.splits import audit, content_hashes, leaks
from histotransfer.stain import count_reasons, normaliser
from histotransfer.tiles import TileSource, load_tiles
from histotransfer.transfer.training import Batches, train_stage

Report = Callable[[str], None]


@dataclass(frozen=True)
class Rung:
    """A data set ready to train on.

    Attributes:
        name: lc25000, breakhis, ...
        table: its image table, split.
        images: their names relative to the folder of the data, which are the same on every machine.
        hashes: content hash of each image.
        classes: labels in the order of the logits.
        source: its tiles.
        audit: what the parts of the split share: nothing, unless leakage was asked for.
        unchanged: images that the normaliser had to leave as they were, by reason.
    """

    name: str
    table: pd.DataFrame
    images: pd.Series
    hashes: pd.Series
    classes: tuple[str, ...]
    source: TileSource
    audit: dict[str, dict[str, int]]
    unchanged: dict[str, int]

    @property
    def targets(self) -> np.ndarray:
        """``(N,)`` class indices."""
        return self.table["label"].map(self.classes.index).to_numpy()

    def rows(self, part: str) -> np.ndarray:
        """Positions of the images of a part."""
        return np.flatnonzero(self.table["split"] == part)

    def subset(self, rows: np.ndarray) -> TileSource:
        """The tiles of some rows."""
        return TileSource(self.source.tiles[rows], self.source.views)


def prepare_rung(
    split: pd.DataFrame,
    classes: tuple[str, ...],
    views: int,
    root: Path,
    config: LadderConfig,
    *,
    progress: bool = False,
) -> Rung:
    """Audit a split data set and decode it.

    Args:
        split: its image table with `split` filled.
        classes: labels in the order of the logits.
        views: 8 for square pixels, 4 for fields that are squeezed to a square.
        root: folder of the data.
        config: size, normaliser, leave to leak.
        progress: show a bar.

    Raises:
        HistotransferError: the split leaks without leave, or images cannot be read.
    """
    name, hashes = split["dataset"].iloc[0], content_hashes(split)
    report = audit(split, hashes)
    if leaks(report) and not config.allow_leakage:
        shared = {pair: found for pair, found in report.items() if any(found.values())}
        raise HistotransferError(
            f"{name}: the split leaks between its parts ({shared}); keep patients apart, or say allow_leakage=true"
        )
    tiles, fallbacks = load_tiles(split["path"].tolist(), config.size, normaliser(config.normaliser), progress=progress)
    images = split["path"].map(lambda path: Path(os.path.relpath(path, root)).as_posix())
    return Rung(name, split, images, hashes, classes, TileSource(tiles, views), report, count_reasons(fallbacks))


def keep_copies(split: pd.DataFrame, copies: int, seed: int) -> pd.DataFrame:
    """At most `copies` training images of each group; validation and test parts stay whole.

    The copies of an LC25000 original are rotations and flips of it, which training draws by itself.
    """
    train = split["split"] == "train"
    shuffled = split[train].sample(frac=1, random_state=seed)
    kept = shuffled.groupby("group").head(copies).index
    return split[~train | split.index.isin(kept)].reset_index(drop=True)


def architecture(classes: int, config: LadderConfig) -> dict:
    """Keyword arguments of `SEDenseNet` for a configuration."""
    return {"num_classes": classes, "positions": list(config.se_positions), "reduction": config.se_reduction}


def initial_model(classes: int, trunk: Trunk, config: LadderConfig) -> SEDenseNet:
    """The network at the ladder's foot: ImageNet trunk, untrained gates (all 1), random classifier from the seed."""
    torch.manual_seed(config.seed)
    model = SEDenseNet(**architecture(classes, config))
    load_trunk(model, trunk)
    return model.to(config.device, memory_format=torch.channels_last)


def next_rung(model: SEDenseNet, classes: int, config: LadderConfig) -> SEDenseNet:
    """The same trunk and gates under a new classifier, for the next data set's classes."""
    torch.manual_seed(config.seed)
    raised = SEDenseNet(**architecture(classes, config))
    raised.features.load_state_dict(model.features.state_dict())
    return raised.to(config.device, memory_format=torch.channels_last)


def climb(
    model: SEDenseNet, rung: Rung, config: LadderConfig, *, progress: bool = False, report: Report = print
) -> tuple[pd.DataFrame, list[float]]:
    """Train `model` in place through every stage of a rung's schedule.

    Returns:
        The history, one row an epoch (`rung`, `stage`, `epoch`, then `train_stage`'s columns), and seconds a stage.
    """
    schedule = config.lc25000_schedule if rung.name == "lc25000" else config.breakhis_schedule
    train, validation = rung.rows("train"), rung.rows("validation")
    history, seconds = [], []
    for number, (stage, epochs) in enumerate(schedule):
        started = time.perf_counter()
        seed = (config.seed, *rung.name.encode(), number)  # rungs and stages draw their own orders
        rows = train_stage(
            model,
            Batches(rung.subset(train), rung.targets[train], config.batch_size, seed, config.device),
            Batches(rung.subset(validation), rung.targets[validation], config.batch_size, None, config.device),
            stage,
            epochs,
            config,
            progress=progress,
        )
        seconds.append(round(time.perf_counter() - started, 3))
        history += [{"rung": rung.name, "stage": stage, "epoch": i, **row} for i, row in enumerate(rows, start=1)]
        report(
            f"{rung.name}, {stage}: {len(rows)} epochs in {seconds[-1]:.0f} s, validation log-loss"
            f" {rows[-1]['validation_log_loss']:.3f}, accuracy {rows[-1]['validation_accuracy']:.3f}"
        )
    return pd.DataFrame(history), seconds
