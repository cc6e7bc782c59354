"""How accuracy depends on what a network costs (open question Q2): exits, picture sizes, precisions, gates.

Early exits of the frozen ImageNet trunk are probed out of fold, split by patient (`run_probes`); a small net is trained
from scratch in each fold (`run_scratch`); nets that the study trains are read from its records where they are there.
`complexity_table` puts accuracy and cost side by side. Nothing is chosen from it, so nothing is tuned on test patients.
"""

import contextlib
import copy
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis
from histotransfer.evaluation.intervals import intervals
from histotransfer.evaluation.metrics import MEAN, evaluate, scopes
from histotransfer.models import openvino
from histotransfer.models.exits import EXITS, EarlyExit, Exit, exit_features
from histotransfer.models.se_densenet import CONFIGURATIONS, SEDenseNet, parameter_count
from histotransfer.models.size import multiply_adds
from histotransfer.stain import normaliser
from histotransfer.study.probe import FoldFeatures, ProbeStudy
from histotransfer.study.records import Run, environment, read_run, write_json, write_run
from histotransfer.study.runner import UNFINISHED, checkpoint_of, data_of, last_rung, predictions_table
from histotransfer.study.tables import gap, gap_within_folds, number, patients_of
from histotransfer.study.verdicts import NotRunYet, Study
from histotransfer.tiles import TileSource, load_tiles
from histotransfer.transfer.ladder import Report, climb, history

Precision = Literal["float32", "float16", "int8"]
BYTES: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}
SIZES = (224, 160, 112)
SMALL, SMALL_SIZE, EPOCHS = "small-k12", 112, 20
NETS: dict[str, dict[str, Any]] = {
    **{leave: {"positions": ()} for leave in EXITS},
    "block4-se": {"positions": ("block", "transition")},
    "block4-se-block": {"positions": ("block",)},
    "block4-se-everywhere": {"positions": ("layer", "block", "transition")},
    # Three blocks of twelve plain layers, k = 12, behind the stem for large pictures: about as many parameters as the
    # paper states.
    SMALL: {"positions": (), **CONFIGURATIONS["densenet40-k12"], "stem": "imagenet"},
}
"""Name to keyword arguments of `SEDenseNet`; those named as an exit are cut off there."""
STUDIED = {  # nets of the study at 224 pixels, the trained ones after LC25000: experiment and arm
    ("block4", "frozen"): ("primary", "frozen-probe"),
    ("block4", "trained"): ("primary", "plain-lung"),
    ("block4-se-block", "trained"): ("se-placement", "block"),
    ("block4-se", "trained"): ("primary", "se-lung"),
    ("block4-se-everywhere", "trained"): ("se-placement", "everywhere"),
}
STUDIED_SEED = 0  # the only one that all of them have
TIMES = "times.csv"
TIMED_IMAGES, TIMED_REPEATS = 8, 5
CALIBRATION = 300  # training images that int8 is calibrated on


def build(name: str) -> nn.Module:
    """One of `NETS` for two classes, with random weights."""
    model = SEDenseNet(2, **NETS[name])
    return EarlyExit(model, name) if name in EXITS else model


def cost(name: str, size: int, precision: Precision) -> dict[str, float]:
    """`parameters`, `MB` of them at a precision (million bytes), and `GFLOPs` (billion multiply-adds) of one image."""
    with torch.device("meta"):
        net = build(name)
    parameters = parameter_count(net)
    return {
        "parameters": parameters,
        "MB": parameters * BYTES[precision] / 1e6,
        "GFLOPs": multiply_adds(net, size) / 1e9,
    }


def run_probes(
    config: LadderConfig,
    data_root: str | Path,
    out: str | Path,
    *,
    sizes: Sequence[int] = SIZES,
    precisions: Sequence[Precision] = ("float32", "float16", "int8"),
    progress: bool = False,
    report: Report = print,
) -> Path:
    """Probe every exit of the frozen trunk at every picture size: runs ``<exit>-<size>-<precision>``.

    In float16 the trunk's weights are rounded to it; the arithmetic stays float32, as on a CPU. In int8 the whole trunk
    is quantised anew in each fold, calibrated on training images of that fold; its earlier exits are left out.

    Args:
        config: normaliser, folds, seed, weights.
        data_root: folder with BreakHis.
        out: the experiment's folder.
        sizes: pixels a side.
        precisions: of the trunk.
        progress: show bars.
        report: called with one line a run.

    Raises:
        HistotransferError: data or weights that cannot be used.
    """
    for size in sizes:
        study = ProbeStudy(config.model_copy(update={"size": size}), data_root, out)
        table = breakhis.load(study.root)
        colours = normaliser(config.normaliser)
        tiles, fallbacks = load_tiles(table["path"].tolist(), size, colours, progress=progress)
        for precision in precisions:
            model, source = copy.deepcopy(study.model).eval(), TileSource(tiles)
            if precision == "float16":
                model.half().float()
            found: Mapping[Exit, np.ndarray | FoldFeatures] = (
                {"block4": _quantised_features(model, source, size, config.seed)}
                if precision == "int8"
                else exit_features(model, source, config.batch_size)
            )
            for leave, features in found.items():
                run = f"{leave}-{size}-{precision}"
                settings = {
                    "normaliser": config.normaliser, "net": leave, "precision": precision, "training": "frozen"
                }  # fmt: skip
                metrics = study.write(
                    run, "breakhis", table, breakhis.LABELS, features, fallbacks, table["group"], "patient", settings
                )
                report(f"{run}: AUROC {metrics['auroc']:.3f}, {len(table)} images")
    return Path(out)


