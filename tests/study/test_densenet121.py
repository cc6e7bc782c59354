"""A run with the real network; what else is done with a network, `test_runner` does with a small one."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis
from histotransfer.deploy.predict import Predictor
from histotransfer.models.se_densenet import DENSENET121
from histotransfer.models.weights import load_model
from histotransfer.records import image_paths, read_run
from histotransfer.study.runner import run_ladder

SETTINGS = {"size": 48, "lc25000_schedule": "head:1", "breakhis_schedule": "head:1,block4:1", "seed": 1}


@pytest.fixture(scope="module")
def ladder(phantom_root, trunk, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "tiny"
    return read_run(run_ladder(ladder_config("phantom", SETTINGS), phantom_root, out, report=lambda line: None))


def test_it_starts_from_imagenet_and_keeps_what_is_frozen(ladder, trunk):
    assert ladder.record["config"]["imagenet"] == {"source": trunk.source, "content_hash": trunk.content_hash}
    model, _ = load_model(ladder.folder / "model.safetensors")
    blocks = [model.features.get_submodule(f"denseblock{number}") for number in (1, 2, 3, 4)]
    layers = [sum("denselayer" in name for name, _ in block.named_children()) for block in blocks]
    assert tuple(layers) == DENSENET121
    frozen = [name for name in trunk.state if "denseblock3" in name]
    assert frozen and all(torch.equal(model.state_dict()[name], trunk.state[name]) for name in frozen)


def test_the_weights_file_predicts_what_the_record_says(ladder, phantom_root):
    predictor = Predictor(ladder.folder / "model.safetensors")
    known = predictor.description
    assert (known.profile, known.size, known.classes) == ("phantom", 48, ["benign", "malignant"])
    logits = ladder.predictions[["logit_benign", "logit_malignant"]].to_numpy()
    found = list(predictor.predict(image_paths(ladder.predictions["image"], phantom_root)))
    np.testing.assert_allclose([result.probabilities for result in found], softmax(logits, axis=1), atol=1e-5)
    assert [result.label for result in found] == [breakhis.LABELS[i] for i in logits.argmax(axis=1)]
