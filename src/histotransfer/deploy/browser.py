"""The network for the page "Try it": an ONNX file, and what the page's JavaScript must know beside it.

The JavaScript in `book/_static/try-it` computes what `predict` computes. It holds no setting of this package and none
of the network: both are written here, so that another network needs no change there.
"""

from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from histotransfer import pictures
from histotransfer.datasets.phantom import breast_image
from histotransfer.deploy import export, notes
from histotransfer.deploy.export import write_half
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.familiarity import NEIGHBOURS, familiarity
from histotransfer.evaluation.sets import CANNOT_TELL, COVERAGE
from histotransfer.files import file_hash, whole_file, write_json, write_text
from histotransfer.models import se_densenet
from histotransfer.models.description import Description, describe
from histotransfer.models.se_densenet import WithFeatures
from histotransfer.models.weights import load_model
from histotransfer.models.weights_file import load_beside
from histotransfer.stain import Macenko, NoNormalisation, StainJitter, density, maps, normalisers
from histotransfer.tiles import IMAGENET_MEAN, IMAGENET_STD, JITTER_DRAWS

NETWORK, SETTINGS, FAMILIARITY = "network.onnx", "settings.json", "familiarity.bin"
WARNING = "Research and teaching, not a medical device."
SIDE = 320  # pixels of a phantom, which the network's side does not divide
# Phantoms of the page, by file: patient, magnification, number of the field, and what is done to it.
FIELDS = {
    "benign-1": (3, 200, 0, ""),
    "benign-2": (3, 200, 1, ""),
    "malignant-1": (15, 200, 0, ""),
    "malignant-2": (15, 200, 1, ""),
    "pen": (15, 100, 0, "a pen mark"),
    "glass": (3, 100, 0, "hardly any tissue"),
    "blurred": (15, 400, 0, "out of focus"),
}


def write_for_browser(weights: Path, folder: Path, packed: int = 0) -> None:
    """Write `NETWORK`, `SETTINGS`, `FAMILIARITY` (where the network holds it) and the page's phantoms.

    A network that was written from the same weights by the same code stays: to export one takes twenty seconds.

    Args:
        weights: a file of the ladder.
        folder: created if missing.
        packed: bytes that a reader fetches beside these files before the network runs.

    Raises:
        HistotransferError: the weights cannot be used; or their normaliser is one that the page does not know.
    """
    model, metadata = load_model(weights)
    known = describe(metadata, weights)
    if not isinstance(known.colours, NoNormalisation) and type(known.colours) is not Macenko:
        raise HistotransferError(
            f"{weights}: the page Try it does not know its normaliser, {known.normaliser}; it knows none and macenko"
        )
    features = WithFeatures(model).eval()
    folder.mkdir(parents=True, exist_ok=True)
    network, made_from, key = folder / NETWORK, folder / "network.key", _key(weights)
    if not (network.is_file() and made_from.is_file() and made_from.read_text(encoding="utf-8") == key):
        with whole_file(network) as temporary:
            write_half(features, metadata, temporary)
        write_text(made_from, key)
    needed, settings = [network], _settings(known)
    if beside := load_beside(weights):
        familiar = familiarity(beside, features.channels, weights)
        with whole_file(folder / FAMILIARITY) as temporary:
            temporary.write_bytes(familiar.known.astype("<f4").tobytes())
        needed.append(folder / FAMILIARITY)
        settings["familiarity"] = {
            "mean": familiar.mean.tolist(),
            "scale": familiar.scale.tolist(),
            "threshold": familiar.threshold,
            "neighbours": NEIGHBOURS,
        }
    settings |= {"bytes": packed + sum(path.stat().st_size for path in needed), "pictures": list(_phantoms(folder))}
    write_json(folder / SETTINGS, settings)


def _key(weights: Path) -> str:
    """What an exported network depends on."""
    code = [Path(module.__file__ or "").read_bytes() for module in (export, se_densenet)]
    return "\n".join(
        [file_hash(weights), *map(version, ("torch", "onnx")), *(sha256(text).hexdigest() for text in code)]
    )


def _settings(known: Description) -> dict[str, Any]:
    """What the page must know of the network, and the constants of the package that it computes with."""
    jitter = StainJitter()
    settings: dict[str, Any] = known.model_dump(
        include={"classes", "size", "profile", "normaliser", "sets", "temperature"}
    )
    settings |= {
        "views": known.views.model_dump(),
        "jitter": {name: getattr(jitter, name) for name in ("sigma_alpha", "sigma_beta", "seed")}
        | {"draws": JITTER_DRAWS},
        "mean": IMAGENET_MEAN,
        "deviation": IMAGENET_STD,
        "coverage": COVERAGE,
        "cannot_tell": CANNOT_TELL,
        "warning": WARNING,
        "limits": _named(pictures, "MAX_PIXELS MIN_SIDE DARK GREY COLOURED"),
        "notes": _named(
            notes, "MIN_SHARPNESS DETAIL FOCUS_SIDE MAX_ASPECT MAX_SHRUNK MAX_ENLARGED OUT_OF_FOCUS UNLIKE"
        ),
        "stain": _named(density, STAIN) | _named(maps, "MAX_GLASS_SHIFT RAMP") | _named(normalisers, "MAX_GAIN"),
    }
    if isinstance(known.colours, Macenko):
        reference = known.colours.reference
        settings["reference"] = {
            "stains": reference.stain_matrix.tolist(),
            "amounts": reference.max_concentrations.tolist(),
            "glass": reference.glass.tolist(),
        }
    return settings


STAIN = (
    "LIGHT GLASS_LEVEL MIN_GLASS TRANSPARENT SAMPLE REFERENCE_STAINS MIN_TISSUE MIN_TISSUE_PIXELS MAX_INK INK_DARK"
    " INK_GREEN INK_GREEN_BLUE MIN_VARIANCE MAX_FLATNESS STAIN_ANGLE MAX_DRIFT MIN_ABSORPTION IN_PLANE SAME_AMOUNT"
)


def _named(module: ModuleType, names: str) -> dict[str, Any]:
    """Constants of a module by their names in small letters, as JSON can hold them."""
    values = {name.lower(): getattr(module, name) for name in names.split()}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _phantoms(folder: Path) -> Iterator[dict[str, str]]:
    """Write the phantoms as PNG; yield file and name of each."""
    for name, (patient, magnification, number, flaw) in FIELDS.items():
        field = breast_image(patient, magnification, number, size=SIDE).image.copy()
        if flaw == "a pen mark":
            cv2.line(field, (SIDE // 10, SIDE // 6), (SIDE - SIDE // 6, SIDE // 2), (20, 130, 60), SIDE // 12)
        elif flaw == "hardly any tissue":
            field[:, SIDE // 80 :] = 240
        elif flaw == "out of focus":
            field = cv2.GaussianBlur(field, (0, 0), SIDE / 50)
        Image.fromarray(field).save(folder / f"{name}.png")
        yield {"file": f"{name}.png", "name": flaw or name.replace("-", ", field ")}
