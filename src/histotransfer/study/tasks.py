"""The tasks that a configuration asks for: which images, how they are split, and which classes they have."""

from pathlib import Path

import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.datasets import own as own_data
from histotransfer.datasets.roots import resolve_root
from histotransfer.errors import HistotransferError
from histotransfer.folders import PassedOver, find_home
from histotransfer.models.description import Description
from histotransfer.pictures import symmetric_views
from histotransfer.splits import grouped_split, make_split
from histotransfer.transfer.task import Task, keep_copies, keep_magnifications

SOURCES = ("lc25000", "phantom")  # always split by original or patient


def source_task(
    config: LadderConfig,
    data_root: str | Path,
    passed_over: list[PassedOver] | None = None,
    *,
    progress: bool = False,
) -> Task:
    """What is learned before the target: LC25000 (lung) split by original, or synthetic breast tissue by patient.

    Training keeps only a few copies of each original (`lc25000_copies`). The split is always the first fold, so that
    one training serves all folds of the target. What was not read is appended to `passed_over`.
    """
    classes: tuple[str, ...]
    if config.source == "phantom":
        root = resolve_root("phantom", seed=config.seed)
        table, classes, views = breakhis.load(root).assign(dataset="phantom"), breakhis.LABELS, breakhis.VIEWS
        split = grouped_split(table, folds=config.folds, seed=config.seed)
    else:
        root = find_home(data_root, lc25000.TREE)
        table, classes, views = lc25000.load(root, passed_over=passed_over), lc25000.LABELS, lc25000.VIEWS
        split = grouped_split(table, folds=config.folds, seed=config.seed)
        if config.lc25000_copies:
            split = keep_copies(split, config.lc25000_copies, config.seed)
    return Task(split, classes, views, root, config, progress=progress)


def target_task(
    config: LadderConfig,
    data_root: str | Path | None,
    own: str | Path | None = None,
    pattern: str = "",
    passed_over: list[PassedOver] | None = None,
    *,
    progress: bool = False,
) -> Task:
    """BreakHis or one's own images, split as the configuration says. What was not read is appended to `passed_over`.

    Raises:
        HistotransferError: the data cannot be used, or neither of the two is given.
    """
    if own is None:
        if data_root is None:
            raise HistotransferError("ladder: no data; give the folder of the data sets, or your own images")
        root, views = find_home(data_root, breakhis.TREE), breakhis.VIEWS
        table, classes = breakhis.load(root, passed_over), breakhis.LABELS
    else:
        table, root = _own_images(own, pattern, passed_over, progress=progress)
        views, classes = symmetric_views(table["path"]), tuple(sorted(set(table["label"])))
        if len(classes) < 2:
            raise HistotransferError(
                f"{own}: only the label {classes[0]}; two classes at least are needed (a folder of your own is the one"
                " that holds a folder for each class)"
            )
    split = keep_magnifications(make_split(table, config, root), config.train_magnifications)
    if config.target == "subtype":
        classes = tuple(sorted(set(split["subtype"])))
    return Task(split, classes, views, root, config, progress=progress)


def external_task(
    target: Task, config: LadderConfig, data_root: str | Path | None, passed_over: list[PassedOver] | None = None
) -> Task:
    """UCSB with the classes of the target task; all of its images are in one part, `ucsb`.

    What was not read is appended to `passed_over`.

    Raises:
        HistotransferError: UCSB is missing, or the target's classes are not benign and malignant.
    """
    if data_root is None or target.classes != breakhis.LABELS:
        raise HistotransferError("external: UCSB is predicted by networks that tell benign from malignant, with --data")
    root = find_home(data_root, ucsb.TREE)
    table = ucsb.load(root, passed_over).assign(split="ucsb")
    return Task(table, target.classes, ucsb.VIEWS, root, config, colours=target.colours)


def foreign_task(
    known: Description,
    config: LadderConfig,
    data_root: str | Path | None,
    own: str | Path | None = None,
    pattern: str = "",
    passed_over: list[PassedOver] | None = None,
    *,
    progress: bool = False,
) -> Task:
    """One's own images, or UCSB by slide, as a network from elsewhere sees them; not split yet.

    Args:
        known: the network's description: its classes, colours and views.
        config: all settings.
        data_root: folder with UCSB, unless `own` is given.
        own: one's own images, as `target_task` takes them.
        pattern: likewise.
        passed_over: what was not read is appended to it.
        progress: show a bar.

    Raises:
        HistotransferError: neither or both are given, the data cannot be used, or their labels are not the classes.
    """
    if (own is None) == (data_root is None):
        raise HistotransferError("give your own images, or the folder of the data sets for UCSB: one of the two")
    if own is not None:
        table, root = _own_images(own, pattern, passed_over, progress=progress)
    else:
        root = find_home(str(data_root), ucsb.TREE)
        table = ucsb.load(root, passed_over)
    if set(table["label"]) != set(known.classes):
        raise HistotransferError(
            f"{own or root}: its labels are {', '.join(sorted(set(table['label'])))}, and the network's classes"
            f" {', '.join(sorted(known.classes))}; give images with these labels, or another network"
        )
    split, classes = table.assign(split="train"), tuple(known.classes)
    return Task(split, classes, known.views.views, root, config, colours=known.colours, progress=progress)


def _own_images(
    own: str | Path, pattern: str, passed_over: list[PassedOver] | None, *, progress: bool
) -> tuple[pd.DataFrame, Path]:
    """The image table, and the folder that names are relative to."""
    path = Path(own).resolve()
    table = own_data.load(own, pattern, passed_over, progress=progress)
    return table, path if path.is_dir() else path.parent
