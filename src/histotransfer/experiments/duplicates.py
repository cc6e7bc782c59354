"""How well the project's own duplicate groups of LC25000 agree with published ones.

``histotransfer experiment duplicates --data DIR`` writes `results/duplicates`: `record.json` (the groups and their
agreement, the same for equal images) and `provenance.json` (times, memory, versions).
"""

import os
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import hmean

from histotransfer.datasets import lc25000
from histotransfer.datasets.duplicates import (
    NEIGHBOURS,
    THRESHOLD,
    describe,
    find_groups,
    groups_of,
    nearest_pairs,
    pairwise_agreement,
    score_pairs,
)
from histotransfer.records import write_record

TARGET = Path("results/duplicates")
THRESHOLDS = np.round(np.arange(0.5, 0.98, 0.02), 2)
WHOLE = 25_000


def measure(root: str | Path, *, seed: int = 0, progress: bool = False) -> dict:
    """Tune the threshold on half of the groups of each class; measure pairwise precision and recall on the others.

    Of the thresholds with the highest F1 on the first half, the middle one is taken.

    Args:
        root: folder with LC25000 lung and its group lists.
        seed: which groups are in which half.
        progress: show bars.
    """
    table = lc25000.load(root)
    generator = np.random.default_rng(seed)
    tuning: set[str] = set()
    for _, groups in table.groupby("label")["group"]:
        names = generator.permutation(np.sort(groups.unique()))
        tuning |= set(names[: len(names) // 2])
    half = {"tuning": table["group"].isin(tuning), "test": ~table["group"].isin(tuning)}
    curves = {}
    for name, chosen in half.items():
        rows = table[chosen].reset_index(drop=True)
        pairs = score_pairs(rows["path"], progress=progress)
        groups_at = {t: groups_of(pairs, t, len(rows)) for t in THRESHOLDS}
        curves[name] = {t: pairwise_agreement(pd.Series(groups), rows["group"]) for t, groups in groups_at.items()}
    f1 = {t: hmean(pair) for t, pair in curves["tuning"].items()}
    plateau = [t for t, value in f1.items() if value == max(f1.values())]
    threshold = float(plateau[len(plateau) // 2])
    return {
        "data": {"name": "lc25000", "images": len(table), "groups": int(table["group"].nunique())},
        "seed": seed,
        "threshold": threshold,
        "halves": {
            name: {
                "images": int(half[name].sum()),
                "groups": int(table.loc[half[name], "group"].nunique()),
                "precision": curve[threshold][0],
                "recall": curve[threshold][1],
                "curve": [{"threshold": float(t), "precision": p, "recall": r} for t, (p, r) in curve.items()],
            }
            for name, curve in curves.items()
        },
        "all": _everything(table, threshold, progress),
    }


def _everything(table: pd.DataFrame, threshold: float, progress: bool) -> dict:
    """Agreement on all images at once, and which published groups are joined into one."""
    pairs = score_pairs(table["path"], progress=progress)
    groups = pd.Series(groups_of(pairs, threshold, len(table)))
    precision, recall = pairwise_agreement(groups, table["group"])
    linked = pairs[pairs["score"] >= threshold]
    names = table["group"].to_numpy()
    ends = pd.DataFrame({"a": names[linked["a"]], "b": names[linked["b"]], "score": linked["score"].to_numpy()})
    across = ends[ends["a"] != ends["b"]]
    ordered = pd.DataFrame(np.sort(across[["a", "b"]].to_numpy(), axis=1), columns=["a", "b"], index=across.index)
    joined = ordered.assign(score=across["score"]).groupby(["a", "b"])["score"].agg(["size", "max"])
    return {
        "groups": int(groups.nunique()),
        "precision": precision,
        "recall": recall,
        "joined": [
            {"groups": list(pair), "pairs": int(row["size"]), "highest": round(float(row["max"]), 3)}
            for pair, row in joined.iterrows()
        ],
    }


def cost(root: str | Path) -> dict:
    """Time and memory, measured, and extrapolated to all 25,000 images."""
    paths = lc25000.load(root)["path"]
    with tempfile.TemporaryDirectory() as folder:  # decoding is timed at the published size
        large = [Path(folder) / f"{i}.jpeg" for i in range(48)]
        for source, target in zip(paths, large, strict=False):
            with Image.open(source) as image:
                image.resize((768, 768)).save(target, quality=95)
        start = time.perf_counter()
        describe(large)
        per_image = (time.perf_counter() - start) / len(large)
    prints = describe(paths)
    start = time.perf_counter()
    nearest_pairs(prints.invariants)
    search = time.perf_counter() - start
    start = time.perf_counter()
    find_groups(paths)
    seconds = time.perf_counter() - start
    factor = WHOLE / len(paths)
    kilobytes = sum(array.nbytes for array in vars(prints).values()) / len(paths) / 1000
    # The search for neighbours grows with the square of the number of images, the rest linearly.
    rest = seconds - search - len(paths) * per_image
    return {
        "images": len(paths),
        "seconds": round(seconds, 1),
        "neighbour_seconds": round(search, 2),
        "describe_ms_per_768_pixel_image": round(per_image * 1000, 2),
        "kilobytes_per_image": round(kilobytes, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "extrapolated": {
            "images": WHOLE,
            "minutes_at_once": round((WHOLE * per_image + search * factor**2 + rest * factor) / 60, 1),
            "minutes_class_by_class": round((WHOLE * per_image + search * factor**2 / 5 + rest * factor) / 60, 1),
            "prints_mb_at_once": round(kilobytes * WHOLE / 1000),
            "prints_mb_class_by_class": round(kilobytes * WHOLE / 5000),
        },
        "neighbours": NEIGHBOURS,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("opencv-python-headless", "scikit-learn", "numpy", "pillow")},
    }


def run(data_root: str | Path, out: str | Path = TARGET, *, progress: bool = False) -> Path:
    """Write the record: `measure` in `record.json`, `cost` in `provenance.json`.

    Args:
        data_root: folder with LC25000 lung and its published group lists.
        out: folder of the record.
        progress: show bars.
    """
    record = measure(data_root, progress=progress)
    return write_record(Path(out), record, {}, {"threshold": THRESHOLD} | cost(data_root))
