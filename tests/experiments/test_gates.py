import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from histotransfer.errors import HistotransferError
from histotransfer.experiments import gates
from histotransfer.experiments.gates import gate_statistics
from histotransfer.models.weights import load_model, save_model
from histotransfer.tiles import TileSource

SMALL = {"block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}
PREPARATION = {
    "normaliser": "none",
    "classes": ["benign", "malignant"],
    "profile": "phantom",
    "views": {"views": 1, "augmentation": "none"},
    "imagenet": "random",
}


@pytest.fixture
def tiles():
    return TileSource(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))


def test_untrained_gates_have_not_moved(make_model, tiles):
    table = gate_statistics(make_model().eval(), tiles)
    assert list(table.index) == [
        *("denseblock1", "transition1", "denseblock2", "transition2", "denseblock3", "transition3", "denseblock4")
    ]
    assert (table[["lowest", "highest"]] == 1).all(axis=None)
    assert (table[["moved", "by_image"]] == 0).all(axis=None)


def test_a_moved_gate_is_seen_where_it_is(make_model, tiles):
    model = make_model().eval()
    with torch.no_grad():
        model.features.denseblock2.se.expand.bias.fill_(-2)
        torch.nn.init.normal_(model.features.transition3.se.expand.weight)
    table = gate_statistics(model, tiles)
    gate = 2 / (1 + np.exp(2))
    row = table.loc["denseblock2"]
    assert row[["lowest", "highest"]].tolist() == pytest.approx([gate] * 2)
    assert row["moved"] == pytest.approx(1 - gate)
    assert row["by_image"] == pytest.approx(0, abs=1e-7)
    assert table.loc["transition3", "by_image"] > 0
    assert table.loc[["denseblock1", "denseblock4"], "moved"].tolist() == [0, 0]
    x = tiles.batch(np.arange(5), np.zeros(5, dtype=int))
    inner = model.features[:9]  # up to the third block: what the third transition sees
    with torch.inference_mode():
        transition = model.features.transition3
        gates = transition.se.gates(transition.conv(transition.relu(transition.norm(inner(x)))))
    assert table.loc["transition3", "moved"] == pytest.approx((gates - 1).abs().mean().item(), rel=1e-5)
    assert table.loc["transition3", "channels"] == gates.shape[1]


@pytest.fixture
def run(make_model, make_predictions, write_made_run, tmp_path):
    """A run with weights whose last gate has moved, and its images."""
    model = make_model()
    with torch.no_grad():
        torch.nn.init.normal_(model.features.denseblock4.se.expand.weight)
    description = {"architecture": {"num_classes": 2, **SMALL}, "size": 32, **PREPARATION}
    predictions = make_predictions(patients=4)
    predictions["part"] = ["validation"] * 4 + ["test"] * (len(predictions) - 4)
    for i, image in enumerate(predictions["image"][:4]):  # those of the test part are not even there
        (tmp_path / "data" / image).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / image)
    extra = {"model.safetensors": lambda path: save_model(model, path, description)}
    config = {"breakhis_schedule": [["head", 1]]}
    record = {"experiment": "made", "run": "ladder", "profile": "phantom", "config": config, "seed": 0}
    record |= {"data": {"name": "breakhis"}, "split": {"kind": "patient", "parts": {}}, "dose": {}, "metrics": {}}
    return write_made_run(tmp_path / "made" / "ladder", predictions=predictions, extra=extra, record=record)


def test_gates_are_recorded_on_validation_images_alone(run, tmp_path):
    out = gates.run(run, tmp_path / "data", tmp_path / "gates")
    table = pd.read_csv(out / "gates.csv", index_col="gate")
    assert (table["moved"] > 0).tolist() == [False] * 6 + [True]
    record = json.loads((out / "record.json").read_text())
    assert (record["images"], record["part"], record["run"]) == (4, "validation", "ladder")
    model, _ = load_model(run / "model.safetensors")
    files = sorted((tmp_path / "data" / "breast").iterdir())
    x = TileSource(np.stack([np.asarray(Image.open(file)) for file in files])).batch(np.arange(4), np.zeros(4, int))
    with torch.inference_mode():
        block = model.features.denseblock4
        se, block.se = block.se, None
        values = se.gates(model.features[:11](x))  # what the last block hands to its gate
    assert table.loc["denseblock4", "highest"] == pytest.approx(values.max().item(), rel=1e-5)


def test_weights_of_another_run_are_refused(run, make_model, tmp_path):
    description = {"architecture": {"num_classes": 2, **SMALL}, "size": 32, **PREPARATION}
    save_model(make_model(seed=1), run / "model.safetensors", description)
    with pytest.raises(HistotransferError, match="is not the file that record"):
        gates.run(run, tmp_path / "data", tmp_path / "gates")
    assert not (tmp_path / "gates").exists()
