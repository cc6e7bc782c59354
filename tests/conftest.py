"""Fixtures that several test modules share."""

import os
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image

from histotransfer.config import cache_dir
from histotransfer.datasets import breakhis
from histotransfer.datasets.table import image_table
from histotransfer.models.se_densenet import SEDenseNet

# No deadline: a busy machine is no bug. Derandomised: a failure in CI is a failure at home.
settings.register_profile("histotransfer", deadline=None, derandomize=True, database=None)
settings.load_profile("histotransfer")


REAL_CACHE = cache_dir()
WEIGHTS = "densenet121-imagenet.safetensors"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """The tests keep their activations and checkpoints apart from the user's; only the ImageNet weights are shared."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / WEIGHTS).symlink_to(REAL_CACHE / WEIGHTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISTOTRANSFER_CACHE", str(folder))
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with the real images."""
    if not os.environ.get("HISTOTRANSFER_DATA"):
        pytest.skip("HISTOTRANSFER_DATA is not set: no real images")
    return Path(os.environ["HISTOTRANSFER_DATA"]).resolve()


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory) -> Path:
    """Folder with a small phantom data set."""
    from histotransfer.datasets.phantom import write_phantom

    return write_phantom(tmp_path_factory.mktemp("phantom") / "data", size=48, images_per_magnification=1)


@pytest.fixture(scope="session")
def trunk():
    """ImageNet weights, from the cache or the network."""
    from histotransfer.models.weights import imagenet_trunk

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISTOTRANSFER_CACHE", str(REAL_CACHE))
        return imagenet_trunk()


@pytest.fixture(scope="session")
def make_model():
    """A small SE-DenseNet with random weights, and BatchNorm statistics as if it had been trained."""

    def make(seed=0, **options) -> SEDenseNet:
        small = {"block_config": (2, 2, 2, 2), "growth_rate": 8, "stem_features": 16, "reduction": 4}
        torch.manual_seed(seed)
        model = SEDenseNet(**small | options)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        return model

    return make


SMALL_NETWORK = Path(__file__).with_name("small_network.py")


@pytest.fixture(scope="module")
def small_network():
    """For the rest of the module every run trains the network of `small_network.py`: the file, for other processes."""
    with pytest.MonkeyPatch.context() as patch:
        runpy.run_path(str(SMALL_NETWORK))["shrink"](patch.setattr)
        yield SMALL_NETWORK


@pytest.fixture(scope="session")
def make_table():
    """An image table from (group, label) of each image; the paths do not exist unless a folder is given."""

    def make(images, folder=Path("/nowhere")) -> pd.DataFrame:
        rows = [
            {"path": str(folder / f"{i:04d}.png"), "dataset": "made", "label": label, "patient": group}
            for i, (group, label) in enumerate(images)
        ]
        return image_table(rows, where="made")

    return make


@pytest.fixture(scope="session")
def make_predictions():
    """A predictions table of patients with their own difficulty, as records have it."""

    def make(patients=12, images=5, seed=0, magnifications=(40, 100), part="test") -> pd.DataFrame:
        generator = np.random.default_rng(seed)
        rows = []
        for patient in range(patients):
            truth = ("benign", "malignant")[patient % 2]
            shift = (1 if truth == "malignant" else -1) + generator.normal()
            for i in range(images):
                score = shift + generator.normal()
                rows.append(
                    {
                        "image": f"breast/{patient:03d}-{i}.png",
                        "patient": f"14-{patient}A",
                        "group": f"14-{patient}",
                        "magnification": magnifications[i % len(magnifications)],
                        "subtype": "adenosis" if truth == "benign" else "ductal_carcinoma",
                        "part": part,
                        "fold": 0,
                        "seed": 0,
                        "truth": truth,
                        "logit_benign": -score / 2,
                        "logit_malignant": score / 2,
                    }
                )
        return pd.DataFrame(rows)

    return make


@pytest.fixture(scope="session")
def write_made_run(make_predictions):
    """Write the folder of a run that never ran; `changes` replace arguments of `write_run` and the record's metrics."""
    from histotransfer.records import write_run

    def write(folder, **changes):
        predictions = changes.pop("predictions", make_predictions())
        record = {
            "experiment": folder.parent.name,
            "run": folder.name,
            "profile": "phantom",
            "config": {"size": 32},
            "data": {"name": "breakhis"},
            "split": {"kind": "grouped", "parts": {}},
            "seed": 0,
            "dose": {},
            "metrics": changes.pop("metrics", {}),
        }
        history = pd.DataFrame({"dataset": ["breakhis"], "stage": ["head"], "epoch": [1], "train_loss": [1 / 3]})
        arguments = {"record": record, "predictions": predictions, "history": history, "provenance": {"seconds": 1}}
        write_run(folder, **arguments | changes)
        return folder

    return write


@pytest.fixture
def write_model(make_model, tmp_path):
    """A weights file of the small network, described as a ladder run describes its own."""
    from histotransfer.models.weights import save_model

    def write(without=None, beside=None, seed=0, **changes) -> Path:
        small = {"block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}
        description = {
            "architecture": {"num_classes": 2, "positions": ["block", "transition"], **small},
            "classes": ["benign", "malignant"],
            "size": 48,
            "normaliser": "none",
            "views": {"views": 4, "augmentation": "none"},
            "profile": "phantom",
            "imagenet": "random",
        }
        description = {key: value for key, value in (description | changes).items() if key != without}
        save_model(make_model(seed), tmp_path / "model.safetensors", description, beside)
        return tmp_path / "model.safetensors"

    return write


@pytest.fixture(scope="session")
def with_ucsb(phantom_root, tmp_path_factory):
    """The phantom folder with six fields under UCSB's names beside it."""
    root = tmp_path_factory.mktemp("with ucsb")
    for entry in phantom_root.iterdir():
        (root / entry.name).symlink_to(entry)
    (root / "UCSB_breast").mkdir()
    table = breakhis.load(phantom_root)
    for number, label in enumerate(breakhis.LABELS * 3, start=1):
        source = table[table["label"] == label]["path"].iloc[number]
        Image.open(source).save(root / "UCSB_breast" / f"ytma{number}_010203_{label}1_ccd.png")
    return root
