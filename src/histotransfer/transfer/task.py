"""A data set ready to train on: split, audited, with normalised colours and tiles in the views of the augmentation.

LC25000 is the source task, BreakHis (or the user's images) the target task of the transfer.
"""

import copy
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.errors import HistotransferError
from histotransfer.pictures import decode, resize
from histotransfer.splits import audit, content_hashes, leaks
from histotransfer.stain import Fallback, Normaliser, count_reasons, normaliser
from histotransfer.tiles import AugmentedSource, augmented_source, load_tiles


class Task:
    """A data set, split and ready to train on; its tiles are decoded on first use.

    Args:
        table: its image table, split.
        classes: labels in the order of the logits.
        views: symmetric views of its images: 8 for square pixels, 4 for fields that are squeezed to a square.
        root: folder of the data.
        config: size, normaliser, augmentation, and whether a split that leaks is allowed.
        colours: the normaliser of another task; by default the one that the configuration names.
        progress: show a bar while decoding.

    Attributes:
        name: lc25000, breakhis, ...
        images: names relative to the folder of the data, which are the same on every machine.
        hashes: content hash of each image.
        audit: what the parts of the split share: nothing, unless leakage is allowed.

    Raises:
        HistotransferError: the split leaks and that is not allowed; on first use of `source`: images that cannot be
            read.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        classes: tuple[str, ...],
        views: int,
        root: Path,
        config: LadderConfig,
        *,
        colours: Normaliser | None = None,
        progress: bool = False,
    ):
        self._given_colours = colours
        self.name, self.table, self.classes, self.config = table["dataset"].iloc[0], table, classes, config
        self.views, self.progress = views, progress
        self.images = table["path"].map(lambda path: Path(os.path.relpath(path, root)).as_posix())
        self.hashes = content_hashes(table)
        self.audit = self._audited()

    def _audited(self) -> dict[str, dict[str, int]]:
        found = audit(self.table, self.hashes)
        if leaks(found) and not self.config.allow_leakage:
            shared = {pair: counts for pair, counts in found.items() if any(counts.values())}
            raise HistotransferError(
                f"{self.name}: the split leaks between its parts ({shared}); keep patients apart, or say"
                " allow_leakage=true"
            )
        return found

    def split_anew(self, parts: np.ndarray) -> "Task":
        """The same images and tiles in other parts; what is in none of train, validation and test takes no part.

        Only for a task whose colours were not fitted to its own training images.

        Args:
            parts: ``(N,)`` names.

        Raises:
            HistotransferError: the split leaks and that is not allowed.
        """
        other = copy.copy(self)
        other.table = self.table.assign(split=parts)
        other.audit = other._audited()
        return other

    @cached_property
    def colours(self) -> Normaliser:
        """Its normaliser, fitted to training images or to none at all."""
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

    @property
    def tiles(self) -> np.ndarray:
        """``(N, S, S, 3)`` uint8: its images resized, their colours normalised."""
        return self._decoded[0]

    @cached_property
    def source(self) -> AugmentedSource:
        """Its tiles, in the views that the configuration's augmentation draws from."""
        return augmented_source(self.tiles, self.views, self.config.augmentation)

    @property
    def predicted_views(self) -> dict:
        """The views that a prediction averages over, as arguments of `augmented_source`: training's, or upright."""
        return {"views": self.views, "augmentation": self.config.augmentation if self.config.average_views else "none"}

    @property
    def predicted_source(self) -> AugmentedSource:
        """Its tiles, in the views that a prediction averages over."""
        return augmented_source(self.tiles, **self.predicted_views)

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
        """``(N,)`` true class names: labels, or subtypes where the classes are subtypes."""
        column = "label" if set(self.table["label"]) <= set(self.classes) else "subtype"
        return self.table[column]

    def rows(self, *parts: str) -> np.ndarray:
        """Positions of the images of some parts, one part after the other."""
        return np.concatenate([np.flatnonzero(self.table["split"] == part) for part in parts])

    @property
    def evaluated(self) -> np.ndarray:
        """Positions of the images that are predicted: validation, then test; validation alone in a rehearsal."""
        return self.rows("validation") if self.config.rehearsal else self.rows("validation", "test")


def keep_copies(split: pd.DataFrame, copies: int, seed: int) -> pd.DataFrame:
    """At most `copies` training images of each group; validation and test parts stay whole.

    The copies of an LC25000 original are rotations and flips of it, which the augmentation draws anyway.
    """
    train = split["split"] == "train"
    shuffled = split[train].sample(frac=1, random_state=seed)
    kept = shuffled.groupby("group").head(copies).index
    return split[~train | split.index.isin(kept)].reset_index(drop=True)


def keep_magnifications(split: pd.DataFrame, magnifications: tuple[int, ...]) -> pd.DataFrame:
    """Train and validate on some magnifications only (all, if empty); the test part stays whole.

    Raises:
        HistotransferError: no training image has one of these magnifications.
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
