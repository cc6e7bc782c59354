"""How accuracy depends on what a network costs (open question Q2): exits, picture sizes, precisions, gates.

`run_probes` probes early exits of the frozen ImageNet trunk out of fold, split by patient; `run_scratch` trains a small
net from scratch in each fold; `measure_times` times all of them. Nothing is chosen from the results, so nothing is
tuned on test patients.
"""

import copy
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis
from histotransfer.experiments.probe import FoldFeatures, Probed, ProbeStudy
from histotransfer.files import write_csv, write_json
from histotransfer.models import openvino
from histotransfer.models.exits import EXITS, EarlyExit, Exit, exit_features
from histotransfer.models.se_densenet import CONFIGURATIONS, SEDenseNet, parameter_count
from histotransfer.models.size import multiply_adds
from histotransfer.records import environment
from histotransfer.stain import normaliser
from histotransfer.study.recorder import Recorder
from histotransfer.study.runner import checkpoint_of, data_of, predictions_of
from histotransfer.study.tasks import target_task
from histotransfer.tiles import TileSource, load_tiles
from histotransfer.transfer.stages import Report, history, train_stages

Precision = Literal["float32", "float16", "int8"]
BYTES: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}
SIZES = (224, 160, 112)
SMALL, SMALL_SIZE, EPOCHS = "small-k12", 112, 20
GATED = {"first_gated_block": 3}  # as in the study's recipe
NETS: dict[str, dict[str, Any]] = {
    **{name: {"positions": ()} for name in EXITS},
    "block4-se": {"positions": ("block", "transition"), **GATED},
    "block4-se-block": {"positions": ("block",), **GATED},
    "block4-se-everywhere": {"positions": ("layer", "block", "transition"), **GATED},
    # Three blocks of twelve plain layers, k = 12, after the stem for large pictures: about as many parameters as the
    # paper states.
    SMALL: {"positions": (), **CONFIGURATIONS["densenet40-k12"], "stem": "imagenet"},
}
"""Name to keyword arguments of `SEDenseNet`; a net with the name of an exit ends there."""
TIMES = "times.csv"
TIMED_IMAGES, TIMED_REPEATS = 8, 5
CALIBRATION = 300  # training images that int8 is calibrated on


def build(name: str) -> nn.Module:
    """One of `NETS` for two classes, with random weights."""
    model = SEDenseNet(2, **NETS[name])
    return EarlyExit(model, name) if name in EXITS else model


def cost(name: str, size: int, precision: Precision) -> dict[str, float]:
    """`parameters`, their size at a precision in `MB` (million bytes), `GMAC` (billion multiply-adds) per image."""
    parameters, operations = _counted(name, size)
    return {"parameters": parameters, "MB": parameters * BYTES[precision] / 1e6, "GMAC": operations / 1e9}


@cache
def _counted(name: str, size: int) -> tuple[int, int]:
    """Parameters of a net, and its multiply-adds per image."""
    with torch.device("meta"):
        net = build(name)
    return parameter_count(net), multiply_adds(net, size)


