import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis
from histotransfer.deploy import export
from histotransfer.deploy import release as module
from histotransfer.deploy.predict import Predictor
from histotransfer.deploy.release import release, ship
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.formatting import number
from histotransfer.models import openvino
from histotransfer.models.weights import Trunk, load_model, save_model
from histotransfer.records import PREDICTIONS
from histotransfer.report.study import Study
from histotransfer.report.tables import with_intervals
from histotransfer.splits import grouped_split
from histotransfer.study.execution import run_plan
from histotransfer.study.plan import read_plan
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
    record = {"experiment": "made", "run": "ladder", "profile": "phantom", "seed": 3, "metrics": {}}
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
    everything = task.source.batch(np.arange(len(split)), np.zeros(len(split), dtype=int))
    keys = {image.numpy().tobytes(): part for image, part in zip(everything, split["split"], strict=True)}
    assert {keys[image.numpy().tobytes()] for image in seen["images"]} == {"train"}
    assert len(seen["images"]) == (split["split"] == "train").sum()

    card = files[-1].read_text()
    network, description = openvino.load(out / "model-int8.xml")
    assert description["data"]["fingerprint"] in card
    test = task.rows("test")
    with torch.inference_mode():
        logits = openvino.OpenVINONetwork(network)(everything[test])
    guess = np.where(logits.argmax(dim=1) == 1, "malignant", "benign")
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


@pytest.fixture(scope="module")
def shipped(with_ucsb, trunk, tmp_path_factory):
    """A study whose final recipe is tiny, done and shipped; and the files."""
    tmp_path = tmp_path_factory.mktemp("shipped")
    plans = tmp_path / "study"
    plans.mkdir()
    (plans / "claims.toml").write_text("[claims]\n")
    (plans / "final.toml").write_text(
        'experiment = "final"\nanswers = []\nprofile = "phantom"\nfolds = [0, 1]\nseeds = [2]\nminutes = 1\n'
        '[settings]\nsize = 48\nfolds = 2\nsource = "none"\nexternal = true\n'
        'augmentation = "views"\naverage_views = true\nbreakhis_schedule = "head:1"\nbatch_size = 8\n'
        "[arms.final]\n"
    )
    run_plan(read_plan(plans / "final.toml"), with_ucsb, tmp_path / "results", report=silent)
    study = Study(plans, tmp_path / "results")
    return study, ship(study, with_ucsb, tmp_path / "models", report=silent)


def test_the_network_that_ships_was_trained_on_everybody_and_is_small(shipped, phantom_root):
    study, (path, card) = shipped
    model, description = load_model(path)
    assert description["config"]["split"] == "none"
    assert description["data"]["images"] == len(breakhis.load(phantom_root))
    assert path.stat().st_size < 16e6
    assert next(model.parameters()).dtype == torch.float32
    said = card.read_text()
    assert "every patient of these images was trained on" in said
    found = with_intervals({"recipe": study.pooled("final", "final")})
    row = found[(found["metric"] == "auroc") & (found["magnification"] == "all")].iloc[0]
    assert number(row["value"], row["low"], row["high"]) in said
    home, elsewhere = said.split("## The recipe on slides from elsewhere")
    outside = with_intervals({"recipe": study.pooled("final", "final", part="ucsb")}, "ucsb")
    row = outside.set_index("metric").loc["auroc"]
    assert number(row["value"], row["low"], row["high"]) in elsewhere and "| 6 |" in elsewhere
    assert "the mean of the logits of 4 symmetric views\n" in home
    assert sorted(file.name for file in path.parent.iterdir()) == ["final.safetensors", "final.safetensors.md"]


def test_the_network_that_ships_predicts(shipped, phantom_root):
    _, (path, _) = shipped
    table = breakhis.load(phantom_root)
    found = list(Predictor(path).predict(table["path"][:4]))
    assert [result.label in breakhis.LABELS for result in found] == [True] * 4


def test_nothing_ships_before_its_recipe_was_tested(shipped, phantom_root, tmp_path):
    study = Study(shipped[0].study, tmp_path / "results")
    shutil.copytree(shipped[0].results, study.results)
    shutil.rmtree(study.results / "final" / "final-s2-f1")
    with pytest.raises(HistotransferError, match="final, arm final: 1 of 2 runs are not there yet"):
        ship(study, phantom_root, tmp_path / "others", report=silent)
    assert not (tmp_path / "others").exists()
