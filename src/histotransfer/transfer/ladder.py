"""The ladder ImageNet -> LC25000 -> BreakHis: rungs, and how a network climbs one.

Paper: arXiv 2404.09226, "multi-level transfer". What it does not state (stages, rates per layer, optimiser, split) is a
documented choice in `histotransfer.config`. Every rung is split by group.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from histotransfer.config import LadderConfig, Stage
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, load_trunk
from histotransfer.splits import audit, content_hashes, leaks
from histotransfer.stain import Fallback, Identity, count_reasons, normaliser
from histotransfer.tiles import KeyedSource, Subset, augmented_source, decode, load_tiles, resize
from histotransfer.transfer.checkpoint import Checkpoint
from histotransfer.transfer.prefix_cache import CachedSource, cached_source
from histotransfer.transfer.training import Batches, State, pooled_features, predict_logits, train_stage
from histotransfer.transfer.unfreezing import first_thawed

Report = Callable[[str], None]


class Rung:
    """A data set ready to train on; its tiles are decoded when they are first needed.

    Args:
        table: its image table, split.
        classes: labels in the order of the logits.
        views: symmetric views of its images: 8 for square pixels, 4 for fields that are squeezed to a square.
        root: folder of the data.
        config: size, normaliser, augmentation, leave to leak.
        colours: a normaliser that is ready, of another rung; else the one that the configuration names.
        progress: show a bar while decoding.

    Attributes:
        name: lc25000, breakhis, ...
        images: names relative to the folder of the data, which are the same on every machine.
        hashes: content hash of each image.
        audit: what the parts of the split share: nothing, unless leakage was asked for.

    Raises:
        HistotransferError: the split leaks without leave; on first use of `source`: images that cannot be read.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        classes: tuple[str, ...],
        views: int,
        root: Path,
        config: LadderConfig,
        *,
        colours: Identity | None = None,
        progress: bool = False,
    ):
        self._given_colours = colours
        self.name, self.table, self.classes, self.config = table["dataset"].iloc[0], table, classes, config
        self.views, self.progress = views, progress
        self.images = table["path"].map(lambda path: Path(os.path.relpath(path, root)).as_posix())
        self.hashes = content_hashes(table)
        self.audit = audit(table, self.hashes)
        if leaks(self.audit) and not config.allow_leakage:
            shared = {pair: found for pair, found in self.audit.items() if any(found.values())}
            raise HistotransferError(
                f"{self.name}: the split leaks between its parts ({shared}); keep patients apart, or say"
                " allow_leakage=true"
            )

    @cached_property
    def colours(self) -> Identity:
        """Its normaliser, which has seen training images or none at all."""
        if self._given_colours is not None:
            return self._given_colours
        method, size = normaliser(self.config.normaliser), self.config.size
        if self.config.normaliser_reference == "published":
            return method
        training = self.table["path"].iloc[self.rows("train")]
        return method.fit(resize(decode(path), size) for path in training)

    @cached_property
    def _decoded(self) -> tuple[np.ndarray, list[Fallback]]:
        return load_tiles(self.table["path"].tolist(), self.config.size, self.colours, progress=self.progress)

    @cached_property
    def source(self) -> KeyedSource:
        """Its tiles, in the views that the configuration's augmentation draws from."""
        return augmented_source(self._decoded[0], self.views, self.config.augmentation)

    @property
    def predicted_views(self) -> dict:
        """What a prediction is the mean over, as `augmented_source` takes it: the views of training, or upright."""
        return {"views": self.views, "augmentation": self.config.augmentation if self.config.average_views else "none"}

    @property
    def predicted_source(self) -> KeyedSource:
        """Its tiles, in the views that a prediction is the mean over."""
        return augmented_source(self._decoded[0], **self.predicted_views)

    @property
    def unchanged(self) -> dict[str, int]:
        """Images that the normaliser had to leave as they were, by reason."""
        return count_reasons(self._decoded[1])

    @property
    def targets(self) -> np.ndarray:
        """``(N,)`` class indices."""
        return self.truth.map(self.classes.index).to_numpy()

    @property
    def truth(self) -> pd.Series:
        """``(N,)`` names of classes: labels, or subtypes where the classes are those."""
        column = "label" if set(self.table["label"]) <= set(self.classes) else "subtype"
        return self.table[column]

    def rows(self, *parts: str) -> np.ndarray:
        """Positions of the images of some parts, one part after the other."""
        return np.concatenate([np.flatnonzero(self.table["split"] == part) for part in parts])

    @property
    def evaluated(self) -> np.ndarray:
        """Positions of what is predicted: validation, then test; validation alone in a rehearsal."""
        return self.rows("validation") if self.config.rehearsal else self.rows("validation", "test")


