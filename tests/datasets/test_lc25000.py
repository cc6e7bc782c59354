import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histotransfer.datasets import lc25000
from histotransfer.datasets.lc25000 import COLON_LABELS, FOLDERS, GROUPS, LABELS, STEMS, TREE, parse_name, read_groups
from histotransfer.errors import HistotransferError
from histotransfer.folders import said


@pytest.fixture
def root(tmp_path):
    """Two files a class, from one original."""
    for label in LABELS:
        (tmp_path / TREE / label).mkdir(parents=True)
        names = [f"{label.replace('_', '')}{i}.jpeg" for i in (1, 2)]
        for name in names:
            (tmp_path / TREE / label / name).touch()
        (tmp_path / GROUPS).mkdir(exist_ok=True)
        (tmp_path / GROUPS / f"{label}.csv").write_text("file,group\n" + "".join(f"{name},7\n" for name in names))
    return tmp_path


def test_load_takes_groups_from_the_list(root):
    table = lc25000.load(root)
    assert table.groupby("label")["group"].unique().map(list).to_dict() == {label: [f"{label}-7"] for label in LABELS}
    assert len(table) == 6


def test_without_a_group_list_nothing_is_loaded(root):
    (root / GROUPS / "lung_n.csv").unlink()
    with pytest.raises(HistotransferError, match=r"lung_n\.csv: missing; without duplicate groups"):
        lc25000.load(root)


def test_a_file_without_a_group_is_named(root):
    (root / TREE / "lung_n" / "lungn3.jpeg").touch()
    with pytest.raises(HistotransferError, match=r"lungn3\.jpeg: in no duplicate group"):
        lc25000.load(root)


@pytest.mark.parametrize("name", ["lungn1.jpg", "lungaca9.jpeg", "lungn.jpeg", "x lungn1.jpeg"])
def test_a_name_outside_the_layout_is_refused(root, name):
    (root / TREE / "lung_n" / name).touch()
    with pytest.raises(HistotransferError, match=f"{name}: not an LC25000 file name of lung_n"):
        lc25000.load(root)


def test_endings_in_capitals_links_and_what_systems_add(root):
    (root / TREE / "lung_n" / "lungn1.jpeg").rename(root / TREE / "lung_n" / "lungn1.JPEG")
    for name in ("._lungn2.jpeg", ".DS_Store", "Thumbs.db", "list.txt"):
        (root / TREE / "lung_n" / name).touch()
    (root / TREE / "lung_aca").rename(root / "elsewhere")
    (root / TREE / "lung_aca").symlink_to(root / "elsewhere")
    passed_over = []
    assert len(lc25000.load(root, passed_over=passed_over)) == 6
    assert said(passed_over) == ["passed over: .txt (1), system files (3)"]


@pytest.mark.parametrize("given", ["lung_colon_image_set", str(TREE)])
def test_a_folder_above_the_data_set_or_in_it_will_do(root, given):
    assert lc25000.load(root / given).equals(lc25000.load(root))


def test_kaggles_folder_in_a_folder_of_the_same_name_is_found(root):
    nested = root / "kaggle" / "lung_colon_image_set"
    nested.mkdir(parents=True)
    for folder in (TREE.parent, GROUPS):
        (root / folder).rename(nested / folder)
    assert len(lc25000.load(root / "kaggle")) == len(lc25000.load(nested)) == 6


def test_a_train_and_test_tree_is_named(tmp_path):
    (tmp_path / "Test Set" / "lung_n").mkdir(parents=True)
    (tmp_path / "Test Set" / "lung_n" / "lungn1.jpeg").touch()
    with pytest.raises(HistotransferError, match=r"Test Set/lung_n/lungn1\.jpeg is one of its pictures, in another"):
        lc25000.load(tmp_path)


@pytest.fixture
def colon(root):
    """Colon images beside the lung images; adenocarcinoma is named colonca, not colonaca."""
    for label, stem in (("colon_aca", "colonca"), ("colon_n", "colonn")):
        (root / FOLDERS[label]).mkdir(parents=True)
        (root / FOLDERS[label] / f"{stem}12.jpeg").touch()
        (root / GROUPS / f"{label}.csv").write_text(f"file,group\n{stem}12.jpeg,3\n")
    return root


def test_lung_alone_is_loaded_unless_colon_is_asked_for(colon):
    assert set(lc25000.load(colon)["label"]) == set(LABELS)
    table = lc25000.load(colon, COLON_LABELS)
    assert table[["label", "group"]].to_numpy().tolist() == [["colon_aca", "colon_aca-3"], ["colon_n", "colon_n-3"]]
    assert set(lc25000.load(colon, tuple(FOLDERS))["label"]) == set(FOLDERS)


def test_colon_that_is_not_there_and_unknown_classes_are_refused(root):
    with pytest.raises(HistotransferError, match="holds no lung_colon_image_set/colon_image_sets"):
        lc25000.load(root, COLON_LABELS)
    with pytest.raises(HistotransferError, match="lung_x: not a class of LC25000"):
        lc25000.load(root, ["lung_x"])


@given(st.sampled_from(sorted(FOLDERS)), st.integers(1, 5000))
def test_a_name_is_read_back(label, number):
    assert parse_name(f"anywhere/{STEMS[label]}{number}.jpeg") == (label, number)


@pytest.mark.parametrize("name", ["lungn01.jpeg", "lungn0.jpeg", "colonaca1.jpeg", "lungn1.jpe", "lungn1.jpeg\n"])
def test_a_name_outside_the_grammar_is_refused_with_its_path(name):
    with pytest.raises(HistotransferError, match=r"(?s)^some/.*: not an LC25000 file name"):
        parse_name(f"some/{name}")


def test_load_needs_the_official_folder(tmp_path):
    with pytest.raises(HistotransferError, match=f"{tmp_path}: holds no {TREE}"):
        lc25000.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "file,cluster\na,1\n", "file,group,x\na,1,2\n", "file,group\na,1\na,2\n", "file,group\na,\n", "\x00\xff"],
    ids=["empty", "other column", "third column", "twice", "no group", "binary"],
)
def test_a_broken_group_list_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / "lung_n.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(HistotransferError, match=f"^{path}: ") as error:
        read_groups(path)
    assert "\n" not in str(error.value)


def test_phantom_is_read_by_the_same_loader(phantom_root):
    table = lc25000.load(phantom_root)
    assert set(table["label"]) == set(LABELS)
    assert (table.groupby("group").size() > 1).all()  # near-duplicates


def test_real_subset_has_the_documented_counts(data_root):
    table = lc25000.load(data_root)
    assert len(table) == 2220
    groups = table.groupby("label")["group"].nunique().to_dict()
    assert groups == {"lung_aca": 243, "lung_n": 249, "lung_scc": 248}
    assert (table.groupby("group").size() == 3).all()


def test_a_missing_class_is_not_passed_over(phantom_root, tmp_path):
    root = tmp_path / "part"
    shutil.copytree(phantom_root, root)
    shutil.rmtree(root / lc25000.FOLDERS["lung_n"])
    with pytest.raises(HistotransferError, match="holds no lung_colon_image_set/lung_image_sets/lung_n"):
        lc25000.load(root)
