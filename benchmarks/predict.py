"""Race of `histotransfer predict`, as a user types it and with the network that ships, against a plain script.

    python benchmarks/predict.py --data DIR --out results/bench/predict.json

`DIR` holds `BreaKHis_v1/` and `breakhis_fullsize/`; without it phantom fields are used. Every side is a whole process
from its start to its last row, start of Python and reading of pictures included. The plain script (`plain_predict.py`)
is what one writes around torchvision's DenseNet-121; it races in batches of 8 and 32, at 224 pixels and at those of the
shipped network. Sides take turns; a timing is the median of the repeats, and a ratio the plain script's seconds (its
faster batch) over ours.

1. `pictures`: 224x224 PNG, default settings; what OpenVINO and int8 bring; what more views cost.
2. `first_row`: one picture, so what is timed is the start.
3. `checks`: what the notes, the distance from the training pictures and the sets cost: the same pictures in one
   process, with and without them, in turns; shares of the time with them.
4. `fields`: 700x460 PNG, as many as BreakHis has, through the same command; the share of the limit is the rate of the
   network alone, on arrays that are ready, over that of the command.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from histotransfer.datasets import breakhis
from histotransfer.datasets.roots import resolve_root
from histotransfer.deploy import predict
from histotransfer.deploy.predict import BATCH, SHIPPED, Predictor
from histotransfer.deploy.release import CALIBRATION
from histotransfer.files import write_json
from histotransfer.models import openvino
from histotransfer.models.se_densenet import OnArrays
from histotransfer.models.weights import load_model
from histotransfer.pictures import decode, resize
from histotransfer.tiles import TileSource

SIZE = 224
FIELD = (700, 460)
FIELDS = 7909
PLAIN = Path(__file__).with_name("plain_predict.py")
PLAIN_BATCHES = (8, 32)
GOALS = {"torch": 1.0, "openvino": 1.0, "int8": 3.0}  # times the plain script
Command = list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="folder of the data sets; phantom fields without it")
    parser.add_argument("--out", type=Path, default=Path("results/bench/predict.json"))
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--fields", type=int, default=FIELDS)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        record = race(options, Path(name))
    write_json(options.out, record)
    for what in ("pictures", "first_row"):
        for side, seconds in record[what]["median_seconds"].items():
            print(f"{what}, {side}: {seconds:.2f} s")
    print(f"checks: {record['checks']['share']['waited']:.1%} of the time waited")
    for side, ratio in record["pictures"]["ratios"].items():
        print(f"{side}: {ratio:.2f} times the plain script")


def race(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is written down."""
    predictor = Predictor(options.weights)
    size = predictor.description.size
    table = breakhis.load(resolve_root("phantom", options.data))
    paths = table["path"].sample(options.images + CALIBRATION, random_state=0, replace=True).tolist()
    pictures, one, fields = folder / "pictures", folder / "one", folder / "fields"
    for number, path in enumerate(paths[: options.images]):
        _save(resize(decode(path), SIZE), pictures / f"{number:04d}.png")
    _save(resize(decode(paths[0]), SIZE), one / "0.png")
    write_fields(options.data, table["path"].tolist(), fields, options.fields)
    int8 = write_int8(options.weights, [resize(decode(path), size) for path in paths[options.images :]], folder)
    sides = {
        "torch": _ours(options.weights, "torch"),
        "openvino": _ours(options.weights, "openvino"),
        "int8": _ours(int8, "openvino"),
    }
    plain = {f"plain, {px} pixels, batch {b}": _plain(px, b) for px in {SIZE, size} for b in PLAIN_BATCHES}
    more = {f"torch, {n} views": [*sides["torch"], "--views", str(n)] for n in sorted({1, predictor.views})}
    return {
        "data": "BreakHis" if options.data else "phantom",
        "pixels": size,
        "pictures": {"images": options.images} | timed({**plain, **sides, **more}, pictures, options.repeats),
        "first_row": timed({**{n: c for n, c in plain.items() if "batch 8" in n}, **sides}, one, options.repeats),
        "checks": cost_of_checks(options.weights, sorted(pictures.iterdir()), options.repeats),
        "fields": {"images": options.fields} | shares_of_the_limit(sides, options.weights, fields, options.fields),
        "repeats": options.repeats,
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "openvino", "nncf", "pillow", "numpy")},
    }


def _save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, compress_level=1)  # writing thousands is not what is timed


