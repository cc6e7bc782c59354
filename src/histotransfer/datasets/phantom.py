"""Phantom data sets: synthetic H&E with a known truth, in the exact file names and folders of BreakHis and LC25000.

The loaders of the real data sets read them unchanged, so every step of the book can be run, tested and taught without
a single real image. Each patient has individual stains, brightness and texture, which a split by image leaks;
benign and malignant overlap in nuclear density, size, pleomorphism and in architecture, so that the task is neither
trivial nor hopeless. Everything is a function of the seed, byte for byte.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from histotransfer.datasets import breakhis, lc25000
from histotransfer.datasets.tissue import BREAST, LUNG, MICROMETRES, NORMAL, Appearance, appearance, render, tissue
from histotransfer.errors import HistotransferError
from histotransfer.files import whole_folder, write_json
from histotransfer.folders import walk

VERSION = 2  # of the generator: raise it whenever an image changes
MANIFEST = "phantom.json"
BENIGN_PATIENTS = ("A", "F", "PT", "TA", "F", "TA", "A", "F", "PT", "TA", "F", "TA")
MALIGNANT_PATIENTS = ("DC", "LC", "MC", "PC", "DC", "LC", "MC", "PC", "DC", "MC", "DC", "DC")
SUBTYPES = BENIGN_PATIENTS + MALIGNANT_PATIENTS
# Lowest and highest atypia of each class: benign and malignant overlap. Patients take evenly spaced values in random
# order, so that the task is about as hard for every seed.
ATYPIA = {"benign": (0.00, 0.55), "malignant": (0.45, 1.00)}
LUNG_ATYPIA = {"lung_n": 0.15, "lung_aca": 0.6, "lung_scc": 0.7}
# Share of fields that show normal tissue beside the lesion, whatever the patient's label: as on real slides.
BESIDE = 0.15
NORMAL_ATYPIA = 0.25
# Another laboratory: factors of optical density in red, green and blue; of hematoxylin and eosin; of the glass's light.
ELSEWHERE_TINT = np.array([[1.25, 0.85, 0.6], [0.7, 1.0, 1.5]], dtype=np.float32)
ELSEWHERE_STRENGTH = np.array([1.3, 0.6], dtype=np.float32)
ELSEWHERE_GLASS = np.array([1.0, 0.98, 0.9])
SLIDES = {2: ("AB", "CD"), 9: ("AB", "CD"), 14: ("", "B"), 20: ("C", "D")}  # patients with two slides, by index


@dataclass(frozen=True)
class Phantom:
    """An image and its ground truth.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        stain_matrix: ``(2, 3)`` unit optical-density vectors, hematoxylin and eosin.
        concentrations: ``(H, W, 2)`` float32, natural optical density along those vectors.
        diagnostic_mask: ``(H, W)`` bool, the regions that carry the diagnosis; empty in a field beside the lesion.
        brightness: ``(3,)`` I0 in grey levels.
    """

    image: np.ndarray
    stain_matrix: np.ndarray
    concentrations: np.ndarray
    diagnostic_mask: np.ndarray
    brightness: np.ndarray


@dataclass(frozen=True)
class Settings:
    """What `write_phantom` writes; stored in the manifest."""

    size: int
    images_per_magnification: int
    lung_originals: int
    lung_copies: int
    seed: int
    version: int = VERSION


def breast_image(
    patient: int, magnification: int, index: int, *, size: int = 128, seed: int = 0, stained_as: int | None = None
) -> Phantom:
    """One field of a breast patient; depends on these arguments only.

    Args:
        patient: 0 to 23; the first twelve are benign.
        magnification: 40, 100, 200 or 400.
        index: number of the field.
        size: pixels per side.
        seed: of the whole data set.
        stained_as: give the tissue the stain vectors, staining strength and brightness of this patient, as a perfect
            normalisation to that patient would; None: those of `patient`.

    Raises:
        ValueError: an unknown patient or magnification.
    """
    if not 0 <= patient < len(SUBTYPES) or magnification not in MICROMETRES:
        raise ValueError(f"no phantom of patient {patient} at magnification {magnification}")
    subtype = SUBTYPES[patient]
    look = _look(patient, seed)
    if stained_as is not None:
        other = _look(stained_as, seed)
        look = replace(look, stain_matrix=other.stain_matrix, strength=other.strength, brightness=other.brightness)
    draw = np.random.default_rng([seed, 2, patient, magnification, index])
    beside = draw.random() < BESIDE
    shown, look = (NORMAL, replace(look, atypia=NORMAL_ATYPIA)) if beside else (BREAST[subtype], look)
    concentrations, mask = tissue(shown, look, MICROMETRES[magnification], size, draw)
    return _phantom(concentrations, mask & (not beside), look)


def _look(patient: int, seed: int) -> Appearance:
    return appearance(np.random.default_rng([seed, 1, patient]), _atypia(patient, seed))


def _atypia(patient: int, seed: int) -> float:
    benign = patient < len(BENIGN_PATIENTS)
    label, rank = ("benign", patient) if benign else ("malignant", patient - len(BENIGN_PATIENTS))
    low, high = ATYPIA[label]
    count = len(BENIGN_PATIENTS if benign else MALIGNANT_PATIENTS)
    order = np.random.default_rng([seed, 0, len(label)]).permutation(count)
    return low + (high - low) * order[rank] / (count - 1)


@lru_cache(maxsize=1)  # the copies of an original are simulated one after the other
def lung_image(label: str, original: int, *, size: int = 128, seed: int = 0) -> Phantom:
    """One original of the lung set.

    Args:
        label: lung_aca, lung_n or lung_scc.
        original: number of the original within its class.
        size: pixels per side.
        seed: of the whole data set.
    """
    draw = np.random.default_rng([seed, 3, lc25000.LABELS.index(label), original])
    look = appearance(draw, LUNG_ATYPIA[label])
    concentrations, mask = tissue(LUNG[label], look, MICROMETRES[100], size, draw)
    return _phantom(concentrations, mask, look)


def lung_copy(label: str, original: int, copy: int, *, size: int = 128, seed: int = 0) -> Phantom:
    """A near-duplicate of an original: turned by up to 25 degrees and flipped, like those of LC25000.

    The concentrations are turned and the image is rendered from them, so that a copy's truth is exact too.
    """
    draw = np.random.default_rng([seed, 4, lc25000.LABELS.index(label), original, copy])
    source = lung_image(label, original, size=size, seed=seed)
    zoom = 1.35  # what a turn by 25 degrees needs for its corners to stay inside the picture
    turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), draw.uniform(-25, 25), zoom)
    flips = tuple(axis for axis in (0, 1) if draw.random() < 0.5)

    def moved(array: np.ndarray, interpolation: int) -> np.ndarray:
        return np.flip(cv2.warpAffine(array, turn, (size, size), flags=interpolation), flips).copy()

    concentrations = moved(source.concentrations, cv2.INTER_LINEAR)
    mask = moved(source.diagnostic_mask.astype(np.uint8), cv2.INTER_NEAREST) > 0
    image = render(concentrations, source.stain_matrix, source.brightness)
    return Phantom(image, source.stain_matrix, concentrations, mask, source.brightness)


def _phantom(concentrations: np.ndarray, mask: np.ndarray, look: Appearance) -> Phantom:
    image = render(concentrations, look.stain_matrix, look.brightness)
    for array in (image, concentrations, mask):
        array.setflags(write=False)  # originals are kept and shared by their copies
    return Phantom(image, look.stain_matrix, concentrations, mask, look.brightness)


def write_phantom(
    root: str | Path,
    *,
    size: int = 128,
    images_per_magnification: int = 4,
    lung_originals: int = 12,
    lung_copies: int = 5,
    seed: int = 0,
) -> Path:
    """Write both phantom data sets and the duplicate groups, whole or not at all.

    Args:
        root: the folder to create. One that was written with the same arguments is used unchanged.
        size: pixels per side; fields are square.
        images_per_magnification: of each of the 24 breast patients.
        lung_originals: of each of the three classes.
        lung_copies: of each original.
        seed: of everything.

    Returns:
        `root`, resolved.

    Raises:
        HistotransferError: `root` exists and holds something else.
    """
    root = Path(root).resolve()
    settings = Settings(size, images_per_magnification, lung_originals, lung_copies, seed)
    if root.exists():
        _check_same(root, settings)
        return root
    try:
        with whole_folder(root, replace=False) as temporary:
            _write_breast(temporary, settings)
            _write_lung(temporary, settings)
            write_json(temporary / MANIFEST, asdict(settings))
    except OSError:
        if not root.exists():
            raise
        _check_same(root, settings)  # another process was faster
    return root


def _check_same(root: Path, settings: Settings) -> None:
    if read_settings(root) != settings:
        raise HistotransferError(f"{root}: holds phantom data of other settings; delete it or name another folder")
    images = len(SUBTYPES) * len(breakhis.MAGNIFICATIONS) * settings.images_per_magnification
    images += len(lc25000.LABELS) * settings.lung_originals * settings.lung_copies
    present = len(walk(root))
    if present != images:
        raise HistotransferError(
            f"{root}: holds {present} phantom images, not {images}; delete it to have it simulated again"
        )


def read_settings(root: Path) -> Settings:
    """The settings a phantom folder was written with.

    Raises:
        HistotransferError: not a phantom folder.
    """
    try:
        return Settings(**json.loads((root / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise HistotransferError(
            f"{root}: exists and is no phantom data set; delete it or name another folder"
        ) from error


def truth(path: str | Path) -> Phantom:
    """The truth of an image file written by `write_phantom`, simulated again from its name and the manifest.

    Raises:
        HistotransferError: not such a file.
    """
    path = Path(path).resolve()
    root = next((folder for folder in path.parents if (folder / MANIFEST).is_file()), None)
    if root is None or not path.is_file():
        raise HistotransferError(f"{path}: lies in no phantom data set")
    settings = read_settings(root)
    try:
        return _truth(path, settings)
    except (ValueError, IndexError) as error:
        raise HistotransferError(f"{path}: was not written with this phantom data set") from error


def elsewhere(table: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """The same tissue as another laboratory would stain and scan it: bluer, paler in eosin, on yellowish glass.

    Patients differ in their stains there as they do here.

    Args:
        table: an image table of phantom tissue.
        folder: where the pictures are written; created if missing.

    Returns:
        The table of the new pictures.

    Raises:
        HistotransferError: a picture that was not written by `write_phantom`.
    """
    folder, paths = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for path in table["path"]:
        known = truth(path)
        stains = known.stain_matrix * ELSEWHERE_TINT
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
        image = render(known.concentrations * ELSEWHERE_STRENGTH, stains, known.brightness * ELSEWHERE_GLASS)
        paths.append(str(folder.resolve() / Path(path).name))
        Image.fromarray(image).save(paths[-1])
    return table.assign(path=paths)


def _truth(path: Path, settings: Settings) -> Phantom:
    if path.suffix == ".png":
        name = breakhis.parse_name(path)
        patient = int(name.slide) - FIRST_SLIDE
        return breast_image(patient, name.magnification, name.sequence - 1, size=settings.size, seed=settings.seed)
    label = path.parent.name
    original, copy = _lung_numbers(label, settings)[int(path.stem.removeprefix(label.replace("_", ""))) - 1]
    return lung_copy(label, original, copy, size=settings.size, seed=settings.seed)


FIRST_SLIDE = 50001  # no base number of the real BreakHis


def breast_name(patient: int, magnification: int, index: int) -> breakhis.Name:
    """File name of a field; patients with two slides alternate between them."""
    suffixes = SLIDES.get(patient, ("",))
    suffix = suffixes[index % len(suffixes)]
    return breakhis.Name(SUBTYPES[patient], "14", str(FIRST_SLIDE + patient), suffix, magnification, index + 1)


def _write_breast(root: Path, settings: Settings) -> None:
    for patient in range(len(SUBTYPES)):
        for magnification in breakhis.MAGNIFICATIONS:
            for index in range(settings.images_per_magnification):
                name = breast_name(patient, magnification, index)
                folder = root / breakhis.TREE / name.folder
                folder.mkdir(parents=True, exist_ok=True)
                field = breast_image(patient, magnification, index, size=settings.size, seed=settings.seed)
                Image.fromarray(field.image).save(folder / str(name))


def _lung_numbers(label: str, settings: Settings) -> list[tuple[int, int]]:
    """(original, copy) of each file in order of its number: copies are scattered, as in LC25000."""
    pairs = [(o, c) for o in range(settings.lung_originals) for c in range(settings.lung_copies)]
    order = np.random.default_rng([settings.seed, 5, lc25000.LABELS.index(label)]).permutation(len(pairs))
    return [pairs[i] for i in order]


def _write_lung(root: Path, settings: Settings) -> None:
    (root / lc25000.GROUPS).mkdir(parents=True)
    for label in lc25000.LABELS:
        folder = root / lc25000.TREE / label
        folder.mkdir(parents=True)
        numbers = enumerate(_lung_numbers(label, settings), start=1)
        groups = {}
        for number, (original, copy) in sorted(numbers, key=lambda item: item[1]):
            file = f"{label.replace('_', '')}{number}.jpeg"
            field = lung_copy(label, original, copy, size=settings.size, seed=settings.seed)
            Image.fromarray(field.image).save(folder / file, quality=92)
            groups[file] = original
        frame = pd.DataFrame({"file": groups.keys(), "group": groups.values()})
        frame.to_csv(root / lc25000.GROUPS / f"{label}.csv", index=False, lineterminator="\n")
