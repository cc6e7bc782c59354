"""How time and memory grow with the number of images, for every step that reads all of them.

    python benchmarks/growth.py --out results/bench/growth.json

Each step runs in a process of its own on phantom data of one, three and ten times a size; the least of the repeats
counts. An exponent is the slope of the logarithm of seconds against that of images: 1 is linear growth, and less is a
start that takes long.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from histotransfer.config import cache_dir, ladder_config
from histotransfer.datasets import breakhis, lc25000
from histotransfer.datasets.phantom import SUBTYPES, write_phantom
from histotransfer.files import write_json

FACTORS = (1, 3, 10)
SIZE = 224
COPIES = 5
WEIGHTS = "densenet121-imagenet.safetensors"


def verify(root: Path) -> None:
    from histotransfer.datasets.verify import verify

    verify(root)


def groups(root: Path) -> None:
    from histotransfer.datasets.duplicates import find_groups

    find_groups(lc25000.load(root)["path"])


def normalise(root: Path) -> None:
    from histotransfer.stain import normaliser
    from histotransfer.tiles import load_tiles

    load_tiles(breakhis.load(root)["path"].tolist(), SIZE, normaliser("macenko"))


def cache(root: Path) -> None:
    from histotransfer.models.weights import imagenet_trunk
    from histotransfer.splits import grouped_split
    from histotransfer.transfer.stages import frozen_features, initial_model
    from histotransfer.transfer.task import Task

    config = ladder_config("phantom", {"normaliser": "none", "augmentation": "none"})
    task = Task(grouped_split(breakhis.load(root), seed=0), breakhis.LABELS, breakhis.VIEWS, root, config)
    frozen_features(initial_model(2, imagenet_trunk(), config), task, config)


def predict(root: Path) -> None:
    from histotransfer.deploy.predict import SHIPPED, Predictor

    for _ in Predictor(SHIPPED).predict(breakhis.load(root)["path"]):
        pass


STEPS: dict[str, Callable[[Path], None]] = {
    "verify": verify, "groups": groups, "normalise": normalise, "cache": cache, "predict": predict,
}  # fmt: skip


def make(folder: Path, images: int) -> tuple[Path, dict[str, int]]:
    """Phantom data with about so many images of each data set; and how many each step reads."""
    each = max(1, round(images / (len(SUBTYPES) * len(breakhis.MAGNIFICATIONS))))
    originals = max(1, round(images / (COPIES * len(lc25000.LABELS))))
    root = write_phantom(folder, size=SIZE, images_per_magnification=each, lung_originals=originals, lung_copies=COPIES)
    breast, lung = len(breakhis.load(root)), len(lc25000.load(root))
    return root, {step: {"verify": breast + lung, "groups": lung}.get(step, breast) for step in STEPS}


def measured(step: str, root: Path) -> dict[str, float]:
    """Seconds and peak memory of a step in a process of its own, with an empty cache that holds the weights alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name, WEIGHTS).symlink_to(cache_dir() / WEIGHTS)
        done = subprocess.run(
            [sys.executable, __file__, "--step", step, "--root", str(root)],
            env=os.environ | {"HISTOTRANSFER_CACHE": name}, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def run(step: str, root: Path) -> dict[str, float]:
    start = time.perf_counter()
    STEPS[step](root)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def exponent(rows: list[dict[str, float]]) -> float:
    """The slope of log seconds against log images."""
    images, seconds = (np.log([row[name] for row in rows]) for name in ("images", "seconds"))
    return float(np.polyfit(images, seconds, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/bench/growth.json"))
    parser.add_argument("--images", type=int, default=192, help="at a factor of one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step", choices=STEPS, help="one step only, on --root, printed as JSON")
    parser.add_argument("--root", type=Path)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run(options.step, options.root)))
        return
    rows: dict[str, list[dict[str, float]]] = {step: [] for step in STEPS}
    with tempfile.TemporaryDirectory() as name:
        for factor in FACTORS:
            root, counts = make(Path(name, str(factor)), options.images * factor)
            for step in STEPS:
                best = min((measured(step, root) for _ in range(options.repeats)), key=lambda found: found["seconds"])
                rows[step].append({"factor": factor, "images": counts[step], **best})
                print(f"{step}, {counts[step]} images: {best['seconds']:.1f} s, {best['peak_megabytes']:.0f} MB")
    record = {
        "steps": rows,
        "exponents": {step: exponent(own) for step, own in rows.items()},
        "size": SIZE,
        "repeats": options.repeats,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "numpy", "opencv-python-headless", "scikit-learn")},
    }
    write_json(options.out, record)


if __name__ == "__main__":
    main()
