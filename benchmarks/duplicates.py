"""What finding the duplicate groups of LC25000 costs: time and memory, measured, and extrapolated to all 25,000 images.

python benchmarks/duplicates.py --data DIR --out results/bench/duplicates.json
"""

import argparse
import os
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from histotransfer.datasets import lc25000
from histotransfer.datasets.duplicates import NEIGHBOURS, THRESHOLD, describe, find_groups, nearest_pairs
from histotransfer.files import write_json

WHOLE = 25_000


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with LC25000 lung")
    parser.add_argument("--out", type=Path, default=Path("results/bench/duplicates.json"))
    arguments = parser.parse_args()
    write_json(arguments.out, cost(arguments.data))
