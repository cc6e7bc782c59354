"""Race of the stain normalisers against torchstain and scikit-learn, side by side in one process.

    python benchmarks/stain.py --data DIR --out results/bench/stain.json

`DIR` holds `breakhis_fullsize/` (original fields, 700x460); without it synthetic fields of that size are used. Both
sides estimate and apply in every repeat, with turns interleaved; a timing is the median. `ratios` are peer seconds
over our seconds.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer, NumpyReinhardNormalizer
from torchstain.torch.normalizers import TorchMacenkoNormalizer, TorchReinhardNormalizer

from histotransfer.stain import (
    Macenko,
    Reinhard,
    Vahadane,
    absorbing_mask,
    map_density,
    sample_density,
    sparse_codes,
)
from histotransfer.stain.density import SPARSITY

BREAKHIS = 7909
FIELD, TILE = (700, 460), (224, 224)


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def synthetic_fields(count: int = 6) -> list[np.ndarray]:
    """Two-stain mixtures at the size of a BreakHis field, stain vectors differing between them."""
    fields = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        smooth = [cv2.GaussianBlur(random.standard_normal(FIELD[::-1]), (0, 0), s) * 3 * s for s in (4, 6)]
        nuclei = 1 / (1 + np.exp(-5 * (smooth[0] - 0.8)))
        amounts = np.stack([1.2 * nuclei, (1 - nuclei) * np.clip(0.9 + 0.15 * smooth[1], 0, None)], axis=-1)
        stains = np.array([[0.60, 0.72, 0.34], [0.25, 0.82, 0.51]]) + random.normal(0, 0.03, (2, 3))
        light = 240 * np.exp(-amounts @ stains) + random.normal(0, 1.5, (*FIELD[::-1], 3))
        fields.append(np.clip(light, 0, 255).astype(np.uint8))
    return fields


def chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


class SklearnVahadane:
    """Vahadane with scikit-learn's dictionary learning on the pixels we use ourselves, and our way of applying it."""

    def __init__(self, ours: Vahadane):
        self.reference = ours.reference

    def stain_matrix(self, image: np.ndarray) -> np.ndarray:
        density = sample_density(image)
        tissue = density[:, absorbing_mask(density)]
        learned = MiniBatchDictionaryLearning(
            2, alpha=SPARSITY, fit_algorithm="cd",
            transform_algorithm="lasso_cd", positive_code=True, positive_dict=True,
            batch_size=256, max_iter=10, random_state=0,
        ).fit(tissue[:, :: max(1, tissue.shape[1] // 4000)].T.astype(np.float64))  # fmt: skip
        stains = learned.components_ / np.linalg.norm(learned.components_, axis=1, keepdims=True)
        return stains if stains[0, 0] > stains[1, 0] else stains[::-1]

    def transform(self, image: np.ndarray) -> np.ndarray:
        stains = self.stain_matrix(image)
        amounts = np.linalg.pinv(stains.T) @ sample_density(image)
        gain = self.reference.max_concentrations / np.percentile(amounts, 99, axis=1)
        return map_density(image, self.reference.stain_matrix.T @ np.diag(gain) @ np.linalg.pinv(stains.T))


def lasso_objective(image: np.ndarray, stains: np.ndarray) -> float:
    density = sample_density(image)
    density = density[:, absorbing_mask(density)]
    codes = sparse_codes(density, stains, SPARSITY)
    return float((0.5 * np.square(density - stains.T @ codes).sum() + SPARSITY * codes.sum()) / density.shape[1])


def contestants(target: np.ndarray) -> dict[str, dict]:
    """Method -> side -> function of an image, all fitted on the same target."""
    ours = {"macenko": Macenko().fit(target), "reinhard": Reinhard().fit(target), "vahadane": Vahadane().fit(target)}
    macenko_np, macenko_torch = NumpyMacenkoNormalizer(), TorchMacenkoNormalizer()
    reinhard_np, reinhard_torch = NumpyReinhardNormalizer(), TorchReinhardNormalizer()
    macenko_np.fit(target)
    macenko_torch.fit(chw(target))
    reinhard_np.fit(target)
    reinhard_torch.fit(chw(target))
    return {
        "macenko": {
            "ours": ours["macenko"].transform,
            "torchstain numpy": lambda image: macenko_np.normalize(image, stains=False),
            "torchstain torch": lambda image: macenko_torch.normalize(chw(image), stains=False),
        },
        "reinhard": {
            "ours": ours["reinhard"].transform,
            "torchstain numpy": reinhard_np.normalize,
            "torchstain torch": lambda image: reinhard_torch.normalize(chw(image)),
        },
        "vahadane": {
            "ours": ours["vahadane"].transform,
            "scikit-learn": SklearnVahadane(ours["vahadane"]).transform,
        },
    }


def race(sides: dict, images: list[np.ndarray], repeats: int, threads: int) -> dict[str, list[float]]:
    """Seconds an image of every repeat. With two threads our side maps images in parallel, peers use their own."""
    seconds = {side: [] for side in sides}
    with threadpool_limits(threads), ThreadPoolExecutor(threads) as pool:
        torch.set_num_threads(threads)
        cv2.setNumThreads(1)
        for repeat in range(repeats + 1):
            for side, run in sides.items():
                start = time.perf_counter()
                if side == "ours" and threads > 1:
                    list(pool.map(run, images))
                else:
                    for image in images:
                        run(image)
                if repeat:  # the first round warms up
                    seconds[side].append((time.perf_counter() - start) / len(images))
    return seconds


def whole_set(files: list[Path], normaliser: Macenko) -> dict:
    """Decode and normalise the files over and over on two threads; extrapolated to the 7,909 of BreakHis."""

    def one(path: Path) -> int:
        return normaliser.transform(read(path)).shape[0]

    cv2.setNumThreads(1)
    resident, start, done = [], time.perf_counter(), 0
    with threadpool_limits(1), ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            done += len(list(pool.map(one, files * 2)))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    seconds = time.perf_counter() - start
    return {
        "images": done,
        "seconds": seconds,
        "breakhis_seconds": seconds / done * BREAKHIS,
        "resident_megabytes": resident,
    }


def hardware() -> dict:
    model = [x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    return {"cpu": model[0] if model else platform.processor(), "cores": os.cpu_count(), "load": os.getloadavg()}


def write_json(path: Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with breakhis_fullsize/; synthetic fields without it")
    parser.add_argument("--out", type=Path, default=Path("results/bench/stain.json"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--fields", type=int, default=6, help="how many are normalised in a turn")
    options = parser.parse_args()

    # scikit-learn's stopping tolerance is relative to a tile's tiny norm; the objectives are compared instead.
    warnings.simplefilter("ignore", ConvergenceWarning)
    files = sorted((options.data / "breakhis_fullsize").glob("*.png")) if options.data else []
    fields = [read(file) for file in files] or synthetic_fields()
    target, fields = fields[0], fields[1 : 1 + options.fields]
    tiles = [cv2.resize(image, TILE, interpolation=cv2.INTER_AREA) for image in fields]

    timings, ratios = {}, {}
    for method, sides in contestants(target).items():
        for threads in (1, 2):
            for size, images in (("700x460", fields), ("224x224", tiles)):
                seconds = race(sides, images, options.repeats, threads)
                medians = {side: statistics.median(values) for side, values in seconds.items()}
                peer = min(value for side, value in medians.items() if side != "ours")
                key = f"{method}_{threads}thread" + ("" if size == "700x460" else "_224")
                timings[key] = {"size": size, "threads": threads, "median_seconds": medians, "seconds": seconds}
                ratios[key] = peer / medians["ours"]
                print(
                    f"{key:24s} {ratios[key]:6.1f} x  " + "  ".join(f"{k} {1e3 * v:.2f} ms" for k, v in medians.items())
                )

    ours = Vahadane().fit(target)
    objectives = {
        "ours": [lasso_objective(image, ours.stain_matrix(image)) for image in fields],
        "scikit-learn": [lasso_objective(image, SklearnVahadane(ours).stain_matrix(image)) for image in fields],
    }
    record = {
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("numpy", "opencv-python-headless", "torch", "torchstain", "scikit-learn", "scipy")},
        "images": "BreakHis, original size" if files else "synthetic",
        "repeats": options.repeats,
        "ratios": ratios,
        "timings": timings,
        "vahadane_objective": objectives,
    }
    if files:
        record["breakhis"] = {n.name: whole_set(files, n) for n in (Macenko(), Reinhard(), Vahadane())}
        print(json.dumps(record["breakhis"], indent=2))
    print("objective", objectives)
    write_json(options.out, record)


if __name__ == "__main__":
    main()
