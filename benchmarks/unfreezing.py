"""Race of progressive unfreezing from cached activations against stock fastai, side by side.

    python benchmarks/unfreezing.py --data DIR

`DIR` holds the BreakHis images. Both sides train DenseNet-121 from the same ImageNet weights on the same folds, tiles
of 224 pixels, batches of 32: four epochs of the head, eight of the head and block 4, in each of five folds; in the
first fold four of block 3 as well; then one epoch of everything. Stock fastai is what its documentation shows:
torchvision's network, files decoded, squeezed, flipped and rotated on the fly, `Learner`, `freeze_to`; as it comes
(BatchNorm learns below the frozen line) or with `train_bn=False`, whichever is the faster in a first heat of one fold.
Each side runs in a process of its own, cold, with an empty cache; with `--keep DIR` what it found is kept there, and a
race that was broken off goes on. `ratios` are stock seconds over our seconds; `operations` says where the
time of one more epoch of everything goes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from histotransfer.config import cache_dir, ladder_config
from histotransfer.datasets import breakhis
from histotransfer.evaluation.intervals import differences, intervals
from histotransfer.files import write_json
from histotransfer.models.weights import imagenet_trunk
from histotransfer.records import environment
from histotransfer.splits import grouped_split

FOLDS, SIZE, BATCH = 5, 224, 32
HEAD, BLOCK4, BLOCK3 = 4, 8, 4
RATE, DECAY = 1e-3, 0.1
STOCK = ("stock", "stock-frozen-batchnorm")
KINDS = {  # of operations, by parts of PyTorch's names for them
    "convolutions": ("conv",),
    "batch normalisation": ("batch_norm",),
    "ReLU": ("relu", "threshold", "clamp"),
    "pooling": ("pool",),
    "joining and splitting of channels": ("cat", "slice", "narrow", "copy"),
    "the optimiser": ("foreach", "fused", "addcmul", "addcdiv", "lerp"),
}


def subset(root: Path, images: int) -> pd.DataFrame:
    """Every n-th image of each patient, so that all patients are in."""
    table = breakhis.load(root).sort_values(["group", "path"], ignore_index=True)
    rows = np.unique(np.linspace(0, len(table) - 1, images).round().astype(int))
    return table.iloc[rows].reset_index(drop=True)


def splits(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Folds whose test part is left out: nothing is predicted but validation images."""
    return [grouped_split(table, fold=fold, folds=FOLDS, seed=0) for fold in range(FOLDS)]