def run(
    part: Literal["probes", "scratch", "times"],
    config: LadderConfig,
    data_root: str | Path,
    out: str | Path,
    *,
    report: Report = print,
) -> Path:
    """One part of the experiment: `run_probes`, `run_scratch` or `measure_times`.

    Returns:
        The folder or file that was written.
    """
    if part == "times":
        return measure_times(out, report=report)
    return {"probes": run_probes, "scratch": run_scratch}[part](config, data_root, out, report=report)


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

    In float16 the trunk's weights are rounded to float16; the arithmetic stays float32, as on a CPU. In int8 the whole
    trunk is quantised in each fold, calibrated on training images of that fold; its earlier exits are left out.

    Args:
        config: normaliser, folds, seed, weights.
        data_root: folder with BreakHis.
        out: the experiment's folder.
        sizes: pixels per side.
        precisions: of the trunk.
        progress: show bars.
        report: called with one line per run.

    Raises:
        HistotransferError: the data or the weights cannot be used.
    """
    for size in sizes:
        study = ProbeStudy(config.model_copy(update={"size": size}), data_root, out)
        table = breakhis.load(study.root)
        colours = normaliser(config.normaliser)
        tiles, fallbacks = load_tiles(table["path"].tolist(), size, colours, progress=progress)
        for precision in precisions:
            for name, features in _features(study.model, TileSource(tiles), precision, study.config).items():
                probed = Probed("breakhis", table, breakhis.LABELS, features, fallbacks)
                settings = {"normaliser": config.normaliser, "net": name, "precision": precision, "training": "frozen"}
                metrics = study.write(f"{name}-{size}-{precision}", probed, table["group"], "patient", settings)
                report(f"{name}-{size}-{precision}: AUROC {metrics['auroc']:.3f}, {len(table)} images")
    return Path(out)


def _features(
    trunk: SEDenseNet, source: TileSource, precision: Precision, config: LadderConfig
) -> Mapping[Exit, np.ndarray | FoldFeatures]:
    """Features of every exit at a precision; in int8 of the whole trunk only."""
    model = copy.deepcopy(trunk).eval()
    if precision == "int8":
        return {"block4": _quantised_features(model, source, config)}
    if precision == "float16":
        model.half().float()
    return exit_features(model, source, config.batch_size)


def _quantised_features(model: SEDenseNet, source: TileSource, config: LadderConfig) -> FoldFeatures:
    trunk = EarlyExit(model, "block4").eval()
    trunk.add_module("classifier", nn.Identity())
    converted = openvino.convert(trunk, config.size, {})

    def features(train: np.ndarray) -> np.ndarray:
        rows = np.random.default_rng(config.seed).permutation(np.flatnonzero(train))[:CALIBRATION]
        network = openvino.OpenVINONetwork(openvino.quantise(converted, source.arrays(rows, np.zeros_like(rows))))
        batches = np.array_split(np.arange(len(source)), -(-len(source) // 32))
        return np.concatenate([network(source.arrays(batch, np.zeros_like(batch))) for batch in batches])

    return features


def run_scratch(config: LadderConfig, data_root: str | Path, out: str | Path, *, report: Report = print) -> Path:
    """Train the small net from random weights in every fold and predict each image once: ``small-k12-112-float32``.

    `EPOCHS` epochs, every layer at the same rate, as in the study's comparison from scratch (`study/scratch.toml`).
    Folds that were trained before a run was interrupted are not trained again.

    Args:
        config: as for the ladder; size, gates, rates by depth and cache are set here.
        data_root: folder with BreakHis.
        out: the experiment's folder.
        report: called with one line per fold.

    Raises:
        HistotransferError: the data cannot be used.
    """
    recorder = Recorder(config, out)
    config = config.model_copy(
        update={"size": SMALL_SIZE, "start": "scratch", "se_positions": (), "rate_decay": 1.0, "cache": False}
    )
    predictions, histories, checkpoints = [], [], []
    for fold in range(config.folds):
        of_fold = config.model_copy(update={"fold": fold})
        task = target_task(of_fold, data_root)
        torch.manual_seed(of_fold.seed)
        model = SEDenseNet(2, **NETS[SMALL]).to(of_fold.device).to(memory_format=torch.channels_last)
        settings = of_fold.model_dump(mode="json", exclude={"weights"}) | {"net": SMALL, "epochs": EPOCHS}
        checkpoints.append(checkpoint_of(Path(out), settings, "random", task))
        stages = train_stages(model, task, (("all", EPOCHS),), of_fold, checkpoints[-1], report=report)
        table = predictions_of(task, task.evaluated, stages[-1].logits, of_fold)
        predictions.append(table[table["part"] == "test"])
        histories.append(history(stages).assign(fold=fold))
    whole = pd.concat(predictions, ignore_index=True)
    name = f"{SMALL}-{SMALL_SIZE}-float32"
    recorder.write(
        name,
        whole,
        config={
            **config.model_dump(mode="json", exclude={"weights", "fold"}),
            "breakhis_schedule": [["all", EPOCHS]],
            "net": SMALL,
            "precision": "float32",
            "training": "scratch",
        },
        data={**data_of(task), "not_normalised": task.unchanged},
        split={"kind": "patient, out of fold", "parts": {"test": len(whole)}, "audit": task.audit},
        history=pd.concat(histories, ignore_index=True),
    )
    for checkpoint in checkpoints:
        checkpoint.clear()
    return Path(out) / name


def measure_times(out: str | Path, *, sizes: Sequence[int] = SIZES, report: Report = print) -> Path:
    """Write ``out/times.csv``: milliseconds per image of every net, size and precision on this machine, by OpenVINO.

    They are medians of `TIMED_REPEATS` passes over `TIMED_IMAGES` images, after one pass to warm up, on all cores. The
    weights are random, because time does not depend on them. float16 is not timed: it is only stored and takes as long
    as float32. Run it on a machine that does nothing else; the machine's load is written to ``out/times.json``.

    Raises:
        HistotransferError: the extra `export` is not installed.
    """
    rows = []
    for name in NETS:
        for size in sizes:
            images = np.random.default_rng(0).standard_normal((TIMED_IMAGES, 3, size, size), dtype=np.float32)
            converted = openvino.convert(build(name).eval(), size, {})
            nets = {"float32": converted, "int8": openvino.quantise(converted, images)}
            for precision, net in nets.items():
                seconds = _seconds(openvino.OpenVINONetwork(net), images)
                rows.append({"net": name, "size": size, "precision": precision, "ms": 1e3 * seconds / len(images)})
                report(f"{name}, {size} pixels, {precision}: {rows[-1]['ms']:.1f} ms")
    write_csv(Path(out) / TIMES, pd.DataFrame(rows), floats="%.4g")
    write_json(Path(out) / TIMES.replace(".csv", ".json"), environment() | {"load": os.getloadavg()})
    return Path(out) / TIMES


def _seconds(network: openvino.OpenVINONetwork, images: np.ndarray) -> float:
    taken = []
    for _ in range(TIMED_REPEATS + 1):
        start = time.perf_counter()
        network(images)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))
