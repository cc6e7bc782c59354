import io

import numpy as np
import pytest
import torch
from PIL import Image

from histotransfer.errors import HistotransferError
from histotransfer.predict import BATCH, Prediction, Predictor, Trouble
from histotransfer.stain import normaliser

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


@pytest.mark.parametrize("missing", ["classes", "size", "profile", "normaliser"])
def test_a_description_that_lacks_something_is_refused(write_model, missing):
    with pytest.raises(HistotransferError, match=f"its description lacks '{missing}'"):
        Predictor(write_model(without=missing))
