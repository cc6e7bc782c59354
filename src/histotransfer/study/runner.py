"""One run, from images to its record: a network trained from ImageNet to the target task, or a baseline."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from histotransfer import __version__
from histotransfer.config import Baseline, LadderConfig, Method, cache_dir
from histotransfer.evaluation.baselines import PROBE_C, WIDE_C, frozen_probe, majority_logits, probe_logits
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, imagenet_trunk, save_model
from histotransfer.records import fingerprint
from histotransfer.study.recorder import Recorder, described_trunk, predictions_table
from histotransfer.study.tasks import SOURCES, external_task, source_task, target_task
from histotransfer.transfer.checkpoint import Checkpoint
from histotransfer.transfer.stages import (
    Report,
    StageResult,
    architecture,
    final_logits,
    frozen_features,
    history,
    initial_model,
    train_stages,
    with_new_head,
)
from histotransfer.transfer.task import Task
from histotransfer.transfer.training import check_device

BESIDE: tuple[Baseline, ...] = ("majority", "frozen-probe")  # run with every network, on the same split
RUNS = (*BESIDE, "lc25000", "ladder")
SPLIT_KINDS = {"patient": "patient", "image": "image", "official": "slide id", "none": "none"}  # names in a record
UNFINISHED = ".unfinished"  # checkpoints in an experiment's folder
OF_THE_TARGET = {  # settings that the source task does not depend on
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
    """Train ImageNet -> LC25000 -> BreakHis once, and run both baselines on the same split.

    At the end of every stage the network predicts the test part once; nothing is chosen by it. An interrupted run
    continues from its last checkpoint.

    Args:
        config: all settings.
        data_root: folder with `BreaKHis_v1`, `lung_colon_image_set` and `lc25000_groups`; None (with `own` only) leaves
            LC25000 out.
        out: the experiment's folder; the runs `RUNS` are written into it, and `ladder-after-<stage>` for each stage of
            the target task but the last.
        own: one's own images, which replace BreakHis: a CSV, or a folder with one folder per class.
        pattern: for a folder, how a file's path names the patient (`datasets.own.load_folders`).
        progress: show bars.
        report: called with one line per step.

    Returns:
        The folder of the final run, ``out/ladder``.

    Raises:
        HistotransferError: the data, the weights or the output folder cannot be used.
    """
    use_threads(config)  # first: a record's provenance says how many there are
    training = _Training(config, out, report, progress=progress)
    target = target_task(config, data_root, own, pattern, progress=progress)
    for name in BESIDE:
        training.run_baseline(name, target, name)
    model, source, before = training.pretrained(data_root, len(target.classes))
    if source is not None:
        training.record(source.name, source, before[-1].logits, before)
    external = external_task(target, config, data_root) if config.external else None
    training.train_target("ladder", model, target, before, external, keep_model=True)
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
    """One run of a study: a baseline, or a network as in `run_ladder` but without weights and source task's record.

    Returns:
        ``out/name``; each stage but the last is in ``out/name-after-<stage>``.
    """
    use_threads(config)
    training = _Training(config, out, report, progress=progress)
    target = target_task(config, data_root, progress=progress)
    if method == "ladder":
        model, _, before = training.pretrained(data_root, len(target.classes))
        external = external_task(target, config, data_root) if config.external else None
        training.train_target(name, model, target, before, external)
    else:
        training.run_baseline(method, target, name)
    return Path(out) / name


def train_on_everything(
    config: LadderConfig, data_root: str | Path, out: str | Path, *, progress: bool = False, report: Report = print
) -> tuple[SEDenseNet, dict]:
    """Train a network on every patient of the target task; return it and its description.

    Args:
        config: with ``split="none"``. No patient is left to test on, so nothing is recorded.
        data_root: folder of the data sets.
        out: folder for the checkpoint of an unfinished training.
        progress: show bars.
        report: called with one line per step.
    """
    use_threads(config)
    training = _Training(config, out, report, progress=progress)
    target = target_task(config, data_root, progress=progress)
    model, _, _ = training.pretrained(data_root, len(target.classes))
    checkpoint = training.checkpoint(target)
    train_stages(model, target, config.breakhis_schedule, config, checkpoint, progress=progress, report=report)
    checkpoint.clear()
    return model, model_description(target, config, training.trunk)


def use_threads(config: LadderConfig) -> None:
    """Set the number of PyTorch's threads to that of the configuration; at 0 PyTorch chooses."""
    if config.threads:
        torch.set_num_threads(config.threads)


