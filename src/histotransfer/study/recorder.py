"""Builds the record of a run: of a network, a baseline or a probe."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.dose import rounded
from histotransfer.evaluation.metrics import evaluate
from histotransfer.models.weights import Trunk
from histotransfer.records import environment, write_run


class Recorder:
    """Writes the runs of one experiment.

    Versions and the state of the checkout are noted when it is created, because the checkout may have changed by the
    time a long run ends.

    Args:
        config: the settings of its runs.
        out: the experiment's folder.

    Raises:
        HistotransferError: `out` is a file.
    """

    def __init__(self, config: LadderConfig, out: str | Path):
        self.config, self.out = config, Path(out)
        if self.out.exists() and not self.out.is_dir():
            raise HistotransferError(f"{out}: is a file; give a folder for the records")
        self.environment, self.started = environment(), time.perf_counter()

    def write(
        self,
        run: str,
        predictions: pd.DataFrame,
        *,
        config: Mapping[str, Any],
        data: Mapping[str, Any],
        split: Mapping[str, Any],
        history: pd.DataFrame,
        dose: Mapping[str, Any] | None = None,
        timings: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Evaluate the predictions and write the run's folder, whole or not at all.

        Args:
            run: the run's name.
            predictions: as `predictions_table` returns them.
            config: the run's settings.
            data: `name`, `images`, `patients`, `fingerprint` and whatever else describes the images.
            split: `kind`, `parts` and `audit`.
            history: one row per epoch; may be empty.
            dose: how much of each treatment the run was given (`evaluation.dose`); none for a baseline.
            timings: seconds of parts of the run, for the provenance; the total is added here.
            extra: further files, as `write_run` takes them.

        Returns:
            Metrics by part, level and scope, as `evaluate` returns them.
        """
        metrics = evaluate(predictions)
        record = {
            "experiment": self.out.name,
            "run": run,
            "profile": self.config.profile,
            "config": config,
            "data": data,
            "split": split,
            "seed": self.config.seed,
            "dose": rounded(dose or {}),
            "metrics": metrics,
        }
        total = {"total_seconds": round(time.perf_counter() - self.started, 1)}
        write_run(self.out / run, record, predictions, history, {**self.environment, **(timings or {}), **total}, extra)
        return metrics


def described_trunk(trunk: Trunk) -> dict[str, str]:
    """Which ImageNet weights a run started from, for its record."""
    return {"source": trunk.source, "content_hash": trunk.content_hash}


def predictions_table(
    table: pd.DataFrame,
    images: pd.Series,
    truth: pd.Series,
    classes: tuple[str, ...],
    logits: np.ndarray,
    *,
    part: pd.Series | str,
    fold: np.ndarray | int,
    seed: int,
) -> pd.DataFrame:
    """One row per image: `image, patient, group, magnification, subtype, part, fold, seed, truth, logit_*`.

    Args:
        table: N rows of an image table.
        images: ``(N,)`` names, the same on every machine.
        truth: ``(N,)`` true classes.
        classes: their names, in the order of the logits.
        logits: ``(N, classes)``.
        part: ``(N,)`` parts of the split, or one part for all rows.
        fold: ``(N,)`` test folds, or one fold for all rows.
        seed: of the run.
    """
    frame = table[["patient", "group", "magnification", "subtype"]].reset_index(drop=True)
    part = part if isinstance(part, str) else part.to_numpy()
    frame = frame.assign(part=part, fold=fold, seed=seed, truth=truth.to_numpy())
    frame.insert(0, "image", images.to_numpy())
    return frame.join(pd.DataFrame(logits, columns=[f"logit_{name}" for name in classes]))