def keep_copies(split: pd.DataFrame, copies: int, seed: int) -> pd.DataFrame:
    """At most `copies` training images of each group; validation and test parts stay whole.

    The copies of an LC25000 original are rotations and flips of it, which training draws by itself.
    """
    train = split["split"] == "train"
    shuffled = split[train].sample(frac=1, random_state=seed)
    kept = shuffled.groupby("group").head(copies).index
    return split[~train | split.index.isin(kept)].reset_index(drop=True)


def keep_magnifications(split: pd.DataFrame, magnifications: tuple[int, ...]) -> pd.DataFrame:
    """Train and validate on some magnifications only (all, if empty); the test part stays whole.

    Raises:
        HistotransferError: none of the training images is of these.
    """
    if not magnifications:
        return split
    kept = split[(split["split"] == "test") | split["magnification"].isin(magnifications)]
    if not (kept["split"] == "train").any():
        raise HistotransferError(
            f"train_magnifications: no training image is of {', '.join(map(str, magnifications))};"
            f" there are {', '.join(map(str, sorted(set(split['magnification']))))}"
        )
    return kept.reset_index(drop=True)


def architecture(classes: int, config: LadderConfig) -> dict:
    """Keyword arguments of `SEDenseNet` for a configuration."""
    return {
        "num_classes": classes,
        "positions": list(config.se_positions),
        "reduction": config.se_reduction,
        "gate": config.se_gate,
    }


def initial_model(classes: int, trunk: Trunk, config: LadderConfig) -> SEDenseNet:
    """The network at the ladder's foot: trunk, untrained gates, random classifier from the seed.

    The trunk is ImageNet's or, with ``start="scratch"``, random from the seed too.
    """
    torch.manual_seed(config.seed)
    model = SEDenseNet(**architecture(classes, config))
    if config.start == "imagenet":
        load_trunk(model, trunk)
    return model.to(config.device, memory_format=torch.channels_last)


def next_rung(model: SEDenseNet, classes: int, config: LadderConfig) -> SEDenseNet:
    """The same trunk and gates under a new classifier, for the next data set's classes."""
    torch.manual_seed(config.seed)
    raised = SEDenseNet(**architecture(classes, config))
    raised.features.load_state_dict(model.features.state_dict())
    return raised.to(config.device, memory_format=torch.channels_last)


@dataclass(frozen=True)
class StageResult:
    """What came of a stage.

    Attributes:
        rung: name of the data set.
        stage: what it thawed down to.
        seconds: of its training and prediction.
        rows: `train_stage`'s, one an epoch.
        logits: of the rung's evaluated rows by the network as the stage left it, ``(M, classes)``.
    """

    rung: str
    stage: Stage
    seconds: float
    rows: list[dict[str, float]]
    logits: np.ndarray


def history(stages: Sequence[StageResult]) -> pd.DataFrame:
    """One row an epoch: `rung`, `stage`, `epoch`, then `train_stage`'s columns."""
    rows = [{"rung": s.rung, "stage": s.stage, "epoch": i, **row} for s in stages for i, row in enumerate(s.rows, 1)]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["rung", "stage", "epoch"])


