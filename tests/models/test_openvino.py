import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from histotransfer.errors import HistotransferError
from histotransfer.models import openvino

DESCRIPTION = {"size": 32, "classes": ["a", "b"]}


@pytest.fixture(scope="module")
def model(make_model):
    """With gates that have moved."""
    model = make_model().eval()
    with torch.no_grad():
        torch.nn.init.normal_(model.features.denseblock3.se.expand.weight)
    return model


@pytest.fixture(scope="module")
def converted(model):
    return openvino.convert(model, 32, DESCRIPTION)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((5, 3, 32, 32), dtype=np.float32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_file_with_weights_that_are_no_numbers_is_refused(make_model, tmp_path, value):
    model = make_model().eval()
    with torch.no_grad():
        model.classifier.weight[0, 0] = value
    openvino.save(openvino.convert(model, 32, DESCRIPTION), tmp_path / "m.xml")
    with pytest.raises(HistotransferError, match=r"m\.xml: its weights hold NaN or infinity"):
        openvino.load(tmp_path / "m.xml")


def test_a_converted_network_computes_what_it_did(model, converted, images):
    network = openvino.OpenVINONetwork(converted)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(network(images), expected, atol=1e-5)
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(network(channels_last), expected, atol=1e-5)
    assert np.array_equal(network(images)[3:4], network(images[3:4]))
    assert openvino.outputs(converted) == 2


def test_it_computes_in_float32_even_where_the_processor_has_less(converted, monkeypatch):
    seen = {}
    core = openvino.import_openvino().Core

    class Core(core):
        def compile_model(self, model, device, settings):
            seen.update(settings)
            return super().compile_model(model, device, settings)

    monkeypatch.setattr("openvino.Core", Core)
    openvino.OpenVINONetwork(converted)
    assert seen["INFERENCE_PRECISION_HINT"] == "f32"


def test_a_network_and_its_description_survive_the_file(model, converted, images, tmp_path):
    openvino.save(converted, tmp_path / "model.xml")
    read, description = openvino.load(tmp_path / "model.xml")
    assert description == DESCRIPTION
    assert np.array_equal(openvino.OpenVINONetwork(read)(images), openvino.OpenVINONetwork(converted)(images))
    folded = 0.9 * sum(p.numel() for p in model.parameters())  # BatchNorm may have become part of a convolution
    assert (tmp_path / "model.bin").stat().st_size > 4 * folded  # not halved


def test_files_that_are_no_networks_are_one_line(converted, tmp_path):
    whole, foreign = tmp_path / "whole.xml", tmp_path / "foreign.xml"
    openvino.save(converted, whole)
    (tmp_path / "text.xml").write_text("hello")
    (tmp_path / "text.bin").write_bytes(b"")
    (tmp_path / "alone.xml").write_bytes(whole.read_bytes())
    stranger = converted.clone()
    stranger.set_rt_info("{}", ["other"])
    openvino.import_openvino().save_model(stranger, foreign)
    text = foreign.read_text()
    foreign.write_text(text.replace('<histotransfer value="', '<stranger value="'))
    for name, trouble in (
        ("gone.xml", "no such file"),
        ("alone.bin", "no such file"),
        ("text.xml", "not a readable OpenVINO model"),
        ("foreign.xml", "not written by"),
    ):
        with pytest.raises(HistotransferError, match=rf"{name}: {trouble}") as error:
            openvino.load((tmp_path / name).with_suffix(".xml"))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("package", "call"), [("openvino", "convert"), ("nncf", "quantise")])
def test_a_missing_package_is_one_line_that_says_what_to_install(model, converted, images, monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HistotransferError, match=r"pip install 'histotransfer\[export\]'"):
        openvino.convert(model, 32, {}) if call == "convert" else openvino.quantise(converted, images)


def test_int8_is_near_float32_and_really_int8(converted, images, tmp_path, capfd):
    smaller = openvino.quantise(converted, images)
    assert capfd.readouterr() == ("", "")
    difference = np.abs(openvino.OpenVINONetwork(smaller)(images) - openvino.OpenVINONetwork(converted)(images))
    assert 1e-6 < difference.max() < 0.3
    types = {str(node.get_element_type()) for node in smaller.get_ops() if node.get_type_name() == "Constant"}
    assert any("int8" in name for name in types)
    openvino.save(converted, tmp_path / "large.xml")
    openvino.save(smaller, tmp_path / "small.xml")
    assert (tmp_path / "small.bin").stat().st_size < 0.6 * (tmp_path / "large.bin").stat().st_size
    assert openvino.load(tmp_path / "small.xml")[1] == DESCRIPTION


TRIES = """
import socket, sys
from pathlib import Path
def refuse(*arguments, **options):  # into a file: the report is sent by a process of its own
    with Path(sys.argv[2]).open("a") as file:
        print(arguments, file=file)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import numpy, torch
from histotransfer.models import openvino
from histotransfer.models.se_densenet import SEDenseNet
model = SEDenseNet(2, block_config=(1, 1), growth_rate=4, stem_features=8).eval()
if sys.argv[1] == "with telemetry":
    import openvino as package
    openvino.import_openvino = lambda: package
openvino.quantise(openvino.convert(model, 32, {}), numpy.zeros((2, 3, 32, 32), numpy.float32))
if telemetry := sys.modules.get("openvino_telemetry"):
    telemetry.Telemetry().force_shutdown(5)
"""


@pytest.mark.slow
def test_nothing_is_reported_to_anyone(tmp_path):
    """Without this module's precaution the same calls try to reach a host; here they are not let through."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment |= {"HOME": str(tmp_path)}

    def tries(how):
        log = tmp_path / how
        command = [sys.executable, "-W", "ignore", "-c", TRIES, how, str(log)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return log.read_text().splitlines() if log.exists() else []

    assert tries("without telemetry") == []
    assert not (tmp_path / "intel").exists()
    assert tries("with telemetry") != []
