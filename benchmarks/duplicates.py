"""What finding the duplicate groups of LC25000 costs, and how many it finds.

    python benchmarks/duplicates.py --data DIR --out results/bench/duplicates.json

First on the images in `DIR`, extrapolated to all 25,000; then `histotransfer data groups` on so many images that are
made: phantom lung tissue, 20 copies of each original, in the five folders of LC25000, at its 768 pixels. Their groups
are known, so precision and recall of pairs are given. Making them takes a quarter of an hour; `--made 0` leaves it out.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from histotransfer.datasets import lc25000
from histotransfer.datasets.duplicates import (
    NEIGHBOURS,
    THRESHOLD,
    describe,
    find_groups,
    nearest_pairs,
    pairwise_agreement,
)
from histotransfer.datasets.phantom import lung_copy
from histotransfer.files import write_json

WHOLE = 25_000
COPIES = 20
MADE_SIZE, PUBLISHED_SIZE = 256, 768


def cost(root: str | Path) -> dict[str, Any]:
    """Time and memory, measured, and extrapolated to all 25,000 images."""
    paths = lc25000.load(root)["path"]
    with tempfile.TemporaryDirectory() as folder:  # decoding is timed at the published size
        large = [Path(folder) / f"{i}.jpeg" for i in range(48)]
        for source, target in zip(paths, large, strict=False):
            with Image.open(source) as image:
                image.resize((768, 768)).save(target, quality=95)
        start = time.perf_counter()
        describe(large)
        per_image = (time.perf_counter() - start) / len(large)
    prints = describe(paths)
    start = time.perf_counter()
    nearest_pairs(prints.invariants)
    search = time.perf_counter() - start
    start = time.perf_counter()
    find_groups(paths)
    seconds = time.perf_counter() - start
    factor = WHOLE / len(paths)
    kilobytes = sum(array.nbytes for array in vars(prints).values()) / len(paths) / 1000
    # The search for neighbours grows with the square of the number of images, the rest linearly.
    rest = seconds - search - len(paths) * per_image
    return {
        "images": len(paths),
        "seconds": round(seconds, 1),
        "neighbour_seconds": round(search, 2),
        "describe_ms_per_768_pixel_image": round(per_image * 1000, 2),
        "kilobytes_per_image": round(kilobytes, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "extrapolated": {
            "images": WHOLE,
            "minutes_at_once": round((WHOLE * per_image + search * factor**2 + rest * factor) / 60, 1),
            "minutes_class_by_class": round((WHOLE * per_image + search * factor**2 / 5 + rest * factor) / 60, 1),
            "prints_mb_at_once": round(kilobytes * WHOLE / 1000),
            "prints_mb_class_by_class": round(kilobytes * WHOLE / 5000),
        },
        "neighbours": NEIGHBOURS,
        "threshold": THRESHOLD,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("opencv-python-headless", "scikit-learn", "numpy", "pillow")},
    }


def made(images: int) -> dict[str, Any]:
    """Seconds and memory of the command on made images, and how well its groups are the true ones."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        truth = {label: make(root, label, images // len(lc25000.FOLDERS)) for label in lc25000.FOLDERS}
        command = [str(Path(sys.executable).with_name("histotransfer")), "data", "groups", str(root)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        found = {label: pd.Series(lc25000.read_groups(root / lc25000.GROUPS / f"{label}.csv")) for label in truth}
    agreement = [pairwise_agreement(found[label].loc[truth[label].index], truth[label]) for label in truth]
    return {
        "images": sum(map(len, truth.values())),
        "originals": sum(own.nunique() for own in truth.values()),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000),
        "precision": min(precision for precision, _ in agreement),
        "recall": min(recall for _, recall in agreement),
        "load": os.getloadavg(),
    }


def make(root: Path, label: str, images: int) -> pd.Series:
    """Write a class of `images` copies; return the original of each file."""
    folder, kind = root / lc25000.FOLDERS[label], list(lc25000.FOLDERS).index(label)
    folder.mkdir(parents=True)
    tissue = lc25000.LABELS[kind % len(lc25000.LABELS)]

    def write(number: int) -> str:
        field = lung_copy(tissue, number // COPIES, number % COPIES, size=MADE_SIZE, seed=kind).image
        file = f"{lc25000.STEMS[label]}{number + 1}.jpeg"
        large = Image.fromarray(field).resize((PUBLISHED_SIZE, PUBLISHED_SIZE), Image.Resampling.BICUBIC)
        large.save(folder / file, quality=92)
        return file

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(pool.map(write, range(images)))
    return pd.Series([str(number // COPIES) for number in range(images)], index=files)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with LC25000 lung")
    parser.add_argument("--out", type=Path, default=Path("results/bench/duplicates.json"))
    parser.add_argument("--made", type=int, default=WHOLE)
    arguments = parser.parse_args()
    record = cost(arguments.data)
    if arguments.made:
        record["made"] = made(arguments.made)
    write_json(arguments.out, record)