def operations(train: Callable[[], None]) -> dict[str, float]:
    """Seconds that training in this process spends in each kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        train()
    seconds = dict.fromkeys((*KINDS, "the rest"), 0.0)
    for event in profiled.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "the rest")
        seconds[kind] += event.self_cpu_time_total / 1e6
    return seconds


def ours(table: pd.DataFrame, root: Path, size: int, folds: int) -> dict:
    from histotransfer.tiles import Subset
    from histotransfer.transfer.prefix_cache import cached_source
    from histotransfer.transfer.stages import initial_model, train_stages
    from histotransfer.transfer.task import Task
    from histotransfer.transfer.training import Batches, train_stage

    config = ladder_config(
        "lite",
        {
            "normaliser": "none",
            "class_weights": False,
            "learning_rate": RATE,
            "rate_decay": DECAY,
            "batch_size": BATCH,
            "size": size,
        },
    )
    trunk = imagenet_trunk()
    seconds, validation, told = [], [], {}
    for split in splits(table)[:folds]:
        started = time.perf_counter()
        task = Task(split, breakhis.LABELS, breakhis.VIEWS, root, config)
        model = initial_model(2, trunk, config)
        stages = train_stages(model, task, [("head", HEAD), ("block4", BLOCK4)], config, report=lambda line: None)
        seconds.append(time.perf_counter() - started)
        count = len(task.rows("validation"))
        validation.append(predictions(split, stages[-1].logits[:count], len(seconds)))
        if not told:
            train_stages(model, task, [("block3", BLOCK3)], config, report=lambda line: None)
            told["with_block3"] = time.perf_counter() - started
    told |= {"cross_validation": sum(seconds), "folds": seconds}

    task = Task(splits(table)[0], breakhis.LABELS, breakhis.VIEWS, root, config)
    train, held = task.rows("train"), task.rows("validation")
    for stage, cut in (("head", 5), ("block4", 4), ("block3", 3), ("all", 0)):
        model = initial_model(2, trunk, config).eval()
        source = cached_source(task.source, model, (4,), cut, "cpu")
        if cut:
            filling = time.perf_counter()
            every = np.divmod(np.arange(len(task.table) * 4), 4)
            for start in range(0, len(every[0]), BATCH):
                source.batch(*(part[start : start + BATCH] for part in every))
            told[f"fill_{stage}"] = time.perf_counter() - filling
        ends = [time.perf_counter()]

        def epochs(model=model, source=source, stage=stage, cut=cut, ends=ends):
            train_stage(
                model,
                Batches(Subset(source, train), task.targets[train], BATCH, (0,), "cpu"),
                Batches(Subset(source, held), task.targets[held], BATCH, None, "cpu"),
                stage,
                3 if cut else 1,
                config,
                start=cut,
                keep=lambda state: ends.append(time.perf_counter()),
            )

        epochs()
        told[f"{stage}_epochs"] = np.diff(ends).tolist()
    told["operations"] = operations(epochs)  # of everything, the last stage
    return told | {"validation": pd.concat(validation).to_dict("list"), "train_images": len(train)}


def stock(table: pd.DataFrame, size: int, *, train_bn: bool, folds: int) -> dict:
    from fastai.vision import all as fastai
    from torchvision.models import densenet121

    trunk = imagenet_trunk()
    ends = []

    class Clock(fastai.Callback):
        def after_epoch(self):
            ends.append(time.perf_counter())

    def learner(split):
        frame = split[split["split"] != "test"].assign(is_valid=lambda own: own["split"] == "validation")
        loaders = fastai.DataBlock(
            blocks=(fastai.ImageBlock, fastai.CategoryBlock),
            get_x=fastai.ColReader("path"),
            get_y=fastai.ColReader("label"),
            splitter=fastai.ColSplitter(),
            item_tfms=fastai.Resize(size, method=fastai.ResizeMethod.Squish),
            batch_tfms=[
                *fastai.aug_transforms(flip_vert=True, max_rotate=180, max_zoom=1, max_lighting=0, max_warp=0),
                fastai.Normalize.from_stats(*fastai.imagenet_stats),
            ],
        ).dataloaders(frame, bs=BATCH)
        torch.manual_seed(0)
        net = densenet121(weights=None, num_classes=2)
        net.load_state_dict(trunk.state, strict=False)
        made = fastai.Learner(
            loaders,
            net,
            loss_func=fastai.CrossEntropyLossFlat(),
            splitter=lambda own: [
                fastai.params(part)
                for part in (own.features[:-4], own.features[-4:-2], own.features[-2:], own.classifier)
            ],
            metrics=[fastai.accuracy, fastai.RocAucBinary()],
            train_bn=train_bn,
            cbs=[Clock()],
        )
        return made, frame

    seconds, validation, stages, told = [], [], {"head": [], "block4": [], "block3": []}, {}

    def train(made, stage, down_to, epochs):
        made.freeze_to(down_to)
        ends[:] = [time.perf_counter()]
        made.fit_one_cycle(epochs, lr_max=[RATE * DECAY**3, RATE * DECAY**2, RATE * DECAY, RATE])
        stages[stage] += np.diff(ends).tolist()

    for split in splits(table)[:folds]:
        started = time.perf_counter()
        made, frame = learner(split)
        with made.no_bar(), made.no_logging():
            train(made, "head", -1, HEAD)
            train(made, "block4", -2, BLOCK4)
            seconds.append(time.perf_counter() - started)
            probability, _ = made.get_preds(ds_idx=1)
            if not told:
                train(made, "block3", -3, BLOCK3)
                told["with_block3"] = seconds[0] + sum(stages["block3"])
        held = frame[frame["is_valid"]]
        logits = probability.clamp_min(1e-12).log().numpy()
        validation.append(predictions(held.assign(split="validation"), logits, len(seconds)))
    made, _ = learner(splits(table)[0])
    with made.no_bar(), made.no_logging():
        made.unfreeze()
        ends[:] = [time.perf_counter()]
        made.fit_one_cycle(1, lr_max=RATE * DECAY)
        everything = np.diff(ends).tolist()
        told["operations"] = operations(lambda: made.fit_one_cycle(1, lr_max=RATE * DECAY))
    return told | {
        "cross_validation": sum(seconds),
        "folds": seconds,
        "head_epochs": stages["head"],
        "block4_epochs": stages["block4"],
        "block3_epochs": stages["block3"],
        "all_epochs": everything,
        "validation": pd.concat(validation).to_dict("list"),
        "train_images": int((~frame["is_valid"]).sum()),
    }


def predictions(split: pd.DataFrame, logits: np.ndarray, fold: int) -> pd.DataFrame:
    """A predictions table of the validation images; an image may be in those of several folds."""
    held = split[split["split"] == "validation"].reset_index(drop=True)
    names = [f"fold {fold}: {Path(path).name}" for path in held["path"]]
    frame = held[["patient", "group", "magnification"]].assign(image=names)
    frame["truth"] = held["label"]
    return frame.join(pd.DataFrame(logits, columns=[f"logit_{name}" for name in breakhis.LABELS]))


def in_a_process(side: str, data: Path, images: int, size: int, folds: int, keep: Path) -> dict:
    """Run one side cold: an empty cache that holds the ImageNet weights alone."""
    kept = keep / f"{side}-{images}-{size}-{folds}.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            name = "densenet121-imagenet.safetensors"
            Path(folder, name).symlink_to(cache_dir() / name)
            command = [sys.executable, __file__, "--data", str(data), "--images", str(images), "--side", side]
            command += ["--size", str(size)]
            environment = {**os.environ, "HISTOTRANSFER_CACHE": folder}
            out = subprocess.run(
                [*command, "--folds", str(folds)], env=environment, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        kept.write_text(out.splitlines()[-1])
    found = json.loads(kept.read_text())
    print(f"{side}: {found['cross_validation']:.0f} s, {folds} folds", flush=True)
    return found


def race(data: Path, images: int, size: int, folds: int, keep: Path) -> dict:
    imagenet_trunk()
    load = os.getloadavg()
    heats = {side: in_a_process(side, data, images, size, 1, keep) for side in STOCK}
    faster = min(STOCK, key=lambda side: heats[side]["cross_validation"])
    sides = {"ours": in_a_process("ours", data, images, size, folds, keep)}
    sides["stock"] = in_a_process(faster, data, images, size, folds, keep)
    measures = {
        "head_epoch": lambda result: statistics.median(result["head_epochs"]),
        "block4_epoch": lambda result: statistics.median(result["block4_epochs"]),
        "cross_validation": lambda result: result["cross_validation"],
        "block3_epoch": lambda result: statistics.median(result["block3_epochs"]),
        "single_run": lambda result: result["folds"][0],
        "single_run_with_block3": lambda result: result["with_block3"],
        "full_epoch": lambda result: statistics.median(result["all_epochs"]),
    }
    seconds = {side: {name: what(result) for name, what in measures.items()} for side, result in sides.items()}
    tables = {side: pd.DataFrame(result["validation"]) for side, result in sides.items()}
    trained = sides["ours"]["train_images"]
    epochs = [name for name in sides["ours"] if name.endswith("_epochs")]
    kept = ("folds", *epochs, "fill_head", "fill_block4", "fill_block3", "peak_megabytes")
    return {
        "images": images,
        "train_images_of_fold_0": trained,
        "batch_size": BATCH,
        "size": size,
        "folds": folds,
        "epochs": {"head": HEAD, "block4": BLOCK4, "block3": BLOCK3},
        "stock_is": faster,
        "first_heat_seconds": {side: result["cross_validation"] for side, result in heats.items()},
        "ratios": {name: seconds["stock"][name] / seconds["ours"][name] for name in measures},
        "seconds": seconds,
        "images_per_second": {
            side: {name: trained / own[name] for name in measures if name.endswith("_epoch")}
            for side, own in seconds.items()
        },
        "validation_auroc": {
            side: intervals(table).loc["auroc", ["value", "low", "high"]].to_dict() for side, table in tables.items()
        },
        "validation_auroc_ours_minus_stock": differences([(tables["ours"], tables["stock"])])
        .loc["auroc", ["value", "low", "high"]]
        .to_dict(),
        "operations": {side: result["operations"] for side, result in sides.items()},
        "timings": {side: {name: result[name] for name in kept if name in result} for side, result in sides.items()},
        "load": load,
        "environment": environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--out", type=Path, default=Path("results/bench/unfreezing.json"))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--side", choices=("ours", *STOCK), help="one side only, printed as JSON")
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the five are run")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    if arguments.side:
        table = subset(data, arguments.images)
        if arguments.side == "ours":
            run = ours(table, data, arguments.size, arguments.folds)
        else:
            run = stock(table, arguments.size, train_bn=arguments.side == STOCK[0], folds=arguments.folds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(run | {"peak_megabytes": round(peak)}))
        return
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = race(data, arguments.images, arguments.size, arguments.folds, arguments.keep or Path(folder))
    print(json.dumps(result["ratios"], indent=1))
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
