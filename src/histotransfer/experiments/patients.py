"""The patients of the images: one row per patient with counts and colours, computed or as a record without pixels."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.datasets import breakhis
from histotransfer.pictures import decode
from histotransfer.records import environment, fingerprint, write_record
from histotransfer.splits import content_hashes
from histotransfer.stain import to_lab

COLOURS = ("L", "a", "b")


def per_patient(table: pd.DataFrame) -> pd.DataFrame:
    """Counts and colours of each patient (strict: `group`).

    Args:
        table: an image table.

    Returns:
        Indexed by group: `label`, `images`, one count per magnification (`40x`, ...), the images' mean CIELAB colours
        averaged (`L`, `a`, `b`), and their standard deviation over images (`L_sd`, ...; 0 for a single image).

    Raises:
        HistotransferError: an image cannot be read.
    """
    lab = np.array([to_lab(decode(path)).mean(axis=(0, 1)) for path in table["path"]])
    colours = pd.DataFrame(lab, columns=COLOURS, index=table.index).groupby(table["group"])
    counts = pd.crosstab(table["group"], table["magnification"]).rename(columns=lambda m: f"{m}x")
    patients = table.groupby("group").agg(label=("label", "first"), images=("path", "size"))
    spread = colours.std(ddof=0).add_suffix("_sd")
    return patients.join(counts).join(colours.mean()).join(spread).rename_axis("patient")


def run(data_root: str | Path, out: str | Path) -> Path:
    """Write the record of BreakHis' patients: ``out/patients.csv``, and the images it was made from.

    Args:
        data_root: folder with `BreaKHis_v1`.
        out: folder of the record.

    Raises:
        HistotransferError: the data cannot be read.
    """
    root = Path(data_root).resolve()
    table = breakhis.load(root)
    images = table["path"].map(lambda path: Path(os.path.relpath(path, root)).as_posix())
    record = {
        "data": {"name": "breakhis", "images": len(table), "patients": int(table["group"].nunique())},
        "fingerprint": fingerprint(images, content_hashes(table)),
    }
    return write_record(Path(out), record, {"patients": per_patient(table)}, environment())
