"""What a leaking split is worth: one frozen probe, the same images, split by patient and by image."""

from pathlib import Path

import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis, lc25000
from histotransfer.experiments.probe import Probed, ProbeStudy
from histotransfer.splits import FOLDS_FOLDER, OFFICIAL_FOLDS, images_as_groups
from histotransfer.stain import normaliser
from histotransfer.tiles import load_tiles
from histotransfer.transfer.stages import Report

SETS = {"breakhis": breakhis, "lc25000": lc25000}
UNITS = ("patient", "image")
RUNS = tuple(f"{name}-by-{unit}" for name in SETS for unit in UNITS)


def run(
    config: LadderConfig, data_root: str | Path, out: str | Path, *, progress: bool = False, report: Report = print
) -> Path:
    """Predict every image of BreakHis and LC25000 out of fold, split by patient (or original) and by image.

    Args:
        config: size, normaliser, folds, seed, device, weights.
        data_root: folder with both data sets.
        out: the experiment's folder; the runs `RUNS` are written into it, and `official_folds.csv` where the published
            folds are among the data.
        progress: show bars.
        report: called with one line per run.

    Returns:
        `out`.

    Raises:
        HistotransferError: the data or the weights cannot be used.
    """
    study = ProbeStudy(config, data_root, out)
    for name, dataset in SETS.items():
        table = dataset.load(study.root)
        tiles, fallbacks = load_tiles(
            table["path"].tolist(), config.size, normaliser(config.normaliser), progress=progress
        )
        probed = Probed(name, table, dataset.LABELS, study.features(tiles), fallbacks)
        for unit in UNITS:
            name_of_run, units = f"{name}-by-{unit}", table["group"] if unit == "patient" else images_as_groups(table)
            settings = {"normaliser": config.normaliser}
            metrics = study.write(name_of_run, probed, units, unit, settings)
            report(f"{name_of_run}: accuracy {metrics['accuracy']:.3f}, {len(table)} images")
    if (folds := study.root / FOLDS_FOLDER).is_dir():
        official_overlaps(folds).to_csv(Path(out) / "official_folds.csv", lineterminator="\n")
    return Path(out)


def official_overlaps(folder: str | Path) -> pd.DataFrame:
    """What the five official splits of BreakHis share between training and test, from their file lists alone.

    Args:
        folder: holds `dsfold1.txt` to `dsfold5.txt`.

    Returns:
        One row per fold: images, slide ids and base numbers in test, and how many of these two are in training too.

    Raises:
        HistotransferError: a list is missing or broken.
    """
    rows = []
    for fold in range(1, OFFICIAL_FOLDS + 1):
        parts = breakhis.read_official_fold(Path(folder) / f"dsfold{fold}.txt")
        names = {part: [breakhis.parse_name(n) for n, p in parts.items() if p == part] for part in ("train", "test")}
        ids = {part: {name.slide_id for name in listed} for part, listed in names.items()}
        bases = {part: {name.base_number for name in listed} for part, listed in names.items()}
        rows.append(
            {
                "fold": fold,
                "test images": len(names["test"]),
                "test slide ids": len(ids["test"]),
                "in training too": len(ids["test"] & ids["train"]),
                "test base numbers": len(bases["test"]),
                "of these in training": len(bases["test"] & bases["train"]),
            }
        )
    return pd.DataFrame(rows).set_index("fold")
