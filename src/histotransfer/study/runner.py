"""Runs from images to records."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from histotransfer import __version__
from histotransfer.config import LadderConfig, cache_dir
from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.datasets import own as own_data
from histotransfer.datasets.roots import resolve_root
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.baselines import PROBE_C, WIDE_C, frozen_probe, majority_logits, probe_logits
from histotransfer.evaluation.metrics import evaluate
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, imagenet_trunk, save_model
from histotransfer.splits import grouped_split, make_split
from histotransfer.study.records import environment, fingerprint, write_run
from histotransfer.tiles import symmetric_views
from histotransfer.transfer.checkpoint import Checkpoint
from histotransfer.transfer.ladder import (
    Report,
    Rung,
    StageResult,
    architecture,
    climb,
    final_logits,
    frozen_features,
    history,
    initial_model,
    keep_copies,
    keep_magnifications,
    next_rung,
)
from histotransfer.transfer.training import check_device

Baseline = Literal["majority", "frozen-probe", "wide-probe"]
Method = Literal["ladder"] | Baseline
BESIDE: tuple[Baseline, ...] = ("majority", "frozen-probe")  # every ladder
RUNS = (*BESIDE, "lc25000", "ladder")
SPLIT_KINDS = {"patient": "patient", "image": "image", "official": "slide id", "none": "none"}  # as a record names them
UNFINISHED = ".unfinished"  # checkpoints in an experiment's folder
LOWER_RUNGS = ("lc25000", "phantom")  # always split by original or patient
NOT_OF_THE_LOWER_RUNG = {
    "profile", "breakhis_schedule", "train_magnifications", "split", "allow_leakage", "fold", "weights",
    "target", "external", "record_stages", "record_training", "normaliser_reference",
}  # fmt: skip


def run_ladder(
    config: LadderConfig,
    data_root: str | Path | None,
    out: str | Path,
    *,
    own: str | Path | None = None,
    pattern: str = "",
    progress: bool = False,
    report: Report = print,
) -> Path:
    """Climb the ladder once, beside both baselines on the same split.

    Every stage's network predicts the test part once, when the stage ends; nothing is chosen by it. A run that was
    broken off continues where its last checkpoint was.

    Args:
        config: all settings.
        data_root: folder with `BreaKHis_v1`, `lung_colon_image_set` and `lc25000_groups`; None (with `own` only) leaves
            the LC25000 rung out.
        out: the experiment's folder; the runs `RUNS` are written into it, and `ladder-after-<stage>` for each stage of
            the last rung but the last.
        own: one's own images, which take the place of BreakHis: a CSV, or a folder per class.
        pattern: for a folder, how a file's path says whose image it is (`datasets.own.load_folders`).
        progress: show bars.
        report: called with one line a step.

    Returns:
        The folder of the final run, ``out/ladder``.

    Raises:
        HistotransferError: data, weights or an output folder that cannot be used.
    """
    recorder = _Recorder(config, Path(out), report)
    last = last_rung(config, data_root, own, pattern, progress=progress)
    for name in BESIDE:
        logits, chosen = BASELINES[name](last, recorder.trunk, config)
        recorder.write(name, last, logits, chosen=chosen)
    model, lower, below = _foot(recorder, data_root, len(last.classes), progress=progress)
    if lower is not None:
        recorder.write(lower.name, lower, below[-1].logits, below)
    outside = external_rung(last, config, data_root) if config.external else None
    _climb_last("ladder", recorder, model, last, below, outside, progress=progress, keep_model=True)
    return Path(out) / "ladder"


def run_arm(
    config: LadderConfig,
    data_root: str | Path,
    out: str | Path,
    name: str,
    method: Method = "ladder",
    *,
    progress: bool = False,
    report: Report = print,
) -> Path:
    """One run of a study: as `run_ladder`, without the lower rung's record and the weights; or one baseline.

    Returns:
        ``out/name``; beside it ``out/name-after-<stage>`` for each stage but the last.
    """
    recorder = _Recorder(config, Path(out), report)
    last = last_rung(config, data_root, progress=progress)
    if method == "ladder":
        model, _, below = _foot(recorder, data_root, len(last.classes), progress=progress)
        outside = external_rung(last, config, data_root) if config.external else None
        _climb_last(name, recorder, model, last, below, outside, progress=progress)
    else:
        logits, chosen = BASELINES[method](last, recorder.trunk, config)
        recorder.write(name, last, logits, chosen=chosen)
    return Path(out) / name


def train_on_everything(
    config: LadderConfig, data_root: str | Path, out: str | Path, *, progress: bool = False, report: Report = print
) -> tuple[SEDenseNet, dict]:
    """A network climbed with every patient of the last rung in training, and its description.

    Args:
        config: with ``split="none"``: there is nobody left to test on, so nothing is recorded.
        data_root: folder of the data sets.
        out: where an unfinished climb is kept.
        progress: show bars.
        report: called with one line a step.
    """
    recorder = _Recorder(config, Path(out), report)
    last = last_rung(config, data_root, progress=progress)
    model, _, _ = _foot(recorder, data_root, len(last.classes), progress=progress)
    settings = config.model_dump(mode="json", exclude={"weights"})
    checkpoint = checkpoint_of(recorder.out / UNFINISHED, settings, recorder.trunk.content_hash, last)
    climb(model, last, config.breakhis_schedule, config, checkpoint, progress=progress, report=report)
    checkpoint.clear()
    return model, model_description(last, config, recorder.trunk)


def _foot(
    recorder: "_Recorder", data_root: str | Path | None, classes: int, *, progress: bool
) -> tuple[SEDenseNet, Rung | None, list[StageResult]]:
    """The network as it starts the last rung, the rung below, and the stages climbed there.

    That rung is climbed once for all folds and arms that share it: its finished checkpoint stays in the cache.
    """
    config, trunk = recorder.config, recorder.trunk
    if config.source == "none" or data_root is None:
        return initial_model(classes, trunk, config), None, []
    rung = lower_rung(config, data_root, progress=progress)
    settings = config.model_dump(mode="json", exclude=NOT_OF_THE_LOWER_RUNG)
    checkpoint = checkpoint_of(cache_dir() / "rungs", settings, trunk.content_hash, rung)
    model = initial_model(len(rung.classes), trunk, config)
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(checkpoint.path.with_suffix(".lock")):
        stages = climb(
            model, rung, config.lc25000_schedule, config, checkpoint, progress=progress, report=recorder.report
        )
    return next_rung(model, classes, config), rung, stages


def _climb_last(
    name: str,
    recorder: "_Recorder",
    model: SEDenseNet,
    rung: Rung,
    below: list[StageResult],
    outside: Rung | None,
    *,
    progress: bool,
    keep_model: bool = False,
) -> None:
    """Climb the last rung; record what every stage but the last left as `name-after-<stage>`, and the end as `name`.

    As far as the configuration says so. The final network also predicts `outside`, a data set that nothing was chosen
    on.
    """
    config = recorder.config
    settings = config.model_dump(mode="json", exclude={"weights"})
    checkpoint = checkpoint_of(recorder.out / UNFINISHED, settings, recorder.trunk.content_hash, rung)
    stages = climb(model, rung, config.breakhis_schedule, config, checkpoint, progress=progress, report=recorder.report)
    for number, stage in enumerate(stages[:-1] if config.record_stages else [], start=1):
        recorder.write(f"{name}-after-{stage.stage}", rung, stage.logits, [*below, *stages[:number]])
    others = [(rung, rung.rows("train"))] if config.record_training else []
    others += [(outside, np.arange(len(outside.table)))] if outside else []
    more = [(other, rows, final_logits(model, other, rows, config.breakhis_schedule, config)) for other, rows in others]
    stages = [*below, *stages]
    recorder.write(name, rung, stages[-1].logits, stages, more=more, model=model if keep_model else None)
    checkpoint.clear()


def checkpoint_of(folder: Path, settings: dict, weights: str, rung: Rung) -> Checkpoint:
    """The checkpoint of a climb with these settings from these weights (their hash) on this rung."""
    identity = {
        "version": __version__,
        "threads": torch.get_num_threads(),
        "config": settings,
        "trunk": weights,
        "data": fingerprint(rung.images, rung.hashes),
        "split": rung.table["split"].tolist(),
    }
    return Checkpoint(folder, identity)


def lower_rung(config: LadderConfig, data_root: str | Path, *, progress: bool = False) -> Rung:
    """The rung below the last: LC25000 (lung) split by original, or synthetic breast tissue split by patient.

    With few training copies of each original; always its first fold, so that one climb serves all folds of the last.
    """
    if config.source == "phantom":
        root = resolve_root("phantom", seed=config.seed)
        table, classes, views = breakhis.load(root).assign(dataset="phantom"), breakhis.LABELS, breakhis.VIEWS
        split = grouped_split(table, folds=config.folds, seed=config.seed)
    else:
        root = Path(data_root).resolve()
        table, classes, views = lc25000.load(root), lc25000.LABELS, lc25000.VIEWS
        split = grouped_split(table, folds=config.folds, seed=config.seed)
        if config.lc25000_copies:
            split = keep_copies(split, config.lc25000_copies, config.seed)
    return Rung(split, classes, views, root, config, progress=progress)


def last_rung(
    config: LadderConfig,
    data_root: str | Path | None,
    own: str | Path | None = None,
    pattern: str = "",
    *,
    progress: bool = False,
) -> Rung:
    """BreakHis, or one's own images, split as the configuration says.

    Raises:
        HistotransferError: data that cannot be used, or neither of the two given.
    """
    if own is None:
        if data_root is None:
            raise HistotransferError("ladder: no data; give the folder of the data sets, or your own images")
        root, views = Path(data_root).resolve(), breakhis.VIEWS
        table, classes = breakhis.load(root), breakhis.LABELS
    else:
        table = own_data.load(own, pattern)
        root = Path(own).resolve() if Path(own).is_dir() else Path(own).resolve().parent
        views, classes = symmetric_views(table["path"]), tuple(sorted(set(table["label"])))
        if len(classes) < 2:
            raise HistotransferError(f"{own}: only the label {classes[0]}; two classes at least are needed")
    split = keep_magnifications(make_split(table, config, root), config.train_magnifications)
    if config.target == "subtype":
        classes = tuple(sorted(set(split["subtype"])))
    return Rung(split, classes, views, root, config, progress=progress)


def external_rung(last: Rung, config: LadderConfig, data_root: str | Path | None) -> Rung:
    """UCSB under the classes of the last rung, all of it one part, `ucsb`.

    Raises:
        HistotransferError: it is not there, or the last rung's classes are others.
    """
    if data_root is None or last.classes != breakhis.LABELS:
        raise HistotransferError("external: UCSB is predicted by networks that tell benign from malignant, with --data")
    table = ucsb.load(data_root).assign(split="ucsb")
    return Rung(table, last.classes, ucsb.VIEWS, Path(data_root).resolve(), config, colours=last.colours)


def _majority(rung: Rung, trunk: Trunk, config: LadderConfig) -> tuple[np.ndarray, dict]:
    """Logits of the evaluated rows, and what was chosen on training patients."""
    return majority_logits(rung.targets[rung.rows("train")], len(rung.evaluated)), {}


def _probe(
    rung: Rung, trunk: Trunk, config: LadderConfig, offered: Sequence[float] = PROBE_C
) -> tuple[np.ndarray, dict]:
    """As `_majority`."""
    train = rung.rows("train")
    features = frozen_features(initial_model(len(rung.classes), trunk, config), rung, config)
    groups = rung.table["group"].to_numpy()
    probe = frozen_probe(features[train], rung.targets[train], groups[train], config.seed, offered)
    chosen = {"C": float(probe.best_params_["logisticregression__C"])}
    return probe_logits(probe, features[rung.evaluated]), chosen


BASELINES = {"majority": _majority, "frozen-probe": _probe, "wide-probe": partial(_probe, offered=WIDE_C)}


class _Recorder:
    """Writes the runs of one experiment."""

    def __init__(self, config: LadderConfig, out: Path, report: Report):
        if out.exists() and not out.is_dir():
            raise HistotransferError(f"{out}: is a file; give a folder for the records")
        check_device(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.out, self.report = config, out, report
        self.trunk = imagenet_trunk(config.weights)
        report(f"ImageNet weights: {self.trunk.source}, content hash {self.trunk.content_hash[:12]}")
        self.environment = environment()  # now: the checkout may have moved on when a long run ends
        self.started = time.perf_counter()

    def write(
        self,
        run: str,
        rung: Rung,
        logits: np.ndarray,
        stages: Sequence[StageResult] = (),
        *,
        chosen: dict | None = None,
        more: Sequence[tuple[Rung, np.ndarray, np.ndarray]] = (),
        model: SEDenseNet | None = None,
    ) -> None:
        tables = [predictions_table(rung, rung.evaluated, logits, self.config)]
        tables += [predictions_table(other, rows, own, self.config) for other, rows, own in more]
        predictions = pd.concat(tables, ignore_index=True)
        metrics = evaluate(predictions)
        record = {
            "experiment": self.out.name,
            "run": run,
            "profile": self.config.profile,
            "config": {
                **self.config.model_dump(mode="json", exclude={"weights"}),
                "imagenet": {"source": self.trunk.source, "content_hash": self.trunk.content_hash},
                "chosen": chosen or {},
            },
            "data": {**data_of(rung), "not_normalised": rung.unchanged},
            "split": {
                "kind": SPLIT_KINDS["patient" if rung.name in LOWER_RUNGS else self.config.split],
                "parts": rung.table["split"].value_counts().sort_index().to_dict(),
                "audit": rung.audit,
            },
            "seed": self.config.seed,
            "metrics": metrics,
        }
        provenance = {
            **self.environment,
            "stage_seconds": [stage.seconds for stage in stages],
            "total_seconds": round(time.perf_counter() - self.started, 1),
        }
        extra = {}
        if model is not None:
            description = model_description(rung, self.config, self.trunk)
            extra["model.safetensors"] = lambda path: save_model(model, path, description)
        write_run(self.out / run, record, predictions, history(stages), provenance, extra)
        part = "validation" if self.config.rehearsal else "test"
        own = metrics[part]["image"]["all"]
        self.report(
            f"{run}: {part} accuracy {own['accuracy']:.3f} ({own['images']} images, {own['patients']} patients)"
        )


def model_description(rung: Rung, config: LadderConfig, trunk: Trunk) -> dict:
    """What `predict` must know of a weights file, and what its reader should."""
    return {
        "architecture": architecture(len(rung.classes), config),
        "classes": list(rung.classes),
        "size": config.size,
        "normaliser": config.normaliser,
        "reference": rung.colours.reference_parts() if config.normaliser_reference == "training" else [],
        "views": rung.predicted_views,
        "profile": config.profile,
        "imagenet": trunk.source,
        "config": config.model_dump(mode="json", exclude={"weights", "device", "threads", "cache"}),
        "data": data_of(rung),
    }


def data_of(rung: Rung) -> dict:
    """What a record says of a rung's images."""
    return {
        "name": rung.name,
        "images": len(rung.table),
        "patients": int(rung.table["patient"].nunique()),
        "fingerprint": fingerprint(rung.images, rung.hashes),
    }


def predictions_table(rung: Rung, rows: np.ndarray, logits: np.ndarray, config: LadderConfig) -> pd.DataFrame:
    """One row an image: `image, patient, group, magnification, subtype, part, fold, seed, truth, logit_*`."""
    table = rung.table.iloc[rows].reset_index(drop=True)
    frame = table[["patient", "group", "magnification", "subtype"]].assign(
        part=table["split"], fold=config.fold, seed=config.seed, truth=rung.truth.iloc[rows].to_numpy()
    )
    frame.insert(0, "image", rung.images.iloc[rows].reset_index(drop=True))
    return frame.join(pd.DataFrame(logits, columns=[f"logit_{name}" for name in rung.classes]))
