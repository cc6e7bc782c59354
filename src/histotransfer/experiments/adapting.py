"""What a few labelled patients of one's own are worth to a trained network: a learning curve over their number.

The patients are dealt into folds. Each fold is kept apart once; of the others some are labelled, balanced by class, and
the network learns from them: first its head, then its head and block 4. So every patient is predicted by networks that
never saw it, and whatever the number of labelled patients, the patients that are predicted are the same. Several draws
say how much depends on who is labelled. A draw of more patients holds those of the draw of fewer.

Beside it stands what the network says untouched (`BEFORE`), and the bar, from the same labelled patients: the larger
class, and a probe on ImageNet's features.

Rates are those of the profile. The schedule was chosen on phantom tissue that is stained differently, and fixed before
the experiment was run on UCSB: nothing was tuned there.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from histotransfer.config import LadderConfig, ProfileName, ladder_config
from histotransfer.datasets.summary import described
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.dose import kernels
from histotransfer.files import file_hash
from histotransfer.folders import PassedOver
from histotransfer.models.description import Description, describe
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, imagenet_trunk, load_model
from histotransfer.records import fingerprint
from histotransfer.splits import group_folds
from histotransfer.study.dose import dose_of_target
from histotransfer.study.recorder import Recorder, described_trunk
from histotransfer.study.runner import BASELINES, BESIDE, data_of, predictions_of, use_threads
from histotransfer.study.tasks import foreign_task
from histotransfer.transfer.stages import Report, StageResult, each_stage, final_logits, history
from histotransfer.transfer.task import Task

BEFORE = "before"
SCHEDULE = "head:100,block4:20"  # its stages are the arms: the network is recorded as of each
DRAWS = 5


def run(
    weights: str | Path,
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    own: str | Path | None = None,
    pattern: str = "",
    profile: ProfileName = "lite",
    settings: Mapping[str, Any] | None = None,
    draws: int = DRAWS,
    progress: bool = False,
    verbose: bool = False,
    report: Report = print,
) -> Path:
    """Adapt a network to labelled patients and predict the others, for a growing number of labelled patients.

    Args:
        weights: the network, a file written by this project.
        out: the experiment's folder; the runs are `BEFORE`, and ``<arm>-<patients>-s<draw>`` for each stage of
            the schedule and each of `BESIDE`.
        data_root: folder with UCSB, which is then adapted to by slide.
        own: one's own images in its place; as `study.runner.run_ladder` takes them.
        pattern: likewise.
        profile: phantom, lite or paper.
        settings: that replace those of the profile and of the network; the schedule's is `SCHEDULE`.
        draws: how often labelled patients are drawn.
        progress: show bars.
        verbose: name every file that was passed over.
        report: called with one line per run.

    Returns:
        `out`.

    Raises:
        HistotransferError: the network or the images cannot be used, the network was trained on these images, or there
            are too few patients for the folds.
    """
    weights = Path(weights)
    model, metadata = load_model(weights)
    known = describe(metadata, weights)
    config = ladder_config(profile, {**_of_the_network(known), "breakhis_schedule": SCHEDULE, **(settings or {})})
    use_threads(config)
    adapting = _Adapting(config, weights, model, out)
    passed_over: list[PassedOver] = []
    task = foreign_task(known, config, data_root, own, pattern, passed_over, progress=progress)
    report(described(task.table, passed_over, verbose=verbose))
    if known.data and known.data.fingerprint == fingerprint(task.images, task.hashes):
        raise HistotransferError(f"{weights}: was trained on these very images; give others")
    folds = kept_apart(task.table, config)
    report(adapting.before(task, folds))
    for draw in range(draws):
        for labelled in numbers(task.table, folds, len(task.classes)):
            for line in adapting.after(task, folds, labelled, draw):
                report(line)
    return Path(out)


def _of_the_network(known: Description) -> dict[str, Any]:
    """How pictures are prepared for a network, as settings."""
    mean = known.views.augmentation != "none"
    views = {"augmentation": known.views.augmentation} if mean else {}
    return {"size": known.size, "normaliser": known.normaliser, "source": "none", "average_views": mean, **views}


def kept_apart(table: pd.DataFrame, config: LadderConfig) -> list[np.ndarray]:
    """Masks ``(N,)`` of the images of the patients that are kept apart, fold by fold: every patient once."""
    return group_folds(table["label"], table["group"], config.folds, config.seed)


def numbers(table: pd.DataFrame, folds: Sequence[np.ndarray], classes: int) -> list[int]:
    """How many patients are labelled: one of each class, then doubled, at last all that any fold has."""
    most = min(table.loc[~apart, "group"].nunique() for apart in folds)
    doubled = [classes * 2**i for i in range(most.bit_length()) if classes * 2**i < most]
    return [*doubled, most]


def labelling_order(table: pd.DataFrame, seed: Sequence[int]) -> list[str]:
    """The patients of an image table in the order in which they are labelled: random, but balanced by class.

    Next is always a patient of the class that fewest patients have so far. A patient with images of several classes
    counts for each.

    Args:
        table: an image table.
        seed: entropy of the order.
    """
    classes_of = {group: set(labels) for group, labels in table.groupby("group")["label"]}
    left = np.random.default_rng(seed).permutation(sorted(classes_of)).tolist()
    have = dict.fromkeys(sorted(set(table["label"])), 0)
    order = []
    while left:
        by_need = sorted(have, key=have.__getitem__)  # stable: of equal classes the first by name
        taken = next(group for label in by_need for group in left if label in classes_of[group])
        left.remove(taken)
        order.append(taken)
        for label in classes_of[taken]:
            have[label] += 1
    return order


class _Adapting:
    """The runs of one network: before it learns, and after.

    Args:
        config: all settings.
        weights: the network's file.
        model: the network.
        out: the experiment's folder.
    """

    def __init__(self, config: LadderConfig, weights: Path, model: SEDenseNet, out: str | Path):
        self.config, self.model, self.out = config, model, Path(out)
        self.recorder = Recorder(config, out)
        self.network = {"file": weights.name, "sha256": file_hash(weights)}
        self.trunk: Trunk = imagenet_trunk(config.weights)

    def before(self, task: Task, folds: Sequence[np.ndarray]) -> str:
        """Record what the untouched network says of every patient."""
        every = task.split_anew(np.full(len(task.table), "test"))
        logits = final_logits(self._copy(), every, every.evaluated, self.config.breakhis_schedule, self.config)
        of_folds = _Results()
        for fold, apart in enumerate(folds):
            rows = np.flatnonzero(apart)
            of_folds.predictions.append(predictions_of(every, rows, logits[rows], self._in(fold, 0)))
        return self._record(BEFORE, 0, 0, every, of_folds)

    def after(self, task: Task, folds: Sequence[np.ndarray], labelled: int, draw: int) -> Iterator[str]:
        """Record every arm after learning from so many labelled patients."""
        arms = [*BESIDE, *(stage for stage, _ in self.config.breakhis_schedule)]
        results = {arm: _Results() for arm in arms}
        for fold, apart in enumerate(folds):
            config, split = self._in(fold, draw), _labelled(task, apart, labelled, (draw, fold))
            logits: dict[str, np.ndarray] = {name: BASELINES[name](split, self.trunk, config) for name in BESIDE}
            for stage, dose in self._trained(split, config):
                logits[stage.stage] = stage.logits
                results[stage.stage].histories.append(history([stage]).assign(fold=fold))
                results[stage.stage].doses.append(dose)
            for arm in arms:
                results[arm].predictions.append(predictions_of(split, split.evaluated, logits[arm], config))
        for arm in arms:
            yield self._record(arm, labelled, draw, split, results[arm])

    def _trained(self, task: Task, config: LadderConfig) -> Iterator[tuple[StageResult, dict[str, Any]]]:
        """The network as of each stage, with what was done to it since before the first."""
        model, start = self._copy(), kernels(self.model)
        head = self.model.classifier.weight.detach()
        for result in each_stage(model, task, config.breakhis_schedule, config, report=lambda line: None):
            moved = model.classifier.weight.detach().cpu() - head
            dose = dose_of_target(task, [result], start, model)
            dose["moved"] |= {"head": float(torch.linalg.vector_norm(moved) / torch.linalg.vector_norm(head))}
            yield result, dose

    def _copy(self) -> SEDenseNet:
        return copy.deepcopy(self.model).to(self.config.device).to(memory_format=torch.channels_last)

    def _in(self, fold: int, draw: int) -> LadderConfig:
        return self.config.model_copy(update={"fold": fold, "seed": draw})

    def _record(self, arm: str, labelled: int, draw: int, task: Task, results: "_Results") -> str:
        run = f"{arm}-{labelled}-s{draw}" if labelled else arm
        whole = pd.concat(results.predictions, ignore_index=True)
        metrics = self.recorder.write(
            run,
            whole,
            config={
                **self.config.model_dump(mode="json", exclude={"weights", "fold", "seed"}),
                "imagenet": described_trunk(self.trunk),
                "network": self.network,
                "arm": arm,
                "labelled": labelled,
                "draw": draw,
            },
            data={**data_of(task), "not_normalised": task.unchanged},
            split={"kind": "patient, out of fold", "parts": {"test": len(whole)}, "audit": task.audit},
            history=pd.concat(results.histories, ignore_index=True) if results.histories else history([]),
            dose=_mean(results.doses) if results.doses else None,
        )["test"]["image"]["all"]
        return f"{run}: accuracy {metrics['accuracy']:.3f}, log-loss {metrics['log_loss']:.3f}"


@dataclass(frozen=True)
class _Results:
    """Of an arm, one of each a fold."""

    predictions: list[pd.DataFrame] = field(default_factory=list)
    histories: list[pd.DataFrame] = field(default_factory=list)
    doses: list[dict[str, Any]] = field(default_factory=list)


def _labelled(task: Task, apart: np.ndarray, number: int, seed: Sequence[int]) -> Task:
    """The task with so many labelled patients to train on, and the patients that are kept apart as its test part."""
    taken = labelling_order(task.table[~apart], seed)[:number]
    parts = np.where(task.table["group"].isin(taken), "train", "not labelled")
    return task.split_anew(np.where(apart, "test", parts))


def _mean(doses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of every number of equal nested mappings."""
    return {
        name: _mean([dose[name] for dose in doses])
        if isinstance(value, Mapping)
        else float(np.mean([dose[name] for dose in doses]))
        for name, value in doses[0].items()
    }