def climb(
    model: SEDenseNet,
    rung: Rung,
    schedule: Sequence[tuple[Stage, int]],
    config: LadderConfig,
    checkpoint: Checkpoint | None = None,
    *,
    progress: bool = False,
    report: Report = print,
) -> list[StageResult]:
    """Train `model` in place through every stage of a schedule, from activations of what each stage leaves frozen.

    Args:
        model: the network as it starts this rung.
        rung: the data.
        schedule: stages with their epochs.
        config: everything else.
        checkpoint: where the climb is kept as it goes; one that was broken off continues, one that is finished is
            read back whole.
        progress: show bars.
        report: called with one line a stage.
    """
    finished: list[StageResult] = []
    within: State | None = None
    if checkpoint and (kept := checkpoint.load()):
        model.load_state_dict(kept["model"])
        finished = [StageResult(**{**stage, "logits": stage["logits"].numpy()}) for stage in kept["finished"]]
        within = kept["within"]
        report(f"{rung.name}: {len(finished)} of {len(schedule)} stages were trained before")

    def keep(within: State | None) -> None:
        if checkpoint and (within is None or checkpoint.due()):
            stages = [{**vars(stage), "logits": torch.from_numpy(stage.logits)} for stage in finished]
            checkpoint.save({"finished": stages, "within": within, "model": model.state_dict()})

    cuts = [first_thawed(model, stage) if config.cache else 0 for stage, _ in schedule]
    for number in range(len(finished), len(schedule)):
        (stage, epochs), cut, started = schedule[number], cuts[number], time.perf_counter()
        # Groups above the cut are about to change: sources are made anew for each stage, never above its own cut.
        source = cached_source(rung.source, model, cuts, cut, config.device)
        rows = train_stage(
            model,
            _batches(rung, source, config, "train", (config.seed, *rung.name.encode(), number)),
            _batches(rung, source, config, "validation", None),
            stage,
            epochs,
            config,
            start=cut,
            resumed=within,
            keep=keep,
            progress=progress,
        )
        logits = _predicted(model, Subset(source, rung.evaluated), config, cut)
        if isinstance(source, CachedSource):
            source.flush()
        seconds = round(time.perf_counter() - started, 3)
        finished.append(StageResult(rung.name, stage, seconds, rows, logits))
        within = None
        keep(None)
        part = "validation" if len(rung.rows("validation")) else "train"
        report(
            f"{rung.name}, {stage}: {len(rows)} epochs in {seconds:.0f} s, {part} log-loss"
            f" {rows[-1][f'{part}_log_loss']:.3f}, accuracy {rows[-1][f'{part}_accuracy']:.3f}"
        )
    model.eval()
    return finished


def final_logits(
    model: SEDenseNet, rung: Rung, rows: np.ndarray, schedule: Sequence[tuple[Stage, int]], config: LadderConfig
) -> np.ndarray:
    """Logits of some images of a rung by a network that has climbed `schedule`: ``(M, classes)``.

    What its last stage left frozen is read from the cache, as in `climb`.
    """
    cuts = [first_thawed(model, stage) if config.cache else 0 for stage, _ in schedule]
    source = cached_source(rung.source, model.eval(), cuts, cuts[-1], config.device)
    logits = _predicted(model, Subset(source, rows), config, cuts[-1])
    if isinstance(source, CachedSource):
        source.flush()
    return logits


def frozen_features(model: SEDenseNet, rung: Rung, config: LadderConfig) -> np.ndarray:
    """Pooled features of every image, upright, as `model` computes them: ``(N, C)``; kept as those of a head stage."""
    if not config.cache:
        return pooled_features(model, rung.source, config.batch_size, config.device)
    head = first_thawed(model, "head")
    cuts = [first_thawed(model, stage) for stage, _ in config.breakhis_schedule]
    source = cached_source(rung.source, model.eval(), cuts, head, config.device)
    features = pooled_features(model, source, config.batch_size, config.device, start=head)
    source.flush()
    return features


def _predicted(model: SEDenseNet, source: Subset, config: LadderConfig, cut: int) -> np.ndarray:
    if not len(source):
        return np.empty((0, model.classifier.out_features), dtype=np.float32)
    views = source.views if config.average_views else 1
    return predict_logits(model, source, config.batch_size, config.device, start=cut, views=views)


def _batches(rung: Rung, source: KeyedSource, config: LadderConfig, part: str, seed: tuple[int, ...] | None) -> Batches:
    rows = rung.rows(part)
    return Batches(
        Subset(source, rows),
        rung.targets[rows],
        config.batch_size,
        seed,
        config.device,
        balanced=config.balanced_sampling and seed is not None,
    )
