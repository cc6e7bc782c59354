"""Accuracy beside cost: the nets of the complexity experiment and of the study, read from their records."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import intervals
from histotransfer.evaluation.metrics import MEAN, scopes
from histotransfer.experiments.complexity import BYTES, SIZES, SMALL, SMALL_SIZE, Precision, cost
from histotransfer.models.exits import EXITS
from histotransfer.records import Run, read_run
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import gap, gap_within_folds, patients_of

Training = Literal["frozen", "scratch", "trained"]
STUDIED: dict[tuple[str, Training], tuple[str, str]] = {
    # Nets of the study, from ImageNet straight to BreakHis: experiment and arm.
    ("block4", "frozen"): ("primary", "frozen-probe"),
    ("block4", "trained"): ("primary", "plain"),
    ("block4-se-block", "trained"): ("se-placement", "block"),
    ("block4-se", "trained"): ("primary", "se"),
    ("block4-se-everywhere", "trained"): ("se-placement", "everywhere"),
}
STUDIED_SEED = 0  # the only one that all of them have


class Net(NamedTuple):
    """What distinguishes one evaluated net from another; `colours` is the normaliser of its images."""

    net: str
    size: int
    precision: Precision
    training: Training
    colours: str


def read_nets(results: str | Path) -> dict[Net, pd.DataFrame]:
    """Predictions of every net with a record in ``<results>/complexity``."""
    nets = {}
    for path in sorted((Path(results) / "complexity").glob("*/record.json")):
        run = read_run(path.parent)
        config = run.record["config"]
        net = Net(config["net"], config["size"], config["precision"], config["training"], config["normaliser"])
        nets[net] = run.predictions
    return nets


def studied_nets(study: Study) -> dict[Net, pd.DataFrame]:
    """Predictions of the arms of `STUDIED` that are finished, with `STUDIED_SEED` only."""
    nets = {}
    for (name, training), (experiment, arm) in STUDIED.items():
        with contextlib.suppress(NotRunYet):
            config = study.runs(experiment, arm)[0].record["config"]
            net = Net(name, config["size"], "float32", training, config["normaliser"])
            nets[net] = study.predictions(experiment, arm, seeds=(STUDIED_SEED,))
    return nets


def complexity_table(nets: Mapping[Net, pd.DataFrame], times: pd.DataFrame | None = None) -> pd.DataFrame:
    """What each net costs and how well it tells malignant from benign, by increasing operations.

    Args:
        nets: as `read_nets` and `studied_nets` return them.
        times: as `measure_times` writes them; without them `ms` is NaN.

    Returns:
        Columns `net, size, precision, training, colours, parameters, MB, GMAC, ms, auroc, low, high, images,
        patients`; AUROC is the mean over 40x, 100x and 200x (over all images where one of these is missing), with its
        95 % interval.
    """
    rows = []
    for net, predictions in nets.items():
        by_scope = {scope: (images, by) for scope, images, by in scopes(predictions)}
        used, by = by_scope.get(MEAN, by_scope["all"])
        auroc = intervals(used, by).loc["auroc"]
        rows.append(
            net._asdict()
            | cost(net.net, net.size, net.precision)
            | {"auroc": auroc["value"], "low": auroc["low"], "high": auroc["high"]}
            | {"images": len(used), "patients": patients_of(used)}
        )
    table = pd.DataFrame(rows)
    timed = times if times is not None else pd.DataFrame(columns=["net", "size", "precision", "ms"])
    stored = timed[timed["precision"] == "float32"].assign(precision="float16")
    table = table.merge(pd.concat([timed, stored]), on=["net", "size", "precision"], how="left")
    columns = [*Net._fields, "parameters", "MB", "GMAC", "ms"]
    columns += ["auroc", "low", "high", "images", "patients"]
    return table[columns].sort_values(["GMAC", "MB", "training"], ignore_index=True)


def exit_gaps(experiment: str | Path, size: int = 224) -> pd.DataFrame:
    """AUROC of each earlier exit minus that of the whole frozen trunk, mean over 40x, 100x and 200x, paired by patient.

    Returns:
        Index "exit minus exit"; `pooled`, the difference with its interval, and `pooled is`, one of `DIRECTIONS`; the
        same for the AUROC of image pairs that one network scored (`tables.gap_within_folds`): `within folds`, `within
        folds is`.

    Raises:
        HistotransferError: a run is missing or damaged.
    """
    *early, last = EXITS
    runs = {name: read_run(Path(experiment) / f"{name}-{size}-float32") for name in EXITS}
    return _mean_gaps({f"{name} minus {last}": (runs[last], runs[name]) for name in early})


def size_gaps(experiment: str | Path, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """AUROC of the whole frozen trunk on smaller pictures minus that on the largest, as `exit_gaps`."""
    largest, *smaller = (read_run(Path(experiment) / f"block4-{size}-float32") for size in sizes)
    names = [f"{size} minus {sizes[0]} pixels" for size in sizes[1:]]
    return _mean_gaps({name: (largest, run) for name, run in zip(names, smaller, strict=True)})


def precision_gaps(experiment: str | Path, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """AUROC of the whole trunk in fewer bits minus that in float32, as `exit_gaps`."""
    pairs: dict[str, tuple[Run, Run]] = {}
    for size in sizes:
        whole, *fewer = (read_run(Path(experiment) / f"block4-{size}-{bits}") for bits in BYTES)
        names = [f"{bits} minus float32, {size} pixels" for bits in list(BYTES)[1:]]
        pairs |= {name: (whole, run) for name, run in zip(names, fewer, strict=True)}
    return _mean_gaps(pairs)


def scratch_gap(experiment: str | Path) -> pd.DataFrame:
    """AUROC of the small net from scratch minus that of the frozen trunk on pictures of its size, as `exit_gaps`."""
    trunk, small = (read_run(Path(experiment) / f"{net}-{SMALL_SIZE}-float32") for net in ("block4", SMALL))
    return _mean_gaps({f"{SMALL} minus block4, {SMALL_SIZE} pixels": (trunk, small)})


LOWER, HIGHER, NEITHER = DIRECTIONS = ("lower", "higher", "no difference shown")


def _mean_gaps(pairs: Mapping[str, tuple[Run, Run]]) -> pd.DataFrame:
    rows = {}
    for name, (reference, other) in pairs.items():
        tables = gap(reference, other, metrics=["auroc"]), gap_within_folds([([other], [reference])], name)
        pooled, inside = (
            table.set_index(["magnification", "metric"]).loc[(MEAN, metric)]
            for table, metric in zip(tables, ("auroc", "auroc_within_folds"), strict=True)
        )
        rows[name] = {
            "pooled": number(*pooled[["value", "low", "high"]]),
            "pooled is": _direction(pooled),
            "within folds": number(*inside[["value", "low", "high"]]),
            "within folds is": _direction(inside),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _direction(interval: pd.Series) -> str:
    return HIGHER if interval["low"] > 0 else LOWER if interval["high"] < 0 else NEITHER
