from pathlib import Path

import pytest

from histotransfer.book.chapters import LIVE_PIXELS, begin, live_config, project_root
from histotransfer.config import PROFILES, ladder_config
from histotransfer.errors import HistotransferError


def test_the_root_is_found_from_any_folder_below_it(tmp_path, monkeypatch):
    below = tmp_path / "course" / "student"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert project_root() == below
    (tmp_path / "_toc.yml").touch()
    assert project_root() == tmp_path


def test_beginning_finds_the_images_and_stays_where_it_is(tmp_path, phantom_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert begin(data_root=str(phantom_root)) == phantom_root
    assert Path.cwd() == tmp_path


def test_parameters_are_checked_first():
    with pytest.raises(HistotransferError, match="seed"):
        begin(seed="3")


@pytest.mark.parametrize("profile", PROFILES)
def test_chapters_train_on_smaller_pictures_where_real_tissue_meets_a_cpu(profile):
    usual = ladder_config(profile, {"seed": 3})
    smaller = usual.model_copy(update={"size": LIVE_PIXELS})
    assert live_config(profile, {"seed": 3}) == (smaller if profile == "lite" else usual)
    assert live_config(profile, {"size": 96}).size == 96
