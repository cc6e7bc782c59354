import re
import resource

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis
from histotransfer.deploy import export
from histotransfer.deploy import release as module
from histotransfer.deploy.release import release
from histotransfer.errors import HistotransferError, one_line
from histotransfer.models import openvino
from histotransfer.models.weights import Trunk, save_model
from histotransfer.models.weights_file import load_beside
from histotransfer.records import PREDICTIONS
from histotransfer.splits import grouped_split
from histotransfer.study.runner import model_description, predictions_of
from histotransfer.study.tasks import target_task
from histotransfer.transfer.training import predict_logits

SMALL = {"num_classes": 2, "block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}


@pytest.fixture(scope="module")
def task(phantom_root):
    settings = {"size": 48, "normaliser": "none", "fold": 1, "seed": 3}
    return target_task(ladder_config("phantom", settings), phantom_root)


@pytest.fixture
def weights(task, make_model, write_made_run, tmp_path):
    """A run with its record, of a small network that was never trained."""
    model = make_model().eval()
    description = model_description(task, task.config, Trunk({}, "random", "")) | {"architecture": SMALL}
    logits = predict_logits(model, task.source, 32)[task.rows("test")]
    predictions = predictions_of(task, task.rows("test"), logits, task.config)
    record = {"experiment": "made", "run": "ladder", "profile": "phantom", "seed": 3, "dose": {}, "metrics": {}}
    record |= {"data": {"name": "breakhis"}, "config": {"fold": 1, "folds": 5}}
    record |= {"split": {"kind": "patient", "parts": {"test": len(predictions), "train": 70}}}
    extra = {"model.safetensors": lambda path: save_model(model, path, description)}
    folder = write_made_run(tmp_path / "made" / "ladder", predictions=predictions, record=record, extra=extra)
    return folder / "model.safetensors"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def silent(line):
    pass


@pytest.mark.parametrize(
    ("to", "names"),
    [
        ("openvino", ["model.bin", "model.xml", "model.xml.md"]),
        ("safetensors", ["model.safetensors", "model.safetensors.md"]),
    ],
)
def test_a_network_is_written_with_its_card_and_nothing_else(weights, out, to, names):
    files = release(weights, to, out, report=silent)
    assert [file.name for file in files] == names == sorted(file.name for file in out.iterdir())
    card = files[-1].read_text()
    for said in ("Not a medical device", "synthetic", "benign, malignant", "test fold 2 of 5, seed 3"):
        assert said in card


@pytest.mark.parametrize("limit", [100, 50_000])
@pytest.mark.parametrize("to", ["openvino", "safetensors", "onnx"])
def test_on_a_full_disk_the_line_names_the_file_that_was_asked_for(weights, out, to, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError) as error:
            release(weights, to, out, report=silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    name = {"openvino": "model.xml"}.get(to, f"model.{to}")
    assert one_line(error.value).startswith(f"{out / name}: File too large; ")
    assert not list(out.iterdir())


def test_what_lies_beside_a_network_goes_with_it(write_model, out):
    weights = write_model(beside={"mean_": np.ones(3, np.float32)})
    release(weights, "safetensors", out, report=silent)
    assert load_beside(out / weights.name)["mean_"].tolist() == [1, 1, 1]


def test_the_card_has_the_records_numbers_with_intervals(weights, out):
    card = release(weights, "safetensors", out, report=silent)[-1].read_text()
    predictions = pd.read_csv(weights.parent / PREDICTIONS)
    guess = np.where(predictions["logit_malignant"] >= predictions["logit_benign"], "malignant", "benign")
    accuracy = accuracy_score(predictions["truth"], guess)
    last = next(line for line in card.splitlines() if line.startswith("| all "))
    assert re.match(rf"\| all \| {accuracy:.2f}( \[\d\.\d\d,\s\d\.\d\d\])? \|", last)
    assert f"| {len(predictions)} |" in last


def test_weights_without_a_record_have_no_metrics(weights, out):
    (weights.parent / "record.json").unlink()
    assert "not measured here" in release(weights, "safetensors", out, report=silent)[-1].read_text()


@pytest.mark.parametrize(
    ("reference", "said"), [([], "reinhard; then"), ([[60] * 3, [9] * 3], "its training images; then")]
)
def test_the_card_says_whose_colours_are_normalised_to(write_model, out, reference, said):
    weights = write_model(normaliser="reinhard", reference=reference)
    assert said in release(weights, "safetensors", out, report=silent)[-1].read_text()


def test_a_record_of_another_network_lends_no_metrics(weights, make_model, out):
    description = {"architecture": SMALL, "size": 48, "classes": ["benign", "malignant"]}
    description |= {"normaliser": "none", "profile": "phantom", "imagenet": "random"}
    description |= {"views": {"views": 1, "augmentation": "none"}}
    save_model(make_model(seed=1), weights, description)
    card = release(weights, "safetensors", out, report=silent)[-1].read_text()
    assert "another network's" in card
    assert "not recorded in the weights file" in card


def test_outputs_that_differ_leave_nothing_behind(weights, out, monkeypatch):
    def broken(path, to):
        network = export.read_network(path, to)
        return lambda x: network(x) + 1e-3

    monkeypatch.setattr(module, "read_network", broken)
    with pytest.raises(HistotransferError, match="nothing was written"):
        release(weights, "safetensors", out, report=silent)
    assert not list(out.iterdir())


@pytest.mark.slow
def test_int8_is_calibrated_on_training_patients_and_measured_on_test_patients(
    weights, task, phantom_root, out, monkeypatch
):
    seen = {}
    quantise = openvino.quantise

    def spy(model, images):
        seen["images"] = images
        return quantise(model, images)

    monkeypatch.setattr(openvino, "quantise", spy)
    lines = []
    files = release(weights, "openvino", out, int8=True, data=phantom_root, report=lines.append)
    assert [file.name for file in files] == ["model-int8.bin", "model-int8.xml", "model-int8.xml.md"]
    split = grouped_split(breakhis.load(phantom_root), fold=1, seed=3)
    assert split["path"].tolist() == task.table["path"].tolist()
    everything = task.source.arrays(np.arange(len(split)), np.zeros(len(split), dtype=int))
    keys = {image.tobytes(): part for image, part in zip(everything, split["split"], strict=True)}
    assert {keys[image.tobytes()] for image in seen["images"]} == {"train"}
    assert len(seen["images"]) == (split["split"] == "train").sum()

    card = files[-1].read_text()
    network, description = openvino.load(out / "model-int8.xml")
    assert description["data"]["fingerprint"] in card
    test = task.rows("test")
    logits = openvino.OpenVINONetwork(network)(everything[test])
    guess = np.where(logits.argmax(axis=1) == 1, "malignant", "benign")
    accuracy = accuracy_score(split.loc[test, "label"], guess)
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| all | int8 ")]
    assert next(row[2][:4] for row in rows) == f"{accuracy:.2f}"
    assert sum(line.startswith("| all | int8 minus float32") for line in card.splitlines()) == 2
    assert "patient accuracy" in lines[-1]


def test_requests_that_cannot_be_met_are_one_line(weights, phantom_root, write_model, out, tmp_path):
    old = write_model()
    for arguments, trouble in (
        ((weights, "onnx", {"int8": True}), "int8 is written for openvino only"),
        ((weights, "openvino", {"int8": True}), "give their images with --data"),
        ((old, "openvino", {"data": phantom_root}), "lacks 'config'; train it again"),
    ):
        path, to, options = arguments
        with pytest.raises(HistotransferError, match=trouble):
            release(path, to, out, report=silent, **options)
    assert not list(out.iterdir())


def test_other_images_than_it_was_trained_on_are_refused(weights, phantom_root, tmp_path, out):
    other = tmp_path / "other"
    for path in (phantom_root / "BreaKHis_v1").rglob("*.png"):
        target = other / path.relative_to(phantom_root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    target.write_bytes(next((phantom_root / "BreaKHis_v1").rglob("*.png")).read_bytes() + b"\0")
    with pytest.raises(HistotransferError, match=r"not the \d+ images of breakhis"):
        release(weights, "openvino", out, int8=True, data=other, report=silent)
