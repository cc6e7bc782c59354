import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from histotransfer import files
from histotransfer.files import STALE_SECONDS, remove_leftovers, scratch_folder, whole_file, whole_folder, write_text

HALFWAY = """
import os, sys
from pathlib import Path
from histotransfer.files import whole_file, whole_folder
with whole_file(Path("a.txt")) as file, whole_folder(Path("folder")) as folder:
    file.write_text("half"), (folder / "x").write_text("half")
    os.kill(os.getpid(), 9)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def killed(tmp_path):
    """A folder in which a process was killed while it wrote a file and a folder."""
    assert subprocess.run([sys.executable, "-c", HALFWAY], cwd=tmp_path, check=False).returncode == -9
    assert len(names(tmp_path)) == 2 and all(name.endswith(".part") for name in names(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_when_the_same_is_written_again(killed):
    write_text(killed / "a.txt", "whole")
    with whole_folder(killed / "folder") as folder:
        (folder / "x").write_text("whole")
    assert names(killed) == ["a.txt", "folder"]


def test_what_a_killed_process_left_goes_at_a_start(killed):
    remove_leftovers(killed.parent)
    assert names(killed) == []


def test_a_leftover_that_cannot_be_removed_yet_stops_nobody(killed, monkeypatch):
    """A child of the dead process may still write into its folder, as a kernel does for a second."""

    rmtree = files.shutil.rmtree

    def still_written(path, ignore_errors=False):
        if ignore_errors:
            return rmtree(path, ignore_errors=True)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", still_written)
        write_in_folder(killed / "folder", "whole")
    assert (killed / "folder" / "x").read_text() == "whole"
    write_in_folder(killed / "folder", "again")
    assert not list(killed.glob(".folder.*"))


def test_what_a_living_or_a_distant_process_writes_stays_for_an_hour(tmp_path):
    distant, old = (tmp_path / f".a.txt.00000000-1-0000000{i}.part" for i in range(2))
    distant.touch(), old.touch()
    os.utime(old, (time.time() - 2 * STALE_SECONDS,) * 2)
    with whole_file(tmp_path / "a.txt") as first:
        first.write_text("first")
        write_text(tmp_path / "a.txt", "second")
        assert first.exists() and distant.exists() and not old.exists()
    assert (tmp_path / "a.txt").read_text() == "first"  # the last one to end


def test_two_may_replace_one_folder(tmp_path):
    target = tmp_path / "run"
    for _ in range(2):
        with whole_folder(target) as first, whole_folder(target) as second:
            (first / "x").write_text("first"), (second / "x").write_text("second")
        assert (target / "x").read_text() == "first"
    assert names(tmp_path) == ["run"]


def test_a_folder_that_must_not_be_replaced_stays(tmp_path):
    write_text(tmp_path / "run" / "x", "old")
    with pytest.raises(OSError) as error, whole_folder(tmp_path / "run", replace=False) as folder:
        (folder / "x").write_text("new")
    assert error.value.filename == str(tmp_path / "run")
    assert (tmp_path / "run" / "x").read_text() == "old"
    assert names(tmp_path) == ["run"]


def write_in_folder(path, text):
    with whole_folder(path) as folder:
        (folder / "x").write_text(text)


def write_in_scratch(path, text):
    with scratch_folder(path) as folder:
        (folder / "x").write_text(text)


@pytest.mark.parametrize("write", [write_text, write_in_folder, write_in_scratch])
def test_a_full_disk_names_the_target(tmp_path, write):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as error:
            write(tmp_path / "a.txt", "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(tmp_path / "a.txt"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("letter", ["x", "[", "*"])
def test_a_name_as_long_as_the_disk_allows_can_be_written(tmp_path, letter):
    name = letter * 255
    write_text(tmp_path / name, "x")
    with scratch_folder(Path(tmp_path / name)) as folder:
        assert folder.is_dir()
    assert names(tmp_path) == [name]
