"""How well the project's own duplicate groups of LC25000 agree with published ones.

``histotransfer experiment duplicates --data DIR`` writes `results/duplicates`: `record.json` (the groups and their
agreement, the same for equal images) and `provenance.json` (versions).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import hmean

from histotransfer.datasets import lc25000
from histotransfer.datasets.duplicates import (
    groups_of,
    pairwise_agreement,
    score_pairs,
)
from histotransfer.records import environment, write_record

TARGET = Path("results/duplicates")
THRESHOLDS = np.round(np.arange(0.5, 0.98, 0.02), 2)


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


def run(data_root: str | Path, out: str | Path = TARGET, *, progress: bool = False) -> Path:
    """Write the record of `measure`.

    Args:
        data_root: folder with LC25000 lung and its published group lists.
        out: folder of the record.
        progress: show bars.
    """
    record = measure(data_root, progress=progress)
    return write_record(Path(out), record, {}, environment())
