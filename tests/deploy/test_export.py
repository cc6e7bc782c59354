import json
import sys

import numpy as np
import onnx
import pytest
import torch

from histotransfer.deploy.export import SUFFIX, check_outputs, read_network, write_network
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import OnArrays

SMALL = {"num_classes": 2, "block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}
DESCRIPTION = {"architecture": SMALL, "size": 32, "classes": ["a", "b"]}


@pytest.fixture(scope="module")
def model(make_model):
    model = make_model().eval()
    with torch.no_grad():
        torch.nn.init.normal_(model.features.denseblock3.se.expand.weight)
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """The network in every format."""
    paths = {to: tmp_path_factory.mktemp(to) / f"model{suffix}" for to, suffix in SUFFIX.items()}
    for to, path in paths.items():
        write_network(model, DESCRIPTION, to, path)
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("to", SUFFIX)
def test_every_format_computes_what_the_network_does(model, images, written, to):
    assert check_outputs(model, read_network(written[to], to), images) < 1e-5
    files = {file.suffix for file in written[to].parent.iterdir()}
    assert files == {SUFFIX[to]} | ({".bin"} if to == "openvino" else set())


@pytest.mark.slow
def test_onnx_is_valid_for_any_batch_and_carries_its_description(written):
    found = onnx.load(written["onnx"])
    onnx.checker.check_model(found, full_check=True)
    (entry,) = found.graph.input
    batch, *rest = entry.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [side.dim_value for side in rest] == [3, 32, 32]
    metadata = {entry.key: entry.value for entry in found.metadata_props}
    assert json.loads(metadata["histotransfer"]) == DESCRIPTION


def test_another_network_is_not_taken_for_the_same(model, images):
    with pytest.raises(HistotransferError, match=r"outputs differ by 0.0002.*nothing was written"):
        check_outputs(model, lambda x: OnArrays(model)(x) + 2e-4, images)
    with pytest.raises(HistotransferError, match="outputs differ by nan"):
        check_outputs(model, lambda x: OnArrays(model)(x) * float("nan"), images)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_onnx_there_is_one_line(model, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HistotransferError, match=rf"{package} is not installed: pip install 'histotransfer\[export\]'"):
        write_network(model, DESCRIPTION, "onnx", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
