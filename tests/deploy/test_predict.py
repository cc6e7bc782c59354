import io
import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from histotransfer.datasets import phantom
from histotransfer.deploy.notes import UNLIKE
from histotransfer.deploy.predict import (
    BATCH,
    HEAT,
    Prediction,
    Predictor,
    Trouble,
    find_pictures,
    write_overlay,
)
from histotransfer.deploy.rows import RowWriter
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.explain import grad_cam
from histotransfer.evaluation.familiarity import FALSE_ALARMS, Familiarity
from histotransfer.evaluation.sets import CANNOT_TELL
from histotransfer.folders import said
from histotransfer.models import openvino
from histotransfer.models.se_densenet import WithFeatures
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
        chances = expected(model, file, method)
        assert found.file == file
        assert found.label == ["benign", "malignant"][chances.argmax()]
        assert found.probabilities == pytest.approx(chances.tolist(), abs=1e-5)


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
    assert found.probabilities == pytest.approx(torch.stack(logits).mean(0).softmax(0).tolist(), abs=1e-5)


def test_fewer_views_are_the_first_ones(write_model, picture):
    file, weights = picture("a.png", TISSUE), write_model(views={"views": 4, "augmentation": "views", "averaged": 1})
    tile, model = resize(TISSUE, 48), make_logits(weights)
    for views, turns in ((None, 1), (1, 1), (2, 2), (4, 4)):
        predictor = Predictor(weights, views=views)
        assert predictor.views == turns
        (found,) = predictor.predict([file])
        logits = [model(turned) for turned in (tile, tile[:, ::-1], tile[::-1], tile[::-1, ::-1])[:turns]]
        assert found.probabilities == pytest.approx(torch.stack(logits).mean(0).softmax(0).tolist(), abs=1e-5)
    with pytest.raises(HistotransferError, match="--views 5: this network has 1 to 4"):
        Predictor(weights, views=5)


