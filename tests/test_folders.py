"""One walker: what is a picture, what is passed over, and where a data set lies."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histotransfer.errors import HistotransferError
from histotransfer.folders import BROKEN, HIDDEN, LOOP, NAMELESS, SYSTEM, find_home, is_system, other_layout, said, walk


def place(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root, **options):
    passed_over = []
    files = [path.relative_to(root).as_posix() for path in walk(root, passed_over, **options)]
    return files, {(Path(name).relative_to(root).as_posix(), kind) for name, kind in passed_over}


def test_pictures_by_their_ending_in_capitals_or_not(tmp_path):
    names = ("a.png", "b.PNG", "c.Jpeg", "d/e.TIF", "d/f/g.webp", "d/h.jp2", "i.jfif", "j.avif")
    files, passed_over = found(place(tmp_path, *names))
    assert files == sorted(names) and not passed_over


def test_what_is_no_picture_is_passed_over_with_its_kind(tmp_path):
    place(tmp_path, "a.png", "notes.TXT", "b.png.bak", "LICENSE", ".hidden/c.png", ".d.png")
    assert found(tmp_path) == (
        ["a.png"],
        {("notes.TXT", ".txt"), ("b.png.bak", ".bak"), ("LICENSE", NAMELESS), (".hidden", HIDDEN), (".d.png", HIDDEN)},
    )
    assert found(tmp_path, endings=None)[0] == ["LICENSE", "a.png", "b.png.bak", "notes.TXT"]


@pytest.mark.parametrize(
    "name",
    ["._a.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "__MACOSX/a.png", "@eaDir/a.png"],
)
def test_what_an_operating_system_adds_is_passed_over(tmp_path, name):
    top = name.split("/")[0]
    assert is_system(top)
    for endings in (frozenset({".png"}), None):
        assert found(place(tmp_path, "a.png", name), endings=endings) == (["a.png"], {(top, SYSTEM)})


def test_links_are_followed_and_loops_are_cut(tmp_path):
    place(tmp_path, "else/where/b.png", "data/p1/a.png")
    data = tmp_path / "data"
    (data / "p2").symlink_to(tmp_path / "else")
    (data / "p3.png").symlink_to(data / "p1" / "a.png")
    (data / "p1" / "again").symlink_to(data)
    (tmp_path / "else" / "self").symlink_to(tmp_path / "else")
    (data / "gone.png").symlink_to(tmp_path / "nowhere")
    (data / "me.png").symlink_to(data / "me.png")
    files, passed_over = found(data)
    assert files == ["p1/a.png", "p2/where/b.png", "p3.png"]
    assert passed_over == {("p1/again", LOOP), ("p2/self", LOOP), ("gone.png", BROKEN), ("me.png", BROKEN)}


def test_folders_that_link_to_each_other_end(tmp_path):
    place(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    files, passed_over = found(tmp_path)
    assert files == ["a/1.png", "a/to-b/2.png", "b/2.png", "b/to-a/1.png"]
    assert passed_over == {("a/to-b/to-a", LOOP), ("b/to-a/to-b", LOOP)}


def test_what_cannot_be_read_as_a_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert found(tmp_path) == ([], {("pipe.png", "special files")})


def test_a_name_that_is_not_utf8_is_found_and_can_be_said(tmp_path):
    (tmp_path / os.fsdecode(b"b\xfcrste.png")).touch()
    (tmp_path / os.fsdecode(b"n\xe4her.txt")).touch()
    passed_over = []
    assert [path.suffix for path in walk(tmp_path, passed_over)] == [".png"]
    assert "".join(said(passed_over, verbose=True)).encode("utf-8")


parts = st.sampled_from(["a", "b.png", "c.PNG", "d.txt", "._e.png", ".f", "Thumbs.db", "g"])
trees = st.lists(st.lists(parts, min_size=1, max_size=4).map("/".join), max_size=8)
links = st.lists(
    st.tuples(st.lists(st.sampled_from("ag"), max_size=2).map("/".join), st.sampled_from(["x", "y.png"])), max_size=3
)


@given(trees, links)
def test_every_file_is_a_picture_or_passed_over_and_walking_ends(tmp_path_factory, names, linked):
    root = tmp_path_factory.mktemp("walk")
    for name in names:
        if not any(parent.is_file() for parent in (root / name).parents) and not (root / name).exists():
            place(root, name)
    for to, name in linked:
        if (root / to).is_dir() and not (root / to / name).exists():
            (root / to / name).symlink_to(root)  # each leads back
    files, passed_over = found(root)
    assert files == sorted(set(files))
    assert all(Path(file).suffix.lower() == ".png" and (root / file).is_file() for file in files)
    accounted = [Path(file) for file in [*files, *(name for name, _ in passed_over)]]
    for file in (path.relative_to(root) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()):
        assert any(file == one or one in file.parents for one in accounted), file


def test_what_was_passed_over_is_counted_by_kind_and_named_if_asked(tmp_path):
    passed_over = []
    walk(place(tmp_path, "a.txt", "b.txt", ".DS_Store", "c.png"), passed_over)
    assert said(passed_over) == ["passed over: .txt (2), system files (1)"]
    assert said(passed_over, verbose=True)[1:] == [
        f"  {tmp_path}/.DS_Store: system files",
        f"  {tmp_path}/a.txt: .txt",
        f"  {tmp_path}/b.txt: .txt",
    ]
    assert said([]) == []


# --- one level too high or too low

TREE = Path("Set_v1/images/breast")


@pytest.mark.parametrize("given", [".", "Set_v1", "Set_v1/images", "Set_v1/images/breast", "..", "../.."])
def test_the_home_of_a_data_set_is_found_from_above_and_within(tmp_path, given):
    home = tmp_path / "up" / "home"
    (home / TREE).mkdir(parents=True)
    assert find_home(home / given, TREE) == home


def test_a_tree_within_a_folder_of_its_own_name_is_found(tmp_path):
    (tmp_path / "Set_v1" / TREE).mkdir(parents=True)
    assert find_home(tmp_path, TREE) == find_home(tmp_path / "Set_v1", TREE) == tmp_path / "Set_v1"


def test_the_nearest_tree_is_meant_and_two_equally_near_ones_are_refused(tmp_path):
    for name in (".", "one", "two"):
        (tmp_path / "data" / name / TREE).mkdir(parents=True)
    assert find_home(tmp_path / "data", TREE) == tmp_path / "data"
    for name in ("three", "four"):
        (tmp_path / "other" / name / TREE).mkdir(parents=True)
    (tmp_path / "other" / "again").symlink_to(tmp_path / "other" / "three")
    with pytest.raises(HistotransferError, match=f"holds {TREE} in four and three; give one of them"):
        find_home(tmp_path / "other", TREE)


def test_without_a_tree_the_folder_stays_what_it_is(tmp_path):
    assert find_home(tmp_path, TREE) == tmp_path
    assert find_home(tmp_path / "nowhere", TREE) == tmp_path / "nowhere"


def test_pictures_in_another_layout_are_named(tmp_path):
    place(tmp_path, "set 400X/train/benign/S-1.png", "set 400X/readme.txt")
    assert "set 400X/train/benign/S-1.png is one of its pictures" in other_layout(tmp_path, re.compile(r"S-\d\.png"))
    assert other_layout(tmp_path, re.compile("T")) == other_layout(tmp_path / "nowhere", re.compile("T")) == ""