class _Training:
    """The steps of a run: initial weights, source task, target task, and their records.

    Args:
        config: all settings.
        out: the experiment's folder.
        report: called with one line per step.
        progress: show bars.

    Raises:
        HistotransferError: the weights, the device or the output folder cannot be used.
    """

    def __init__(self, config: LadderConfig, out: str | Path, report: Report, *, progress: bool):
        self.recorder = Recorder(config, out)
        check_device(config.device)
        self.config, self.out, self.report, self.progress = config, Path(out), report, progress
        self.trunk = imagenet_trunk(config.weights)
        report(f"ImageNet weights: {self.trunk.source}, content hash {self.trunk.content_hash[:12]}")

    def run_baseline(self, method: Baseline, task: Task, run: str) -> None:
        """Predict with a baseline and record it."""
        logits, chosen = BASELINES[method](task, self.trunk, self.config)
        self.record(run, task, logits, chosen=chosen)

    def pretrained(
        self, data_root: str | Path | None, classes: int
    ) -> tuple[SEDenseNet, Task | None, list[StageResult]]:
        """The network that the target task starts from, its source task (or None), and the stages of that training.

        The source task is trained once for all folds and arms that share it: its checkpoint stays in the cache.
        """
        config = self.config
        if config.source == "none" or data_root is None:
            return initial_model(classes, self.trunk, config), None, []
        task = source_task(config, data_root, progress=self.progress)
        settings = config.model_dump(mode="json", exclude=OF_THE_TARGET)
        checkpoint = checkpoint_of(cache_dir() / "pretrained", settings, self.trunk.content_hash, task)
        model = initial_model(len(task.classes), self.trunk, config)
        checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(checkpoint.path.with_suffix(".lock")):
            stages = train_stages(
                model, task, config.lc25000_schedule, config, checkpoint, progress=self.progress, report=self.report
            )
        return with_new_head(model, classes, config), task, stages

    def train_target(
        self,
        name: str,
        model: SEDenseNet,
        task: Task,
        before: list[StageResult],
        external: Task | None,
        *,
        keep_model: bool = False,
    ) -> None:
        """Train the target task; record the final network as `name`.

        With `record_stages` every earlier stage is recorded as `name-after-<stage>`; with `record_training` the final
        network also predicts its training images. It predicts `external` too, a data set on which nothing was chosen.
        """
        config, schedule = self.config, self.config.breakhis_schedule
        checkpoint = self.checkpoint(task)
        stages = train_stages(model, task, schedule, config, checkpoint, progress=self.progress, report=self.report)
        for number, stage in enumerate(stages[:-1] if config.record_stages else [], start=1):
            self.record(f"{name}-after-{stage.stage}", task, stage.logits, [*before, *stages[:number]])
        others = [(task, task.rows("train"))] if config.record_training else []
        others += [(external, np.arange(len(external.table)))] if external else []
        more = [(other, rows, final_logits(model, other, rows, schedule, config)) for other, rows in others]
        extra = {}
        if keep_model:
            description = model_description(task, config, self.trunk)
            extra["model.safetensors"] = lambda path: save_model(model, path, description)
        self.record(name, task, stages[-1].logits, [*before, *stages], more=more, extra=extra)
        checkpoint.clear()

    def checkpoint(self, task: Task) -> Checkpoint:
        """The checkpoint that the target task's training writes."""
        settings = self.config.model_dump(mode="json", exclude={"weights"})
        return checkpoint_of(self.out / UNFINISHED, settings, self.trunk.content_hash, task)

    def record(
        self,
        run: str,
        task: Task,
        logits: np.ndarray,
        stages: Sequence[StageResult] = (),
        *,
        chosen: dict | None = None,
        more: Sequence[tuple[Task, np.ndarray, np.ndarray]] = (),
        extra: dict | None = None,
    ) -> None:
        """Record a run from the logits of the task's evaluated rows, and of `more` rows: (task, rows, their logits)."""
        config = self.config
        predicted = [(task, task.evaluated, logits), *more]
        metrics = self.recorder.write(
            run,
            pd.concat([predictions_of(*part, config) for part in predicted], ignore_index=True),
            config={
                **config.model_dump(mode="json", exclude={"weights"}),
                "imagenet": described_trunk(self.trunk),
                "chosen": chosen or {},
            },
            data={**data_of(task), "not_normalised": task.unchanged},
            split={
                "kind": SPLIT_KINDS["patient" if task.name in SOURCES else config.split],
                "parts": task.table["split"].value_counts().sort_index().to_dict(),
                "audit": task.audit,
            },
            history=history(stages),
            timings={"stage_seconds": [stage.seconds for stage in stages]},
            extra=extra,
        )
        part = "validation" if config.rehearsal else "test"
        whole = metrics[part]["image"]["all"]
        self.report(
            f"{run}: {part} accuracy {whole['accuracy']:.3f} ({whole['images']} images, {whole['patients']} patients)"
        )


