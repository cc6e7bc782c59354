import pytest

from histotransfer.datasets import phantom
from histotransfer.datasets.roots import resolve_root
from histotransfer.errors import HistotransferError


@pytest.mark.parametrize("profile", ["phantom", "lite"])
def test_a_given_folder_is_taken_for_any_profile(tmp_path, profile):
    assert resolve_root(profile, str(tmp_path)) == tmp_path


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HistotransferError, match="nowhere: no such folder"):
        resolve_root("phantom", tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HistotransferError, match="no such folder"):
        resolve_root("lite", tmp_path / "file")


@pytest.mark.parametrize("profile", ["lite", "paper"])
def test_real_profiles_need_a_folder(profile):
    with pytest.raises(HistotransferError, match=f"profile {profile} needs real images.*--data"):
        resolve_root(profile)


def test_phantom_data_go_into_the_cache_by_version_and_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(tmp_path))
    calls = []
    monkeypatch.setattr(phantom, "write_phantom", lambda root, *, seed: calls.append((root, seed)) or root)
    first, second = resolve_root("phantom", seed=1), resolve_root("phantom", seed=2)
    assert first != second
    assert first.parent == second.parent == tmp_path
    assert str(phantom.VERSION) in first.name
    assert calls == [(first, 1), (second, 2)]
