"""Explanations of a network that was just trained, beside the record of those on real images."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.files import read_json


def gates_beside_record(
    differences: pd.DataFrame, groups: Sequence[str], folder: str | Path = "results/explanations"
) -> pd.DataFrame:
    """The gate differences of a network, and below them those of the record; differences in millionths.

    Args:
        differences: as `explain.gate_differences` returns them.
        groups: ``(N,)`` the patient of each image behind `differences`.
        folder: a record of `experiments.explanations`.

    Returns:
        One row per source (named with its n) and gate.

    Raises:
        HistotransferError: there is no such record.
    """
    try:
        record = read_json(Path(folder) / "record.json")
        real = pd.read_csv(Path(folder) / "gate_differences.csv", index_col="gate")
    except OSError as error:
        raise HistotransferError(f"{folder}: no record of explanations ({error.strerror}): {error.filename}") from error
    live = f"own: {len(groups)} images, {len(set(groups))} patients"
    both = pd.concat({live: differences, f"real: {record['images']} images, {record['patients']} patients": real})
    spread = ["largest", "low", "high"]
    return both.assign(**(1e6 * both[spread]).round(1)).round(6).rename_axis([None, None])
