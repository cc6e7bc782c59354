from typing import get_args

import pytest
from pydantic import ValidationError

from histotransfer.config import ChapterParameters, Stage, cache_dir, ladder_config, validated
from histotransfer.errors import HistotransferError


@pytest.mark.parametrize("profile", ["phantom", "lite", "paper"])
def test_every_profile_is_valid_and_names_itself(profile):
    config = ladder_config(profile)
    assert config.profile == profile
    assert {stage for stage, _ in config.breakhis_schedule} <= set(get_args(Stage))
    assert all(field.description or name for name, field in type(config).model_fields.items())


def test_paper_profile_is_the_stated_recipe():
    paper = ladder_config("paper")
    assert (paper.batch_size, paper.learning_rate) == (32, 0.01)
    assert sum(epochs for _, epochs in paper.breakhis_schedule) == 200
    assert paper.lc25000_copies == 0  # every image


def test_overrides_are_read_as_typed_on_a_command_line():
    config = ladder_config(
        "phantom",
        {"size": "64", "breakhis_schedule": "head:2,block4:3", "se_positions": "layer,block", "class_weights": "no"},
    )
    assert config.size == 64
    assert config.breakhis_schedule == (("head", 2), ("block4", 3))
    assert config.se_positions == ("layer", "block")
    assert config.class_weights is False


def test_no_gates_are_an_empty_list():
    assert ladder_config("phantom", {"se_positions": ""}).se_positions == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "big"),
        ("size", 31),
        ("batch_size", 1),
        ("learning_rate", 0),
        ("learning_rate", "nan"),
        ("rate_decay", 1.5),
        ("breakhis_schedule", "head"),
        ("breakhis_schedule", "head:0"),
        ("breakhis_schedule", "tail:1"),
        ("breakhis_schedule", ""),
        ("se_positions", "stem"),
        ("normaliser", "photoshop"),
        ("fold", -1),
        ("fold", 5),
        ("folds", 1),
        ("device", "tpu"),
        ("patience", -1),
        ("seed", 2**64),
        ("seed", "9" * 5000),
        ("threads", "100000000000"),
        ("sizes", 64),
        ("profile", "lite"),
    ],
)
def test_bad_setting_is_one_line_that_names_it(key, value):
    with pytest.raises(HistotransferError, match=rf"^{key}: ") as error:
        ladder_config("phantom", {key: value})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_training_colours_belong_to_one_task():
    with pytest.raises(HistotransferError, match=r"^normaliser_reference: .* source=none"):
        ladder_config("lite", {"normaliser_reference": "training"})


def test_unknown_profile_is_named():
    with pytest.raises(HistotransferError, match="profile: 'full' is not one of phantom, lite, paper"):
        ladder_config("full")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        ladder_config("phantom").size = 64


@pytest.mark.parametrize("values", [{"seed": "3"}, {"seed": -1}, {"device": "gpu"}, {"data_root": None}, {"sead": 1}])
def test_chapter_parameters_are_strict(values):
    with pytest.raises(HistotransferError, match=f"^{next(iter(values))}: "):
        validated(ChapterParameters, values)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("HISTOTRANSFER_CACHE")
    assert cache_dir().name == "histotransfer"


def test_a_setting_of_version_0_1_is_read_under_its_old_name():
    old, new = (ladder_config("phantom", {name: "batchnorm"}) for name in ("thaw", "unfreeze"))
    assert old == new != ladder_config("phantom")
    assert "thaw" not in old.model_dump()
