import io
import itertools
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from histotransfer.datasets import phantom
from histotransfer.deploy.predict import (
    BATCH,
    HEAT,
    Prediction,
    Predictor,
    RowWriter,
    Trouble,
    find_pictures,
    write_overlay,
)
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.explain import grad_cam
from histotransfer.models import openvino
from histotransfer.models.weights import load_model
from histotransfer.pictures import resize
from histotransfer.stain import Reinhard, StainJitter, normaliser
from histotransfer.tiles import TileSource

TISSUE = phantom.breast_image(12, 200, 0, seed=0).image
COLOURS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def picture(tmp_path):
    def write(name, array=COLOURS):
        Image.fromarray(array).save(tmp_path / name)
        return str(tmp_path / name)

    return write


def expected(model, file, method):
    """Probabilities of one picture, step by step."""
    small = Image.open(file).resize((48, 48), Image.Resampling.BICUBIC)
    tile = normaliser(method).transform(np.asarray(small)).astype(np.float32) / 255
    x = (tile - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        return model(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])[0].softmax(dim=0)


@pytest.mark.parametrize("method", ["none", "reinhard"])
def test_a_prediction_is_the_networks_for_the_prepared_picture(write_model, make_model, picture, method):
    files = [picture("a.png"), picture("b.png", COLOURS // 2)]
    predictor = Predictor(write_model(normaliser=method))
    model = make_model().eval()
    for file, found in zip(files, predictor.predict(files), strict=True):
        probability = expected(model, file, method)
        assert found.file == file
        assert found.label == ["benign", "malignant"][probability.argmax()]
        assert found.probability == pytest.approx(probability.max().item(), abs=1e-5)


@pytest.mark.parametrize(("augmentation", "draws"), [("views", 1), ("views+stain", 4)])
def test_a_network_that_averages_views_predicts_by_their_mean(write_model, make_model, picture, augmentation, draws):
    file = picture("a.png", TISSUE)
    (found,) = Predictor(write_model(views={"views": 4, "augmentation": augmentation})).predict([file])
    tile, jitter, model = resize(TISSUE, 48), StainJitter(), make_model().eval()
    logits = []
    for draw in range(draws):
        drawn = jitter(tile, draw) if draw else tile
        for turned in (drawn, drawn[:, ::-1], drawn[::-1], drawn[::-1, ::-1]):
            x = (turned.astype(np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
            with torch.inference_mode():
                logits.append(model(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])[0])
    assert found.probability == pytest.approx(torch.stack(logits).mean(0).softmax(0).max().item(), abs=1e-5)


def test_colours_are_normalised_to_the_reference_that_the_weights_carry(write_model, picture):
    file, fitted = picture("a.png"), Reinhard().fit(COLOURS // 2)
    (published,) = Predictor(write_model(normaliser="reinhard")).predict([file])
    predictor = Predictor(write_model(normaliser="reinhard", reference=fitted.reference_parts()))
    (own,) = predictor.predict([file])
    assert predictor.description.normaliser.fingerprint() == fitted.fingerprint()
    assert own.probability != published.probability


def test_bad_pictures_cost_no_good_one_and_keep_their_place(write_model, picture, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    good = picture("good.png")
    files = [str(tmp_path / "gone.png"), good, str(tmp_path / "text.png"), good, picture("dot.png", COLOURS[:1, :1])]
    found = list(Predictor(write_model()).predict(files))
    assert [type(result) for result in found] == [Trouble, Prediction, Trouble, Prediction, Trouble]
    assert [result.file for result in found] == files
    assert found[1] == found[3]
    for result in found[::2]:
        assert result.message.startswith(f"{result.file}: ")
        assert "\n" not in result.message


def test_more_pictures_than_a_batch_come_in_order(write_model, picture):
    generator = np.random.default_rng(1)
    shapes = generator.integers(0, 256, (BATCH + 3, 20, 20, 3), dtype=np.uint8)
    files = [picture(f"{i}.png", array) for i, array in enumerate(shapes)]
    predictor = Predictor(write_model())
    found = list(predictor.predict(files))
    assert [result.file for result in found] == files
    alone = next(predictor.predict([files[-1]]))
    assert (found[-1].label, found[-1].probability) == (alone.label, pytest.approx(alone.probability, abs=1e-6))


def test_only_bad_pictures(write_model, tmp_path):
    assert [type(result) for result in Predictor(write_model()).predict([tmp_path / "gone.png"])] == [Trouble]
    assert list(Predictor(write_model()).predict([])) == []


def test_plain_glass_is_predicted_or_refused_but_never_breaks(write_model, picture):
    blank = picture("white.png", np.full((50, 50, 3), 255, np.uint8))
    (found,) = Predictor(write_model(normaliser="macenko")).predict([blank])
    assert isinstance(found, Prediction)


def test_pictures_in_any_container(write_model, tmp_path):
    predictor = Predictor(write_model())
    for kind in ("PNG", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(COLOURS).save(buffer, kind)
        (tmp_path / "x").write_bytes(buffer.getvalue())
        (found,) = predictor.predict([tmp_path / "x"])
        assert isinstance(found, Prediction)


def test_a_weights_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_text("hello")
    with pytest.raises(HistotransferError, match=r"w\.safetensors: not a readable safetensors file"):
        Predictor(tmp_path / "w.safetensors")


@pytest.mark.parametrize("missing", ["classes", "size", "profile", "normaliser", "views"])
def test_a_description_that_lacks_something_is_refused(write_model, missing):
    with pytest.raises(HistotransferError, match=f"its description lacks '{missing}'"):
        Predictor(write_model(without=missing))


# --- the other runtime


@pytest.mark.slow
def test_openvino_predicts_what_torch_does(write_model, picture, tmp_path):
    files = [picture(f"{i}.png", array) for i, array in enumerate((COLOURS, COLOURS // 2, COLOURS // 3))]
    weights = write_model()
    expected = list(Predictor(weights).predict(files))
    model, description = load_model(weights)
    openvino.save(openvino.convert(model, 48, description), tmp_path / "model.xml")
    for source in (weights, tmp_path / "model.xml"):
        found = list(Predictor(source, "openvino").predict(files))
        assert [(row.file, row.label) for row in found] == [(row.file, row.label) for row in expected]
        assert [row.probability for row in found] == pytest.approx([row.probability for row in expected], abs=1e-5)


def test_an_openvino_model_needs_its_runtime_and_has_no_gradients(write_model, picture, tmp_path):
    model, description = load_model(write_model())
    openvino.save(openvino.convert(model, 48, description), tmp_path / "model.xml")
    with pytest.raises(HistotransferError, match=r"model\.xml: an OpenVINO model; use --runtime openvino"):
        Predictor(tmp_path / "model.xml")
    with pytest.raises(HistotransferError, match="overlays need gradients"):
        next(Predictor(tmp_path / "model.xml", "openvino").predict([picture("a.png")], tmp_path))


# --- many pictures


def test_pictures_are_read_as_they_are_needed(write_model, picture):
    """An endless stream is predicted too; no more than two batches are taken beyond what was asked for."""
    taken = itertools.count()

    def endless():
        file = picture("a.png")
        while True:
            next(taken)
            yield file

    found = list(itertools.islice(Predictor(write_model()).predict(endless()), 3 * BATCH))
    assert len(found) == 3 * BATCH
    assert next(taken) <= 5 * BATCH


MEMORY = """
import resource, sys
from pathlib import Path
from histotransfer.deploy.predict import Predictor
predictor = Predictor(sys.argv[1])
def stream(count):
    for i in range(count):
        yield sys.argv[2 + i % (len(sys.argv) - 2)]
peaks = []
for count in (500, 10_000):
    assert sum(1 for _ in predictor.predict(stream(count))) == count
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(*peaks)
"""


@pytest.mark.slow
def test_ten_thousand_pictures_take_no_more_memory_than_five_hundred(write_model, picture):
    files = [picture(f"{i}.png", np.roll(COLOURS, i)) for i in range(40)]
    command = [sys.executable, "-c", MEMORY, str(write_model()), *files]
    few, many = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert many - few < 30  # megabytes; 10,000 tiles of 48 pixels alone are 69


# --- overlays


def test_overlays_show_grad_cam_of_the_predicted_class(write_model, picture, tmp_path):
    files = [picture("a.png"), str(tmp_path / "gone.png"), picture("b.png", COLOURS // 2)]
    predictor = Predictor(write_model())
    folder = tmp_path / "overlays"
    folder.mkdir()
    plain = list(predictor.predict(files))
    assert list(predictor.predict(files, folder)) == plain
    assert sorted(path.name for path in folder.iterdir()) == ["00001-a.png", "00003-b.png"]
    tile = np.asarray(Image.open(files[0]).resize((48, 48), Image.Resampling.BICUBIC))
    (heat,) = grad_cam(
        predictor.model, TileSource(tile[None]), np.array([predictor.description.classes.index(plain[0].label)])
    )
    write_overlay(tmp_path / "expected.png", tile, heat)
    pair = folder / "00001-a.png", tmp_path / "expected.png"
    shown, expected = (np.asarray(Image.open(path)).astype(int) for path in pair)
    assert np.abs(shown - expected).max() <= 2  # another batch, other last digits


def test_an_overlay_colours_evidence_for_and_leaves_the_rest(tmp_path):
    tile = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    heat = np.array([[-1.0, -1.0], [-1.0, 4.0]], np.float32)
    write_overlay(tmp_path / "x.png", tile, heat)
    found = np.asarray(Image.open(tmp_path / "x.png")).astype(int)
    assert (found[0, 0] == (200, 100, 50)).all()
    hottest = cv2.applyColorMap(np.array([[255]], np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
    assert np.abs(found[-1, -1] - ((1 - HEAT) * tile[0, 0] + HEAT * hottest)).max() <= 1
    write_overlay(tmp_path / "x.png", tile, -np.ones((2, 2), np.float32))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), tile)


def test_an_overlay_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(HistotransferError, match="cannot be written"):
        write_overlay(tmp_path / "gone" / "x.png", COLOURS, np.ones((2, 2), np.float32))


# --- which pictures, and rows


def test_folders_and_patterns_are_searched_in_order(picture, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/b.PNG", "deep/er/c.jpg", "deep/a.tif"):
        picture(name)
    (tmp_path / "deep" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    strange = picture("odd[1].png")
    arguments = [str(tmp_path / name) for name in ("gone.png", "deep", "deep/*.PNG", "**/*.jpg", "empty", "*.bmp")]
    found = list(find_pictures([*arguments, strange]))
    expected = [
        "gone.png",
        "deep/a.tif",
        "deep/b.PNG",
        "deep/er/c.jpg",
        "deep/b.PNG",
        "deep/er/c.jpg",
        "empty",
        "*.bmp",
    ]
    assert found == [*(str(tmp_path / name) for name in expected), strange]


def test_rows_as_csv_and_as_json_lines():
    rows = [Prediction('a,"b".png', "benign", 2 / 3), Prediction("ü.png", "malignant", 1.0)]
    written = {}
    for form in ("csv", "jsonl"):
        file = io.StringIO(newline="")
        writer = RowWriter(file, form, "lite")
        for row in rows:
            writer.write(row)
        written[form] = file.getvalue().splitlines()
    assert written["csv"][0] == "file,label,probability,profile"
    assert written["csv"][1:] == ['"a,""b"".png",benign,0.6667,lite', "ü.png,malignant,1.0000,lite"]
    assert [json.loads(line) for line in written["jsonl"]] == [
        {"file": 'a,"b".png', "label": "benign", "probability": 0.6667, "profile": "lite"},
        {"file": "ü.png", "label": "malignant", "probability": 1.0, "profile": "lite"},
    ]
