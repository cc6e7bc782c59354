"""What is written for the page "Try it": the network in 16 bits, and every constant that the page computes with."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from histotransfer.deploy.browser import FAMILIARITY, FIELDS, NETWORK, SETTINGS, write_for_browser
from histotransfer.deploy.export import read_network
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import OnArrays, WithFeatures
from histotransfer.models.weights import load_model, save_model
from histotransfer.pictures import decode

SMALL = {"num_classes": 2, "block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}
DESCRIPTION = {
    "architecture": SMALL,
    "classes": ["calm", "wild"],
    "size": 64,
    "profile": "lite",
    "views": {"views": 8, "augmentation": "views"},
    "normaliser": "none",
    "imagenet": "none",
}
STATIC = Path(__file__).parents[2] / "book/_static/try-it"


@pytest.fixture
def weights(make_model, tmp_path):
    path = tmp_path / "network.safetensors"
    save_model(make_model().half(), path, DESCRIPTION)
    return path


@pytest.mark.slow
def test_the_network_is_half_as_large_and_computes_the_same(weights, tmp_path):
    folder = tmp_path / "site"
    write_for_browser(weights, folder, packed=1000)
    stored = onnx.load(folder / NETWORK).graph.initializer
    kinds = {numpy_helper.to_array(one).dtype for one in stored}
    assert np.dtype(np.float32) not in kinds and np.dtype(np.float16) in kinds
    model = WithFeatures(load_model(weights)[0]).eval()
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64), dtype=np.float32)
    np.testing.assert_allclose(read_network(folder / NETWORK, "onnx")(images), OnArrays(model)(images), atol=1e-5)
    settings = json.loads((folder / SETTINGS).read_text())
    assert settings["classes"] == ["calm", "wild"] and settings["views"] == {
        "views": 8,
        "augmentation": "views",
        "averaged": None,
    }
    assert settings["bytes"] == 1000 + (folder / NETWORK).stat().st_size
    assert "familiarity" not in settings and not (folder / FAMILIARITY).exists()
    assert [one["file"] for one in settings["pictures"]] == [f"{name}.png" for name in FIELDS]
    assert all(decode(folder / one["file"]).shape == (320, 320, 3) for one in settings["pictures"])

    # Written again only from other weights.
    (folder / NETWORK).write_bytes(b"as it was")
    write_for_browser(weights, folder)
    assert (folder / NETWORK).read_bytes() == b"as it was"
    save_model(load_model(weights)[0].half(), weights, DESCRIPTION | {"size": 96})
    write_for_browser(weights, folder)
    assert (folder / NETWORK).stat().st_size > 10_000 and json.loads((folder / SETTINGS).read_text())["size"] == 96


def test_a_normaliser_that_the_page_does_not_know_is_refused(make_model, tmp_path):
    path = tmp_path / "network.safetensors"
    save_model(make_model(), path, DESCRIPTION | {"normaliser": "reinhard"})
    with pytest.raises(HistotransferError, match="does not know its normaliser, reinhard"):
        write_for_browser(path, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_page_names_no_setting_that_is_not_written():
    from histotransfer.deploy.browser import _settings
    from histotransfer.models.description import Description

    settings = json.loads(json.dumps(_settings(Description(**DESCRIPTION | {"normaliser": "macenko"}))))
    names = set(settings) | {name for value in settings.values() if isinstance(value, dict) for name in value}
    names |= {"familiarity", "bytes", "pictures"}
    used = {
        name
        for path in STATIC.glob("*.js")
        for name in re.findall(r"(?:known|limits|known\.\w+)\.([a-z_]+)\b(?!\()", path.read_text(encoding="utf-8"))
    }
    assert len(used) > 25 and used <= names, used - names
