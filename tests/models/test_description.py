import json

import numpy as np
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.models import openvino
from histotransfer.models.description import describe
from histotransfer.models.weights import load_model, save_model
from histotransfer.stain import Macenko


@pytest.mark.parametrize(
    "missing", ["architecture", "classes", "size", "profile", "normaliser", "views", "imagenet"], ids=str
)
def test_what_is_missing_is_named(write_model, missing):
    path = write_model(without=missing)
    with pytest.raises(HistotransferError, match=rf"^{path}: not a description by `ladder`: {missing}: is missing"):
        describe(*read(path))


def read(path):
    return load_model(path)[1], path


@pytest.mark.parametrize("size", [0, -5, "224", 10**7, 224.5, None, True, float("nan")])
def test_a_size_that_makes_no_sense_is_refused(write_model, size):
    with pytest.raises(HistotransferError, match=r"size: .* refused"):
        describe(*read(write_model(size=size)))


@pytest.mark.parametrize(
    "classes",
    [[], ["one"], ["a", "a"], ["a", "b", "c"], "ab", [1, 2], None, ["a", "b\x1b[2J"], ["a", "b" * 1000]],
    ids=repr,
)
def test_classes_are_as_many_different_names_as_there_are_logits(write_model, classes):
    with pytest.raises(HistotransferError, match="classes: ") as error:
        describe(*read(write_model(classes=classes)))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "views",
    [
        {"views": 10**9, "augmentation": "views"},
        {"views": 0, "augmentation": "views"},
        {"views": "4", "augmentation": "views"},
        {"views": 4, "augmentation": "all"},
        {"views": 4},
        {"views": 4, "augmentation": "none", "more": 1},
        4,
        [],
    ],
)
def test_views_that_make_no_sense_are_refused(write_model, views):
    with pytest.raises(HistotransferError, match=r"views[.:]"):
        describe(*read(write_model(views=views)))


@pytest.mark.parametrize("normaliser", ["photoshop", 3, None, ["macenko"]])
def test_an_unknown_normaliser_is_refused(write_model, normaliser):
    with pytest.raises(HistotransferError, match=r"normaliser: .* refused"):
        describe(*read(write_model(normaliser=normaliser)))


@pytest.mark.parametrize(
    "reference", [[1, 2], [[1.0]], [[[0.1] * 3], [1.0, 1.0]], [[float("nan")] * 3], "x", [[["a"]]]]
)
def test_a_reference_of_another_method_is_refused(write_model, reference):
    with pytest.raises(HistotransferError, match=r"reference[.:]"):
        describe(*read(write_model(normaliser="macenko", reference=reference)))


def test_a_methods_own_reference_is_taken(write_model):
    reference = Macenko().reference_parts()
    stains, *_ = describe(*read(write_model(normaliser="macenko", reference=reference))).colours.reference_parts()
    assert np.allclose(stains, reference[0], atol=1e-4)


SOUND = {"num_classes": 2, "block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 10**9},
        {"num_classes": "2"},
        {"block_config": [10**9]},
        {"block_config": [64] * 8, "growth_rate": 256},
        {"block_config": []},
        {"growth_rate": -1},
        {"positions": ["stem"]},
        {"positions": "block"},
        {"compression": 0},
        {"compression": float("nan")},
        {"depth": 5},
        {"gate": {}},
    ],
    ids=str,
)
def test_an_architecture_that_makes_no_sense_is_refused_before_it_takes_memory(write_model, change):
    path = write_model(architecture=SOUND | change)
    with pytest.raises(HistotransferError, match=rf"^{path}: ") as error:
        load_model(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("metadata", [[], [1], "text", 3, {"architecture": 3}, {"architecture": None}], ids=repr)
def test_a_header_that_is_no_description_is_refused(make_model, tmp_path, metadata):
    save_model(make_model(), tmp_path / "model.safetensors", metadata)
    with pytest.raises(HistotransferError, match=r"model\.safetensors: not a "):
        load_model(tmp_path / "model.safetensors")


def test_an_openvino_model_with_the_description_of_another_is_refused(write_model, tmp_path):
    from histotransfer.deploy.predict import Predictor

    model, description = load_model(write_model())
    converted = openvino.convert(model, 48, description)
    for change in ({"size": 64}, {"classes": ["a", "b", "c"], "architecture": SOUND | {"num_classes": 3}}):
        converted.set_rt_info(json.dumps(description | change), [openvino.DESCRIPTION])
        openvino.save(converted, tmp_path / "model.xml")
        with pytest.raises(HistotransferError, match=r"model\.xml: its description does not fit its network"):
            Predictor(tmp_path / "model.xml", "openvino")
    converted.set_rt_info("[" * 5000, [openvino.DESCRIPTION])
    openvino.save(converted, tmp_path / "model.xml")
    with pytest.raises(HistotransferError, match=r"model\.xml: its description cannot be read"):
        Predictor(tmp_path / "model.xml", "openvino")
