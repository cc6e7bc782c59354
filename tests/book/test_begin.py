from pathlib import Path

import pytest

from histotransfer.book.chapters import LIVE_PIXELS, begin, live_config
from histotransfer.config import PROFILES, ladder_config
from histotransfer.errors import HistotransferError


def test_a_chapter_opened_below_the_root_goes_on_in_the_root(tmp_path, phantom_root, monkeypatch):
    below = tmp_path / "course" / "student"
    below.mkdir(parents=True)
    (tmp_path / "_toc.yml").touch()
    monkeypatch.chdir(below)
    assert begin(data_root=str(phantom_root)) == phantom_root
    assert Path.cwd() == tmp_path


def test_elsewhere_a_chapter_stays_where_it_is(tmp_path, phantom_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(data_root=str(phantom_root))
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