def _quantised_features(model: SEDenseNet, source: TileSource, size: int, seed: int) -> FoldFeatures:
    trunk = EarlyExit(model, "block4").eval()
    trunk.classifier = nn.Identity()
    converted = openvino.convert(trunk, size, {})

    def features(train: np.ndarray) -> np.ndarray:
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(train))[:CALIBRATION]
        network = openvino.OpenVINONetwork(openvino.quantise(converted, source.batch(rows, np.zeros_like(rows))))
        batches = np.array_split(np.arange(len(source)), -(-len(source) // 32))
        return torch.cat([network(source.batch(own, np.zeros_like(own))) for own in batches]).numpy()

    return features


def run_scratch(config: LadderConfig, data_root: str | Path, out: str | Path, *, report: Report = print) -> Path:
    """Train the small net from random weights in every fold and predict each image once: ``small-k12-112-float32``.

    `EPOCHS` epochs, every layer at the same rate, as in the study's comparison from scratch (`study/scratch.toml`).
    Folds that were trained before a run was broken off are not trained again.

    Args:
        config: as for the ladder; size, gates, rates by depth and cache are set here.
        data_root: folder with BreakHis.
        out: the experiment's folder.
        report: called with one line a fold.

    Raises:
        HistotransferError: data that cannot be used.
    """
    started, around = time.perf_counter(), environment()
    changes = {"size": SMALL_SIZE, "start": "scratch", "se_positions": (), "rate_decay": 1.0, "cache": False}
    predictions, histories, checkpoints = [], [], []
    for fold in range(config.folds):
        own = config.model_copy(update=changes | {"fold": fold})
        rung = last_rung(own, data_root)
        torch.manual_seed(own.seed)
        model = build(SMALL).to(own.device, memory_format=torch.channels_last)
        settings = own.model_dump(mode="json", exclude={"weights"}) | {"net": SMALL, "epochs": EPOCHS}
        checkpoints.append(checkpoint_of(Path(out) / UNFINISHED, settings, "random", rung))
        stages = climb(model, rung, (("all", EPOCHS),), own, checkpoints[-1], report=report)
        table = predictions_table(rung, rung.evaluated, stages[-1].logits, own)
        predictions.append(table[table["part"] == "test"])
        histories.append(history(stages).assign(fold=fold))
    whole = pd.concat(predictions, ignore_index=True)
    name = f"{SMALL}-{SMALL_SIZE}-float32"
    record = {
        "experiment": Path(out).name,
        "run": name,
        "profile": config.profile,
        "config": {
            **own.model_dump(mode="json", exclude={"weights", "fold"}),
            "breakhis_schedule": [["all", EPOCHS]],
            "net": SMALL,
            "precision": "float32",
            "training": "scratch",
        },
        "data": {**data_of(rung), "not_normalised": rung.unchanged},
        "split": {"kind": "patient, out of fold", "parts": {"test": len(whole)}, "audit": rung.audit},
        "seed": config.seed,
        "metrics": evaluate(whole),
    }
    provenance = {**around, "total_seconds": round(time.perf_counter() - started, 1)}
    write_run(Path(out) / name, record, whole, pd.concat(histories, ignore_index=True), provenance)
    for checkpoint in checkpoints:
        checkpoint.clear()
    return Path(out) / name


def measure_times(out: str | Path, *, sizes: Sequence[int] = SIZES, report: Report = print) -> Path:
    """Write ``out/times.csv``: milliseconds an image of every net, size and precision on this machine, by OpenVINO.

    Medians of `TIMED_REPEATS` passes over `TIMED_IMAGES` images after a first one, all cores. Weights are random: time
    does not depend on them. float16 is stored only and takes as long as float32. Run it on a machine with nothing else
    to do; its load stands in ``out/times.json``.

    Raises:
        HistotransferError: the extra `export` is not installed.
    """
    rows = []
    for name in NETS:
        for size in sizes:
            images = torch.randn(TIMED_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
            converted = openvino.convert(build(name).eval(), size, {})
            nets = {"float32": converted, "int8": openvino.quantise(converted, images)}
            for precision, net in nets.items():
                seconds = _seconds(openvino.OpenVINONetwork(net), images)
                rows.append({"net": name, "size": size, "precision": precision, "ms": 1e3 * seconds / len(images)})
                report(f"{name}, {size} pixels, {precision}: {rows[-1]['ms']:.1f} ms")
    Path(out).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(Path(out) / TIMES, index=False, float_format="%.4g", lineterminator="\n")
    write_json(Path(out) / TIMES.replace(".csv", ".json"), environment() | {"load": os.getloadavg()})
    return Path(out) / TIMES


def _seconds(network: openvino.OpenVINONetwork, images: torch.Tensor) -> float:
    taken = []
    for _ in range(TIMED_REPEATS + 1):
        start = time.perf_counter()
        network(images)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


class Net(NamedTuple):
    """What tells one evaluated net from another; `colours` is the normaliser it saw its images through."""

    net: str
    size: int
    precision: Precision
    training: Literal["frozen", "scratch", "trained"]
    colours: str


def read_nets(results: str | Path) -> dict[Net, pd.DataFrame]:
    """Predictions of every net that ``<results>/complexity`` holds a record of."""
    found = {}
    for path in sorted((Path(results) / "complexity").glob("*/record.json")):
        run = read_run(path.parent)
        config = run.record["config"]
        net = Net(config["net"], config["size"], config["precision"], config["training"], config["normaliser"])
        found[net] = run.predictions
    return found


def studied_nets(study: Study) -> dict[Net, pd.DataFrame]:
    """Predictions of the arms of `STUDIED` that are finished, of `STUDIED_SEED` alone."""
    found = {}
    for (name, training), (experiment, arm) in STUDIED.items():
        with contextlib.suppress(NotRunYet):
            config = study.runs(experiment, arm)[0].record["config"]
            net = Net(name, config["size"], "float32", training, config["normaliser"])
            found[net] = study.predictions(experiment, arm, seeds=(STUDIED_SEED,))
    return found


def complexity_table(nets: Mapping[Net, pd.DataFrame], times: pd.DataFrame | None = None) -> pd.DataFrame:
    """What each net costs and how well it tells malignant from benign, by increasing operations.

    Args:
        nets: as `read_nets` and `studied_nets` return them.
        times: as `measure_times` writes them; without them `ms` is missing.

    Returns:
        Columns `net, size, precision, training, colours, parameters, MB, GFLOPs, ms, auroc, low, high, images,
        patients`; AUROC is the mean over 40x, 100x and 200x (over all images where one of these is missing), with its
        95 % interval.
    """
    rows = []
    for net, predictions in nets.items():
        found = {scope: (rows, by) for scope, rows, by in scopes(predictions)}
        used, by = found.get(MEAN, found["all"])
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
    columns = [*Net._fields, "parameters", "MB", "GFLOPs", "ms"]
    columns += ["auroc", "low", "high", "images", "patients"]
    return table[columns].sort_values(["GFLOPs", "MB", "training"], ignore_index=True)


def exit_gaps(experiment: str | Path, size: int = 224) -> pd.DataFrame:
    """AUROC of each earlier exit minus that of the whole frozen trunk, mean over 40x, 100x and 200x, paired by patient.

    Returns:
        Index "exit minus exit"; `pooled`, the difference with its interval, and `AUROC`, one of `DIRECTIONS`; both
        again of pairs that one network scored (`tables.gap_within_folds`): `within folds`, `there`; `images`,
        `patients`.

    Raises:
        HistotransferError: a run is missing or damaged.
    """
    *early, last = EXITS
    runs = {leave: read_run(Path(experiment) / f"{leave}-{size}-float32") for leave in EXITS}
    return _mean_gaps({f"{leave} minus {last}": (runs[last], runs[leave]) for leave in early})


def size_gaps(experiment: str | Path, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """AUROC of the whole frozen trunk on smaller pictures minus that on the largest, as `exit_gaps`."""
    largest, *smaller = (read_run(Path(experiment) / f"block4-{size}-float32") for size in sizes)
    names = [f"{size} minus {sizes[0]} pixels" for size in sizes[1:]]
    return _mean_gaps({name: (largest, run) for name, run in zip(names, smaller, strict=True)})


def precision_gaps(experiment: str | Path, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """AUROC of the whole trunk in fewer bits minus that in float32, as `exit_gaps`."""
    pairs = {}
    for size in sizes:
        whole, *fewer = (read_run(Path(experiment) / f"block4-{size}-{bits}") for bits in BYTES)
        names = [f"{bits} minus float32, {size} pixels" for bits in list(BYTES)[1:]]
        pairs |= {name: (whole, run) for name, run in zip(names, fewer, strict=True)}
    return _mean_gaps(pairs)


def scratch_gap(experiment: str | Path) -> pd.DataFrame:
    """AUROC of the small net from scratch minus that of the frozen trunk on pictures of its size, as `exit_gaps`."""
    trunk, small = (read_run(Path(experiment) / f"{net}-{SMALL_SIZE}-float32") for net in ("block4", SMALL))
    return _mean_gaps({f"{SMALL} minus block4, {SMALL_SIZE} pixels": (trunk, small)})


LOWER, HIGHER, NEITHER = DIRECTIONS = ("lower", "higher", "not told apart")


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
            "AUROC": _direction(pooled),
            "within folds": number(*inside[["value", "low", "high"]]),
            "there": _direction(inside),
            **pooled[["images", "patients"]],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _direction(found: pd.Series) -> str:
    return HIGHER if found["low"] > 0 else LOWER if found["high"] < 0 else NEITHER
