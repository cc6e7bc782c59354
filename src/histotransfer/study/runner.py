"""Runs from images to records."""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis, lc25000
from histotransfer.datasets import own as own_data
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.baselines import frozen_probe, majority_logits, probe_logits
from histotransfer.evaluation.metrics import evaluate
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, imagenet_trunk, save_model
from histotransfer.splits import grouped_split, make_split
from histotransfer.study.records import environment, fingerprint, write_run
from histotransfer.tiles import symmetric_views
from histotransfer.transfer.ladder import (
    Report,
    Rung,
    architecture,
    climb,
    initial_model,
    keep_copies,
    next_rung,
    prepare_rung,
)
from histotransfer.transfer.training import check_device, pooled_features, predict_logits

RUNS = ("majority", "frozen-probe", "lc25000", "ladder")
SPLIT_KINDS = {"patient": "patient", "image": "image", "official": "slide id"}  # as a record names them
NO_HISTORY = pd.DataFrame(columns=["rung", "stage", "epoch"])


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
    """Climb the ladder once; the test part is predicted once, at the end, beside both baselines on the same split.

    Args:
        config: all settings.
        data_root: folder with `BreaKHis_v1`, `lung_colon_image_set` and `lc25000_groups`; None (with `own` only) leaves
            the LC25000 rung out.
        out: the experiment's folder; the runs `RUNS` are written into it.
        own: one's own images, which take the place of BreakHis: a CSV, or a folder per class.
        pattern: for a folder, how a file's path says whose image it is (`datasets.own.load_folders`).
        progress: show bars.
        report: called with one line a step.

    Returns:
        The folder of the final run, ``out/ladder``.

    Raises:
        HistotransferError: data, weights or an output folder that cannot be used.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise HistotransferError(f"{out}: is a file; give a folder for the records")
    check_device(config.device)
    trunk = imagenet_trunk(config.weights)
    report(f"ImageNet weights: {trunk.source}, content hash {trunk.content_hash[:12]}")
    recorder = _Recorder(config, trunk, out, report)
    last = last_rung(config, data_root, own, pattern, progress=progress)
    for name, logits, chosen in _baselines(last, trunk, config):
        recorder.write(name, last, logits, chosen=chosen)

    if data_root is None:
        model, history, seconds = initial_model(len(last.classes), trunk, config), NO_HISTORY, []
    else:
        lung = lung_rung(config, data_root, progress=progress)
        model = initial_model(len(lung.classes), trunk, config)
        history, seconds = climb(model, lung, config, progress=progress, report=report)
        recorder.write("lc25000", lung, _logits(model, lung, config), history, seconds)
        model = next_rung(model, len(last.classes), config)
    climbed, more = climb(model, last, config, progress=progress, report=report)
    history = pd.concat([history, climbed], ignore_index=True) if len(history) else climbed
    recorder.write("ladder", last, _logits(model, last, config), history, seconds + more, model=model)
    return out / "ladder"


def lung_rung(config: LadderConfig, data_root: str | Path, *, progress: bool = False) -> Rung:
    """LC25000 (lung), always split by original, with few training copies of each."""
    root = Path(data_root).resolve()
    split = grouped_split(lc25000.load(root), fold=config.fold, folds=config.folds, seed=config.seed)
    if config.lc25000_copies:
        split = keep_copies(split, config.lc25000_copies, config.seed)
    return prepare_rung(split, lc25000.LABELS, lc25000.VIEWS, root, config, progress=progress)


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
    return prepare_rung(make_split(table, config, root), classes, views, root, config, progress=progress)


def _evaluated(rung: Rung) -> np.ndarray:
    return np.concatenate([rung.rows("validation"), rung.rows("test")])


def _logits(model: SEDenseNet, rung: Rung, config: LadderConfig) -> np.ndarray:
    return predict_logits(model, rung.subset(_evaluated(rung)), config.batch_size, config.device)


def _baselines(rung: Rung, trunk: Trunk, config: LadderConfig):
    """Name, logits of the evaluated rows, and what was chosen on training patients, of each baseline."""
    train, evaluated = rung.rows("train"), _evaluated(rung)
    yield "majority", majority_logits(rung.targets[train], len(evaluated)), {}
    features = pooled_features(
        initial_model(len(rung.classes), trunk, config), rung.source, config.batch_size, config.device
    )
    groups = rung.table["group"].to_numpy()[train]
    probe = frozen_probe(features[train], rung.targets[train], groups, config.seed)
    chosen = {"C": float(probe.best_params_["logisticregression__C"])}
    yield "frozen-probe", probe_logits(probe, features[evaluated]), chosen


class _Recorder:
    """Writes the runs of one experiment."""

    def __init__(self, config: LadderConfig, trunk: Trunk, out: Path, report: Report):
        self.config, self.trunk, self.out, self.report = config, trunk, out, report
        self.environment = environment()  # now: the checkout may have moved on when a long run ends
        self.started = time.perf_counter()

    def write(
        self,
        run: str,
        rung: Rung,
        logits: np.ndarray,
        history: pd.DataFrame = NO_HISTORY,
        stage_seconds: list[float] | None = None,
        *,
        chosen: dict | None = None,
        model: SEDenseNet | None = None,
    ) -> None:
        predictions = predictions_table(rung, _evaluated(rung), logits, self.config)
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
            "data": {
                "name": rung.name,
                "images": len(rung.table),
                "patients": int(rung.table["patient"].nunique()),
                "fingerprint": fingerprint(rung.images, rung.hashes),
                "not_normalised": rung.unchanged,
            },
            "split": {
                "kind": SPLIT_KINDS["patient" if rung.name == "lc25000" else self.config.split],
                "parts": rung.table["split"].value_counts().sort_index().to_dict(),
                "audit": rung.audit,
            },
            "seed": self.config.seed,
            "metrics": metrics,
        }
        provenance = {
            **self.environment,
            "stage_seconds": stage_seconds or [],
            "total_seconds": round(time.perf_counter() - self.started, 1),
        }
        extra = {}
        if model is not None:
            description = model_description(rung, self.config, self.trunk)
            extra["model.safetensors"] = lambda path: save_model(model, path, description)
        write_run(self.out / run, record, predictions, history, provenance, extra)
        test = metrics["test"]["image"]["all"]
        self.report(
            f"{run}: test accuracy {test['accuracy']:.3f} ({test['images']} images, {test['patients']} patients)"
        )


def model_description(rung: Rung, config: LadderConfig, trunk: Trunk) -> dict:
    """What `predict` must know of a weights file, and what its reader should."""
    return {
        "architecture": architecture(len(rung.classes), config),
        "classes": list(rung.classes),
        "size": config.size,
        "normaliser": config.normaliser,
        "profile": config.profile,
        "imagenet": trunk.source,
    }


def predictions_table(rung: Rung, rows: np.ndarray, logits: np.ndarray, config: LadderConfig) -> pd.DataFrame:
    """One row an image: `image, patient, group, magnification, subtype, part, fold, seed, truth, logit_*`."""
    table = rung.table.iloc[rows].reset_index(drop=True)
    frame = table[["patient", "group", "magnification", "subtype"]].assign(
        part=table["split"], fold=config.fold, seed=config.seed, truth=table["label"]
    )
    frame.insert(0, "image", rung.images.iloc[rows].reset_index(drop=True))
    return frame.join(pd.DataFrame(logits, columns=[f"logit_{name}" for name in rung.classes]))
