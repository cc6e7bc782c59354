"""What colour normalisation is worth: how close it comes to the truth, and how it changes a frozen probe.

`distances_to_truth` measures colours on phantom tissue, where the perfect answer can be rendered; `run` predicts
BreakHis out of fold, split by patient, from the frozen features of one set of images in differently normalised colours.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.config import LadderConfig
from histotransfer.datasets import breakhis
from histotransfer.datasets.phantom import breast_image
from histotransfer.experiments.probe import Probed, ProbeStudy
from histotransfer.stain import NORMALISERS, Fallback, Normaliser, normaliser, to_lab
from histotransfer.tiles import load_tiles
from histotransfer.transfer.stages import Report

BY_SLIDE = "-by-slide"
RUNS = (*NORMALISERS, *(f"{name}{BY_SLIDE}" for name in ("macenko", "vahadane")))
MAGNIFICATIONS, INDICES = (40, 100, 200, 400), (0, 1)  # the tiles of a phantom's slide


def run(
    config: LadderConfig,
    data_root: str | Path,
    out: str | Path,
    *,
    runs: Sequence[str] = RUNS,
    progress: bool = False,
    report: Report = print,
) -> Path:
    """Predict every BreakHis image out of fold, split by patient, once for each way to normalise its colour.

    Args:
        config: size, folds, seed, device, weights; its normaliser is ignored.
        data_root: folder with BreakHis.
        out: the experiment's folder; the `runs` are written into it.
        runs: some of `RUNS`: names of normalisers (to the published reference); those that end in `BY_SLIDE` pool the
            tiles of each slide.
        progress: show bars.
        report: called with one line per run.

    Returns:
        `out`.

    Raises:
        HistotransferError: the data or the weights cannot be used.
    """
    study = ProbeStudy(config, data_root, out)
    table = breakhis.load(study.root)
    tiles, _ = load_tiles(table["path"].tolist(), config.size, normaliser("none"), progress=progress)
    for name in runs:
        normalised, fallbacks = normalise_as(name, tiles, table["patient"])
        probed = Probed("breakhis", table, breakhis.LABELS, study.features(normalised), fallbacks)
        estimate = "slide" if name.endswith(BY_SLIDE) else "tile"
        settings = {"normaliser": name.removesuffix(BY_SLIDE), "estimate": estimate}
        metrics = study.write(name, probed, table["group"], "patient", settings)
        report(f"{name}: AUROC {metrics['auroc']:.3f}, {len(table)} images, {len(fallbacks)} left as they are")
    return Path(out)


def normalise_as(run: str, tiles: np.ndarray, slides: pd.Series) -> tuple[np.ndarray, list[Fallback]]:
    """Tiles ``(N, S, S, 3)`` uint8 normalised as in one of `RUNS`, and which of them were left unchanged.

    Args:
        run: one of `RUNS`.
        tiles: N images.
        slides: ``(N,)`` the slide of each.
    """
    method, fallbacks = normaliser(run.removesuffix(BY_SLIDE)), list[Fallback]()
    if not run.endswith(BY_SLIDE):
        return np.asarray(method.transform(tiles, fallbacks=fallbacks)), fallbacks
    normalised = np.empty_like(tiles)
    for slide in slides.unique():
        rows = np.flatnonzero(slides == slide)
        normalised[rows] = method.transform_slide(tiles[rows], names=[str(row) for row in rows], fallbacks=fallbacks)
    return normalised, fallbacks


def distances_to_truth(
    reference: int, patients: Iterable[int], *, methods: Sequence[str] = ("macenko", "vahadane", "reinhard"), seed: int
) -> pd.DataFrame:
    """How far phantom tiles are from the same tissue with the stains, staining strength and light of another patient.

    Args:
        reference: the patient whose slide the normalisers are fitted to.
        patients: the patients whose slides are normalised: eight tiles each, of which the four of index 0 are compared.
        methods: names of normalisers.
        seed: of the phantom.

    Returns:
        One row per method (index): mean CIELAB delta E `as scanned`, after normalising `by tile` and `by slide`.
    """
    target = _slide(reference, seed)
    fitted = {(name, way): _fitted(name, way, target) for name in methods for way in ("by tile", "by slide")}
    distances = []
    for patient in patients:
        tiles = _slide(patient, seed)
        truths = [breast_image(patient, m, INDICES[0], seed=seed, stained_as=reference).image for m in MAGNIFICATIONS]
        for (name, way), method in fitted.items():
            done = method.transform(tiles) if way == "by tile" else method.transform_slide(tiles)
            for stage, images in (("as scanned", tiles), (way, done)):
                distances += [
                    (name, stage, delta_e(image, truth))
                    for image, truth in zip(images[:: len(INDICES)], truths, strict=True)
                ]
    frame = pd.DataFrame(distances, columns=["method", "stage", "delta_e"])
    means = frame.groupby(["method", "stage"])["delta_e"].mean().unstack()
    return means.loc[list(methods), ["as scanned", "by tile", "by slide"]].rename_axis(index=None, columns=None)


def delta_e(image: np.ndarray, other: np.ndarray) -> float:
    """Mean CIELAB distance (1976) of two uint8 RGB images `(H, W, 3)`, pixel by pixel."""
    return float(np.linalg.norm(to_lab(image) - to_lab(other), axis=-1).mean())


def _slide(patient: int, seed: int) -> list[np.ndarray]:
    return [breast_image(patient, m, index, seed=seed).image for m in MAGNIFICATIONS for index in INDICES]


def _fitted(name: str, way: str, target: list[np.ndarray]) -> Normaliser:
    method = normaliser(name)
    return method.fit(target) if way == "by tile" else method.fit_slide(target)
