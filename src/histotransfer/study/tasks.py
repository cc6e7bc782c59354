"""The tasks that a configuration asks for: which images, how they are split, and which classes they have."""

from pathlib import Path

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.datasets import own as own_data
from histotransfer.datasets.roots import resolve_root
from histotransfer.errors import HistotransferError
from histotransfer.pictures import symmetric_views
from histotransfer.splits import grouped_split, make_split
from histotransfer.transfer.task import Task, keep_copies, keep_magnifications

SOURCES = ("lc25000", "phantom")  # always split by original or patient


def source_task(config: LadderConfig, data_root: str | Path, *, progress: bool = False) -> Task:
    """What is learned before the target: LC25000 (lung) split by original, or synthetic breast tissue by patient.

    Training keeps only a few copies of each original (`lc25000_copies`). The split is always the first fold, so that
    one training serves all folds of the target.
    """
    classes: tuple[str, ...]
    if config.source == "phantom":
        root = resolve_root("phantom", seed=config.seed)
        table, classes, views = breakhis.load(root).assign(dataset="phantom"), breakhis.LABELS, breakhis.VIEWS
        split = grouped_split(table, folds=config.folds, seed=config.seed)
    else:
        root = Path(data_root).resolve()
        table, classes, views = lc25000.load(root), lc25000.LABELS, lc25000.VIEWS
        split = grouped_split(table, folds=config.folds, seed=config.seed)
        if config.lc25000_copies:
            split = keep_copies(split, config.lc25000_copies, config.seed)
    return Task(split, classes, views, root, config, progress=progress)


def target_task(
    config: LadderConfig,
    data_root: str | Path | None,
    own: str | Path | None = None,
    pattern: str = "",
    *,
    progress: bool = False,
) -> Task:
    """BreakHis or one's own images, split as the configuration says.

    Raises:
        HistotransferError: the data cannot be used, or neither of the two is given.
    """
    if own is None:
        if data_root is None:
            raise HistotransferError("ladder: no data; give the folder of the data sets, or your own images")
        root, views = Path(data_root).resolve(), breakhis.VIEWS
        table, classes = breakhis.load(root), breakhis.LABELS
    else:
        table = own_data.load(own, pattern)
        root = Path(own).resolve() if Path(own).is_dir() else Path(own).resolve().parent
        views, classes = symmetric_views(table["path"]), tuple(sorted(set(table["label"])))
        if len(classes) < 2:
            raise HistotransferError(f"{own}: only the label {classes[0]}; two classes at least are needed")
    split = keep_magnifications(make_split(table, config, root), config.train_magnifications)
    if config.target == "subtype":
        classes = tuple(sorted(set(split["subtype"])))
    return Task(split, classes, views, root, config, progress=progress)


def external_task(target: Task, config: LadderConfig, data_root: str | Path | None) -> Task:
    """UCSB with the classes of the target task; all of its images are in one part, `ucsb`.

    Raises:
        HistotransferError: UCSB is missing, or the target's classes are not benign and malignant.
    """
    if data_root is None or target.classes != breakhis.LABELS:
        raise HistotransferError("external: UCSB is predicted by networks that tell benign from malignant, with --data")
    table = ucsb.load(data_root).assign(split="ucsb")
    return Task(table, target.classes, ucsb.VIEWS, Path(data_root).resolve(), config, colours=target.colours)
