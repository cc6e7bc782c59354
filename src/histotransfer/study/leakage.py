"""What a leaking split is worth: one frozen probe, the same images, split by patient and by image.

Every image is predicted once, out of fold. The probe's features are frozen ImageNet DenseNet-121 features, so nothing
but the split differs between two runs.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis, lc25000
from histotransfer.evaluation.baselines import frozen_probe, probe_logits
from histotransfer.evaluation.metrics import evaluate
from histotransfer.models.weights import imagenet_trunk
from histotransfer.splits import (
    FOLDS_FOLDER,
    OFFICIAL_FOLDS,
    content_hashes,
    group_folds,
    images_as_groups,
    read_official_fold,
)
from histotransfer.stain import count_reasons, normaliser
from histotransfer.study.records import environment, fingerprint, write_run
from histotransfer.tiles import TileSource, load_tiles
from histotransfer.transfer.ladder import Report, history, initial_model
from histotransfer.transfer.training import check_device, pooled_features

SETS = {"breakhis": breakhis, "lc25000": lc25000}
UNITS = ("patient", "image")
RUNS = tuple(f"{name}-by-{unit}" for name in SETS for unit in UNITS)


def run_leakage(
    config: LadderConfig, data_root: str | Path, out: str | Path, *, progress: bool = False, report: Report = print
) -> Path:
    """Predict every image of BreakHis and LC25000 out of fold, split by patient (or original) and by image.

    Args:
        config: size, normaliser, folds, seed, device, weights.
        data_root: folder with both data sets.
        out: the experiment's folder; the runs `RUNS` are written into it, and `official_folds.csv` where the published
            folds lie beside the data.
        progress: show bars.
        report: called with one line a run.

    Returns:
        `out`.

    Raises:
        HistotransferError: data or weights that cannot be used.
    """
    check_device(config.device)
    out, root, around = Path(out), Path(data_root).resolve(), environment()
    trunk = imagenet_trunk(config.weights)
    model = initial_model(2, trunk, config)
    for name, dataset in SETS.items():
        started = time.perf_counter()
        table = dataset.load(root)
        tiles, fallbacks = load_tiles(
            table["path"].tolist(), config.size, normaliser(config.normaliser), progress=progress
        )
        features = pooled_features(model, TileSource(tiles), config.batch_size, config.device)
        images = table["path"].map(lambda path: Path(path).relative_to(root).as_posix())
        data = {
            "name": name,
            "images": len(table),
            "patients": int(table["patient"].nunique()),
            "fingerprint": fingerprint(images, content_hashes(table)),
            "not_normalised": count_reasons(fallbacks),
        }
        for unit in UNITS:
            units = table["group"] if unit == "patient" else images_as_groups(table)
            predictions, chosen, shared = out_of_fold(table, images, features, units, dataset.LABELS, config)
            metrics = evaluate(predictions)
            record = {
                "experiment": out.name,
                "run": f"{name}-by-{unit}",
                "profile": config.profile,
                "config": {
                    "size": config.size,
                    "normaliser": config.normaliser,
                    "folds": config.folds,
                    "imagenet": {"source": trunk.source, "content_hash": trunk.content_hash},
                    "chosen": {"C": chosen},
                },
                "data": data,
                "split": {"kind": f"{unit}, out of fold", "parts": {"test": len(table)}, "audit": shared},
                "seed": config.seed,
                "metrics": metrics,
            }
            seconds = {"total_seconds": round(time.perf_counter() - started, 1)}
            write_run(out / record["run"], record, predictions, history(()), {**around, **seconds})
            report(f"{record['run']}: accuracy {metrics['test']['image']['all']['accuracy']:.3f}, {len(table)} images")
    if (root / FOLDS_FOLDER).is_dir():
        official_overlaps(root / FOLDS_FOLDER).to_csv(out / "official_folds.csv", lineterminator="\n")
    return out


def out_of_fold(
    table: pd.DataFrame,
    images: pd.Series,
    features: np.ndarray,
    units: pd.Series,
    classes: tuple[str, ...],
    config: LadderConfig,
) -> tuple[pd.DataFrame, list[float], dict]:
    """Predictions of every image by the probe that did not see its fold.

    Args:
        table: N images.
        images: their portable names.
        features: ``(N, C)``.
        units: ``(N,)`` what is kept together: patients, or single images. C is chosen the same way inside training.
        classes: labels in the order of the logits.
        config: folds and seed.

    Returns:
        A predictions table, the C chosen in each fold, and for each fold how many groups its two sides share.
    """
    targets = table["label"].map(classes.index).to_numpy()
    logits, fold_of = np.empty((len(table), len(classes))), np.empty(len(table), dtype=int)
    chosen, shared = [], {}
    for fold, test in enumerate(group_folds(table["label"], units, config.folds, config.seed)):
        probe = frozen_probe(features[~test], targets[~test], units[~test].to_numpy(), config.seed)
        logits[test], fold_of[test] = probe_logits(probe, features[test]), fold
        chosen.append(float(probe.best_params_["logisticregression__C"]))
        groups = [set(table.loc[side, "group"]) for side in (test, ~test)]
        shared[f"fold {fold}"] = {"groups": len(groups[0] & groups[1]), "of": len(groups[0])}
    frame = table[["patient", "group", "magnification", "subtype"]].assign(
        part="test", fold=fold_of, seed=config.seed, truth=table["label"]
    )
    frame.insert(0, "image", images)
    return frame.join(pd.DataFrame(logits, columns=[f"logit_{name}" for name in classes])), chosen, shared


def official_overlaps(folder: str | Path) -> pd.DataFrame:
    """What the five official splits of BreakHis share between training and test, from their file lists alone.

    Args:
        folder: holds `dsfold1.txt` to `dsfold5.txt`.

    Returns:
        One row a fold: images, slide ids and base numbers in test, and how many of either stand in training as well.

    Raises:
        HistotransferError: a list is missing or broken.
    """
    rows = []
    for fold in range(1, OFFICIAL_FOLDS + 1):
        parts = read_official_fold(Path(folder) / f"dsfold{fold}.txt")
        names = {part: [breakhis.parse_name(n) for n, p in parts.items() if p == part] for part in ("train", "test")}
        ids = {part: {name.slide_id for name in own} for part, own in names.items()}
        bases = {part: {name.base_number for name in own} for part, own in names.items()}
        rows.append(
            {
                "fold": fold,
                "test images": len(names["test"]),
                "test slide ids": len(ids["test"]),
                "in training too": len(ids["test"] & ids["train"]),
                "test base numbers": len(bases["test"]),
                "of these in training": len(bases["test"] & bases["train"]),
            }
        )
    return pd.DataFrame(rows).set_index("fold")