def checkpoint_of(folder: Path, settings: dict[str, Any], weights: str, task: Task) -> Checkpoint:
    """The checkpoint of a training with these settings from these weights (their hash) on this task."""
    identity = {
        "version": __version__,
        "threads": torch.get_num_threads(),
        "config": settings,
        "trunk": weights,
        "data": fingerprint(task.images, task.hashes),
        "split": task.table["split"].tolist(),
    }
    return Checkpoint(folder, identity)


def _majority(task: Task, trunk: Trunk, config: LadderConfig) -> tuple[np.ndarray, dict]:
    """Logits of the evaluated rows, and settings chosen on training patients."""
    return majority_logits(task.targets[task.rows("train")], len(task.evaluated)), {}


def _probe(
    task: Task, trunk: Trunk, config: LadderConfig, offered: Sequence[float] = PROBE_C
) -> tuple[np.ndarray, dict]:
    """As `_majority`."""
    train = task.rows("train")
    features = frozen_features(initial_model(len(task.classes), trunk, config), task, config)
    groups = task.table["group"].to_numpy()
    probe = frozen_probe(features[train], task.targets[train], groups[train], config.seed, offered)
    chosen = {"C": float(probe.best_params_["logisticregression__C"])}
    return probe_logits(probe, features[task.evaluated]), chosen


BASELINES: dict[Baseline, Callable[[Task, Trunk, LadderConfig], tuple[np.ndarray, dict]]] = {
    "majority": _majority,
    "frozen-probe": _probe,
    "wide-probe": partial(_probe, offered=WIDE_C),
}


def model_description(task: Task, config: LadderConfig, trunk: Trunk) -> dict[str, Any]:
    """What a weights file says of its network: all that `predict` needs, and where it comes from."""
    return {
        "architecture": architecture(len(task.classes), config),
        "classes": list(task.classes),
        "size": config.size,
        "normaliser": config.normaliser,
        "reference": task.colours.reference_parts() if config.normaliser_reference == "training" else [],
        "views": task.predicted_views,
        "profile": config.profile,
        "imagenet": trunk.source,
        "config": config.model_dump(mode="json", exclude={"weights", "device", "threads", "cache"}),
        "data": data_of(task),
    }


def data_of(task: Task) -> dict[str, Any]:
    """The `data` of a record: which images a task has."""
    return {
        "name": task.name,
        "images": len(task.table),
        "patients": int(task.table["patient"].nunique()),
        "fingerprint": fingerprint(task.images, task.hashes),
    }


def predictions_of(task: Task, rows: np.ndarray, logits: np.ndarray, config: LadderConfig) -> pd.DataFrame:
    """The predictions table of some rows of a task."""
    table = task.table.iloc[rows]
    return predictions_table(
        table, task.images.iloc[rows], task.truth.iloc[rows], task.classes, logits,
        part=table["split"], fold=config.fold, seed=config.seed,
    )  # fmt: skip
