"""One run, from images to its record: a network trained from ImageNet to the target task, or a baseline."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from histotransfer import __version__
from histotransfer.config import Baseline, LadderConfig, Method, cache_dir
from histotransfer.datasets.summary import described
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.baselines import frozen_probe, majority_logits, probe_logits
from histotransfer.evaluation.dose import kernels
from histotransfer.evaluation.familiarity import Familiarity
from histotransfer.files import remove_leftovers, write_csv
from histotransfer.folders import PassedOver, said
from histotransfer.models.se_densenet import SEDenseNet, WithFeatures
from histotransfer.models.weights import Trunk, imagenet_trunk, save_model
from histotransfer.records import LOSSES, fingerprint
from histotransfer.study.dose import dose_of_source, dose_of_target
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
OF_THE_TARGET = {  # settings that the source task does not depend on
    "profile", "breakhis_schedule", "train_magnifications", "split", "allow_leakage", "fold", "weights",
    "target", "external", "record_stages", "record_training", "record_losses", "record_views",
    "normaliser_reference", "validation_offset",
}  # fmt: skip


def run_ladder(
    config: LadderConfig,
    data_root: str | Path | None,
    out: str | Path,
    *,
    own: str | Path | None = None,
    pattern: str = "",
    progress: bool = False,
    verbose: bool = False,
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
        verbose: name every file that was passed over, not only their number.
        report: called with one line per step.

    Returns:
        The folder of the final run, ``out/ladder``.

    Raises:
        HistotransferError: the data, the weights or the output folder cannot be used.
    """
    use_threads(config)  # first: a record's provenance says how many there are
    training = _Training(config, out, report, progress=progress, verbose=verbose)
    target = training.target(data_root, own, pattern)
    for name in BESIDE:
        training.run_baseline(name, target, name)
    model, source, before = training.pretrained(data_root, len(target.classes))
    if source is not None:
        training.record(source.name, source, before[-1].logits, before)
    external = training.external(target, data_root)
    training.train_target("ladder", model, target, source, before, external, keep_model=True)
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
    target = training.target(data_root)
    if method == "ladder":
        model, source, before = training.pretrained(data_root, len(target.classes))
        external = training.external(target, data_root)
        training.train_target(name, model, target, source, before, external)
    else:
        training.run_baseline(method, target, name)
    return Path(out) / name


def train_unrecorded(
    config: LadderConfig, data_root: str | Path, out: str | Path, *, progress: bool = False, report: Report = print
) -> tuple[SEDenseNet, Task, dict[str, Any]]:
    """Train a network and record nothing; return it, the target task, and the network's description.

    Args:
        config: all settings; with ``split="none"`` every patient is trained on, and none is left to test on.
        data_root: folder of the data sets.
        out: folder for the checkpoint of an unfinished training.
        progress: show bars.
        report: called with one line per step.
    """
    use_threads(config)
    training = _Training(config, out, report, progress=progress)
    target = training.target(data_root)
    model, _, _ = training.pretrained(data_root, len(target.classes))
    checkpoint = training.checkpoint(target)
    train_stages(model, target, config.breakhis_schedule, config, checkpoint, progress=progress, report=report)
    checkpoint.clear()
    return model, target, model_description(target, config, training.trunk)


