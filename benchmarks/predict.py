"""Race of `histotransfer predict` against plain torchvision, on the same files in one process, decoding included.

    python benchmarks/predict.py --data DIR --out results/bench/predict.json

`DIR` holds `BreaKHis_v1/`; without it phantom fields are used. Files are 224x224 PNG. The peer is torchvision's
DenseNet-121 as it is usually written: Pillow, `ToTensor`, `Normalize`, batches through the model in eval mode, default
memory layout; it races at several batch sizes and the fastest counts. Our side is the SE-DenseNet-121 with its gates,
which computes a little more. Turns are interleaved; a timing is the median of the repeats; `ratios` are our images a
second over the peer's. Processor seconds an image are written too: they say less, but a busy machine hurts them less.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import densenet121

from histotransfer.datasets import breakhis
from histotransfer.datasets.roots import resolve_root
from histotransfer.deploy.predict import Predictor
from histotransfer.models import openvino
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import imagenet_trunk, load_trunk, save_model
from histotransfer.pictures import decode, resize
from histotransfer.tiles import IMAGENET_MEAN, IMAGENET_STD, TileSource

SIZE = 224
CALIBRATION = 100
DESCRIPTION = {
    "architecture": {"num_classes": 2},
    "classes": ["benign", "malignant"],
    "size": SIZE,
    "normaliser": "none",  # the peer has none
    "profile": "lite",
}
TARGETS = {"float32": (1.8, 2.0), "int8": (2.5, 3.0)}  # at least, aim


def prepare(root: Path, folder: Path, images: int) -> tuple[list[Path], torch.Tensor]:
    """Files to race on, 224x224 PNG, and other images to calibrate int8 with."""
    paths = breakhis.load(root)["path"].sample(images + CALIBRATION, random_state=0, replace=True).tolist()
    files = []
    for number, path in enumerate(paths[:images]):
        files.append(folder / f"{number:04d}.png")
        Image.fromarray(resize(decode(path), SIZE)).save(files[-1])
    rest = np.stack([resize(decode(path), SIZE) for path in paths[images:]])
    return files, TileSource(rest).batch(np.arange(len(rest)), np.zeros(len(rest), dtype=int))


def network() -> SEDenseNet:
    """ImageNet weights and gates that have moved, as after training."""
    torch.manual_seed(0)
    model = SEDenseNet(**DESCRIPTION["architecture"])
    load_trunk(model, imagenet_trunk())
    for name, parameter in model.named_parameters():
        if name.endswith("se.expand.weight"):
            torch.nn.init.normal_(parameter, std=0.01)
    return model.eval()


def torchvision_eager(model: SEDenseNet, files: list[Path], batch: int) -> Callable[[], list[float]]:
    """The usual few lines around torchvision's network."""
    peer = densenet121(weights=None, num_classes=2).eval()
    peer.load_state_dict(model.state_dict(), strict=False)
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    def run() -> list[float]:
        found = []
        with torch.no_grad():
            for start in range(0, len(files), batch):
                x = torch.stack([prepare(Image.open(file).convert("RGB")) for file in files[start : start + batch]])
                found += peer(x).softmax(dim=1)[:, 1].tolist()
        return found

    return run


def ours(weights: Path, runtime: str, files: list[Path]) -> Callable[[], list[float]]:
    """What `histotransfer predict` does between reading arguments and writing rows."""
    predictor = Predictor(weights, runtime)

    def run() -> list[float]:
        rows = list(predictor.predict(files))
        return [row.probability if row.label == "malignant" else 1 - row.probability for row in rows]

    return run


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def hardware() -> dict:
    model = [x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "load": os.getloadavg(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="folder with BreaKHis_v1/; phantom fields without it")
    parser.add_argument("--out", type=Path, default=Path("results/bench/predict.json"))
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="the peer's batch sizes")
    options = parser.parse_args()

    record = {"hardware": hardware(), "images": options.images, "repeats": options.repeats}
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), resolve_root("phantom", options.data)
        files, calibration = prepare(root, folder, options.images)
        model = network()
        save_model(model, folder / "model.safetensors", DESCRIPTION)
        converted = openvino.convert(model, SIZE, DESCRIPTION)
        openvino.save(openvino.quantise(converted, calibration), folder / "int8.xml")
        sides = {f"torchvision eager, batch {b}": torchvision_eager(model, files, b) for b in options.batches}
        sides |= {
            "ours, torch": ours(folder / "model.safetensors", "torch", files),
            "ours, float32": ours(folder / "model.safetensors", "openvino", files),
            "ours, int8": ours(folder / "int8.xml", "openvino", files),
        }
        rates, processor, answers = {side: [] for side in sides}, {side: [] for side in sides}, {}
        for repeat in range(options.repeats + 1):
            for side, run in sides.items():
                start, used = time.perf_counter(), time.process_time()
                answers[side] = np.array(run())
                if repeat:  # the first round warms up
                    rates[side].append(options.images / (time.perf_counter() - start))
                    processor[side].append((time.process_time() - used) / options.images)

    medians = {side: statistics.median(values) for side, values in rates.items()}
    peer = max(rate for side, rate in medians.items() if side.startswith("torchvision"))
    exact = answers["ours, torch"]
    record |= {
        "data": "BreakHis" if options.data else "phantom",
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "openvino", "nncf", "pillow", "numpy")},
        "median_images_per_second": medians,
        "images_per_second": rates,
        "median_processor_seconds_an_image": {side: statistics.median(values) for side, values in processor.items()},
        "largest_difference_of_probabilities": {
            side: float(np.abs(answers[side] - exact).max()) for side in ("ours, float32", "ours, int8")
        },
        "resident_megabytes": resident_megabytes(),
        "ratios": {kind: medians[f"ours, {kind}"] / peer for kind in TARGETS},
    }
    for side, rate in medians.items():
        used = record["median_processor_seconds_an_image"][side]
        print(f"{side:30s} {rate:6.2f} images a second, {1e3 * used:5.0f} ms of processor time an image")
    for kind, (least, aim) in TARGETS.items():
        print(f"{kind}: {record['ratios'][kind]:.2f} times (at least {least}, aim {aim})")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    part = options.out.with_name(options.out.name + ".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(options.out)


if __name__ == "__main__":
    main()