def write_fields(data: str, paths: Sequence[str], folder: Path, count: int) -> None:
    """Different fields at the size of BreakHis': full-size ones where there are any, shifted by some pixels each."""
    originals = sorted(Path(data, "breakhis_fullsize").glob("*.png")) if data else []
    sources = [decode(path) for path in originals or paths[:12]]
    shifts = np.random.default_rng(0).integers(0, 200, (count, 2))

    def write(number: int) -> None:
        field = np.roll(sources[number % len(sources)], shifts[number], axis=(0, 1))
        _save(np.asarray(Image.fromarray(field).resize(FIELD)), folder / f"{number:05d}.png")

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))


def write_int8(weights: Path, tiles: Sequence[np.ndarray], folder: Path) -> Path:
    """The network in int8, as `histotransfer export --int8` makes it, here calibrated on any pictures."""
    model, description = load_model(weights)
    source, rows = TileSource(np.stack(tiles)), np.arange(len(tiles))
    converted = openvino.convert(model, description["size"], description)
    openvino.save(openvino.quantise(converted, source.arrays(rows, np.zeros_like(rows))), folder / "int8.xml")
    return folder / "int8.xml"


def _ours(weights: Path, runtime: str) -> Command:
    command = [str(Path(sys.executable).with_name("histotransfer")), "predict", "--weights", str(weights)]
    return [*command, "--runtime", runtime]


def _plain(size: int, batch: int) -> Command:
    return [sys.executable, str(PLAIN), "--size", str(size), "--batch", str(batch)]


def timed(sides: Mapping[str, Command], folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of each command on a folder of pictures, in turns, after one turn to warm up."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        for side, command in sides.items():
            taken = run(command, folder)
            if repeat:
                seconds[side].append(taken)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    peer = min(medians[side] for side in medians if side.startswith(f"plain, {SIZE}"))
    ratios = {side: peer / medians[side] for side in medians if not side.startswith("plain")}
    return {"seconds": seconds, "median_seconds": medians, "ratios": ratios}


def run(command: Command, folder: Path) -> float:
    """Seconds that a command takes for a folder of pictures."""
    start = time.perf_counter()
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
    return time.perf_counter() - start


def cost_of_checks(weights: Path, files: Sequence[Path], repeats: int) -> dict[str, Any]:
    """Seconds of all files with and without what says how far an answer can be trusted: waited, and of processors."""
    bare = Predictor(weights)
    bare.network, bare.familiarity = OnArrays(bare.model), None
    bare.description = bare.description.model_copy(update={"sets": {}})
    without_notes = mock.patch.object(predict, "notes", lambda *_: [])
    sides = {"with": (Predictor(weights), contextlib.nullcontext()), "without": (bare, without_notes)}
    waited: dict[str, list[float]] = {side: [] for side in sides}
    busy: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        for side, (predictor, context) in sides.items():
            with context:
                start = time.perf_counter(), time.process_time()
                for found in predictor.predict(files):
                    assert isinstance(found, predict.Prediction), found
                taken = time.perf_counter() - start[0], time.process_time() - start[1]
            if repeat:
                waited[side].append(taken[0])
                busy[side].append(taken[1])
    shares = {
        name: 1 - statistics.median(seconds["without"]) / statistics.median(seconds["with"])
        for name, seconds in {"waited": waited, "processors": busy}.items()
    }
    return {"seconds": waited, "processor_seconds": busy, "share": shares}


def shares_of_the_limit(sides: Mapping[str, Command], weights: Path, folder: Path, count: int) -> dict[str, Any]:
    """Images per second of each command on many fields, beside those of its network alone."""
    result: dict[str, Any] = {"images_per_second": {}, "limit": {}, "share": {}}
    for side, command in sides.items():
        file = Path(command[command.index("--weights") + 1])
        result["images_per_second"][side] = count / run(command, folder)
        result["limit"][side] = limit(Predictor(file, "torch" if side == "torch" else "openvino"))
        result["share"][side] = result["images_per_second"][side] / result["limit"][side]
    return result


def limit(predictor: Predictor, batches: int = 4) -> float:
    """Images per second of the network alone, at its number of views, on arrays that are ready; median of batches."""
    size = predictor.description.size
    batch = np.random.default_rng(0).standard_normal((BATCH, size, size, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    taken = []
    for _ in range(batches + 1):
        start = time.perf_counter()
        predictor.network(batch)
        taken.append(time.perf_counter() - start)
    return BATCH / statistics.median(taken[1:]) / predictor.views


def hardware() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "load": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