@torch.inference_mode()
def features_of(model: SEDenseNet, task: Task, part: str) -> np.ndarray:
    """What `Familiarity` is fitted to: features ``(M, C)`` of the upright images of a part, as `WithFeatures` gives."""
    source, rows, network = task.predicted_source, task.rows(part), WithFeatures(model.eval())
    batches = np.array_split(rows, -(-len(rows) // task.config.batch_size))
    outputs = [network(source.batch(batch, np.zeros_like(batch)).to(task.config.device)).cpu() for batch in batches]
    return torch.cat(outputs)[:, len(task.classes) :].numpy()


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
        verbose: name every file that was passed over.

    Raises:
        HistotransferError: the weights, the device or the output folder cannot be used.
    """

    def __init__(self, config: LadderConfig, out: str | Path, report: Report, *, progress: bool, verbose: bool = False):
        remove_leftovers(cache_dir())
        self.recorder = Recorder(config, out)
        check_device(config.device)
        self.config, self.out, self.report = config, Path(out), report
        self.progress, self.verbose = progress, verbose
        self.trunk = imagenet_trunk(config.weights)
        report(f"ImageNet weights: {self.trunk.source}, content hash {self.trunk.content_hash[:12]}")

    def target(self, data_root: str | Path | None, own: str | Path | None = None, pattern: str = "") -> Task:
        """The target task; a table of its images is reported, and what was passed over."""
        passed_over: list[PassedOver] = []
        task = target_task(self.config, data_root, own, pattern, passed_over, progress=self.progress)
        by = "subtype" if self.config.target == "subtype" else "label"
        self.report(described(task.table, passed_over, verbose=self.verbose, by=by))
        return task

    def external(self, target: Task, data_root: str | Path | None) -> Task | None:
        """The external set, if the configuration asks for it; what was passed over is reported."""
        if not self.config.external:
            return None
        passed_over: list[PassedOver] = []
        task = external_task(target, self.config, data_root, passed_over)
        self._say(task.name, passed_over)
        return task

    def _say(self, name: str, passed_over: list[PassedOver]) -> None:
        for line in said(passed_over, verbose=self.verbose):
            self.report(f"{name}: {line}")

    def run_baseline(self, method: Baseline, task: Task, run: str) -> None:
        """Predict with a baseline and record it."""
        self.record(run, task, BASELINES[method](task, self.trunk, self.config))

    def pretrained(
        self, data_root: str | Path | None, classes: int
    ) -> tuple[SEDenseNet, Task | None, list[StageResult]]:
        """The network that the target task starts from, its source task (or None), and the stages of that training.

        The source task is trained once for all folds and arms that share it: its checkpoint stays in the cache.
        """
        config = self.config
        if config.source == "none" or data_root is None:
            return initial_model(classes, self.trunk, config), None, []
        passed_over: list[PassedOver] = []
        task = source_task(config, data_root, passed_over, progress=self.progress)
        self._say(task.name, passed_over)
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
        source: Task | None,
        before: list[StageResult],
        external: Task | None,
        *,
        keep_model: bool = False,
    ) -> None:
        """Train the target task; record the final network as `name`.

        With `record_stages` every earlier stage is recorded as `name-after-<stage>`; with `record_views` the final
        network's predictions by fewer views as `name-with-<number>-views`; with `record_training` it also predicts its
        training images; with `record_losses` it writes `LOSSES`. It predicts `external` too, a data set on which
        nothing was chosen.
        """
        config, schedule = self.config, self.config.breakhis_schedule
        checkpoint, start, dose = self.checkpoint(task), kernels(model), {}
        if source is not None:
            initial = initial_model(len(task.classes), self.trunk, config)
            dose["source"] = dose_of_source(source, before, initial, model, task, config)
        stages = train_stages(model, task, schedule, config, checkpoint, progress=self.progress, report=self.report)
        for number, stage in enumerate(stages[:-1] if config.record_stages else [], start=1):
            self.record(f"{name}-after-{stage.stage}", task, stage.logits, [*before, *stages[:number]])
        for views in config.record_views:
            logits = final_logits(model, task, task.evaluated, schedule, config, views)
            self.record(f"{name}-with-{views}-views", task, logits, [*before, *stages])
        others = [(task, task.rows("train"))] if config.record_training else []
        others += [(external, np.arange(len(external.table)))] if external else []
        more = [(other, rows, final_logits(model, other, rows, schedule, config)) for other, rows in others]
        extra = {}
        if config.record_losses:
            extra[LOSSES] = lambda path: write_csv(path, losses_table(task, stages))
        if keep_model:
            description, beside = model_description(task, config, self.trunk), self.beside(model, task)
            extra["model.safetensors"] = lambda path: save_model(model, path, description, beside)
        dose |= dose_of_target(task, stages, start, model)
        self.record(name, task, stages[-1].logits, [*before, *stages], dose=dose, more=more, extra=extra)
        checkpoint.clear()

    def beside(self, model: SEDenseNet, task: Task) -> dict[str, np.ndarray]:
        """How `predict` knows a picture unlike those of training, judged by the validation part; or nothing."""
        if not len(task.rows("validation")):
            return {}
        try:
            fitted = Familiarity.fit(features_of(model, task, "train"))
        except HistotransferError as error:
            self.report(str(error))
            return {}
        return fitted.with_threshold(fitted.distances(features_of(model, task, "validation"))).tensors()

    def checkpoint(self, task: Task) -> Checkpoint:
        """The checkpoint that the target task's training writes."""
        settings = self.config.model_dump(mode="json", exclude={"weights"})
        return checkpoint_of(self.out, settings, self.trunk.content_hash, task)

    def record(
        self,
        run: str,
        task: Task,
        logits: np.ndarray,
        stages: Sequence[StageResult] = (),
        *,
        dose: dict[str, Any] | None = None,
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
            },
            data={**data_of(task), "not_normalised": task.unchanged},
            split={
                "kind": SPLIT_KINDS["patient" if task.name in SOURCES else config.split],
                "parts": task.table["split"].value_counts().sort_index().to_dict(),
                "audit": task.audit,
            },
            history=history(stages),
            dose=dose,
            timings={"stage_seconds": [stage.seconds for stage in stages]},
            extra=extra,
        )
        part = "validation" if config.rehearsal else "test"
        whole = metrics[part]["image"]["all"]
        self.report(
            f"{run}: {part} accuracy {whole['accuracy']:.3f} ({whole['images']} images, {whole['patients']} patients)"
        )


def losses_table(task: Task, stages: Sequence[StageResult]) -> pd.DataFrame:
    """The log-loss of every training and validation image in every epoch, one row per image.

    Columns: `image`, `group`, `magnification`, `part`, `truth`, `epoch_1`, `epoch_2`, ... (nats).
    Epochs are numbered over all stages, from 1. A training image has no loss in an epoch whose last, incomplete batch
    held it.
    """
    rows = task.rows("train", "validation")
    losses = np.vstack([stage.losses for stage in stages])
    about = {
        "image": task.images.iloc[rows].to_numpy(),
        "group": task.table["group"].iloc[rows].to_numpy(),
        "magnification": task.table["magnification"].iloc[rows].to_numpy(),
        "part": task.table["split"].iloc[rows].to_numpy(),
        "truth": task.truth.iloc[rows].to_numpy(),
    }
    columns = {f"epoch_{number}": epoch.round(5) for number, epoch in enumerate(losses, 1)}
    return pd.DataFrame(about | columns)


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


def _majority(task: Task, trunk: Trunk, config: LadderConfig) -> np.ndarray:
    """Logits of the evaluated rows."""
    return majority_logits(task.targets[task.rows("train")], len(task.evaluated))


def _probe(task: Task, trunk: Trunk, config: LadderConfig) -> np.ndarray:
    """As `_majority`."""
    train = task.rows("train")
    features = frozen_features(initial_model(len(task.classes), trunk, config), task, config)
    return probe_logits(frozen_probe(features[train], task.targets[train]), features[task.evaluated])


BASELINES: dict[Baseline, Callable[[Task, Trunk, LadderConfig], np.ndarray]] = {
    "majority": _majority,
    "frozen-probe": _probe,
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