def make_logits(weights):
    """The logits of a tile by the network of a weights file, prepared by hand."""
    model = load_model(weights)[0]

    def logits(tile):
        x = (tile.astype(np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.inference_mode():
            return model(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])[0]

    return logits


def test_colours_are_normalised_to_the_reference_that_the_weights_carry(write_model, picture):
    file, fitted = picture("a.png"), Reinhard().fit(COLOURS // 2)
    (published,) = Predictor(write_model(normaliser="reinhard")).predict([file])
    predictor = Predictor(write_model(normaliser="reinhard", reference=fitted.reference_parts()))
    (own,) = predictor.predict([file])
    assert predictor.description.colours.fingerprint() == fitted.fingerprint()
    assert own.probabilities != published.probabilities


def test_bad_pictures_cost_no_good_one_and_keep_their_place(write_model, picture, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    good = picture("good.png")
    files = [str(tmp_path / "gone.png"), good, str(tmp_path / "text.png"), good, picture("dot.png", COLOURS[:1, :1])]
    found = list(Predictor(write_model()).predict(files))
    assert [type(result) for result in found] == [Trouble, Prediction, Trouble, Prediction, Trouble]
    assert [result.file for result in found] == files
    # On some processors the last digits depend on the place in a batch.
    assert replace(found[1], probabilities=()) == replace(found[3], probabilities=())
    assert found[1].probabilities == pytest.approx(found[3].probabilities, abs=1e-6)
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
    assert (found[-1].label, found[-1].probabilities) == (alone.label, pytest.approx(alone.probabilities, abs=1e-6))


def test_only_bad_pictures(write_model, tmp_path):
    assert [type(result) for result in Predictor(write_model()).predict([tmp_path / "gone.png"])] == [Trouble]
    assert list(Predictor(write_model()).predict([])) == []


def test_plain_glass_is_predicted_with_a_note(write_model, picture):
    blank = picture("white.png", np.full((50, 50, 3), 255, np.uint8))
    (found,) = Predictor(write_model(normaliser="macenko")).predict([blank])
    assert found.note == "too little tissue; colours not normalised (too little tissue)"


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


# --- what a network knows of its training pictures, and when it cannot tell


@pytest.fixture
def familiar(write_model, make_model, picture):
    """A weights file that knows what phantom tissue is like; and files of such tissue that it has not seen."""
    fields = [phantom.breast_image(p, m, i, seed=0).image for p in range(24) for m in (40, 100, 200) for i in (0, 1)]
    tiles = np.stack([resize(field, 48) for field in fields])
    with torch.inference_mode():
        x = TileSource(tiles).batch(np.arange(144), np.zeros(144, int))
        features = WithFeatures(make_model().eval())(x)[:, 2:].numpy()
    known = Familiarity.fit(features[::2])
    weights = write_model(beside=known.with_threshold(known.distances(features[1::2])).tensors())
    return weights, [picture(f"{i}.png", field) for i, field in enumerate(fields[1::2])]


def test_pictures_unlike_those_of_training_are_noted(familiar, picture):
    weights, tissue = familiar
    predictor = Predictor(weights)
    share = np.mean([UNLIKE in found.note for found in predictor.predict(tissue)])
    assert share == pytest.approx(FALSE_ALARMS, abs=0.02)
    sky = np.linspace((20, 60, 200), (150, 200, 255), 100)[:, None].repeat(100, axis=1).astype(np.uint8)
    strange = [sky, 255 - TISSUE, np.full_like(TISSUE, 255), COLOURS, TISSUE[..., ::-1].copy()]
    source = TileSource(np.stack([resize(array, 48) for array in strange]))
    features = predictor.network(source.arrays(np.arange(5), np.zeros(5, int)))[:, 2:]
    found = predictor.predict([picture(f"strange{i}.png", array) for i, array in enumerate(strange)])
    unlike = [result.note.endswith(UNLIKE) for result in found]
    assert unlike == predictor.familiarity.is_unlike(features).tolist()
    assert sum(unlike) >= 1  # the network is untrained: it does not see all that is strange


def test_a_network_without_familiarity_says_nothing_of_it(write_model, picture):
    predictor = Predictor(write_model())
    assert predictor.familiarity is None
    (found,) = predictor.predict([picture("a.png", 255 - TISSUE)])
    assert UNLIKE not in found.note and found.set == ""


def test_damaged_familiarity_is_refused(write_model):
    with pytest.raises(HistotransferError, match=r"model\.safetensors: what it says of its training pictures is"):
        Predictor(write_model(beside={"mean_": np.zeros(3, np.float32)}))


def test_a_set_is_a_class_or_none(write_model, picture):
    file = picture("a.png", TISSUE)
    (plain,) = Predictor(write_model()).predict([file])
    for limit, expected in ((1.0, CANNOT_TELL), (1 - max(plain.probabilities) + 1e-6, plain.label), (0.0, CANNOT_TELL)):
        (found,) = Predictor(write_model(sets={"picture": limit, "patient": 0.5})).predict([file])
        assert found.set == expected


@pytest.mark.parametrize("sets", [{"slide": 0.5}, {"picture": 0.5, "patient": 2}, {"picture": math.nan, "patient": 1}])
def test_thresholds_that_are_none_are_refused(write_model, sets):
    with pytest.raises(HistotransferError, match="not a description by `ladder`: sets"):
        Predictor(write_model(sets=sets))


# --- the other runtime


@pytest.mark.slow
def test_openvino_computes_the_same_logits_features_and_notes(familiar, picture):
    weights, tissue = familiar
    files = [*tissue[:6], picture("strange.png", COLOURS)]
    torchs, openvinos = Predictor(weights), Predictor(weights, "openvino")
    x = TileSource(np.stack([resize(TISSUE, 48), resize(COLOURS, 48)])).arrays(np.arange(2), np.zeros(2, int))
    np.testing.assert_allclose(openvinos.network(x), torchs.network(x), atol=1e-4)
    for found, expected in zip(openvinos.predict(files), torchs.predict(files), strict=True):
        assert (found.file, found.label, found.set, found.note) == (
            expected.file, expected.label, expected.set, expected.note,
        )  # fmt: skip
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.slow
def test_a_network_is_converted_once_and_then_needs_no_torch(write_model, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(tmp_path / "cache"))
    weights, file = write_model(), picture("a.png", TISSUE)
    (first,) = Predictor(weights, "openvino").predict([file])
    (kept,) = (tmp_path / "cache" / "openvino").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["network.bin", "network.xml"]
    code = (
        "import sys\nfrom histotransfer.deploy.predict import Predictor\n"
        f"(found,) = Predictor({str(weights)!r}, 'openvino').predict([{file!r}])\n"
        "print(found.probabilities, 'torch' in sys.modules, 'sklearn' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"{first.probabilities} False False False"
    write_model(seed=1)
    (other,) = Predictor(weights, "openvino").predict([file])
    assert other.probabilities != first.probabilities  # another content is another network
    assert len(list(kept.parent.iterdir())) == 2


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_no_prediction(write_model, picture, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    weights, file = write_model(), picture("a.png", TISSUE)
    (expected,) = Predictor(weights).predict([file])
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(tmp_path / "file" / "cache"))
    (found,) = Predictor(weights, "openvino").predict([file])
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


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
        chances = [[row.probabilities for row in rows] for rows in (found, expected)]
        np.testing.assert_allclose(*chances, atol=1e-5)


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
    (tmp_path / "gone").touch()
    with pytest.raises(FileExistsError):
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


@pytest.mark.parametrize("argument", ["", "n" * 5000, "[" * 5000, "n" * 5000 + ".csv", "one", "one/*.png"])
def test_an_argument_that_names_nothing_is_one_line_and_not_the_current_folder(
    write_model, picture, tmp_path, monkeypatch, argument
):
    monkeypatch.chdir(tmp_path)
    Path("one").symlink_to("other")
    Path("other").symlink_to("one")
    good = picture("good.png")
    trouble, found = Predictor(write_model()).predict(find_pictures([argument, str(good)]))
    assert isinstance(trouble, Trouble) and trouble.message.startswith(argument or "''")
    assert "\n" not in trouble.message
    assert found.file == str(good)


def test_what_is_passed_over_in_a_folder_or_a_pattern_is_told(picture, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/a.webp", "deep/er/b.jp2", "deep/c.gif"):
        picture(name)
    for name in ("deep/Thumbs.db", "deep/._a.webp", "deep/a.webp.bak", "deep/er/notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "er" / "up").symlink_to(tmp_path / "deep" / "er")
    told = {}
    for argument in ("deep", "deep/*", "d*p"):
        passed_over = []
        found = [file.removeprefix(f"{tmp_path}/") for file in find_pictures([str(tmp_path / argument)], passed_over)]
        told[argument] = sorted(found), said(passed_over)
    pictures = ["deep/a.webp", "deep/c.gif", "deep/er/b.jp2"]
    line = "passed over: .bak (1), .txt (1), links that lead back (1), system files (2)"
    assert told["deep"] == told["d*p"] == (pictures, [line])
    # As in a shell: a pattern names the files themselves, and hidden ones are not among them.
    assert told["deep/*"][0] == sorted([*pictures, "deep/a.webp.bak"])


def test_a_name_that_is_not_utf8_costs_no_row(write_model, picture, tmp_path):
    odd = os.fsdecode(b"b\xfcrste.png")
    picture("a.png")
    picture(odd)
    (tmp_path / os.fsdecode(b"z\xe4her\n.png")).write_text("hello")
    predictor = Predictor(write_model())
    found = list(predictor.predict(find_pictures([str(tmp_path)]), tmp_path))
    assert [type(result) for result in found] == [Prediction, Prediction, Trouble]
    assert "\n" not in found[2].message
    for form in ("csv", "jsonl"):
        with (tmp_path / f"rows.{form}").open("w", encoding="utf-8", newline="") as file:
            writer = RowWriter(file, form, predictor.description)
            for result in found[:2]:
                writer.write(result)
        assert len((tmp_path / f"rows.{form}").read_text(encoding="utf-8").splitlines()) == 2 + (form == "csv")


def test_an_output_that_is_no_number_is_trouble_and_json_stays_json(write_model, picture):
    predictor = Predictor(write_model())
    with torch.no_grad():
        predictor.model.classifier.weight.fill_(3e38)
    (found,) = predictor.predict([picture("a.png")])
    assert isinstance(found, Trouble) and "no number" in found.message
    with pytest.raises(ValueError, match="not JSON compliant"):
        RowWriter(io.StringIO(), "jsonl", predictor.description).write(
            Prediction("a.png", "benign", (math.nan, math.nan), "", "")
        )
