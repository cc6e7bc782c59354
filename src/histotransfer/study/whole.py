"""The whole study with one command: every plan in its order, and beforehand what will run and what it costs."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.errors import HistotransferError
from histotransfer.splits import FOLDS_FOLDER
from histotransfer.study.plan import REFERENCE_IMAGES, Plan, PlannedRun, is_finished, planned_runs, read_plan
from histotransfer.tiles import JITTER_DRAWS

PLANS = "plans.toml"
RECORD_BYTES = 60_000  # of a run with its stages, on average
FLOAT = 4  # bytes


def read_plans(study: str | Path, changes: Mapping[str, Any] | None = None, *, quick: bool = False) -> list[Plan]:
    """Every plan of a study, in the order of `PLANS`.

    Args:
        study: folder of the plans.
        changes: settings that go before those of all plans, such as the device.
        quick: one seed, small pictures, one epoch a stage: to see that everything runs on this machine.

    Raises:
        HistotransferError: a file is missing or invalid.
    """
    path = Path(study) / PLANS
    try:
        names = tomllib.loads(path.read_text(encoding="utf-8"))["plans"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise HistotransferError(f"{path}: not a list of plans ({error})") from error
    update = {"overrides": dict(changes or {}), "quick": quick}
    plans = [read_plan(path.parent / f"{name}.toml").model_copy(update=update) for name in names]
    for plan in plans:
        planned_runs(plan)  # the changes may be refused
    return plans


def check_data(plans: Sequence[Plan], root: Path) -> int:
    """Check that every data set that some run needs is there; return the number of BreakHis' images.

    Raises:
        HistotransferError: one is missing; the message says which.
    """
    configs = [run.config for plan in plans for run in planned_runs(plan)]
    images = len(breakhis.load(root))
    if any(config.source == "lc25000" for config in configs):
        lc25000.load(root)
    if any(config.external for config in configs):
        ucsb.load(root)
    if any(config.split == "official" for config in configs) and not (root / FOLDS_FOLDER).is_dir():
        raise HistotransferError(f"{root / FOLDS_FOLDER}: no such folder; `histotransfer data fetch folds` gets it")
    return images


def costs(plans: Sequence[Plan], images: int, out: Path) -> pd.DataFrame:
    """What is left of each plan and what it costs.

    Args:
        plans: in their order.
        images: of BreakHis: time and space grow with their number.
        out: folder of all experiments.

    Returns:
        One row per plan: `answers`, `runs`, `left`, `core_hours` of what is left (expected on one core, scaled by the
        number of images), `gigabytes` of records and of stored activations.
    """
    rows = {}
    for plan in plans:
        runs = planned_runs(plan)
        left = [run for run in runs if not is_finished(run, out / plan.experiment)]
        rows[plan.experiment] = {
            "answers": " ".join(plan.answers) or "–",
            "runs": len(runs),
            "left": len(left),
            "core_hours": round(len(left) * plan.minutes * images / REFERENCE_IMAGES / 60, 1),
            "gigabytes": round((len(left) * RECORD_BYTES + _activations(left, images)) / 1e9, 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("plan")


def _activations(runs: Sequence[PlannedRun], images: int) -> int:
    """Bytes of the activations that the runs share: one set for each picture size, colours and views."""
    shared = {
        (config.size, config.normaliser, config.augmentation)
        for config in (run.config for run in runs)
        if config.cache and not any(stage == "all" for stage, _ in config.breakhis_schedule)
    }
    views = {"none": 1, "views": breakhis.VIEWS, "views+stain": breakhis.VIEWS * JITTER_DRAWS}
    of_one = {size: FLOAT * (256 * (size // 16) ** 2 + 512 * (size // 32) ** 2 + 1024) for size, *_ in shared}
    return sum(images * views[augmentation] * of_one[size] for size, _, augmentation in shared)
